use holdfast_protocol::limits::GOSSIP_BYTES_MAX;

use super::*;

const TOPIC: [u8; 32] = [42; 32];

async fn member(seed: u8) -> Node {
    Node::start_with(seed, &[TCP], |config| config.topic = Some(TOPIC)).await
}

/// Publishes until somebody hears it: a mesh takes a heartbeat to form.
async fn heard(speaker: &Node, listener: &mut Node, message: &[u8]) -> (DeviceId, Bytes) {
    for _ in 0..40 {
        // Equal messages are distinct: each carries a number of its own.
        speaker.handle.gossip(Bytes::copy_from_slice(message));
        while let Ok(Some(event)) = timeout(Duration::from_millis(250), listener.events.recv()).await {
            if let NetworkEvent::Replica(ReplicaInput::Gossiped { from, body }) = event {
                return (from, body);
            }
        }
    }
    panic!("nothing heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_relay_each_other_and_strangers_hear_nothing() {
    let (mut a, mut b, mut c) = (member(1).await, member(2).await, member(3).await);
    let mut stranger = member(4).await;
    befriend(&mut a, &mut b).await;
    befriend(&mut b, &mut c).await;
    let (at_stranger, _) = connect(&mut stranger, &mut a).await;
    // The stranger trusts; nobody trusts the stranger.
    stranger.handle.admit(at_stranger);

    assert_eq!(heard(&a, &mut b, b"news").await, (a.device, Bytes::from_static(b"news")));
    let (from, body) = heard(&a, &mut c, b"more news").await;
    assert_eq!(from, a.device, "relayed by b, signed by a");
    assert!(body.ends_with(b"news"));

    for _ in 0..10 {
        stranger.handle.gossip(Bytes::from_static(b"noise"));
        a.handle.gossip(Bytes::from_static(b"members only"));
    }
    let gossip = |events: Vec<NetworkEvent>| {
        let bodies = events.into_iter().filter_map(|event| match event {
            NetworkEvent::Replica(ReplicaInput::Gossiped { body, .. }) => Some(body),
            _ => None,
        });
        bodies.collect::<Vec<_>>()
    };
    assert_eq!(gossip(stranger.rest().await), Vec::<Bytes>::new());
    assert!(!gossip(a.rest().await).contains(&Bytes::from_static(b"noise")));
    assert!(!gossip(b.rest().await).contains(&Bytes::from_static(b"noise")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_is_not_published() {
    let (mut a, mut b) = (member(1).await, member(2).await);
    befriend(&mut a, &mut b).await;
    heard(&a, &mut b, b"the mesh stands").await;
    a.handle.gossip(vec![0; GOSSIP_BYTES_MAX + 1].into());
    a.handle.gossip(vec![1; GOSSIP_BYTES_MAX].into());
    let body = b
        .until(|event| match event {
            NetworkEvent::Replica(ReplicaInput::Gossiped { body, .. }) if body.len() > 100 => Some(body),
            _ => None,
        })
        .await;
    assert_eq!((body.len(), body[0]), (GOSSIP_BYTES_MAX, 1));
}
