//! The network driver: the only crate that names libp2p.
//!
//! It moves bytes and decides nothing about replication. Every [`NetworkEvent`] becomes one input of the replica, every
//! effect of the replica one call on the [`NetworkHandle`].
//!
//! - A **link** is one authenticated connection to a peer; a peer has at most one at a time. Of two connections that
//!   arise because both sides dialled at once, both sides keep the same one ([`links`]).
//! - **Control frames** travel on one stream for each direction, in order ([`control`]).
//! - **Chunks** travel on streams of their own, and their bytes never pass through the replica: a [`ChunkSource`]
//!   answers for what is served, a [`ChunkSink`] verifies, keeps and makes durable what is fetched ([`chunks`]).
//! - **Gossip** reaches members only: a connection speaks it once its link was admitted ([`gossip`]).
//! - **Pairing** is one request and one answer between strangers ([`pairing`]).
//! - **Relays** listen for this node elsewhere ([`relays`]); it may be one itself ([`serving`]), and so may a program that
//!   is nothing else ([`RelayServer`]).
//!
//! A link starts as a stranger's: two small frames, no chunks, no gossip and ten seconds to be admitted with
//! [`NetworkHandle::admit`]. Every queue is bounded, and every length is checked before anything is allocated.

use std::time::Duration;

use bytes::Bytes;
use holdfast_protocol::{
    id::{DeviceId, LibraryId},
    keys::DeviceKey,
    message::{FrameRefused, MessageRefused},
    replica::{Input as ReplicaInput, LinkId},
};

pub use self::{
    chunks::{ChunkSink, ChunkSource, ReadFailure},
    handle::{Network, NetworkHandle},
    pairing::{PairError, PairingId},
    path::{Path, Reach, Transport},
    relay_server::{RelayConfig, RelayEvent, RelayServer},
    sockets::{free_port, is_port_free},
};

mod addresses;
mod behaviour;
mod chunks;
mod closing;
mod command;
mod control;
mod driver;
mod events;
mod frame;
mod gossip;
mod handle;
mod links;
mod pairing;
mod path;
mod proof;
mod queue;
mod relay_server;
mod relays;
mod serving;
mod shared;
mod sockets;
mod streams;
mod transport;

#[cfg(test)]
mod tests;

/// How a node takes part in the network.
#[derive(Clone)]
pub struct NetworkConfig {
    /// This device's key: the transport identity is the device's.
    pub device: DeviceKey,
    /// Multiaddresses to listen on, such as `/ip4/0.0.0.0/tcp/0` and `/ip4/0.0.0.0/udp/0/quic-v1`.
    pub listen: Vec<String>,
    /// Which of them the node does not start without.
    pub required: Required,
    /// Whether to announce and discover peers on the local network.
    pub discovery: Discovery,
    /// The gossip topic: the same for all members of a library. Nothing is gossiped without one.
    pub topic: Option<[u8; 32]>,
    /// Multiaddresses at which this node is reached besides, such as the forwarded port of a router.
    pub announced: Vec<String>,
    /// Whether the router is asked to forward ports.
    pub port_mapping: PortMapping,
    /// Relays to reserve a circuit at, as multiaddresses that end in `/p2p/…`.
    pub relays: Vec<String>,
    /// The certificates that prove this device's membership to relays, its own first.
    pub chain: Vec<Vec<u8>>,
    /// The library for whose members this node is a relay.
    pub serving: Option<LibraryId>,
    /// How long a link may stay unadmitted.
    pub admission_deadline: Duration,
}

impl NetworkConfig {
    /// A node that listens on `listen` and neither discovers nor relays.
    #[must_use]
    pub fn new(device: DeviceKey, listen: Vec<String>) -> Self {
        Self {
            device,
            listen,
            required: Required::Every,
            discovery: Discovery::Off,
            topic: None,
            announced: Vec::new(),
            port_mapping: PortMapping::Off,
            relays: Vec::new(),
            chain: Vec::new(),
            serving: None,
            admission_deadline: Duration::from_secs(10),
        }
    }
}

/// Which of the addresses to listen on a node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// Each: somebody chose them.
    Every,
    /// Whichever the machine has: some have no IPv6.
    One,
}

/// Whether multicast DNS finds peers on the local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// Announce this node and look for others.
    LocalNetwork,
    /// Peers are found by address only.
    Off,
}

/// Whether the router is asked, by UPnP, to forward the ports that this node listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortMapping {
    /// If there is one that does it.
    Tried,
    /// Nobody is asked.
    Off,
}

