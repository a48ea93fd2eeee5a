//! What the node speaks on every connection.

use std::time::Duration;

use holdfast_protocol::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX};
use libp2p::{
    autonat, connection_limits, dcutr, identify,
    identity::Keypair,
    mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};

use super::{
    Discovery, NetworkConfig, PortMapping, StartError, gossip, serving,
    streams::{self, Idle},
};

/// Connections that are being established, each way.
const PENDING_MAX: u32 = 32;
/// Connections that others made: members that this node dials find room however many strangers there are.
pub(super) const INCOMING_MAX: u32 = 40;
const _: () = assert!(INCOMING_MAX < CONNECTIONS_MAX);
/// Pings.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams, gossip and what keeps connections alive and found.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) streams: streams::Behaviour,
    pub(super) gossip: Toggle<gossip::Behaviour>,
    pub(super) identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    relay: relay::client::Behaviour,
    dcutr: dcutr::Behaviour,
    autonat: autonat::v2::client::Behaviour,
    upnp: Toggle<upnp::tokio::Behaviour>,
    pub(super) serving: Toggle<serving::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(
        config: &NetworkConfig,
        keypair: &Keypair,
        relay: relay::client::Behaviour,
    ) -> Result<Self, StartError> {
        let setup = |detail: String| StartError::Setup { detail };
        let peer = keypair.public().to_peer_id();
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_pending_outgoing(Some(PENDING_MAX))
            .with_max_established(Some(CONNECTIONS_MAX))
            .with_max_established_incoming(Some(INCOMING_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
        let gossip = match &config.topic {
            Some(topic) => Some(gossip::Behaviour::new(keypair, topic).map_err(setup)?),
            None => None,
        };
        let mdns = match config.discovery {
            Discovery::LocalNetwork => Some(
                mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
                    .map_err(|error| setup(format!("local discovery: {error}; it can be switched off")))?,
            ),
            Discovery::Off => None,
        };
        let identify = identify::Config::new("/holdfast/1".to_owned(), keypair.public())
            .with_agent_version("holdfast".to_owned())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        let mut accepted = vec![streams::CONTROL, streams::CHUNKS, streams::PAIR];
        accepted.extend(config.serving.map(|_| streams::RELAY));
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            streams: streams::Behaviour::accepting(accepted, Idle::Stays),
            gossip: gossip.into(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
            mdns: mdns.into(),
            relay,
            dcutr: dcutr::Behaviour::new(peer),
            autonat: autonat::v2::client::Behaviour::default(),
            upnp: (config.port_mapping == PortMapping::Tried).then(upnp::tokio::Behaviour::default).into(),
            serving: config.serving.map(|_| serving::Behaviour::new(peer)).into(),
        })
    }
}
