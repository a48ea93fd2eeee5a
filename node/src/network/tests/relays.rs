use futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, identify, ping, relay};
use tokio::task::JoinHandle;

use super::*;
use crate::network::StartError;
use crate::network::transport::{self, Relaying};

#[derive(NetworkBehaviour)]
struct RelayServer {
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A relay as anybody may run one: its address, and what ends it.
async fn relay(listen: &str) -> (String, JoinHandle<()>) {
    let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let peer = keypair.public().to_peer_id();
    let behaviour = RelayServer {
        relay: relay::Behaviour::new(peer, relay::Config::default()),
        identify: identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), keypair.public())),
        ping: ping::Behaviour::default(),
    };
    let transport = transport::build(&keypair, Relaying::Off).unwrap().transport;
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
