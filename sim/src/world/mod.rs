//! The world: an event queue in virtual milliseconds, and what every event does.
//!
//! Invariants: everything that happens is in the queue, ordered by time and then by when it was put there; all chance
//! comes from the seed; so a seed gives the same trace whenever it is run.

mod chunks;
mod drive;
mod links;
mod nodes;

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast::library::{Input, LibraryError};
use holdfast_protocol::id::{ChunkId, DeviceId};
use holdfast_protocol::message::{Declined, FetchRequest};
use holdfast_protocol::replica::{Input as ReplicaInput, LinkId, RequestId};
use holdfast_protocol::time::{Now, Timestamp, WallTime};

use crate::chance::Chance;
use crate::check::{self, Violation};
use crate::disk::Excused;
use crate::fault::{FaultClass, Faults};
use crate::metadata::FlushPoint;
use crate::network::Network;
use crate::node::Node;
use crate::options::Options;
use crate::outcome::Traffic;
use crate::trace::Trace;

/// How long the store takes for a chunk.
pub(crate) const STORE_MS: u64 = 4;

/// What will happen.
pub(crate) enum Coming {
    Frame { link: u64, to: usize, frame: Bytes },
    Gossip { from: DeviceId, to: usize, message: Bytes },
    Asked { link: u64, to: usize, request: FetchRequest },
    Answered { link: u64, to: usize, request: RequestId, chunk: ChunkId, answer: Result<Bytes, Declined> },
    AnswersEnd { link: u64, to: usize, request: RequestId },
    Completed { node: usize, run: u32, completion: Completion },
    Dialled { from: usize, to: DeviceId },
    LinkOver { link: u64 },
    Closed { link: u64, to: usize },
    Tick { node: usize, at: u64 },
    Gesture { node: usize, number: u64 },
    Fault(FaultClass),
    Crash { node: usize, down_ms: u64 },
    Restart { node: usize },
    Reunite { a: usize, b: usize },
}

/// What a node's own disk has done.
pub(crate) enum Completion {
    Done(Box<Input>),
    Flushed { point: FlushPoint, input: Box<Input> },
    Stored { link: u64, request: RequestId, chunk: ChunkId },
    Adopt,
    Walk,
    Indexed { version: u64, changes: Vec<holdfast::index::IndexChange> },
}

/// See the head of the module.
pub struct World {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Virtual milliseconds.
    pub now: u64,
    /// What the world is like.
    pub options: Options,
    seed: u64,
    pub(crate) network: Network,
    pub(crate) faults: Faults,
    queue: BTreeMap<(u64, u64), Coming>,
    sequence: u64,
    disk: Chance,
    probe: Chance,
    lengths: BTreeMap<(usize, u64, RequestId, ChunkId), u32>,
    index_until: Vec<u64>,
    ticks: (u64, usize, u32),
    pictures: u32,
    pub(crate) trace: Trace,
    violation: Option<Violation>,
    /// What was sent.
    pub traffic: Traffic,
    /// What nobody can be asked for any more.
    pub excused: Excused,
}

impl World {
    /// A world whose devices have all joined the library of the first.
    ///
    /// # Errors
    /// When a node cannot start.
    pub fn new(seed: u64, options: Options) -> Result<Self, Violation> {
        Self::traced(seed, options, Trace::silent())
    }

    /// The same, with a trace of the caller's.
    ///
    /// # Errors
    /// When a node cannot start.
    pub fn traced(seed: u64, options: Options, trace: Trace) -> Result<Self, Violation> {
        let mut world = Self {
            nodes: Vec::new(),
            now: 1000,
            seed,
            network: Network::new(Chance::new(seed, "network"), options.delay_ms, options.rate),
            faults: Faults::new(seed, &options),
            queue: BTreeMap::new(),
            sequence: 0,
            disk: Chance::new(seed, "disk"),
            probe: Chance::new(seed, "probe"),
            lengths: BTreeMap::new(),
            index_until: vec![0; options.nodes],
            ticks: (0, 0, 0),
            pictures: 0,
            trace,
            violation: None,
            traffic: Traffic::default(),
            excused: Excused::default(),
            options,
        };
        let nodes = world.options.nodes;
        let founder =
            Node::founder(seed, world.clock()).map_err(|error| Violation::failed(0, LibraryError::from(error)))?;
        world.trace.name(&founder.device_id(), 0);
        world.nodes.push(founder);
        world.start(0);
        for number in 1..nodes {
            world.join(seed, number)?;
            world.start(number);
        }
        for node in 1..nodes {
            world.push(10, Coming::Dialled { from: node, to: world.nodes[0].device_id() });
        }
        world.plan();
        world.found(Ok(()))
    }

