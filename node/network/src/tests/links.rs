use super::*;
use holdfast_protocol::limits::CONNECTIONS_MAX;

use crate::behaviour::INCOMING_MAX;
use crate::{LinkEnd, Required, StartError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_connections_dialled_at_once_one_link_remains_at_both_ends() {
    for round in 0..5 {
        let (mut a, mut b) = (Node::start(1, &[TCP, QUIC]).await, Node::start(2, &[TCP, QUIC]).await);
        a.handle.dial(b.device, b.addresses.clone());
        b.handle.dial(a.device, a.addresses.clone());
        let standing = |events: &[NetworkEvent]| {
            let mut standing = Vec::new();
            for event in events {
                match event {
                    NetworkEvent::Connected { link, .. } => {
                        assert!(standing.is_empty(), "a second link before the first ended");
                        standing.push(*link);
                    }
                    NetworkEvent::Disconnected { link, .. } => standing.retain(|standing| standing != link),
                    _ => {}
                }
            }
            standing
        };
        let (first_a, first_b) = (a.next().await, b.next().await);
        let (rest_a, rest_b) = tokio::join!(a.rest(), b.rest());
        let all_a: Vec<_> = [first_a].into_iter().chain(rest_a).collect();
        let all_b: Vec<_> = [first_b].into_iter().chain(rest_b).collect();
        let (at_a, at_b) = (standing(&all_a), standing(&all_b));
        assert_eq!((at_a.len(), at_b.len()), (1, 1), "round {round}: {all_a:?} {all_b:?}");
        a.introduce(at_a[0]);
        assert_eq!(b.received().await.0, tag::HELLO, "both kept the same connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_preferred_and_quic_used_where_only_it_answers() {
    let mut a = Node::start(1, &[TCP, QUIC]).await;
    let mut b = Node::start(2, &[TCP, QUIC]).await;
    let address = |event| match event {
        NetworkEvent::Connected { address, .. } => Some(address),
        _ => None,
    };
    a.handle.dial(b.device, b.addresses.clone());
    assert!(a.until(address).await.contains("/tcp/"));
    let quic: Vec<String> = b.addresses.iter().filter(|address| address.contains("/quic-v1")).cloned().collect();
    let mut c = Node::start(3, &[TCP, QUIC]).await;
    c.handle.dial(b.device, vec!["/ip4/127.0.0.1/tcp/9".to_owned(), quic[0].clone()]);
    assert!(c.until(address).await.contains("/quic-v1"));
    b.connected().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarted_is_linked_again() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    connect(&mut a, &mut b).await;
    let address = b.addresses.clone();
    drop(b);
    assert_eq!(a.disconnected().await, LinkEnd::Lost);
    let listen = address[0].split("/p2p/").next().unwrap().to_owned();
    let mut b = Node::start(2, &[&listen]).await;
    connect(&mut a, &mut b).await;
    // The other way round, while the first still believes in the old link.
    b.handle.dial(a.device, a.addresses.clone());
    assert!(!b.rest().await.iter().any(|event| matches!(event, NetworkEvent::Connected { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_lost_a_link_is_linked_anew_while_the_other_end_believes_in_it() {
    // Whoever of the two has the lower id has dialled, so that a link dialled by the other would lose at once.
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    if a.device > b.device {
        std::mem::swap(&mut a, &mut b);
    }
    let (old, _) = connect(&mut a, &mut b).await;
    let seed = if b.device == DeviceKey::from_seed(&[2; 32]).device_id() { 2 } else { 1 };
    // The same device again, which knows nothing of the link.
    let again = Node::start(seed, &[TCP]).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    again.handle.dial(a.device, a.addresses.clone());
    assert_eq!(a.disconnected().await, LinkEnd::Replaced);
    let (new, peer) = a.connected().await;
    assert!(new != old && peer == b.device);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_before_a_node_stops_arrives() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = (Node::start(1, &[transport]).await, Node::start(2, &[transport]).await);
        let (at_a, at_b) = befriend(&mut a, &mut b).await;
        a.introduce(at_a);
        b.introduce(at_b);
        for _ in 0..2 {
            b.received().await;
        }
        a.handle.send(at_a, frame(tag::BYE, b"bye"));
        a.handle.shutdown();
        assert_eq!(b.received().await, (tag::BYE, Bytes::from_static(b"bye")), "{transport}");
        assert_eq!(b.disconnected().await, LinkEnd::Lost);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_dials_are_reported_in_words() {
    let mut a = Node::start(1, &[TCP]).await;
    let nobody = DeviceKey::from_seed(&[9; 32]).device_id();
    let failed = |event| match event {
        NetworkEvent::DialFailed { peer, reason } => Some((peer, reason)),
        _ => None,
    };
    a.handle.dial(nobody, Vec::new());
    assert_eq!(a.until(failed).await, (Some(nobody), "no address of it is known".to_owned()));
    a.handle.dial(nobody, vec!["/ip4/127.0.0.1/tcp/9".to_owned()]);
    let (peer, reason) = a.until(failed).await;
    assert!(peer == Some(nobody) && reason.contains("refused"), "{reason}");
    let b = Node::start(2, &[TCP]).await;
    a.handle.dial(nobody, b.addresses.iter().map(|address| address.split("/p2p/").next().unwrap().into()).collect());
    assert_eq!(a.until(failed).await.0, Some(nobody), "somebody else answers");
    a.handle.dial_address("not an address".to_owned());
    assert_eq!(a.until(failed).await.0, None);
    a.handle.dial_address(b.addresses[0].split("/p2p/").next().unwrap().to_owned());
    assert_eq!(a.connected().await.1, b.device);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_cannot_be_listened_on_are_start_errors() {
    let a = Node::start(1, &[TCP, QUIC]).await;
    let without_peer = |address: &String| address.split("/p2p/").next().unwrap().to_owned();
    let taken: Vec<String> = a.addresses.iter().map(without_peer).collect();
    let memory = Arc::new(Memory::default());
    let start = |listen: &str| {
        let config = NetworkConfig::new(DeviceKey::from_seed(&[2; 32]), vec![listen.to_owned()]);
        Network::start(config, memory.source(), memory.sink()).err()
    };
    assert!(matches!(start("nonsense"), Some(StartError::Address { .. })));
    assert!(matches!(start("/ip4/192.0.2.1/tcp/0"), Some(StartError::Listen { .. })));
    let start_with_one_of = |listen: &[&str]| {
        let listen = listen.iter().map(|&address| address.to_owned()).collect();
        let config = NetworkConfig::new(DeviceKey::from_seed(&[2; 32]), listen);
        Network::start(NetworkConfig { required: Required::One, ..config }, memory.source(), memory.sink()).err()
    };
    assert!(start_with_one_of(&["/ip4/192.0.2.1/tcp/0", TCP, "/ip4/192.0.2.1/udp/0/quic-v1"]).is_none());
    assert!(matches!(start_with_one_of(&["/ip4/192.0.2.1/tcp/0"]), Some(StartError::Listen { .. })));
    for taken in taken {
        let everywhere = taken.replace("127.0.0.1", "0.0.0.0");
        for listen in [taken, everywhere] {
            let error = start(&listen).expect("one node at a time listens on a port");
            assert!(matches!(error, StartError::Listen { .. }) && error.to_string().contains(&listen), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_beyond_the_limit_are_refused_and_leave_room_for_own_dials() {
    let mut a = Node::start(1, &[TCP]).await;
    let mut others = Vec::new();
    for seed in 0..CONNECTIONS_MAX as u8 + 4 {
        let other = Node::start(100 + seed, &[]).await;
        other.handle.dial(a.device, a.addresses.clone());
        others.push(other);
    }
    let mut standing = 0;
    for event in a.rest().await.into_iter().chain(a.rest().await) {
        match event {
            NetworkEvent::Connected { .. } => standing += 1,
            NetworkEvent::Disconnected { .. } => standing -= 1,
            _ => {}
        }
        assert!(standing <= INCOMING_MAX as usize);
    }
    assert!(standing > INCOMING_MAX as usize / 2, "{standing} connected");
    let mut member = Node::start(2, &[TCP]).await;
    connect(&mut a, &mut member).await;
}
