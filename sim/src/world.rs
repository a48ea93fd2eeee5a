//! The world: an event queue in virtual milliseconds, and what every event does.
//!
//! Invariants: everything that happens is in the queue, ordered by time and then by when it was put there; all chance
//! comes from the seed; so a seed gives the same trace whenever it is run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use holdfast::library::{Effect, Input, LibraryError};
use holdfast_protocol::id::{ChunkId, DeviceId};
use holdfast_protocol::message::{Declined, FRAME_HEADER_BYTES, FetchRequest};
use holdfast_protocol::pairing::JoinRequest;
use holdfast_protocol::replica::{self, Answer, FetchOutcome, Input as ReplicaInput, LinkId, RequestId};
use holdfast_protocol::sealing::chunk_id;
use holdfast_protocol::time::{Now, Timestamp, WallTime};

use crate::chance::Chance;
use crate::check::{self, Violation};
use crate::fault::{FaultClass, Faults};
use crate::index::VirtualIndex;
use crate::metadata::FlushPoint;
use crate::network::Network;
use crate::node::Node;
use crate::options::Options;
use crate::outcome::Traffic;
use crate::trace::Trace;
use crate::workload::next_gesture;

/// How long the store takes for a chunk.
const STORE_MS: u64 = 4;
/// Ticks of one node at one moment: more is a circle.
const TICKS_AT_ONCE_MAX: u32 = 50;
const LINK_OVER_MS: u64 = 1;

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
    Stored { chunk: ChunkId, bytes: Bytes, input: Box<Input> },
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

    /// The pairing of two devices, with the code that does it.
    fn join(&mut self, seed: u64, number: usize) -> Result<(), Violation> {
        let now = self.clock();
        let (key, mut chance) = Node::stranger(seed, number);
        let inviter = &mut self.nodes[0];
        let inviter_key = inviter.device().clone();
        let Some(library) = &mut inviter.library else { return Ok(()) };
        let failed = |error| Violation::failed(0, error);
        let hour = Duration::from_secs(3600);
        let ticket = library.invite(now, &inviter_key, &[], &chance.seed(), hour).map_err(failed)?;
        let request = JoinRequest::new(&ticket, &key, &format!("node {number}"));
        let admitted = library.admit(now, &inviter_key, &[], &request, &chance.seed()).map_err(failed)?;
        let (answer, effects) = admitted;
        // The driver flushes before it answers.
        inviter.metadata.complete_flush(inviter.metadata.begin_flush());
        self.perform(0, effects);
        let refused = |what: String| Violation::Joining { node: number, what };
        let admission = answer.map_err(|error| refused(error.to_string()))?;
        let joined = ticket.accept(&key, &request, &admission).map_err(|error| refused(error.to_string()))?;
        let node = Node::admitted(number, (key, chance), &ticket, joined)
            .map_err(|error| Violation::failed(number, error.into()))?;
        self.trace.name(&node.device_id(), number);
        self.nodes.push(node);
        Ok(())
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

    fn complete(&mut self, node: usize, after: u64, completion: Completion) {
        let run = self.nodes[node].run;
        self.push(after, Coming::Completed { node, run, completion });
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

    fn gesture(&mut self, node: usize, number: u64) {
        let of = &self.nodes[node];
        // A folder that changes while the node is down is seen when it starts: as if it changed then.
        if of.library.is_none() {
            return self.push(1000, Coming::Gesture { node, number });
        }
        // A chance of its own: leaving out one gesture leaves the others as they were.
        let mut chance = Chance::new(self.seed, &format!("gesture {node} {number}"));
        let gesture = next_gesture(&mut chance, &of.folder, &mut self.pictures);
        self.trace.note(self.now, Some(node), format_args!("gesture {node}:{number}: {gesture:?}"));
        let now = self.clock();
        for input in self.nodes[node].take_gesture(gesture, now) {
            self.handle(node, input);
        }
    }

    /// Starts a node that is down.
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].library.is_some() {
            return;
        }
        let now = self.clock();
        match self.nodes[node].start(now) {
            Ok(effects) => self.perform(node, effects),
            Err(error) => return self.fail(Violation::failed(node, error)),
        }
        self.trace.note(now.elapsed.as_millis(), Some(node), format_args!("is up"));
        if let Err(violation) = check::acknowledged::check(&self.nodes[node]) {
            return self.fail(violation);
        }
        for input in self.nodes[node].hand_over_again() {
            self.handle(node, input);
        }
    }

    /// A node's machine dies, and starts again later.
    pub(crate) fn crash(&mut self, node: usize, down_ms: u64) {
        if self.nodes[node].library.is_none() {
            return;
        }
        self.trace.note(self.now, Some(node), format_args!("crashes, is down for {down_ms} ms"));
        self.nodes[node].crash();
        self.index_until[node] = 0;
        self.lengths.retain(|(of, ..), _| *of != node);
        for link in self.network.standing(Some(node)) {
            self.cut(link);
        }
        self.push(down_ms, Coming::Restart { node });
    }

    pub(crate) fn lose_index(&mut self, node: usize) {
        // Only a stopped node starts without its index.
        self.crash(node, 500);
        self.nodes[node].index = VirtualIndex::default();
    }

    /// Ends a link; both ends hear of it soon.
    pub(crate) fn cut(&mut self, link: u64) {
        for to in self.network.cut(link).into_iter().flatten() {
            self.push(LINK_OVER_MS, Coming::Closed { link, to });
        }
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn input(&mut self, node: usize, input: ReplicaInput) {
        self.handle(node, Input::Replica(input));
    }

    fn handle(&mut self, node: usize, input: Input) {
        let now = self.clock();
        match self.nodes[node].handle(now, input) {
            Ok(effects) => self.perform(node, effects),
            Err(error) => self.fail(Violation::failed(node, error)),
        }
    }

    /// Does what the real driver does.
    fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            let to = if self.trace.is_read() { self.addressee(node, &effect) } else { None };
            self.trace.effect(self.now, node, to, &effect);
            match effect {
                Effect::Replica(effect) => self.perform_replica(node, effect),
                Effect::ReadChunk { task, chunk } => {
                    let read = self.nodes[node].read_chunk(task, &chunk);
                    self.complete(node, STORE_MS, Completion::Done(Box::new(read)));
                }
                Effect::Index { version, changes } => {
                    let at = self.now + 1 + self.disk.below(self.options.index_ms);
                    self.index_until[node] = self.index_until[node].max(at);
                    let after = self.index_until[node] - self.now;
                    self.nodes[node].index_asked = version;
                    self.complete(node, after, Completion::Indexed { version, changes });
                }
                Effect::Flush(task) => self.flush(node, Input::Flushed(task)),
                Effect::Catalogued(imports) => {
                    self.nodes[node].take_acknowledgement(&imports);
                    self.acknowledged(node);
                }
                Effect::Event(_) => {}
            }
        }
        self.schedule_tick(node);
    }

    /// The node that an effect is about, for the trace.
    fn addressee(&mut self, node: usize, effect: &Effect) -> Option<usize> {
        use replica::Effect as Do;
        let Effect::Replica(effect) = effect else { return None };
        let (Do::Send { link, .. }
        | Do::Fetch { link, .. }
        | Do::Serve { link, .. }
        | Do::Disconnect { link, .. }
        | Do::Admitted { link, .. }) = effect
        else {
            return None;
        };
        self.network.other_end(link.0, node)
    }

    fn acknowledged(&mut self, node: usize) {
        if self.probe.one_in(4) {
            let now = self.clock();
            if let Err(violation) = check::acknowledged::check_after_crash(&self.nodes[node], now) {
                self.fail(violation);
            }
        }
        self.fault_behind_acknowledgement(node);
    }

    fn flush(&mut self, node: usize, input: Input) {
        let point = self.nodes[node].metadata.begin_flush();
        let after = 1 + self.disk.below(self.options.flush_ms);
        self.complete(node, after, Completion::Flushed { point, input: Box::new(input) });
    }

    fn completed(&mut self, node: usize, completion: Completion) {
        match completion {
            Completion::Done(input) => self.handle(node, *input),
            Completion::Flushed { point, input } => {
                self.nodes[node].metadata.complete_flush(point);
                self.handle(node, *input);
            }
            Completion::Stored { chunk, bytes, input } => {
                self.nodes[node].chunks.insert(chunk, bytes);
                self.handle(node, *input);
            }
            Completion::Indexed { version, changes } => {
                self.nodes[node].index.apply(version, changes);
                self.handle(node, Input::Indexed(version));
            }
        }
    }

    fn perform_replica(&mut self, node: usize, effect: replica::Effect) {
        use replica::Effect as Do;
        match effect {
            Do::Send { link, frame } => {
                let Some(to) = self.network.other_end(link.0, node) else { return };
                self.traffic.control_bytes += frame.len() as u64;
                let at = self.network.frame_arrives(self.now, link.0, node).unwrap_or(self.now);
                self.push(at - self.now, Coming::Frame { link: link.0, to, frame });
            }
            Do::Disconnect { link, .. } => {
                let at = self.network.frames_end(link.0, node).unwrap_or(self.now).max(self.now);
                self.push(at - self.now, Coming::LinkOver { link: link.0 });
            }
            Do::Dial { peer } => {
                let after = self.network.delay();
                self.push(after, Coming::Dialled { from: node, to: peer });
            }
            Do::Gossip(message) => self.gossip(node, &message),
            Do::Fetch { link, request, urgent, chunks } => {
                let Some(to) = self.network.other_end(link.0, node) else { return };
                for wanted in &chunks {
                    self.lengths.insert((node, link.0, request, wanted.chunk), wanted.length);
                }
                let chunks = chunks.iter().map(|wanted| wanted.chunk).collect();
                let request = FetchRequest { request: request.0, urgent, chunks };
                let after = self.network.delay();
                self.push(after, Coming::Asked { link: link.0, to, request });
            }
            Do::CancelFetch { link, request } => {
                self.lengths.retain(|(of, on, id, _), _| (*of, *on, *id) != (node, link.0, request));
                let ended = Input::Replica(ReplicaInput::FetchEnded { link, request });
                self.complete(node, STORE_MS + 1, Completion::Done(Box::new(ended)));
            }
            Do::Serve { link, request, answers } => self.serve(node, link, request, answers),
            Do::Sync(task) => self.flush(node, Input::Replica(ReplicaInput::Synced(task))),
            // Every node is found by its name alone.
            Do::AddressesLearned { .. }
            | Do::Admitted { .. }
            | Do::Event(_)
            | Do::Accepted(_)
            | Do::HoldingsChanged { .. } => {}
        }
    }

    fn gossip(&mut self, node: usize, message: &Bytes) {
        let from = self.nodes[node].device_id();
        let links = self.network.standing(Some(node));
        let linked: BTreeSet<usize> = links.into_iter().filter_map(|link| self.network.other_end(link, node)).collect();
        for to in linked {
            self.traffic.gossip_bytes += message.len() as u64;
            for _ in 0..self.copies_of_gossip() {
                let after = self.network.delay() + self.network.gossip_delay();
                self.push(after, Coming::Gossip { from, to, message: message.clone() });
            }
        }
    }

    fn serve(&mut self, node: usize, link: LinkId, request: RequestId, answers: Vec<(ChunkId, Answer)>) {
        let Some(to) = self.network.other_end(link.0, node) else { return };
        let mut last = self.now;
        for (chunk, answer) in answers {
            let stored = self.nodes[node].chunks.get(&chunk).cloned();
            let answer = match (answer, stored) {
                (Answer::Send, Some(bytes)) => Ok(bytes),
                (Answer::Send | Answer::NotHeld, _) => Err(Declined::NotHeld),
                (Answer::Elsewhere(peer), _) => Err(Declined::Elsewhere(peer)),
                (Answer::Busy, _) => Err(Declined::Busy),
            };
            let bytes = answer.as_ref().map_or(0, Bytes::len) as u32;
            let Some(at) = self.network.chunk_arrives(self.now, link.0, node, u64::from(bytes)) else { return };
            self.traffic.chunk_bytes += u64::from(bytes);
            last = at;
            if answer.is_ok() {
                let served = Input::Replica(ReplicaInput::Served { link, request, chunk, bytes });
                self.complete(node, at - self.now, Completion::Done(Box::new(served)));
            }
            self.push(at - self.now, Coming::Answered { link: link.0, to, request, chunk, answer });
        }
        self.push(last - self.now, Coming::AnswersEnd { link: link.0, to, request });
        let ended = Input::Replica(ReplicaInput::ServeEnded { link, request });
        self.complete(node, last - self.now, Completion::Done(Box::new(ended)));
    }

    fn answer_arrives(
        &mut self,
        link: u64,
        to: usize,
        request: RequestId,
        chunk: ChunkId,
        answer: Result<Bytes, Declined>,
    ) {
        if self.network.alive(link).is_none() {
            return;
        }
        let Some(length) = self.lengths.remove(&(to, link, request, chunk)) else { return };
        let fetched =
            |outcome| Box::new(Input::Replica(ReplicaInput::Fetched { link: LinkId(link), request, chunk, outcome }));
        let completion = match answer {
            Err(declined) => Completion::Done(fetched(FetchOutcome::Declined(declined))),
            Ok(bytes) if bytes.len() as u32 != length || chunk_id(&bytes) != chunk => {
                Completion::Done(fetched(FetchOutcome::Corrupt))
            }
            Ok(bytes) => Completion::Stored { chunk, bytes, input: fetched(FetchOutcome::Stored) },
        };
        self.complete(to, STORE_MS, completion);
    }

    fn frame_arrives(&mut self, link: u64, to: usize, frame: &Bytes) {
        let Some(of) = self.network.alive(link) else { return };
        let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return };
        let side = usize::from(of.ends[0] != to);
        match of.gates[side].admit(header) {
            Ok(header) => {
                let body = frame.slice(FRAME_HEADER_BYTES..);
                self.input(to, ReplicaInput::Received { link: LinkId(link), tag: header.tag, body });
            }
            Err(_) => self.cut(link),
        }
    }

    fn dialled(&mut self, from: usize, to: DeviceId) {
        if self.nodes[from].library.is_none() {
            return;
        }
        let target = self.nodes.iter().position(|node| node.device_id() == to && node.library.is_some());
        let Some(target) = target.filter(|target| self.network.is_reachable(from, *target)) else {
            return self.input(from, ReplicaInput::DialFailed { peer: to });
        };
        let link = LinkId(self.network.connect(from, target));
        let dialler = self.nodes[from].device_id();
        self.input(from, ReplicaInput::Connected { link, peer: to, outbound: true });
        self.input(target, ReplicaInput::Connected { link, peer: dialler, outbound: false });
    }

    fn schedule_tick(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        let Some(deadline) = of.library.as_ref().and_then(|library| library.next_deadline()) else { return };
        let at = deadline.as_millis().max(self.now);
        if of.tick_at.is_none_or(|scheduled| at < scheduled) {
            of.tick_at = Some(at);
            self.push(at - self.now, Coming::Tick { node, at });
        }
    }

    fn tick(&mut self, node: usize, at: u64) {
        if self.nodes[node].tick_at != Some(at) {
            return;
        }
        self.nodes[node].tick_at = None;
        let count = if (self.ticks.0, self.ticks.1) == (at, node) { self.ticks.2 + 1 } else { 0 };
        self.ticks = (at, node, count);
        if count > TICKS_AT_ONCE_MAX {
            return self.fail(Violation::Circle { node, at });
        }
        let due = self.nodes[node].library.as_ref().and_then(|library| library.next_deadline());
        if due.is_some_and(|due| due.as_millis() <= self.now) {
            self.input(node, ReplicaInput::Tick);
        } else {
            self.schedule_tick(node);
        }
    }
}
