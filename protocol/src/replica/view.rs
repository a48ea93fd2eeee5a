//! What a replica tells about itself and its peers, for people to see.

use crate::id::{DeviceId, PlaceId};
use crate::inventory::Generation;
use crate::time::{Timestamp, WallTime};

/// A member of the library as this replica knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its identity.
    pub device: DeviceId,
    /// The name in its certificate.
    pub name: String,
    /// Its confirmed place, if it has one.
    pub place: Option<PlaceId>,
    /// Whether a session stands right now.
    pub connected: bool,
    /// Whether it is being called right now.
    pub dialling: bool,
    /// When it is called next, unless it calls first; `None` for one that is connected or being called.
    pub next_dial: Option<Timestamp>,
    /// Until when this node does not ask it for chunks, because it could not give some; `None` when it may be asked.
    pub resting_until: Option<Timestamp>,
    /// When a message of it last arrived, by this node's wall clock.
    pub last_heard: Option<WallTime>,
    /// Generation and number of its newest inventory known here.
    pub inventory: Option<(Generation, u64)>,
    /// When it signed that inventory, by its own clock.
    pub inventory_signed: Option<WallTime>,
    /// Positions it says it holds.
    pub held: u64,
    /// Positions it says it has erased.
    pub erased: u64,
}

/// What is on its way to this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Chunks that should be here and are not.
    pub missing_chunks: u64,
    /// Their sealed bytes.
    pub missing_bytes: u64,
    /// Of these, chunks that no connected peer is known to hold.
    pub unavailable_chunks: u64,
    /// Their sealed bytes.
    pub unavailable_bytes: u64,
    /// Chunks asked for and not yet settled.
    pub in_flight_chunks: u64,
    /// Their sealed bytes.
    pub in_flight_bytes: u64,
    /// Sealed bytes fetched since the replica was opened.
    pub received_bytes: u64,
    /// Sealed bytes served since the replica was opened.
    pub sent_bytes: u64,
    /// Bytes per second over all peers, smoothed over the last seconds; zero when nothing moves.
    pub bytes_per_second: u64,
}
