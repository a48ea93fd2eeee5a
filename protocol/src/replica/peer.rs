//! What a replica remembers about another device while no session with it stands.

use super::own_inventory::PeerInventory;
use crate::time::{Timestamp, WallTime};

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) inventory: Option<PeerInventory>,
    pub(super) last_heard: Option<WallTime>,
    /// Not dialled before, and how many attempts have failed.
    pub(super) dial_at: Timestamp,
    pub(super) dial_failures: u32,
    /// When it was dialled last.
    pub(super) dialled_at: Timestamp,
    /// A dial is under way.
    pub(super) dialling: bool,
    /// Turned away until then, because it sent wrong bytes.
    pub(super) shunned_until: Option<Timestamp>,
    /// How often it was turned away since it last sent a chunk that was right.
    pub(super) distrust: u32,
    /// Its number in the table of peers that chunks were served to; 0 for none.
    pub(super) serve_number: u8,
    /// When a chunk was last sent to it.
    pub(super) served_at: Option<Timestamp>,
}
