//! A camera's file: the cuts cover it within their bounds, however it is buffered.
#![no_main]

use std::cell::RefCell;

use holdfast_protocol::cutting::{Cutter, Following, Pieces, cuts};
use holdfast_protocol::limits::CHUNK_BYTES_MAX;
use holdfast_protocol::media_type::MediaType;
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// Clearing 8 MiB for each input would be most of the work.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fuzz_target!(|data: &[u8]| {
    let _ = MediaType::sniff(data, None);
    let _ = MediaType::sniff(data, Some("nef"));
    // The first byte chooses the steps; repeating the rest reaches the sizes at which cuts happen.
    let Some((step, rest)) = data.split_first() else { return };
    let file = rest.repeat(if step & 31 == 0 { 400 } else { 1 + usize::from(step & 7) });
    let expected: Vec<_> = cuts(&file).collect();
    assert_eq!(expected.iter().map(|cut| cut.length).sum::<usize>(), file.len());
    assert!(expected.iter().all(|cut| cut.length > 0 && cut.length <= CHUNK_BYTES_MAX));

    let (mut cutter, mut found, mut start, mut end) = (Cutter::new(), Vec::new(), 0, 0);
    loop {
        end = file.len().min(end + 1 + usize::from(*step) * 97 + file.len() / 64);
        let following = if end == file.len() { Following::Nothing } else { Following::Unknown };
        while let Some(cut) = cutter.next_cut(&file[start..end], following) {
            start += cut.length;
            found.push(cut);
        }
        if following == Following::Nothing {
            break;
        }
    }
    assert_eq!(found, expected);

    BUFFER.with_borrow_mut(|buffer| {
        let (mut pieces, mut count) = (Pieces::new(&file[..], buffer), 0);
        while let Ok(Some(piece)) = pieces.next() {
            assert_eq!(piece.bytes.len(), expected[count].length);
            count += 1;
        }
        assert_eq!(count, expected.len());
    });
});
