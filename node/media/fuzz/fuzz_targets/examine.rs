//! A file of any kind with anything in it: facts and thumbnails, with our own decoders and those of others. The first byte says
//! what kind of file the rest is. Where the node runs them, a panic costs one file and one that hangs one worker; here both count.
#![no_main]

use std::io::Write as _;

use holdfast_protocol::media_type::MediaType;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let media = MediaType::ALL[usize::from(*kind) % MediaType::ALL.len()];
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for a file");
    let examined = holdfast_media::examine_here(file.path(), media).expect("a file that can be read");
    assert!(examined.thumbnail.is_none_or(|image| image.bytes.len() <= holdfast_protocol::limits::THUMBNAIL_BYTES_MAX));
});
