//! The world: an event queue in virtual milliseconds, and what every event does.
//!
//! Invariants: everything that happens is in the queue, ordered by time and then by when it was put there; all chance
//! comes from the seed; so a seed gives the same trace whenever it is run.

mod chunks;
mod drive;
mod gossip;
mod host;
mod joining;
mod links;
mod nodes;
mod removal;
mod stop;

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_library::{Input, LibraryError};
use holdfast_protocol::id::{ChunkId, DeviceId};
use holdfast_protocol::message::{Declined, FetchRequest};
use holdfast_protocol::replica::{Input as ReplicaInput, LinkId, RequestId};
use holdfast_protocol::time::Now;
use holdfast_protocol::verified;

use crate::chance::{Chance, Streams};
use crate::check::{self, Violation};
use crate::disk::{Backup, Death, Excused};
use crate::fault::{FaultClass, Faults};
use crate::liar::{Overheard, Shadow};
use crate::metadata::FlushPoint;
use crate::network::{Network, Quality};
use crate::node::Node;
use crate::options::Options;
use crate::outcome::Traffic;
use crate::trace::Trace;

use gossip::News;
use host::Host;

/// How long the store takes for a chunk.
pub(crate) const STORE_MS: u64 = 4;

/// What will happen.
pub(crate) enum Coming {
    Frame { link: u64, to: usize, frame: Bytes },
    Gossip { link: u64, to: usize, news: News, is_again: bool },
    Asked { link: u64, to: usize, request: FetchRequest },
    Answered { link: u64, to: usize, request: RequestId, chunk: ChunkId, answer: Result<Bytes, Declined> },
    AnswersEnd { link: u64, to: usize, request: RequestId },
    SendNext { link: u64, from: usize },
    Arriving { link: u64, to: usize },
    SlotFree { link: u64, at: usize },
    Completed { node: usize, run: u32, completion: Completion },
    Dialled { from: usize, run: u32, to: DeviceId },
    DialFailed { from: usize, run: u32, to: DeviceId },
    LinkOver { link: u64 },
    Closed { link: u64, to: usize },
    Tick { node: usize, at: u64 },
    Gesture { node: usize, number: u64 },
    Fault(FaultClass),
    Crash { node: usize, death: Death, down_ms: u64 },
    Restart { node: usize, run: u32 },
    Resume { node: usize, run: u32, clock_stood_still_ms: u64 },
    Separated { a: usize, b: usize, for_ms: u64 },
    DiskWorks { node: usize },
    Restore { node: usize, backup: Box<Backup> },
    Join { node: usize },
    Removed { node: usize, by: usize, goes_on_ms: u64 },
    TakenOff { node: usize },
}

impl Coming {
    /// The node whose own processor has to run for this.
    const fn at_node(&self) -> Option<usize> {
        match self {
            Self::Frame { to, .. }
            | Self::Gossip { to, .. }
            | Self::Asked { to, .. }
            | Self::Answered { to, .. }
            | Self::AnswersEnd { to, .. }
            | Self::Arriving { to, .. }
            | Self::Closed { to, .. } => Some(*to),
            Self::SlotFree { at, .. } => Some(*at),
            Self::SendNext { from, .. } | Self::Dialled { from, .. } | Self::DialFailed { from, .. } => Some(*from),
            Self::Completed { node, .. } | Self::Tick { node, .. } | Self::Gesture { node, .. } => Some(*node),
            Self::LinkOver { .. }
            | Self::Fault(_)
            | Self::Crash { .. }
            | Self::Restart { .. }
            | Self::Resume { .. }
            | Self::Separated { .. }
            | Self::DiskWorks { .. }
            | Self::Restore { .. }
            | Self::Join { .. }
            | Self::Removed { .. }
            | Self::TakenOff { .. } => None,
        }
    }
}