/// Why a dial came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialFailure {
    /// Which address was dialled; absent when it is not about one.
    pub address: Option<String>,
    /// What went wrong, for people.
    pub reason: String,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// This node asked for it.
    #[error("closed by this node")]
    Closed,
    /// The connection was lost or closed by the peer.
    #[error("the connection was lost")]
    Lost,
    /// Nothing came from the peer for longer than its path takes.
    #[error("nothing was heard for {seconds} s")]
    Silent {
        /// How long.
        seconds: u64,
    },
    /// The address that this node had on the connection is gone.
    #[error("this device's address on the network changed")]
    AddressGone,
    /// Another connection to the same peer took its place.
    #[error("replaced by another connection to the same peer")]
    Replaced,
    /// The peer did not prove to be a member in time.
    #[error("the peer did not prove its membership in time")]
    NotAdmitted,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Misbehaved(Misbehaviour),
    /// The peer does not read what it is sent.
    #[error("the peer reads too slowly: its queue is full")]
    TooSlow,
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// A control frame that may not come now, or not in this length.
    #[error(transparent)]
    Frame(#[from] FrameRefused),
    /// A request for chunks, or the answer to one, that is malformed or over a limit.
    #[error(transparent)]
    Message(#[from] MessageRefused),
    /// Something that was not asked for.
    #[error("an answer that was not asked for")]
    Unasked,
    /// A second stream where there may be one.
    #[error("a second stream of a kind that there is one of")]
    SecondStream,
}

/// What happened on the network.
#[derive(Debug)]
pub enum NetworkEvent {
    /// The addresses this node listens on, all of them, whenever they change.
    Listening {
        /// Multiaddresses that end in `/p2p/…`: what a ticket carries.
        addresses: Vec<String>,
    },
    /// Where others have seen this node, which may be no use to them.
    Observed {
        /// Multiaddresses of public networks.
        addresses: Vec<String>,
    },
    /// A connection to `peer` stands; the transport has proven its device key. It is a stranger's until admitted.
    Connected {
        /// The new link.
        link: LinkId,
        /// Who.
        peer: DeviceId,
        /// Whether this node dialled.
        outbound: bool,
        /// The peer's address.
        address: String,
        /// How it is reached.
        path: Path,
    },
    /// How long a link took to answer, every now and then.
    RoundTrip {
        /// Which link.
        link: LinkId,
        /// There and back.
        took: Duration,
    },
    /// A link ended. The outcomes of chunks that had arrived before may still follow.
    Disconnected {
        /// Which link.
        link: LinkId,
        /// With whom.
        peer: DeviceId,
        /// Why.
        end: LinkEnd,
    },
    /// Addresses of a peer that was dialled did not answer; others may be tried still.
    AddressesFailed {
        /// Who was dialled.
        peer: DeviceId,
        /// What came of each.
        failures: Vec<DialFailure>,
    },
    /// No address of a peer answered. `peer` is unknown when only an address was dialled.
    DialFailed {
        /// Who was dialled.
        peer: Option<DeviceId>,
        /// What went wrong, for people.
        reason: String,
    },
    /// This machine's addresses changed: who could not be reached before may be reached now.
    NetworkChanged,
    /// A peer was discovered or told where it listens; worth a dial when it is not connected.
    PeerSeen {
        /// Who.
        peer: DeviceId,
        /// Where.
        addresses: Vec<String>,
    },
    /// Frames, gossip, and what became of chunks: for the replica as it is. Gossip was signed by its author and relayed
    /// by an admitted link; a request for chunks is to be answered with [`NetworkHandle::serve`].
    Replica(ReplicaInput),
    /// Somebody holds a ticket and wants to join; to be answered with [`NetworkHandle::answer_pairing`] within
    /// seconds.
    PairRequested {
        /// Names the exchange.
        pairing: PairingId,
        /// Who asks.
        peer: DeviceId,
        /// The join request.
        body: Bytes,
    },
}

/// An address without the peer at its end: where it is, so that equal places compare equal. What is no address stays as
/// it is.
#[must_use]
pub fn place_of(address: &str) -> String {
    addresses::parse(address).map_or_else(|_| address.to_owned(), |parsed| addresses::without_peer(parsed).to_string())
}

/// Looks at an address before anything is done with it.
///
/// # Errors
/// When it is none, or says too little to dial it.
pub fn check_dialled(address: &str) -> Result<(), StartError> {
    addresses::check(
        address,
        "it names no transport and port; it ends in /tcp/4001 or /udp/4001/quic-v1",
        addresses::is_dialled,
    )
}

/// Looks at an address to listen on before anything is done with it.
///
/// # Errors
/// When it is none, or none of this machine's and with a port.
pub fn check_listened(address: &str) -> Result<(), StartError> {
    let missing = "it must be a number of this machine with a port: /ip4/…/tcp/… or /ip4/…/udp/…/quic-v1";
    addresses::check(address, missing, addresses::is_listened)
}

/// Looks whether somebody else listens at `address`, before anything is done with it.
///
/// # Errors
/// When it is none, or somebody does.
pub fn check_free(address: &str) -> Result<(), StartError> {
    let refused = |detail| StartError::Address { address: address.to_owned(), detail };
    let parsed = addresses::parse(address).map_err(refused)?;
    if sockets::is_address_taken(&parsed) { Err(StartError::taken(address)) } else { Ok(()) }
}

/// Looks at the address of a relay before anything is done with it.
///
/// # Errors
/// When it is none, or does not name the relay behind the way to it.
pub fn check_relay(address: &str) -> Result<(), StartError> {
    check_dialled(address)?;
    relays::Relays::parse(&[address.to_owned()])?;
    addresses::check(address, "what follows /p2p/ is nobody's id", addresses::names_a_key)
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listen or relay address has the wrong form.
    #[error("{address:?} is not an address: {detail}; write it like /ip4/0.0.0.0/tcp/4001")]
    Address {
        /// As configured.
        address: String,
        /// What the parser said.
        detail: String,
    },
    /// The system refused to listen.
    #[error("cannot listen on {address}: {detail}; choose another port, or stop what uses it")]
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        detail: String,
    },
    /// A transport could not be set up.
    #[error("the network could not be set up: {detail}")]
    Setup {
        /// What went wrong.
        detail: String,
    },
}

impl StartError {
    fn taken(address: &str) -> Self {
        let detail = "another program, or another node, listens there (`ss -tulpn` shows which)".to_owned();
        Self::Listen { address: address.to_owned(), detail }
    }
}
