//! A library's secrets, sealed for this device by someone or read back from disk.
#![no_main]

use holdfast_protocol::id::LibraryId;
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::secrets::LibrarySecrets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let library = LibraryId::from_bytes([2; 32]);
    let key = DeviceKey::from_seed(&[1; 32]).exchange();
    assert!(LibrarySecrets::open_with(&library, &key, data).is_err());
    if let Ok(secrets) = LibrarySecrets::from_bytes(data) {
        assert_eq!(LibrarySecrets::from_bytes(&secrets.to_bytes()).as_ref(), Ok(&secrets));
        let mut ours = LibrarySecrets::generate(library, &[3; 32]);
        let _ = ours.absorb(&secrets);
        let sealed = secrets.seal_to(&key.public(), &[4; 32]);
        let opened = LibrarySecrets::open_with(&secrets.library(), &key, &sealed);
        assert!(opened.is_ok_and(|opened| opened == secrets));
    }
});