/// What a node's own disk has done.
pub(crate) enum Completion {
    Done(Box<Input>),
    Flushed { point: FlushPoint, input: Box<Input> },
    Stored { link: u64, request: RequestId, chunk: ChunkId },
    Deposited(Vec<ChunkId>),
    Adopt,
    Walk,
    Indexed { point: FlushPoint, version: u64, changes: Vec<holdfast_library::index::IndexChange> },
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
    /// How long each node's disk takes.
    delays: Streams<usize>,
    /// How late each node's driver notices that a request is answered.
    slots: Streams<usize>,
    /// Which acknowledgements of each node are looked at behind a crash.
    probes: Streams<usize>,
    pub(crate) hosts: Vec<Host>,
    numbers: BTreeMap<DeviceId, usize>,
    /// Copies that run, by the node whose machine was copied.
    pub(crate) copies: BTreeMap<usize, usize>,
    /// Devices that are no more: their disk was lost, they were thrown away, removed, or have left.
    pub(crate) departed: Vec<DeviceId>,
    news: u64,
    /// What nodes were handed so far.
    inputs: u64,
    /// When faults stop.
    heal_at: u64,
    ticks: (u64, usize, u32),
    /// Pictures that somebody has made so far.
    pub(crate) pictures: Vec<u32>,
    pub(crate) overheard: Overheard,
    pub(crate) signed: check::versions::Signed,
    unasked: check::unasked::Unasked,
    /// When it is looked next who stands still.
    look_at: u64,
    /// Whether the liar has said anything false of what it holds.
    pub(crate) has_lied: bool,
    /// Whether the liar kept to itself what nobody can ask for.
    pub(crate) has_withheld: bool,
    /// Logs that the liar writes beside its own.
    pub(crate) shadows: BTreeMap<FaultClass, Shadow>,
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
        // Every node verifies what all others say.
        verified::remember();
        let mut world = Self {
            nodes: Vec::new(),
            now: 1000,
            seed,
            network: Network::new(seed, Quality { delay_ms: options.delay_ms, rate: options.rate }),
            faults: Faults::new(seed, &options),
            queue: BTreeMap::new(),
            sequence: 0,
            delays: Streams::new(seed, "disk"),
            slots: Streams::new(seed, "slot"),
            probes: Streams::new(seed, "probe"),
            hosts: (0..options.nodes).map(|_| Host::default()).collect(),
            numbers: BTreeMap::new(),
            copies: BTreeMap::new(),
            departed: Vec::new(),
            news: 0,
            inputs: 0,
            heal_at: 1000 + options.heal_ms,
            ticks: (0, 0, 0),
            pictures: Vec::new(),
            overheard: Overheard::default(),
            signed: check::versions::Signed::default(),
            unasked: check::unasked::Unasked::default(),
            look_at: 0,
            has_lied: false,
            has_withheld: false,
            shadows: BTreeMap::new(),
            trace,
            violation: None,
            traffic: Traffic::default(),
            excused: Excused::default(),
            options,
        };
        let nodes = world.options.nodes;
        for node in 0..nodes {
            world.equip(node);
        }
        let founder =
            Node::founder(seed, world.clock(0)).map_err(|error| Violation::failed(0, LibraryError::from(error)))?;
        world.settle(founder);
        world.start(0);
        for number in 1..nodes {
            if let Some(mut chance) = world.faults.strike(FaultClass::JoinLate) {
                world.settle(Node::waiting(seed, number, 0));
                let after = chance.below(world.options.faults_ms);
                world.wait_to_join(number, 0, after);
                continue;
            }
            world.join(number)?;
            world.start(number);
        }
        for from in world.members_but_the_first() {
            let run = world.nodes[from].run;
            world.push(10, Coming::Dialled { from, run, to: world.nodes[0].device_id() });
        }
        world.plan();
        world.found(Ok(()))
    }

    fn found(mut self, result: Result<(), Violation>) -> Result<Self, Violation> {
        result?;
        self.violation.take().map_or(Ok(self), Err)
    }

    fn members_but_the_first(&self) -> Vec<usize> {
        (1..self.nodes.len()).filter(|node| self.is_member(*node)).collect()
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    fn settle(&mut self, node: Node) {
        self.trace.name(&node.device_id(), node.number);
        self.numbers.insert(node.device_id(), node.number);
        self.nodes.push(node);
    }

    /// What a node's two clocks show.
    #[must_use]
    pub fn clock(&self, node: usize) -> Now {
        self.hosts.get(node).map(|machine| machine.clock.at(self.now)).unwrap_or_default()
    }

    /// The moment at which faults stop: later than the options say when time has leapt.
    #[must_use]
    pub const fn faults_stop_at(&self) -> u64 {
        self.heal_at
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
                let after = self.options.moment(&mut chance);
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
    pub fn run_until(&mut self, mut until: u64) -> Result<(), Violation> {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), coming) = entry.remove_entry();
            self.now = self.now.max(at);
            let before = self.now;
            self.look_for_idle();
            self.happen(coming);
            // Time may have leapt.
            until += self.now - before;
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
        while self.now < self.heal_at {
            self.run_until(self.now.saturating_add(step_ms).min(self.heal_at))?;
            watch(self);
        }
        self.trace.note(self.now, None, format_args!("faults stop"));
        self.heal()?;
        let (healed_at, sent) = (self.now, self.traffic.chunk_bytes);
        let mut still_apart = check::converged::check(self);
        while still_apart.is_err()
            && self.now < healed_at + check::converged::bound_ms(self, self.traffic.chunk_bytes - sent)
        {
            self.run_until(self.now + 500)?;
            watch(self);
            still_apart = check::converged::check(self);
            if still_apart.is_ok() {
                // Rot that was found before a crash may be believed again after it: the next scrub finds it.
                (0..self.nodes.len()).for_each(|node| self.scrub(node));
                still_apart = check::converged::check(self);
            }
        }
        still_apart?;
        check::readable::check(self)?;
        // Reading everything takes long: one node stands for all.
        let members: Vec<&Node> = self.nodes.iter().filter(|node| self.is_member(node.number)).collect();
        check::served::check_scrubbed(members[(self.seed % members.len() as u64) as usize])?;
        check::inventory::check(self)?;
        check::forks::check(self)?;
        check::removed::check(self)?;
        check::unknown::check(self)?;
        check::equal::check(self)?;
        check::edits::check(self)?;
        (0..self.nodes.len()).try_for_each(|node| check::copies::check(self, node))?;
        check::folders::check(self)
    }

    pub(crate) fn happen(&mut self, coming: Coming) {
        let asleep = coming.at_node().and_then(|node| self.hosts.get_mut(node)?.held.as_mut());
        if let Some(held) = asleep {
            return held.push(coming);
        }
        match coming {
            Coming::Frame { link, to, frame } => self.frame_arrives(link, to, &frame),
            Coming::Gossip { link, to, news, is_again } => self.gossip_arrives(link, to, news, is_again),
            Coming::Asked { link, to, request } => self.asked(link, to, request),
            Coming::Answered { link, to, request, chunk, answer } => {
                self.answer_arrives(link, to, request, chunk, answer);
            }
            Coming::AnswersEnd { link, to, request } => self.answers_end(LinkId(link), to, request),
            Coming::Completed { node, run, completion } => {
                if self.nodes[node].run == run && self.nodes[node].library.is_some() {
                    self.completed(node, completion);
                }
            }
            Coming::SendNext { link, from } => self.send_next(link, from),
            Coming::Arriving { link, to } => {
                if self.network.alive(link).is_some() {
                    self.input(to, ReplicaInput::Arriving { link: LinkId(link) });
                }
            }
            Coming::SlotFree { link, at } => self.slot_free(link, at),
            Coming::Dialled { from, run, to } => self.dialled(from, run, to),
            Coming::DialFailed { from, run, to } => self.dial_failed(from, run, to),
            Coming::LinkOver { link } => self.cut(link),
            Coming::Closed { link, to } => self.input(to, ReplicaInput::Disconnected { link: LinkId(link) }),
            Coming::Tick { node, at } => self.tick(node, at),
            Coming::Gesture { node, number } => self.gesture(node, number),
            Coming::Fault(class) => self.fault(class),
            Coming::Crash { node, death, down_ms } => _ = self.crash(node, death, down_ms),
            Coming::Restart { node, run } => {
                if self.nodes[node].run == run {
                    self.start(node);
                }
            }
            Coming::Resume { node, run, clock_stood_still_ms } => {
                if self.nodes[node].run == run {
                    self.resume(node, clock_stood_still_ms);
                }
            }
            Coming::Separated { a, b, for_ms } => self.separate(a, b, for_ms),
            Coming::DiskWorks { node } => self.disk_works(node),
            Coming::Restore { node, backup } => self.restore(node, &backup),
            Coming::Join { node } => self.go_on_joining(node),
            Coming::Removed { node, by, goes_on_ms } => self.remove(node, by, goes_on_ms),
            Coming::TakenOff { node } => self.take_off(node),
        }
    }

    /// Time leaps while nothing runs: everything that is to come, and the end of faults, comes so much later.
    pub(crate) fn leap(&mut self, by_ms: u64) {
        self.now += by_ms;
        self.heal_at += by_ms;
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().map(|((at, sequence), coming)| ((at + by_ms, sequence), coming)).collect();
        self.network.leap();
        self.unasked = check::unasked::Unasked::default();
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }
}
