use futures::StreamExt as _;
use holdfast_protocol::certificate::{DeviceCertificate, DeviceGrant, Role};
use holdfast_protocol::keys::RootKey;
use holdfast_protocol::time::WallTime;
use libp2p::identity::Keypair;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, identify, ping, relay};
use tokio::task::JoinHandle;

use super::*;
use crate::{RelayConfig, RelayEvent, RelayServer, StartError, transport};

#[derive(NetworkBehaviour)]
struct OpenRelay {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A relay as anybody may run one: its address, and what ends it.
async fn relay(listen: &str) -> (String, JoinHandle<()>) {
    let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let peer = keypair.public().to_peer_id();
    let behaviour = OpenRelay {
        relay: relay::Behaviour::new(peer, relay::Config::default()),
        identify: identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), keypair.public())),
        ping: ping::Behaviour::default(),
    };
    let transport = transport::direct(&keypair).unwrap();
    let mut swarm = Swarm::new(transport, behaviour, peer, swarm::Config::with_tokio_executor());
    swarm.listen_on(listen.parse().unwrap()).unwrap();
    let address: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    swarm.add_external_address(address.clone());
    let running = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    (format!("{address}/p2p/{peer}"), running)
}

/// A node that nobody can dial but through `relay`.
async fn hidden(seed: u8, relay: &str) -> Node {
    let mut node = Node::start_with(seed, &[], |config| config.relays = vec![relay.to_owned()]).await;
    node.addresses = circuit(&mut node).await;
    node
}

async fn circuit(node: &mut Node) -> Vec<String> {
    node.until(|event| match event {
        NetworkEvent::Listening { addresses } if !addresses.is_empty() => Some(addresses),
        _ => None,
    })
    .await
}

/// A relay of one's own, for the library of [`root`]: its address, and what happens at it.
async fn own_relay() -> (String, mpsc::Receiver<RelayEvent>) {
    let config = RelayConfig {
        key: DeviceKey::from_seed(&[7; 32]),
        libraries: vec![root().library_id()],
        listen: vec![TCP.to_owned()],
        announced: Vec::new(),
    };
    let mut server = RelayServer::start(config).unwrap();
    let RelayEvent::Listening { mut addresses } = server.next().await else { panic!("not listening") };
    let (tell, told) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let event = server.next().await;
            let _ = tell.send(event).await;
        }
    });
    (addresses.remove(0), told)
}

fn root() -> RootKey {
    RootKey::from_seed(&[100; 32])
}

/// What proves that the device of `seed` is a member of the library of `root`.
fn chain(seed: u8, root: &RootKey) -> Vec<Vec<u8>> {
    let device = DeviceKey::from_seed(&[seed; 32]);
    let grant = DeviceGrant {
        library: root.library_id(),
        device: device.device_id(),
        exchange: device.exchange().public(),
        role: Role::Member,
        name: format!("device {seed}"),
        serial: 0,
        issued: WallTime(0),
    };
    vec![DeviceCertificate::issue_by_root(grant, root).wire().to_vec()]
}

