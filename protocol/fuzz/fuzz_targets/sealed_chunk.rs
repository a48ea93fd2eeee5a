//! Sealed chunks: foreign bytes never open, and what is sealed opens.
#![no_main]

use holdfast_protocol::id::LibraryId;
use holdfast_protocol::sealing::{ChunkSealer, chunk_id, sealed_epoch};
use holdfast_protocol::secrets::LibrarySecrets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let sealer = ChunkSealer::new(&LibrarySecrets::generate(LibraryId::from_bytes([2; 32]), &[3; 32]));
    let _ = sealed_epoch(data);
    assert!(sealer.open(&chunk_id(data), data).is_err());
    let sealed = sealer.seal(data);
    // The right header over foreign bytes.
    let mut foreign = sealed.bytes[..13].to_vec();
    foreign.extend_from_slice(data);
    assert!(sealer.open(&chunk_id(&foreign), &foreign).is_err());
    assert_eq!(sealer.open(&sealed.id, &sealed.bytes).as_deref(), Ok(data));
});
