//! What a run is like: drawn from its seed, so that a batch of seeds is a swarm of different worlds.

use crate::chance::Chance;

/// See the head of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Devices of the library.
    pub nodes: usize,
    /// Virtual milliseconds of work and faults; then everything heals.
    pub faults_ms: u64,
    /// Virtual milliseconds from then until everything has to agree.
    pub converge_ms: u64,
    /// What happens in each folder, about.
    pub gestures: u64,
    /// The delay of a link at least; at most about twice that.
    pub delay_ms: u64,
    /// Sealed bytes per millisecond and direction of a link.
    pub rate: u64,
    /// How long a flush of metadata takes at most.
    pub flush_ms: u64,
    /// How long an update of the index takes at most.
    pub index_ms: u64,
    /// Whether nodes crash.
    pub crashes: bool,
    /// Whether a crash likes to come right behind an acknowledgement.
    pub crashes_behind_acknowledgements: bool,
    /// Whether links break.
    pub cuts: bool,
    /// Whether nodes are separated for a while.
    pub separations: bool,
    /// Whether gossip is lost and doubled.
    pub lossy_gossip: bool,
    /// Whether an index is lost.
    pub lost_indexes: bool,
}

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "options");
        Self {
            nodes: chance.between(2, 5) as usize,
            faults_ms: chance.between(40_000, 150_000),
            converge_ms: 900_000,
            gestures: chance.between(6, 18),
            delay_ms: chance.between(1, 120),
            rate: chance.between(40, 4000),
            flush_ms: chance.between(2, 800),
            index_ms: chance.between(2, 4000),
            crashes: chance.one_in(2),
            crashes_behind_acknowledgements: chance.one_in(2),
            cuts: chance.one_in(2),
            separations: chance.one_in(2),
            lossy_gossip: chance.one_in(2),
            lost_indexes: chance.one_in(3),
        }
    }

    /// A world of `nodes` without faults.
    #[must_use]
    pub const fn calm(nodes: usize) -> Self {
        Self {
            nodes,
            faults_ms: 30_000,
            converge_ms: 300_000,
            gestures: 8,
            delay_ms: 5,
            rate: 10_000,
            flush_ms: 10,
            index_ms: 10,
            crashes: false,
            crashes_behind_acknowledgements: false,
            cuts: false,
            separations: false,
            lossy_gossip: false,
            lost_indexes: false,
        }
    }
}
