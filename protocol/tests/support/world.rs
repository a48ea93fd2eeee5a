//! The world: an event queue in virtual milliseconds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;

use bytes::Bytes;
use holdfast_protocol::deposit::DepositedChunk;
use holdfast_protocol::id::{ChunkId, DeviceId};
use holdfast_protocol::inventory::Holdings;
use holdfast_protocol::keys::RootKey;
use holdfast_protocol::message::{Declined, FRAME_HEADER_BYTES, FetchRequest, Gate, Message};
use holdfast_protocol::position::Run;
use holdfast_protocol::replica::{
    Answer, DisconnectReason, Effect, Event, FetchOutcome, Input, LinkId, Replica, RequestId, TaskId,
};
use holdfast_protocol::time::{Now, Timestamp, WallTime};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::memory::Memory;
use super::{EPOCH, config, deposited, root, run};

/// What will happen.
#[derive(Debug, Clone)]
enum Coming {
    Frame { link: u64, to: usize, frame: Bytes },
    Gossip { from: DeviceId, to: usize, message: Bytes },
    Asked { link: u64, to: usize, request: FetchRequest },
    Answered { link: u64, to: usize, request: RequestId, chunk: ChunkId, answer: Result<Bytes, Declined> },
    AnswersEnd { link: u64, to: usize, request: RequestId },
    Settled { link: u64, to: usize, run: u8, request: RequestId, chunk: ChunkId, outcome: FetchOutcome },
    Flushed { node: usize, run: u8, task: TaskId, batches: usize },
    Dialled { from: usize, to: DeviceId },
    Closed { link: u64, to: usize },
    Tick { node: usize, at: u64 },
}

#[derive(Debug, Clone)]
struct Link {
    ends: [usize; 2],
    gates: [Gate; 2],
    alive: bool,
    /// When the last frame and the last chunk byte sent in each direction arrive.
    frames_until: [u64; 2],
    chunks_until: [u64; 2],
}

/// What a node does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It sends other bytes than a chunk's.
    WrongBytes,
    /// It says of every chunk that it has not got it.
    NotHeld,
    /// It answers nothing: no envelopes, no inventory, no chunk.
    NoAnswer,
}

pub(crate) struct Node {
    pub(crate) replica: Option<Replica<Memory>>,
    pub(crate) memory: Memory,
    pub(crate) root: Rc<RootKey>,
    pub(crate) store: BTreeMap<ChunkId, Bytes>,
    pub(crate) device: DeviceId,
    pub(crate) number: u8,
    pub(crate) run: u8,
    pub(crate) events: Vec<Event>,
    pub(crate) disconnects: Vec<(DeviceId, DisconnectReason)>,
    pub(crate) accepted: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) received: BTreeMap<ChunkId, u32>,
    /// Sends flipped bytes.
    pub(crate) lie: Option<Lie>,
    /// What the replica said about holdings, added up.
    pub(crate) told: BTreeMap<DeviceId, Holdings>,
    /// Of whom it was told where they are.
    pub(crate) learned: Vec<DeviceId>,
    asked: BTreeSet<(u64, RequestId, ChunkId)>,
    ticks_at_once: u32,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: u64,
    random: ChaCha20Rng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    coming: BTreeMap<(u64, u64), Coming>,
    sequence: u64,
    links: BTreeMap<u64, Link>,
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    pub(crate) delay_ms: u64,
    /// Bytes per millisecond of one direction of a link.
    pub(crate) rate: u64,
    pub(crate) gossip_loss: bool,
    /// A flush of metadata takes up to so long.
    pub(crate) flush_ms: u64,
    /// A hash over every effect in order.
    pub(crate) trace: blake3::Hasher,
    /// Every control frame that arrived.
    pub(crate) recorded: Vec<(u8, Bytes)>,
}

