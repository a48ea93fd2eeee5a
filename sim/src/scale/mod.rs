//! What a pool of thousands of peers would cost: gossip, time to learn who holds what, memory.
//!
//! No library of today has 10,000 members (a vector names 256 authors, keepers are not built yet), so this is a model: the
//! rules by which inventories spread, with the sizes of real encodings and real bitmaps, on a random network. What it
//! assumes stands in [`Pool`] and in the README beside this crate; what it leaves out: chunks themselves, logs, pings.
//!
//! The rules are those of `protocol::replica`: changes are signed after a quiet second and go to every session as a delta;
//! after 30 s they are gossiped; whoever adopted a head relays it to all its sessions within 30 s, and who did not know it
//! asks for the whole inventory.

mod inventories;
mod network;
mod spread;

use holdfast_protocol::limits::{CONNECTIONS_MAX, VECTOR_AUTHORS_MAX};
use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use inventories::build;
use network::Peers;
use spread::{Change, Spread};

/// Chunks of a photo, which stay together: manifest, thumbnail, metadata, picture.
const CHUNKS_PER_PHOTO: u64 = 4;
/// The pool grows by one chunk in so many each day.
const DAILY_GROWTH: u64 = 1000;
/// Photos that one person imports at once.
const PHOTOS_PER_IMPORT: u64 = 25;
/// Changes whose spreading is played through, at most; fewer for larger pools.
const PLAYED_MAX: usize = 200;
const PLAYED_STEPS: usize = 2_000_000;

/// A pool: what is assumed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Peers, all up.
    pub peers: usize,
    /// Chunks that are deposited.
    pub chunks: u64,
    /// Peers that hold each photo.
    pub copies: usize,
    /// Times that each peer restarts in a day.
    pub restarts: u64,
}

/// What it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Of which pool.
    pub pool: Pool,
    /// Sessions of a peer, on average.
    pub sessions: f64,
    /// Inventories signed in the pool in a day, restarts among them.
    pub changes_per_day: u64,
    /// Bytes that a peer receives in a day: deltas on sessions.
    pub delta_bytes: u64,
    /// Gossip with its announcements.
    pub gossip_bytes: u64,
    /// Relayed heads.
    pub head_bytes: u64,
    /// Whole inventories of others that were asked for.
    pub inventory_bytes: u64,
    /// Heads at the beginning of each session, after restarts.
    pub greeting_bytes: u64,
    /// Seconds until half of the peers know of a new holding.
    pub learned_p50_s: f64,
    /// Seconds until 99 of 100 do.
    pub learned_p99_s: f64,
    /// Bytes of one inventory when it is sent whole.
    pub whole_bytes: u64,
    /// Bytes of memory for the inventories of all peers.
    pub memory_bytes: u64,
}

impl Cost {
    /// All that a peer receives in a day.
    #[must_use]
    pub const fn received_bytes(&self) -> u64 {
        self.delta_bytes + self.gossip_bytes + self.head_bytes + self.inventory_bytes + self.greeting_bytes
    }
}

impl Pool {
    /// Sessions that a peer has at most.
    const fn sessions_max(&self) -> usize {
        let others = self.peers - 1;
        if others < CONNECTIONS_MAX as usize { others } else { CONNECTIONS_MAX as usize }
    }

    /// Devices that import.
    fn authors(&self) -> usize {
        self.peers.min(VECTOR_AUTHORS_MAX)
    }

    fn copies(&self) -> usize {
        self.copies.min(self.peers)
    }

    /// Imports of a day, and how many peers sign a new inventory because of one.
    fn imports(&self) -> (f64, f64) {
        let photos = (self.chunks / DAILY_GROWTH / CHUNKS_PER_PHOTO) as f64;
        let others = (self.peers - 1) as f64;
        let missed = 1.0 - (self.copies() - 1) as f64 / others;
        let holders = others * (1.0 - missed.powf(PHOTOS_PER_IMPORT as f64));
        (photos / PHOTOS_PER_IMPORT as f64, 1.0 + holders)
    }

    /// Inventories signed because of imports in a day.
    fn changes_per_day(&self) -> f64 {
        let (imports, signers) = self.imports();
        imports * signers
    }

    /// Photos in one signed change.
    fn photos_per_change(&self) -> u64 {
        let (_, signers) = self.imports();
        ((PHOTOS_PER_IMPORT * self.copies() as u64) as f64 / signers).round().max(1.0) as u64
    }

    /// Plays the pool through. `memory` says how many bytes this process occupies.
    pub fn cost(&self, seed: u64, memory: &mut dyn FnMut() -> u64) -> Cost {
        let mut chance = Chance::new(seed, "scale");
        let sizes = build(self, &mut chance, memory);
        let peers = Peers::new(self.peers, self.sessions_max(), &mut chance);
        let changes = self.changes_per_day();
        let restarts = (self.peers as u64 * self.restarts) as f64;
        let is_busy = 1.0 - (-(changes + restarts) / 86_400.0 * spread::RELAY_S).exp();
        let mut holdings = Spread::new(&peers, &sizes, is_busy);
        let played = (PLAYED_STEPS / self.peers).clamp(8, PLAYED_MAX);
        for _ in 0..played {
            holdings.play(Change::Holdings, &mut chance);
        }
        let mut heads = Spread::new(&peers, &sizes, is_busy);
        for _ in 0..played {
            heads.play(Change::HeadAlone, &mut chance);
        }
        let daily = |of: fn(&spread::Received) -> u64| {
            let each = |spread: &Spread<'_>| of(spread.received()) as f64 / (played * self.peers) as f64;
            (each(&holdings) * changes + each(&heads) * restarts) as u64
        };
        let sessions = peers.sessions_mean();
        Cost {
            pool: *self,
            sessions,
            changes_per_day: (changes + restarts) as u64,
            delta_bytes: daily(|received| received.deltas),
            gossip_bytes: daily(|received| received.gossip),
            head_bytes: daily(|received| received.heads),
            inventory_bytes: daily(|received| received.inventories),
            // Both ends of each new session tell the heads of all peers that they know.
            greeting_bytes: 2 * self.restarts * (sessions * self.peers as f64 * sizes.head as f64) as u64,
            learned_p50_s: holdings.learned_s(0.50),
            learned_p99_s: holdings.learned_s(0.99),
            whole_bytes: sizes.whole,
            memory_bytes: sizes.memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(peers: usize, copies: usize) -> Cost {
        Pool { peers, chunks: 40_000, copies, restarts: 1 }.cost(1, &mut || 0)
    }

    #[test]
    fn where_everybody_has_a_session_with_everybody_deltas_are_all_that_teaches() {
        let small = cost(20, 3);
        assert_eq!((small.sessions, small.inventory_bytes), (19.0, 0));
        assert!(small.learned_p99_s < 1.2, "{}", small.learned_p99_s);
    }

    #[test]
    fn where_not_everybody_does_others_relay_within_half_a_minute_a_hop() {
        let large = cost(400, 3);
        assert!((60.0..68.0).contains(&large.sessions), "{}", large.sessions);
        assert!(large.inventory_bytes > 0);
        assert!(large.learned_p50_s > 1.2 && large.learned_p99_s < 62.0, "{large:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_table() {
        assert_eq!(cost(100, 100), cost(100, 100));
    }
}
