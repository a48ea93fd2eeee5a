//! The replica: one pure state machine for everything two nodes do together.
//!
//! A driver hands in what happened ([`Input`]) and the time, and does what it is told ([`Effect`]), in order. Nothing in
//! here reads a clock, touches a socket or a file or draws randomness of its own: the same configuration, storage and
//! inputs give the same effects. Chunk bytes never pass through.
//!
//! Invariants:
//! - **durable before told**: an envelope is shown to others only once the flush that covers it has succeeded, and only
//!   its author hears earlier that it is known; own holdings name only chunks that the store reported as durable;
//! - **members only**: before a peer has proved its membership nothing of the library is told and nothing of it is kept;
//! - **a peer's bytes are parsed before anything else**: malformed ones end the session and change nothing;
//! - **absence is never an order**: nothing here is given up because a peer's list lacks it.
//!
//! Where to look: [`logs`](self) accept and append envelopes, `session` introduces peers, `sync` pulls logs, `inventories`
//! exchanges who has what, `schedule` decides which chunk to ask of whom, `serve` answers, `dial` calls members.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rand_chacha::ChaCha20Rng;

use crate::certificate::DeviceCertificate;
use crate::deposit::DepositedChunk;
use crate::envelope::SignedEnvelope;
use crate::id::{AuthorId, ChunkId, DeviceId, LibraryId, PlaceId};
use crate::inventory::Holdings;
use crate::keys::{AuthorKey, DeviceKey};
use crate::log::Log;
use crate::membership::Registry;
use crate::message::LogPoint;
use crate::metadata::{Metadata, StorageError};
use crate::position::{Position, Run};
use crate::time::{Now, Timestamp};

mod bounds;
mod carried;
mod chunks;
mod dial;
mod effect;
mod input;
mod inventories;
mod logs;
mod open;
mod own_inventory;
mod peer;
mod presence;
mod schedule;
mod serve;
mod session;
mod sync;
mod view;

pub use bounds::Bounded;
pub use effect::{Answer, BodyRefusal, ChunkWanted, DisconnectReason, Effect, Event, Misbehaviour};
pub use input::{FetchOutcome, Input, LinkId, RequestId, TaskId};
pub use logs::AppendError;
pub use view::{PeerView, Transfers};

use carried::Early;
use chunks::ChunkTable;
use inventories::GossipState;
use own_inventory::{OwnInventory, Pending};
use peer::Peer;
use schedule::Scheduler;
use session::Session;
use sync::Pulls;

/// The newest `min_reader` that this version can apply.
pub const READER_VERSION: u16 = 1;

/// Who this replica is.
#[derive(Clone)]
pub struct Config {
    /// The library.
    pub library: LibraryId,
    /// This device.
    pub device: DeviceKey,
    /// What this device's log is signed with.
    pub author: AuthorKey,
    /// Encoded device certificates: this device's, its issuer's, and so on until one by the root. Shown to peers while
    /// the registry does not know a chain of its own.
    pub chain: Vec<Vec<u8>>,
    /// Where this device stands.
    pub place: Option<PlaceId>,
    /// From the operating system, new at each opening: nonces of generations, jitter, random choices.
    pub seed: [u8; 32],
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { library, device, author, chain: _, place, seed: _ } = self;
        f.debug_struct("Config")
            .field("library", library)
            .field("device", device)
            .field("author", author)
            .field("place", place)
            .finish_non_exhaustive()
    }
}

/// See the head of the module.
#[derive(Debug)]
pub struct Replica<M: Metadata> {
    metadata: M,
    config: Config,
    me: DeviceId,
    random: ChaCha20Rng,
    /// The latest time handed in.
    now: Now,
    registry: Registry,
    logs: BTreeMap<AuthorId, Log>,
    /// Whether this device's author must not be used any more.
    retired: bool,
    /// Who has said since the opening which logs it knows, and how far it knows this device's own.
    compared: BTreeMap<DeviceId, Option<LogPoint>>,
    /// Membership envelopes that others carry on, of authors who have not introduced themselves yet.
    early: Early,
    /// Authors whose logs may count further, or less far, than before.
    ends_to_review: BTreeSet<AuthorId>,
    chunks: ChunkTable,
    own: OwnInventory,
    /// Own holdings that changed during this input.
    news: Pending,
    peers: BTreeMap<DeviceId, Peer>,
    /// Where this device itself saw members.
    seen: BTreeMap<DeviceId, Vec<String>>,
    /// Where others say that devices are of which no log has said yet that they are members.
    hearsay: BTreeMap<DeviceId, Vec<String>>,
    /// The devices that certified this one: known to be members before any log is.
    issuers: Vec<DeviceId>,
    /// Numbers of peers that chunks were served to, counted from 1.
    served_peers: Vec<DeviceId>,
    sessions: BTreeMap<LinkId, Session>,
    /// The sessions with each peer.
    links: BTreeMap<DeviceId, BTreeSet<LinkId>>,
    pulls: Pulls,
    scheduler: Scheduler,
    gossip: GossipState,
    flush: Flush,
    received_bytes: u64,
    sent_bytes: u64,
    caught_up: bool,
    effects: Vec<Effect>,
}