/// A member that nobody can dial but through `relay`.
async fn hidden_member(seed: u8, relay: &str) -> Node {
    let mut node = Node::start_with(seed, &[], |config| {
        (config.relays, config.chain) = (vec![relay.to_owned()], chain(seed, &root()));
    })
    .await;
    node.addresses = circuit(&mut node).await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_ones_own_listens_for_members() {
    let (address, mut told) = own_relay().await;
    let (mut a, mut b) = (hidden_member(1, &address).await, hidden_member(2, &address).await);
    for node in [&a, &b] {
        let event = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        assert!(matches!(event, RelayEvent::Admitted { device, .. } if device == node.device), "{event:?}");
    }
    // Told nothing of where the other is, but that both know the relay.
    a.handle.dial(b.device, Vec::new());
    assert_eq!(a.connected().await.1, b.device);
    assert_eq!(b.connected().await.1, a.device);
    let event = timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    assert_eq!(event, RelayEvent::Joined { from: a.device, to: b.device });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_holds_no_place_at_a_relay_but_reaches_a_member_through_it() {
    let (address, _told) = own_relay().await;
    let mut member = hidden_member(1, &address).await;
    let elsewhere = chain(3, &RootKey::from_seed(&[101; 32]));
    for (seed, chain) in [(2, Vec::new()), (3, elsewhere), (4, chain(1, &root()))] {
        let mut stranger = Node::start_with(seed, &[], |config| {
            (config.relays, config.chain) = (vec![address.clone()], chain);
        })
        .await;
        let heard = stranger.rest().await;
        let has_a_place =
            |event: &NetworkEvent| matches!(event, NetworkEvent::Listening { addresses } if !addresses.is_empty());
        assert!(!heard.iter().any(has_a_place), "{heard:?}");
        stranger.handle.dial(member.device, member.addresses.clone());
        assert_eq!(stranger.connected().await.1, member.device);
        assert_eq!(member.connected().await.1, stranger.device);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_pairs_through_a_relay_that_only_the_ticket_names() {
    let (address, _told) = own_relay().await;
    let mut member = hidden_member(1, &address).await;
    let joiner = Node::start(2, &[]).await;
    let (handle, device, addresses) = (joiner.handle.clone(), member.device, member.addresses.clone());
    let pairing = tokio::spawn(async move { handle.pair(device, addresses, b"let me in".to_vec()).await });
    let exchange = member
        .until(|event| match event {
            NetworkEvent::PairRequested { pairing, .. } => Some(pairing),
            _ => None,
        })
        .await;
    member.handle.answer_pairing(exchange, Some(Bytes::from(vec![5; 40_000])));
    assert_eq!(pairing.await.unwrap(), Ok(Bytes::from(vec![5; 40_000])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_was_taken_without_a_proof_is_lost_at_once() {
    let (address, _told) = own_relay().await;
    let keypair = Keypair::ed25519_from_bytes([9; 32]).unwrap();
    let (transport, client) = transport::with_circuits(&keypair).unwrap();
    let mut swarm = Swarm::new(transport, client, keypair.public().to_peer_id(), swarm::Config::with_tokio_executor());
    let circuit = address.parse::<Multiaddr>().unwrap().with(libp2p::multiaddr::Protocol::P2pCircuit);
    swarm.listen_on(circuit).unwrap();
    let closed = async {
        loop {
            if let SwarmEvent::ListenerClosed { .. } = swarm.select_next_some().await {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("the place to be lost");
}

/// A member that `nas` listens for, once it has a link to it as well.
async fn member_of(nas: &Node, address: &str, seed: u8) -> Node {
    let mut node = Node::start_with(seed, &[], |config| {
        (config.relays, config.chain) = (vec![address.to_owned()], chain(seed, &root()));
    })
    .await;
    let (mut is_linked, mut circuits) = (false, Vec::new());
    node.addresses = node
        .until(|event| {
            match event {
                NetworkEvent::Connected { peer, .. } => is_linked |= peer == nas.device,
                NetworkEvent::Listening { addresses } => circuits = addresses,
                _ => {}
            }
            (is_linked && !circuits.is_empty()).then(|| circuits.clone())
        })
        .await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_be_the_relay() {
    let mut nas = Node::start_with(9, &[TCP], |config| config.serving = Some(root().library_id())).await;
    let address = nas.addresses[0].clone();
    let (mut a, b) = (member_of(&nas, &address, 1).await, member_of(&nas, &address, 2).await);
    for _ in 0..2 {
        nas.connected().await;
    }
    a.handle.dial(b.device, b.addresses.clone());
    assert_eq!(a.connected().await.1, b.device);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_cannot_be_dialled_meet_at_a_relay() {
    let (address, _running) = relay(TCP).await;
    let (mut a, mut b) = (hidden(1, &address).await, hidden(2, &address).await);
    assert!(b.addresses.iter().all(|address| address.contains("/p2p-circuit")), "{:?}", b.addresses);
    let (at_a, _) = befriend(&mut a, &mut b).await;
    a.introduce(at_a);
    assert_eq!(b.received().await.0, tag::HELLO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as relays are left alone; on a busy machine longer than the patience of these tests"]
async fn a_relay_that_restarted_is_asked_again() {
    let (address, running) = relay(TCP).await;
    let mut a = hidden(1, &address).await;
    running.abort();
    a.until(|event| matches!(event, NetworkEvent::Listening { addresses } if addresses.is_empty()).then_some(())).await;
    let (again, _running) = relay(address.split("/p2p/").next().unwrap()).await;
    assert_eq!(again, address);
    assert!(circuit(&mut a).await.iter().all(|address| address.contains("/p2p-circuit")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_no_peer_and_needs_its_id() {
    let (address, _running) = relay(TCP).await;
    let mut a = hidden(1, &address).await;
    assert!(!a.rest().await.iter().any(|event| matches!(event, NetworkEvent::Connected { .. })));
    let memory = Arc::new(Memory::default());
    let mut config = NetworkConfig::new(DeviceKey::from_seed(&[2; 32]), Vec::new());
    config.relays = vec![address.split("/p2p/").next().unwrap().to_owned()];
    let refused = Network::start(config, memory.source(), memory.sink()).err();
    assert!(matches!(refused, Some(StartError::Address { .. })));
}
