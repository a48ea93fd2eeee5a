//! A member that says anything: an established session gets any frames, in any order, and the replica never panics.
//! Input: `(tag u8 ‖ length u8 ‖ body)*`.
#![no_main]

use bytes::Bytes;
use holdfast_protocol::message::{Hello, Message, Prove, VERSIONS, library_tag};
use holdfast_protocol::replica::{Effect, Input, LinkId, Replica};
use holdfast_protocol::time::{Now, Timestamp, WallTime};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the tests of the crate use the rest")]
#[path = "../../tests/support/memory.rs"]
mod memory;
#[allow(dead_code, reason = "the tests of the crate use the rest")]
#[path = "../../tests/support/keys.rs"]
mod keys;

const LINK: LinkId = LinkId(1);

fuzz_target!(|data: &[u8]| {
    let root = keys::root();
    let (mut replica, effects) = Replica::open(keys::config(&root, 0, 1), memory::Memory::default(), &|_| false).unwrap();
    let mut clock = 0;
    let mut now = || {
        clock += 1;
        Now { elapsed: Timestamp::from_millis(clock), wall: WallTime(0) }
    };
    for effect in effects.into_iter().chain(replica.introduce(now(), keys::EPOCH).unwrap()) {
        if let Effect::Sync(task) = effect {
            replica.handle(now(), Input::Synced(task)).unwrap();
        }
    }
    let peer = keys::device_key(1).device_id();
    replica.handle(now(), Input::Connected { link: LINK, peer, outbound: false }).unwrap();
    let tag = library_tag(&root.library_id(), &peer, &replica.device());
    let hello = Hello { oldest: VERSIONS.0, newest: VERSIONS.1, features: 0, library_tag: tag };
    let prove = Prove { chain: keys::config(&root, 1, 1).chain };
    for message in [Message::Hello(hello), Message::Prove(prove)] {
        let body = message.to_frame().slice(holdfast_protocol::message::FRAME_HEADER_BYTES..);
        replica.handle(now(), Input::Received { link: LINK, tag: message.tag(), body }).unwrap();
    }
    assert!(replica.peers().iter().any(|peer| peer.connected));

    let mut rest = data;
    while let Some((&[tag, length], after)) = rest.split_first_chunk::<2>() {
        let (body, after) = after.split_at(after.len().min(usize::from(length)));
        rest = after;
        let body = Bytes::copy_from_slice(body);
        let input = match tag {
            0xff => Input::Gossiped { from: peer, body },
            0xfe => Input::Tick,
            tag => Input::Received { link: LINK, tag, body },
        };
        replica.handle(now(), input).unwrap();
    }
    let _ = replica.next_deadline();
    let _ = replica.transfers();
});
