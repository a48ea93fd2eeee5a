//! One connection between two nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::message::{FetchRequest, Gate};
use holdfast_protocol::replica::{Answer, RequestId};

/// How fast a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// How long something is on its way, at least; at most about twice that.
    pub delay_ms: u64,
    /// Bytes per millisecond and direction.
    pub rate: u64,
}

impl Quality {
    /// A modem on a bad telephone line.
    pub const MODEM: Self = Self { delay_ms: 300, rate: 5 };
}

/// Answers of one request that wait for their turn.
#[derive(Debug)]
pub struct Answering {
    /// The asker's request.
    pub request: RequestId,
    /// What is still to be sent.
    pub answers: VecDeque<(ChunkId, Answer)>,
}

/// See the head of the module.
#[derive(Debug)]
pub struct Link {
    /// The nodes at its ends, the dialling one first.
    pub ends: [usize; 2],
    /// What each end accepts.
    pub gates: [Gate; 2],
    /// Whether each end takes the other for a member: only then gossip passes.
    pub is_admitted: [bool; 2],
    /// What each end sends one after the other.
    pub answering: [VecDeque<Answering>; 2],
    /// Whether each end is sending a chunk.
    pub is_sending: [bool; 2],
    /// How many requests each end answers, as far as its driver knows.
    pub serving: [usize; 2],
    /// Requests that wait in the stream until each end answers fewer.
    pub waiting: [VecDeque<FetchRequest>; 2],
    /// What each end asked for.
    pub asked: [BTreeMap<RequestId, BTreeSet<ChunkId>>; 2],
    /// Requests that each end has given up: what still comes of them is kept.
    pub given_up: [BTreeSet<RequestId>; 2],
    pub(super) quality: Quality,
    pub(super) frames_until: [u64; 2],
    pub(super) chunks_until: [u64; 2],
}

impl Link {
    pub(super) fn new(ends: [usize; 2], quality: Quality) -> Self {
        Self {
            ends,
            gates: Default::default(),
            is_admitted: [false; 2],
            answering: Default::default(),
            is_sending: [false; 2],
            serving: [0; 2],
            waiting: Default::default(),
            asked: Default::default(),
            given_up: Default::default(),
            quality: Quality { rate: quality.rate.max(1), ..quality },
            frames_until: [0; 2],
            chunks_until: [0; 2],
        }
    }

    /// Which end `node` is.
    #[must_use]
    pub fn side(&self, node: usize) -> usize {
        usize::from(self.ends[0] != node)
    }
}
