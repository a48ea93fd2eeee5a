//! Membership statements: what decodes encodes to the same bytes, and a registry takes it in without panic.
#![no_main]

use holdfast_protocol::certificate::{AuthorCertificate, DeviceCertificate, DeviceGrant, Role};
use holdfast_protocol::keys::{AuthorKey, DeviceKey, RootKey};
use holdfast_protocol::membership::{Registry, Statement, decode_statements, encode_statements};
use holdfast_protocol::time::WallTime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(statements) = decode_statements(data) else { return };
    let again = encode_statements(&statements);
    assert_eq!(decode_statements(&again).as_ref(), Ok(&statements));

    let (root, device, author) =
        (RootKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]), AuthorKey::from_seed(&[3; 32]));
    let grant = DeviceGrant {
        library: root.library_id(),
        device: device.device_id(),
        exchange: device.exchange().public(),
        role: Role::Owner,
        name: "fuzzer".to_owned(),
        serial: 0,
        issued: WallTime(0),
    };
    let mut registry = Registry::new(root.library_id());
    let introduction = Statement::Introduce {
        device: DeviceCertificate::issue_by_root(grant, &root),
        author: AuthorCertificate::issue(root.library_id(), &device, &author),
    };
    let _ = registry.apply(&author.author_id(), 0, &introduction);
    for (seq, statement) in statements.iter().enumerate() {
        let _ = registry.apply(&author.author_id(), seq as u64 + 1, statement);
        let before = registry.clone();
        let repeated = registry.apply(&author.author_id(), seq as u64 + 1, statement);
        assert!(repeated.is_err() || registry == before);
    }
});
