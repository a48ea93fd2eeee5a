//! Sealed bodies of envelopes and facts about photos: foreign bytes never open, and what is sealed opens.
#![no_main]

use holdfast_protocol::id::{AuthorId, LibraryId};
use holdfast_protocol::sealing::{BodySealer, PhotoKey};
use holdfast_protocol::secrets::LibrarySecrets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let secrets = LibrarySecrets::generate(LibraryId::from_bytes([2; 32]), &[3; 32]);
    let sealer = BodySealer::new(&secrets);
    let author = AuthorId::from_bytes([4; 32]);
    assert!(sealer.open(sealer.epoch(), &author, 5, data).is_err());
    let sealed = sealer.seal(&author, 5, data);
    assert_eq!(sealer.open(sealer.epoch(), &author, 5, &sealed).as_deref(), Ok(data));

    let key = PhotoKey::derive(&secrets, &[6; 32]);
    assert!(key.open(b"caption", data).is_err());
    assert_eq!(key.open(b"caption", &key.seal(b"caption", data)).as_deref(), Ok(data));
});
