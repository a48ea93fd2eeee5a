//! A request to join, from a stranger.
#![no_main]

use std::time::Duration;

use holdfast_protocol::certificate::Role;
use holdfast_protocol::id::LibraryId;
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::pairing::{Invitation, Inviter, JoinRefused, JoinRequest};
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::WallTime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(request) = JoinRequest::parse(data) else { return };
    assert_eq!(JoinRequest::parse(&request.to_bytes()).as_ref(), Ok(&request));
    let key = DeviceKey::from_seed(&[1; 32]);
    let secrets = LibrarySecrets::generate(LibraryId::from_bytes([2; 32]), &[3; 32]);
    let inviter = Inviter { key: &key, secrets: &secrets, addresses: &[] };
    let ttl = Duration::from_secs(60);
    let (mut invitation, _) = Invitation::create(&inviter, Role::Member, &[4; 32], WallTime(0), ttl);
    assert_eq!(invitation.admit(&inviter, &request, &[5; 32], WallTime(0)), Err(JoinRefused::WrongTicket));
});