    fn found(mut self, result: Result<(), Violation>) -> Result<Self, Violation> {
        result?;
        self.violation.take().map_or(Ok(self), Err)
    }

    /// Both clocks of every node.
    #[must_use]
    pub fn clock(&self) -> Now {
        Now { elapsed: Timestamp::from_millis(self.now), wall: WallTime(1_600_000_000_000 + self.now as i64) }
    }

    /// A hash over every effect so far, in order.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.hash()
    }

    pub(crate) fn push(&mut self, after: u64, coming: Coming) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), coming);
    }

    /// Puts the workload and the first fault of every class into the queue.
    fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            let mut chance = Chance::new(self.seed, &format!("gestures {node}"));
            for number in 0..self.options.gestures {
                let after = chance.below(self.options.faults_ms);
                if after < self.options.heal_ms && !self.options.skipped_gestures.contains(&(node, number)) {
                    self.push(after, Coming::Gesture { node, number });
                }
            }
        }
        self.plan_faults();
    }

    /// Lets everything happen that is due until `until`.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_until(&mut self, until: u64) -> Result<(), Violation> {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), coming) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(coming);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Work and faults, then healing, then agreement.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&mut self) -> Result<(), Violation> {
        self.run_watched(u64::MAX, &mut |_| ())
    }

    /// The same, while `watch` looks at the world after every `step_ms`: nothing comes from looking.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_watched(&mut self, step_ms: u64, watch: &mut dyn FnMut(&Self)) -> Result<(), Violation> {
        let heal_at = self.now + self.options.heal_ms;
        while self.now < heal_at {
            self.run_until(self.now.saturating_add(step_ms).min(heal_at))?;
            watch(self);
        }
        self.trace.note(self.now, None, format_args!("faults stop"));
        self.heal()?;
        let end = self.now + self.options.converge_ms;
        let mut still_apart = check::converged::check(self);
        while still_apart.is_err() && self.now < end {
            self.run_until(self.now + 500)?;
            watch(self);
            still_apart = check::converged::check(self);
        }
        still_apart?;
        check::readable::check(self)?;
        check::equal::check(self)?;
        check::folders::check(self)
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Frame { link, to, frame } => self.frame_arrives(link, to, &frame),
            Coming::Gossip { from, to, message } => self.input(to, ReplicaInput::Gossiped { from, body: message }),
            Coming::Asked { link, to, request } => {
                if self.network.alive(link).is_some() {
                    self.input(to, ReplicaInput::FetchRequested { link: LinkId(link), request });
                }
            }
            Coming::Answered { link, to, request, chunk, answer } => {
                self.answer_arrives(link, to, request, chunk, answer);
            }
            Coming::AnswersEnd { link, to, request } => {
                if self.network.alive(link).is_some() {
                    // The last chunk is stored and reported before its request ends.
                    let ended = Input::Replica(ReplicaInput::FetchEnded { link: LinkId(link), request });
                    self.complete(to, STORE_MS + 1, Completion::Done(Box::new(ended)));
                }
            }
            Coming::Completed { node, run, completion } => {
                if self.nodes[node].run == run && self.nodes[node].library.is_some() {
                    self.completed(node, completion);
                }
            }
            Coming::Dialled { from, to } => self.dialled(from, to),
            Coming::LinkOver { link } => self.cut(link),
            Coming::Closed { link, to } => self.input(to, ReplicaInput::Disconnected { link: LinkId(link) }),
            Coming::Tick { node, at } => self.tick(node, at),
            Coming::Gesture { node, number } => self.gesture(node, number),
            Coming::Fault(class) => self.fault(class),
            Coming::Crash { node, down_ms } => self.crash(node, down_ms),
            Coming::Restart { node } => self.start(node),
            Coming::Reunite { a, b } => drop(self.network.separate(a, b, false)),
        }
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }
}