impl World {
    /// A world of `count` nodes of one library, all started.
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            now: 1000,
            random: ChaCha20Rng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            coming: BTreeMap::new(),
            sequence: 0,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            delay_ms: 5,
            rate: 100_000,
            gossip_loss: false,
            flush_ms: 5,
            trace: blake3::Hasher::new(),
            recorded: Vec::new(),
        };
        for _ in 0..count {
            world.add(root());
        }
        world
    }

    /// Adds a node of the library of `root`; returns its number.
    pub(crate) fn add(&mut self, root: RootKey) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node {
            replica: None,
            memory: Memory::default(),
            root: Rc::new(root),
            store: BTreeMap::new(),
            device: super::device_key(number as u8).device_id(),
            number: number as u8,
            run: 0,
            events: Vec::new(),
            disconnects: Vec::new(),
            accepted: 0,
            sent_bytes: 0,
            received: BTreeMap::new(),
            lie: None,
            told: BTreeMap::new(),
            learned: Vec::new(),
            asked: BTreeSet::new(),
            ticks_at_once: 0,
        });
        self.start(number);
        number
    }

    pub(crate) fn clock(&self) -> Now {
        Now { elapsed: Timestamp::from_millis(self.now), wall: WallTime(self.now as i64) }
    }

    pub(crate) fn replica(&mut self, node: usize) -> &mut Replica<Memory> {
        self.nodes[node].replica.as_mut().expect("the node is up")
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below.max(1)
    }

    fn push(&mut self, at: u64, coming: Coming) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.coming.insert((at, self.sequence), coming);
    }

    /// Opens a node's replica from what its storage holds.
    pub(crate) fn start(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        assert!(of.replica.is_none());
        of.run += 1;
        let config = config(&of.root, of.number, of.run);
        let (replica, effects) =
            Replica::open(config, of.memory.clone(), &|chunk| of.store.contains_key(chunk)).expect("open");
        of.told = replica.holders().map(|(device, holdings)| (device, holdings.clone())).collect();
        of.replica = Some(replica);
        self.perform(node, effects);
        let now = self.clock();
        let effects = self.replica(node).introduce(now, EPOCH).expect("introduce");
        self.perform(node, effects);
    }

    /// The process dies: only what was flushed and stored is left.
    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].replica = None;
        self.nodes[node].asked.clear();
        self.nodes[node].memory.crash();
        let links: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.ends.contains(&node)).map(|(link, _)| *link).collect();
        links.into_iter().for_each(|link| self.cut(link));
    }

    /// Cuts a link: whatever is on its way is lost.
    pub(crate) fn cut(&mut self, link: u64) {
        let Some(of) = self.links.get_mut(&link).filter(|of| of.alive) else { return };
        of.alive = false;
        for to in of.ends {
            self.push(self.now + 1, Coming::Closed { link, to });
        }
    }

    pub(crate) fn live_links(&self) -> Vec<u64> {
        self.links.iter().filter(|(_, link)| link.alive).map(|(link, _)| *link).collect()
    }

    /// Whether a link stands between `node` and the device.
    pub(crate) fn leads_to(&self, link: u64, node: usize, device: DeviceId) -> bool {
        self.other_end(link, node).is_some_and(|end| self.nodes[end].device == device)
    }

    /// Separates two nodes, or joins them again.
    pub(crate) fn block(&mut self, a: usize, b: usize, blocked: bool) {
        if blocked {
            self.blocked.extend([(a, b), (b, a)]);
            let cut = |link: &Link| link.ends == [a, b] || link.ends == [b, a];
            let links: Vec<u64> = self.links.iter().filter(|(_, link)| cut(link)).map(|(id, _)| *id).collect();
            links.into_iter().for_each(|link| self.cut(link));
        } else {
            self.blocked.remove(&(a, b));
            self.blocked.remove(&(b, a));
        }
    }

    /// Stores chunks at a node and deposits them.
    pub(crate) fn import(&mut self, node: usize, chunks: impl IntoIterator<Item = Vec<u8>>) -> Run {
        let chunks: Vec<(DepositedChunk, Bytes)> =
            chunks.into_iter().map(|bytes| (deposited(&bytes), Bytes::from(bytes))).collect();
        let deposit: Vec<DepositedChunk> = chunks.iter().map(|(chunk, _)| *chunk).collect();
        self.nodes[node].store.extend(chunks.into_iter().map(|(chunk, bytes)| (chunk.chunk, bytes)));
        let now = self.clock();
        let (runs, effects) = self.replica(node).deposit(now, EPOCH, &[run(deposit)]).expect("deposit");
        self.perform(node, effects);
        runs[0]
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        let now = self.clock();
        if let Some(replica) = &mut self.nodes[node].replica {
            let effects = replica.handle(now, input).expect("handle");
            self.perform(node, effects);
        }
    }

    /// Does what a driver does.
    pub(crate) fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.trace.update(format!("{} {node} {effect:?}\n", self.now).as_bytes());
            match effect {
                Effect::Send { link, frame } => self.send(node, link.0, frame),
                Effect::Disconnect { link, reason } => {
                    if let Some(peer) = self.other_end(link.0, node) {
                        let device = self.nodes[peer].device;
                        self.nodes[node].disconnects.push((device, reason));
                        self.cut_after_frames(link.0, node);
                    }
                }
                Effect::Dial { peer } => self.push(self.now + self.delay_ms, Coming::Dialled { from: node, to: peer }),
                Effect::Gossip(message) => self.gossip(node, &message),
                Effect::Fetch { link, request, urgent, chunks } => {
                    for wanted in &chunks {
                        self.nodes[node].asked.insert((link.0, request, wanted.chunk));
                    }
                    if let Some(to) = self.other_end(link.0, node) {
                        let chunks = chunks.iter().map(|wanted| wanted.chunk).collect();
                        let request = FetchRequest { request: request.0, urgent, chunks };
                        assert_eq!(FetchRequest::decode(&request.to_frame()[4..]), Ok(request.clone()));
                        self.push(self.now + self.delay_ms, Coming::Asked { link: link.0, to, request });
                    }
                }
                Effect::CancelFetch { link, request } => {
                    self.nodes[node].asked.retain(|(of, id, _)| (*of, *id) != (link.0, request));
                    self.input(node, Input::FetchEnded { link, request });
                }
                Effect::Serve { link, request, answers } => self.serve(node, link.0, request, answers),
                Effect::Sync(task) => {
                    let (run, batches) = (self.nodes[node].run, self.nodes[node].memory.begin_flush());
                    let after = 1 + self.random(self.flush_ms);
                    self.push(self.now + after, Coming::Flushed { node, run, task, batches });
                }
                Effect::Deposited(chunks) => {
                    let stored: Vec<_> =
                        chunks.into_iter().filter(|chunk| self.nodes[node].store.contains_key(chunk)).collect();
                    if !stored.is_empty() {
                        self.input(node, Input::ChunksStored(stored));
                    }
                }
                Effect::Accepted(_) => self.nodes[node].accepted += 1,
                Effect::HoldingsChanged { peer, changes } => {
                    self.nodes[node].told.entry(peer).or_default().apply(&changes);
                }
                Effect::Event(event) => self.nodes[node].events.push(event),
                Effect::AddressesLearned { peer, .. } => self.nodes[node].learned.push(peer),
                Effect::Admitted { .. } => {}
            }
        }
        self.schedule_tick(node);
    }

    fn schedule_tick(&mut self, node: usize) {
        let deadline = self.nodes[node].replica.as_ref().and_then(Replica::next_deadline);
        if let Some(deadline) = deadline {
            let at = deadline.as_millis().max(self.now);
            self.push(at, Coming::Tick { node, at });
        }
    }

    fn other_end(&self, link: u64, node: usize) -> Option<usize> {
        let link = self.links.get(&link).filter(|link| link.alive)?;
        link.ends.into_iter().find(|end| *end != node)
    }

    fn send(&mut self, node: usize, link: u64, frame: Bytes) {
        let Some(to) = self.other_end(link, node) else { return };
        if self.nodes[node].lie == Some(Lie::NoAnswer) && is_answer(&frame) {
            return;
        }
        let at = self.now + self.delay_ms + self.random(3);
        let Some(of) = self.links.get_mut(&link) else { return };
        let side = usize::from(of.ends[0] != node);
        of.frames_until[side] = of.frames_until[side].max(at);
        let at = of.frames_until[side];
        self.push(at, Coming::Frame { link, to, frame });
    }

    fn cut_after_frames(&mut self, link: u64, node: usize) {
        let Some(of) = self.links.get(&link) else { return };
        let at = of.frames_until[usize::from(of.ends[0] != node)].max(self.now) + 1;
        for to in of.ends {
            self.push(at, Coming::Closed { link, to });
        }
    }

    fn gossip(&mut self, node: usize, message: &Bytes) {
        let from = self.nodes[node].device;
        let linked: BTreeSet<usize> = self
            .live_links()
            .into_iter()
            .filter_map(|link| self.other_end(link, node))
            .filter(|to| *to != node)
            .collect();
        for to in linked {
            let copies = if self.gossip_loss { self.random(3) } else { 1 };
            for _ in 0..copies {
                let at = self.now + self.delay_ms + self.random(200);
                self.push(at, Coming::Gossip { from, to, message: message.clone() });
            }
        }
    }

    fn serve(&mut self, node: usize, link: u64, request: RequestId, answers: Vec<(ChunkId, Answer)>) {
        let Some(to) = self.other_end(link, node) else { return };
        let lie = self.nodes[node].lie;
        if lie == Some(Lie::NoAnswer) {
            return;
        }
        for (chunk, answer) in answers {
            let stored = self.nodes[node].store.get(&chunk).cloned();
            let answer = match (answer, stored) {
                (Answer::Send, Some(bytes)) if lie == Some(Lie::WrongBytes) => Ok(flipped(&bytes)),
                (Answer::Send, Some(bytes)) if lie != Some(Lie::NotHeld) => Ok(bytes),
                (Answer::Send | Answer::NotHeld, _) => Err(Declined::NotHeld),
                (Answer::Elsewhere(peer), _) => Err(Declined::Elsewhere(peer)),
            };
            let length = answer.as_ref().map_or(0, Bytes::len) as u64;
            let (start, rate) = (self.now + self.delay_ms, self.rate);
            let Some(of) = self.links.get_mut(&link) else { return };
            let side = usize::from(of.ends[0] != node);
            of.chunks_until[side] = of.chunks_until[side].max(start) + length / rate;
            let at = of.chunks_until[side];
            if let Ok(bytes) = &answer {
                self.nodes[node].sent_bytes += bytes.len() as u64;
                let bytes = bytes.len() as u32;
                self.input(node, Input::Served { link: LinkId(link), request, chunk, bytes });
            }
            self.push(at, Coming::Answered { link, to, request, chunk, answer });
        }
        let at = self.links.get(&link).map_or(self.now, |of| of.chunks_until[usize::from(of.ends[0] != node)]);
        self.push(at, Coming::AnswersEnd { link, to, request });
    }

    /// Lets everything happen until `until`.
    pub(crate) fn run_until(&mut self, until: u64) {
        while let Some(&Reverse((at, sequence))) = self.queue.peek()
            && at <= until
        {
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(coming) = self.coming.remove(&(at, sequence)) {
                self.happen(coming);
            }
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        self.run_until(self.now + ms);
    }

    /// Lets time pass until `done`, at most `ms`; whether it came to be.
    pub(crate) fn run_while(&mut self, ms: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + ms;
        while self.now < end {
            if done(self) {
                return true;
            }
            self.run_for(20);
        }
        done(self)
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Frame { link, to, frame } => self.frame_arrives(link, to, &frame),
            Coming::Gossip { from, to, message } => self.input(to, Input::Gossiped { from, body: message }),
            Coming::Asked { link, to, request } if self.is_alive(link) => {
                self.input(to, Input::FetchRequested { link: LinkId(link), request });
            }
            Coming::Answered { link, to, request, chunk, answer } if self.is_alive(link) => {
                self.answer_arrives(link, to, request, chunk, answer);
            }
            Coming::AnswersEnd { link, to, request } if self.is_alive(link) => {
                // The last chunk is reported as stored before its request ends.
                let (link, at) = (LinkId(link), self.now + 4);
                let ended = FetchOutcome::Declined(Declined::NotHeld);
                let (run, chunk) = (self.nodes[to].run, ChunkId::from_bytes([0; 32]));
                self.push(at, Coming::Settled { link: link.0, to, run, request, chunk, outcome: ended });
            }
            Coming::Settled { link, to, run, request, chunk, outcome } if self.nodes[to].run == run => {
                let link = LinkId(link);
                if chunk == ChunkId::from_bytes([0; 32]) {
                    self.input(to, Input::FetchEnded { link, request });
                } else {
                    self.input(to, Input::Fetched { link, request, chunk, outcome });
                }
            }
            Coming::Flushed { node, run, task, batches } if self.nodes[node].run == run => {
                if self.nodes[node].replica.is_some() {
                    self.nodes[node].memory.complete_flush(batches);
                    self.input(node, Input::Synced(task));
                }
            }
            Coming::Dialled { from, to } => self.dialled(from, to),
            Coming::Closed { link, to } => {
                if let Some(of) = self.links.get_mut(&link) {
                    of.alive = false;
                }
                self.input(to, Input::Disconnected { link: LinkId(link) });
            }
            Coming::Tick { node, at } => self.tick(node, at),
            Coming::Asked { .. }
            | Coming::Answered { .. }
            | Coming::AnswersEnd { .. }
            | Coming::Settled { .. }
            | Coming::Flushed { .. } => {}
        }
    }

    fn is_alive(&self, link: u64) -> bool {
        self.links.get(&link).is_some_and(|link| link.alive)
    }

    fn tick(&mut self, node: usize, at: u64) {
        let Some(replica) = &self.nodes[node].replica else { return };
        let due = replica.next_deadline().is_some_and(|deadline| deadline.as_millis() <= self.now);
        if !due || at > self.now {
            return;
        }
        self.input(node, Input::Tick);
        let Some(replica) = &self.nodes[node].replica else { return };
        let again = replica.next_deadline().is_some_and(|deadline| deadline.as_millis() <= self.now);
        assert!(!again, "node {node} asks for a tick at {} again and again", self.now);
    }

    fn frame_arrives(&mut self, link: u64, to: usize, frame: &Bytes) {
        if !self.is_alive(link) {
            return;
        }
        let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return };
        let Some(of) = self.links.get_mut(&link) else { return };
        let side = usize::from(of.ends[0] != to);
        match of.gates[side].admit(header) {
            Ok(header) => {
                assert_eq!(header.length, frame.len() - FRAME_HEADER_BYTES);
                let body = frame.slice(FRAME_HEADER_BYTES..);
                self.recorded.push((header.tag, body.clone()));
                self.input(to, Input::Received { link: LinkId(link), tag: header.tag, body });
            }
            Err(_) => self.cut(link),
        }
    }

    fn answer_arrives(
        &mut self,
        link: u64,
        to: usize,
        request: RequestId,
        chunk: ChunkId,
        answer: Result<Bytes, Declined>,
    ) {
        let node = &mut self.nodes[to];
        if !node.asked.remove(&(link, request, chunk)) {
            return;
        }
        let outcome = match answer {
            Err(declined) => FetchOutcome::Declined(declined),
            Ok(bytes) if super::chunk_id(&bytes) != chunk => FetchOutcome::Corrupt,
            Ok(bytes) => {
                *node.received.entry(chunk).or_default() += 1;
                node.store.insert(chunk, bytes);
                FetchOutcome::Stored
            }
        };
        let run = node.run;
        self.push(self.now + 3, Coming::Settled { link, to, run, request, chunk, outcome });
    }

    fn dialled(&mut self, from: usize, to: DeviceId) {
        let target = self.nodes.iter().position(|node| node.device == to && node.replica.is_some());
        let open =
            target.filter(|target| self.nodes[from].replica.is_some() && !self.blocked.contains(&(from, *target)));
        match open {
            Some(target) => drop(self.connect(from, target)),
            None => self.input(from, Input::DialFailed { peer: to }),
        }
    }

    /// Connects two nodes; returns the link.
    pub(crate) fn connect(&mut self, from: usize, to: usize) -> u64 {
        self.sequence += 1;
        let link = self.sequence;
        let ends = [from, to];
        let of = Link { ends, gates: Default::default(), alive: true, frames_until: [0; 2], chunks_until: [0; 2] };
        self.links.insert(link, of);
        let (from_device, to_device) = (self.nodes[from].device, self.nodes[to].device);
        self.input(from, Input::Connected { link: LinkId(link), peer: to_device, outbound: true });
        self.input(to, Input::Connected { link: LinkId(link), peer: from_device, outbound: false });
        link
    }

    /// Whether every node that is up knows and holds the same, and says so of the others.
    pub(crate) fn converged(&mut self, nodes: &[usize]) -> bool {
        let first = nodes[0];
        let vector = self.replica(first).vector();
        let roots: Vec<_> = nodes.iter().map(|&node| self.held_root(node, node)).collect();
        nodes.iter().all(|&node| self.replica(node).vector() == vector)
            && nodes.iter().all(|&node| self.replica(node).transfers().missing_chunks == 0)
            && roots.windows(2).all(|pair| pair[0] == pair[1])
            && nodes.iter().all(|&node| nodes.iter().all(|&of| self.held_root(node, of) == roots[0]))
    }

    fn held_root(&mut self, node: usize, of: usize) -> Option<[u8; 32]> {
        let device = self.nodes[of].device;
        self.replica(node).holdings(&device).map(|holdings| holdings.clone().root())
    }

    /// Checks what must hold at any time.
    pub(crate) fn check(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let Some(replica) = &node.replica else { continue };
            for (device, holdings) in replica.holders() {
                let told = node.told.get(&device).cloned().unwrap_or_default();
                assert!(told == *holdings, "node {index}: what was told of {device:?} is not what is known");
            }
            let own = replica.holdings(&node.device).expect("own holdings");
            for (author, _) in replica.vector().iter().map(|point| (point.author, ())) {
                for position in own.held(&author).into_iter().flatten() {
                    let position = holdfast_protocol::position::Position { author, index: position };
                    let chunk = replica.chunk_at(&position).expect("held positions are known").chunk;
                    assert!(node.store.contains_key(&chunk), "node {index} claims a chunk it does not have");
                }
            }
        }
    }
}

/// Whether a frame is there because somebody asked for it.
fn is_answer(frame: &Bytes) -> bool {
    match Message::decode(frame[FRAME_HEADER_BYTES - 1], &frame.slice(FRAME_HEADER_BYTES..)) {
        Ok(Message::Inventory(part)) => part.base.is_none(),
        Ok(Message::Envelopes(_)) => true,
        _ => false,
    }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    bytes.into()
}
