//! What the node speaks on every connection.

use std::time::Duration;

use holdfast_protocol::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX};
use libp2p::{
    PeerId, autonat, connection_limits, dcutr, identify,
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
/// How often a connection is asked whether it is there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(3);
/// An answer that comes later is no news: its connection was given up before.
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// Streams, gossip and what keeps connections alive and found.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, so that what it refuses nobody else has heard of.
    limits: connection_limits::Behaviour,
    pub(super) streams: streams::Behaviour,
    pub(super) gossip: Toggle<gossip::Behaviour>,
    pub(super) identify: identify::Behaviour,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    mdns_ipv6: Toggle<mdns::tokio::Behaviour>,
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
        let is_discovering = config.discovery == Discovery::LocalNetwork;
        let mdns = |family| is_discovering.then(|| discovery(peer, family)).flatten();
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
            mdns: mdns(Family::Ipv4).into(),
            mdns_ipv6: mdns(Family::Ipv6).into(),
            relay,
            dcutr: dcutr::Behaviour::new(peer),
            autonat: autonat::v2::client::Behaviour::default(),
            upnp: (config.port_mapping == PortMapping::Tried).then(upnp::tokio::Behaviour::default).into(),
            serving: config.serving.map(|_| serving::Behaviour::new(peer)).into(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

/// Multicast DNS of one address family: a machine may have either alone. None where the system does not allow it; peers are
/// then found by address.
fn discovery(peer: PeerId, family: Family) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config { enable_ipv6: family == Family::Ipv6, ..mdns::Config::default() };
    mdns::tokio::Behaviour::new(config, peer)
        .inspect_err(|error| tracing::warn!(%error, ?family, "the local network cannot be searched"))
        .ok()
}
