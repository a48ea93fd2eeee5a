//! The keys and certificates of a library of test nodes.

use holdfast_protocol::certificate::{DeviceCertificate, DeviceGrant, Role};
use holdfast_protocol::keys::{AuthorKey, DeviceKey, RootKey};
use holdfast_protocol::replica::Config;
use holdfast_protocol::secrets::EpochId;
use holdfast_protocol::time::WallTime;

pub(crate) const EPOCH: EpochId = EpochId { counter: 1, nonce: [7; 8] };

pub(crate) fn root() -> RootKey {
    RootKey::from_seed(&[42; 32])
}

pub(crate) fn device_key(number: u8) -> DeviceKey {
    DeviceKey::from_seed(&[number + 100; 32])
}

pub(crate) fn author_key(number: u8) -> AuthorKey {
    AuthorKey::from_seed(&[number + 200; 32])
}

fn grant(root: &RootKey, number: u8) -> DeviceGrant {
    let device = device_key(number);
    DeviceGrant {
        library: root.library_id(),
        device: device.device_id(),
        exchange: device.exchange().public(),
        role: Role::Owner,
        name: format!("node {number}"),
        serial: 1,
        issued: WallTime(0),
    }
}

pub(crate) fn certificate(root: &RootKey, number: u8) -> DeviceCertificate {
    match number {
        0 => DeviceCertificate::issue_by_root(grant(root, 0), root),
        _ => DeviceCertificate::issue_by_device(grant(root, number), &device_key(0)),
    }
}

/// Node 0 founded the library, and invited all others.
pub(crate) fn config(root: &RootKey, number: u8, run: u8) -> Config {
    let mut chain = vec![certificate(root, number).wire().to_vec()];
    if number > 0 {
        chain.push(certificate(root, 0).wire().to_vec());
    }
    Config {
        library: root.library_id(),
        device: device_key(number),
        author: author_key(number),
        chain,
        place: None,
        seed: [number.wrapping_mul(16).wrapping_add(run); 32],
    }
}
