use std::time::Duration;

use holdfast_protocol::{
    limits::{BULK_FRAME_BYTES_MAX, HELLO_BYTES_MAX},
    message::{FrameRefused, tag},
};

use super::*;
use crate::{LinkEnd, Misbehaviour};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_go_both_ways_in_order_over_tcp_and_quic() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = (Node::start(1, &[transport]).await, Node::start(2, &[transport]).await);
        let (at_a, at_b) = befriend(&mut a, &mut b).await;
        a.introduce(at_a);
        b.introduce(at_b);
        let large = vec![7; BULK_FRAME_BYTES_MAX];
        for node in [(&a, at_a), (&b, at_b)] {
            node.0.handle.send(node.1, frame(tag::VECTOR, b"vector"));
            node.0.handle.send(node.1, frame(tag::ENVELOPES, &large));
        }
        for node in [&mut a, &mut b] {
            assert_eq!(node.received().await, (tag::HELLO, Bytes::from_static(b"hello")));
            assert_eq!(node.received().await, (tag::PROVE, Bytes::from_static(b"proof")));
            assert_eq!(node.received().await, (tag::VECTOR, Bytes::from_static(b"vector")));
            let (tag, body) = node.received().await;
            assert!(tag == tag::ENVELOPES && body == large, "{transport}");
        }
        // What was sent before a link is closed still arrives.
        a.handle.send(at_a, frame(tag::BYE, b"bye"));
        a.handle.disconnect(at_a);
        assert_eq!(a.disconnected().await, LinkEnd::Closed);
        assert_eq!(b.received().await.0, tag::BYE);
        assert_eq!(b.disconnected().await, LinkEnd::Lost);
    }
}

/// What `bytes`, sent instead of or after an introduction, make of the link.
async fn verdict(introduce: bool, bytes: Vec<u8>) -> LinkEnd {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (at_a, at_b) = connect(&mut a, &mut b).await;
    if introduce {
        a.introduce(at_a);
        b.handle.admit(at_b);
    }
    a.handle.send(at_a, bytes);
    b.disconnected().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_and_misplaced_frames_end_the_link_before_anything_is_allocated() {
    let refused = |end| matches!(end, LinkEnd::Misbehaved(Misbehaviour::Frame(_)));
    // A gigabyte announced, nothing sent: refused by the header alone.
    let giant = |tag: u8| [&u32::MAX.to_le_bytes()[..], &[tag]].concat();
    assert!(refused(verdict(false, giant(tag::HELLO)).await));
    assert!(refused(verdict(true, giant(tag::ENVELOPES)).await));
    let just_over = |tag: u8, limit: usize| [&(limit as u32 + 1).to_le_bytes()[..], &[tag]].concat();
    assert!(refused(verdict(false, just_over(tag::HELLO, HELLO_BYTES_MAX)).await));
    assert!(refused(verdict(true, just_over(tag::ENVELOPES, BULK_FRAME_BYTES_MAX)).await));
    let early = verdict(false, frame(tag::ENVELOPES, b"").to_vec()).await;
    assert_eq!(early, LinkEnd::Misbehaved(Misbehaviour::Frame(FrameRefused::OutOfTurn { tag: tag::ENVELOPES })));
    assert!(refused(verdict(false, vec![0xa5; 4096]).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_frame_is_dropped_with_its_link() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (at_a, _) = connect(&mut a, &mut b).await;
    a.handle.send(at_a, frame(tag::HELLO, b"hello").slice(..7));
    a.handle.disconnect(at_a);
    let of_frames = |event| match event {
        NetworkEvent::PeerSeen { .. } | NetworkEvent::RoundTrip { .. } => None,
        event => Some(event),
    };
    let event = b.until(of_frames).await;
    assert!(matches!(event, NetworkEvent::Disconnected { .. }), "no part of a frame is delivered: {event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_heard_twice_and_then_waits_to_be_admitted() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (at_a, at_b) = connect(&mut a, &mut b).await;
    a.introduce(at_a);
    a.handle.send(at_a, frame(tag::VECTOR, b"too early"));
    assert_eq!(b.received().await.0, tag::HELLO);
    assert_eq!(b.received().await.0, tag::PROVE);
    assert!(!b.rest().await.iter().any(|event| matches!(event, NetworkEvent::Replica(ReplicaInput::Received { .. }))));
    b.handle.admit(at_b);
    assert_eq!(b.received().await, (tag::VECTOR, Bytes::from_static(b"too early")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_admitted_in_time_is_disconnected() {
    let mut a = Node::start(1, &[TCP]).await;
    let mut b = Node::start_with(2, &[TCP], |config| config.admission_deadline = Duration::from_millis(200)).await;
    let (at_a, _) = connect(&mut a, &mut b).await;
    a.introduce(at_a);
    assert_eq!(b.disconnected().await, LinkEnd::NotAdmitted);
    assert_eq!(a.disconnected().await, LinkEnd::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_is_disconnected_before_its_queue_grows_too_long() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    // Never admitted, so b stops reading after two frames.
    let (at_a, _) = connect(&mut a, &mut b).await;
    a.introduce(at_a);
    let frame = frame(tag::ENVELOPES, &vec![0; BULK_FRAME_BYTES_MAX]);
    for _ in 0..40 {
        a.handle.send(at_a, frame.clone());
    }
    assert_eq!(a.disconnected().await, LinkEnd::TooSlow);
}
