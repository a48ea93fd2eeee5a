//! What grows with what peers say, and how far: nothing that a replica keeps of its peers is without a bound.

use super::schedule::{CANDIDATES_SPARE, Scheduler, Source};
use super::session::Session;
use super::sync::PULLS_PER_SESSION_MAX;
use super::{ChunkTable, Replica};
use crate::inventory::HOLDINGS_POSITIONS_MAX;
use crate::limits::{PEERS_MAX, REQUESTS_PER_PEER_MAX, VECTOR_AUTHORS_MAX, WINDOW_BYTES_MAX};
use crate::metadata::Metadata;

/// Something that peers can make a replica keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounded {
    /// What it is, in the plural.
    pub what: &'static str,
    /// How much of it there is; of what is counted for each peer, the most that any has.
    pub kept: u64,
    /// How much of it there may be.
    pub most: u64,
}

impl<M: Metadata> Replica<M> {
    /// Everything that peers can make this replica keep beside logs and inventories, with its bound.
    #[must_use]
    pub fn bounded(&self) -> Vec<Bounded> {
        let most_of = |count: fn(&Session) -> usize| self.sessions.values().map(count).max().unwrap_or(0);
        let of = |what, kept: usize, most: usize| Bounded { what, kept: kept as u64, most: most as u64 };
        let mut all = vec![
            of("logs that a peer says it knows", most_of(|session| session.points.len()), VECTOR_AUTHORS_MAX),
            of("forks told to a peer", most_of(|session| session.forks_told.len()), VECTOR_AUTHORS_MAX),
            // Those asked for were offered before.
            of("inventories that a peer offers", most_of(|session| session.offered.len()), 2 * PEERS_MAX),
            of("inventories asked of a peer", most_of(|session| session.asked.len()), 2 * PEERS_MAX),
            of("devices with addresses", self.seen.len(), PEERS_MAX),
            of("strangers with addresses", self.hearsay.len(), PEERS_MAX),
            of("logs pulled from a peer", self.pulls.most_of_a_session(), PULLS_PER_SESSION_MAX),
        ];
        all.extend(self.scheduler.bounded(&self.chunks));
        all
    }
}

impl Scheduler {
    fn bounded(&self, chunks: &ChunkTable) -> Vec<Bounded> {
        let most_of = |count: fn(&Source) -> u64| self.sources().map(count).max().unwrap_or(0);
        // Bounded by what is wanted when one is added; what is wanted later may be less, never more than there is.
        let candidates_max = (2 * chunks.len() as usize + CANDIDATES_SPARE) as u64;
        let of = |what, kept, most| Bounded { what, kept, most };
        vec![
            of("positions that a peer says it holds", most_of(|of| of.available.held_count()), HOLDINGS_POSITIONS_MAX),
            of("chunks to be asked of a peer", most_of(|of| of.candidates() as u64), candidates_max),
            of("requests to a peer", most_of(|of| of.requests as u64), REQUESTS_PER_PEER_MAX as u64),
            // The last request may begin just below.
            of("bytes asked of a peer", most_of(|of| of.in_flight_bytes), WINDOW_BYTES_MAX + WINDOW_BYTES_MAX / 4),
        ]
    }
}