/// Which flush is under way, and whether another one is needed.
#[derive(Debug, Default)]
struct Flush {
    next: u64,
    under_way: Option<TaskId>,
    needed: bool,
    /// What the flush under way makes durable.
    covers: Vec<LogPoint>,
    covers_generation: bool,
}

impl<M: Metadata> Replica<M> {
    /// Takes one input and returns what to do, in order.
    ///
    /// # Errors
    /// When the metadata cannot be read or written. The replica must then be opened again from storage.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, StorageError> {
        self.now = now;
        match input {
            Input::Connected { link, peer, outbound } => self.handle_connected(link, peer, outbound),
            Input::Disconnected { link } => self.end_session(link, None),
            Input::Received { link, tag, body } => self.handle_received(link, tag, &body)?,
            Input::Gossiped { from, body } => self.handle_gossiped(&from, &body)?,
            Input::FetchRequested { link, request } => self.handle_fetch_requested(link, &request),
            Input::Served { bytes, .. } => self.sent_bytes += u64::from(bytes),
            Input::Arriving { link } => self.handle_arriving(link),
            Input::Fetched { link, request, chunk, outcome } => self.handle_fetched(link, request, &chunk, outcome)?,
            Input::FetchEnded { request, .. } => self.handle_fetch_ended(request),
            Input::ChunksStored(stored) => self.handle_stored(&stored),
            Input::ChunksLost(lost) => self.handle_lost(&lost),
            Input::RoomMade => self.scheduler.resume(self.now.elapsed),
            Input::Synced(task) => self.handle_synced(task),
            Input::DialFailed { peer } => self.handle_dial_failed(&peer),
            Input::PeerSeen { peer, addresses } => self.handle_peer_seen(&peer, addresses),
            Input::NetworkChanged => self.handle_network_changed(),
            Input::Stopping => self.handle_stopping(),
            Input::Tick => self.handle_tick()?,
        }
        Ok(self.finish())
    }

    /// Everything that may follow from any input, and the effects.
    fn finish(&mut self) -> Vec<Effect> {
        self.pull();
        self.scheduler.fill(self.now.elapsed, &mut self.chunks, &mut self.random, &mut self.effects);
        let changes = self.news.take();
        if !changes.is_empty() {
            self.call_with_news();
            self.effects.push(Effect::HoldingsChanged { peer: self.me, changes });
        }
        let caught_up = self.chunks.wanted().is_empty();
        if caught_up && !self.caught_up {
            self.effects.push(Effect::Event(Event::CaughtUp));
        }
        self.caught_up = caught_up;
        for (peer, rest) in self.scheduler.take_rests() {
            self.effects.push(Effect::Event(Event::PeerRests { peer, rest }));
        }
        self.start_flush();
        std::mem::take(&mut self.effects)
    }

    fn handle_tick(&mut self) -> Result<(), StorageError> {
        self.expire_sessions();
        self.expire_pulls();
        self.scheduler.tick(self.now.elapsed, &mut self.chunks, &mut self.random, &mut self.effects);
        self.tell_holdings();
        self.keep_inventories()?;
        self.dial_members();
        Ok(())
    }

    /// When to hand in the next [`Input::Tick`], unless another input comes first. May lie in the past: then at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let sessions = self.sessions.values().filter_map(Session::deadline).min();
        [
            sessions,
            self.pulls.next_deadline(),
            self.scheduler.next_deadline(self.now.elapsed),
            self.holdings_deadline(),
            self.keep_deadline(),
            self.dial_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Asks for a flush, now or as soon as the one under way is done.
    fn start_flush(&mut self) {
        if !self.flush.needed || self.flush.under_way.is_some() {
            return;
        }
        let task = TaskId(self.flush.next);
        self.flush.next += 1;
        self.flush.needed = false;
        self.flush.under_way = Some(task);
        self.flush.covers_generation = true;
        let ahead = self.logs.values().filter(|log| log.known() != log.durable());
        self.flush.covers = ahead.map(|log| log.point(log.known())).collect();
        self.effects.push(Effect::Sync(task));
    }

    fn handle_synced(&mut self, task: TaskId) {
        if self.flush.under_way != Some(task) {
            return;
        }
        self.flush.under_way = None;
        if std::mem::take(&mut self.flush.covers_generation) {
            self.own.set_durable();
        }
        let covered = std::mem::take(&mut self.flush.covers);
        self.logs_durable(covered);
        self.tell_holdings();
    }

    /// Up to `limit` kept envelopes of `author`, from number `from`.
    ///
    /// # Errors
    /// When the metadata cannot be read or an envelope in it is damaged.
    pub fn read_log(&self, author: &AuthorId, from: u64, limit: usize) -> Result<Vec<SignedEnvelope>, StorageError> {
        logs::read(&self.metadata, author, from, limit)
    }

    /// Every log and how far it is known here, durable or not.
    #[must_use]
    pub fn vector(&self) -> Vec<LogPoint> {
        self.logs.values().map(|log| log.point(log.known())).collect()
    }

    /// How many envelopes this device has written as its author: the number of the next one.
    #[must_use]
    pub fn own_length(&self) -> u64 {
        self.log_extent(&self.author()).length
    }

    /// The author that this device writes as.
    #[must_use]
    pub fn author(&self) -> AuthorId {
        self.config.author.author_id()
    }

    /// Whether this device's author must not be used any more: peers know more of its log, or another version of it.
    /// [`Replica::adopt_author`] goes on under another.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// The other members, and those who certified this device while no log says yet that they are members.
    fn others(&self) -> impl Iterator<Item = DeviceId> + '_ {
        let members = self.registry.members().map(DeviceCertificate::device);
        let strangers = |device: &DeviceId| !self.registry.is_member(device) && !self.registry.is_removed(device);
        let issuers = self.issuers.iter().copied().filter(strangers);
        members.chain(issuers).filter(|device| *device != self.me)
    }

    /// Whether every other member has said, since the opening, which logs it knows, and nobody knows more of this device's
    /// own than is known here. Until then this device may be one that was restored from a backup and does not know it
    /// yet: whoever has missed the latest cannot say so.
    #[must_use]
    pub fn has_compared(&self) -> bool {
        self.others().all(|device| self.compared.contains_key(&device)) && !self.is_behind()
    }

    /// Whether every other member has also named this device's own log: who says nothing of it may have something to say
    /// yet.
    #[must_use]
    pub fn is_known_to_all(&self) -> bool {
        let author = self.author();
        let has_named = |point: &Option<LogPoint>| point.as_ref().is_some_and(|point| point.author == author);
        self.has_compared() && self.others().all(|device| self.compared.get(&device).is_some_and(has_named))
    }

    /// Whether a peer has said that it knows more of this device's own log, or another version of it, or that it has forked. It
    /// may be gone again before it could give what it knows.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let (author, own) = (self.author(), self.log_extent(&self.author()));
        let connected = self.sessions.values().filter_map(|session| session.points.get(&author));
        let before = self.compared.values().flatten().filter(|point| point.author == author);
        connected.chain(before).any(|point| {
            point.forked || point.length > own.length || (point.length == own.length && point.head != own.head)
        })
    }

    /// This device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.me
    }

    /// Who is a member, and everything else that logs say about devices.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The chunk at `position` and its sealed length; `None` when its deposit has not arrived.
    #[must_use]
    pub fn chunk_at(&self, position: &Position) -> Option<DepositedChunk> {
        self.chunks.slot_at(position).map(|slot| self.chunks.chunk(slot))
    }

    /// Whether positions of a run mean nothing: their author's log ended before them.
    #[must_use]
    pub fn is_void(&self, run: &Run) -> bool {
        run.end() > self.chunks.meaningless_from(&run.author) && self.ends_meaning(&run.author)
    }

    /// The position of `chunk` that was learned first; `None` when it was not deposited.
    #[must_use]
    pub fn position_of(&self, chunk: &ChunkId) -> Option<Position> {
        self.chunks.slot(chunk).and_then(|slot| self.chunks.positions(slot).next())
    }

    /// Whether `chunk` is deposited and durable here.
    #[must_use]
    pub fn holds(&self, chunk: &ChunkId) -> bool {
        self.chunks.slot(chunk).is_some_and(|slot| self.chunks.is_held(slot))
    }

    /// What `peer` holds according to its newest complete inventory; for this device, what is durable here.
    #[must_use]
    pub fn holdings(&self, peer: &DeviceId) -> Option<&Holdings> {
        if *peer == self.me {
            return Some(self.own.holdings());
        }
        self.peers.get(peer)?.inventory.as_ref().map(|inventory| &inventory.holdings)
    }

    /// Every device whose holdings are known here, this one first.
    pub fn holders(&self) -> impl Iterator<Item = (DeviceId, &Holdings)> + '_ {
        let peers = self.peers.iter().filter_map(|(peer, of)| Some((*peer, &of.inventory.as_ref()?.holdings)));
        std::iter::once((self.me, self.own.holdings())).chain(peers)
    }

    /// The storage below, for the library above: it keeps its own tables there.
    #[must_use]
    pub const fn metadata(&self) -> &M {
        &self.metadata
    }

    /// The storage below, for the library above: it keeps its own tables there.
    pub const fn metadata_mut(&mut self) -> &mut M {
        &mut self.metadata
    }
}
