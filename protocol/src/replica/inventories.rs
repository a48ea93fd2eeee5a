//! Exchanging inventories: own ones told, others' asked for, checked, kept and relayed.
//!
//! Invariants: an inventory counts only when it is complete and its root is the one its owner signed; an older one never
//! replaces a newer one, whoever brings it; who did not give one that it offered is asked again after a rest, longer each
//! time, and others before it; hints count only for the scheduler and only while their session stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand_core::RngCore;

use super::own_inventory::PeerInventory;
use super::schedule::backoff;
use super::{Effect, LinkId, Misbehaviour, Replica};
use crate::id::{AuthorId, DeviceId};
use crate::inventory::{Generation, HOLDINGS_POSITIONS_MAX, HoldingChanges, Holdings, SignedHead};
use crate::limits::PEERS_MAX;
use crate::message::{Announcement, HEADS_PER_FRAME_MAX, InventoryPart, LogPoint, Message, WantInventory};
use crate::metadata::{Batch, Metadata, StorageError, Table};
use crate::time::Timestamp;

/// How long a peer may take to give an inventory before another one is asked; what comes later is still taken.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a peer that did not give one is not asked for it again: at first, and at most.
const REST_MS: u64 = 5_000;
const REST_MS_MAX: u64 = 5 * 60 * 1000;
/// How long changed inventories of peers may stay out of storage, and unrelayed: losing them costs asking again.
const KEEP_AFTER: Duration = Duration::from_secs(30);
/// Logs that grew are gossiped after so long.
const GOSSIP_LOGS_AFTER: Duration = Duration::from_secs(2);
/// A changed inventory is gossiped after so long.
const GOSSIP_INVENTORY_AFTER: Duration = Duration::from_secs(30);
/// Logs in one announcement.
const GOSSIP_POINTS_MAX: usize = 64;

pub(super) fn generation_batch(generation: &Generation) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Local, super::open::GENERATION_KEY, generation.counter.to_le_bytes());
    batch
}

pub(super) fn heard_key(peer: &DeviceId) -> Vec<u8> {
    [peer.as_bytes().as_slice(), b"/heard"].concat()
}

/// An inventory that a peer can give.
#[derive(Debug)]
pub(super) struct Offer {
    head: SignedHead,
    /// How often in a row the peer did not give it.
    failures: u32,
    /// The peer is not asked for it before; `None` when it may be.
    pub(super) rests_until: Option<Timestamp>,
}

/// An inventory that a peer was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    offer: Offer,
    /// Whether the whole was asked for, not what has changed.
    whole: bool,
    pub(super) until: Timestamp,
}

/// What is to be gossiped, relayed and kept, and when.
#[derive(Debug, Default)]
pub(super) struct GossipState {
    points: BTreeMap<AuthorId, LogPoint>,
    inventory: Option<InventoryPart>,
    due: Option<Timestamp>,
    /// Peers whose inventory changed and was not relayed and kept.
    relay: BTreeSet<DeviceId>,
    keep_due: Option<Timestamp>,
}

impl GossipState {
    fn by(&mut self, due: Timestamp) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    pub(super) fn logs(&mut self, now: Timestamp, points: Vec<LogPoint>) {
        if !points.is_empty() {
            self.points.extend(points.into_iter().map(|point| (point.author, point)));
            self.by(now + GOSSIP_LOGS_AFTER);
        }
    }

    fn signed(&mut self, now: Timestamp, part: InventoryPart) {
        // One change is told whole; of several only the last head, for which others then ask.
        let several = self.inventory.is_some();
        let alone = InventoryPart { base: None, more: true, changes: Vec::new(), head: part.head.clone() };
        self.inventory = Some(if several { alone } else { part });
        self.by(now + GOSSIP_INVENTORY_AFTER);
    }
}

impl<M: Metadata> Replica<M> {
    /// The heads that a new session begins with, this device's own among them.
    pub(super) fn greet_with_heads(&mut self, link: LinkId) {
        let peers = self.peers.values().filter_map(|peer| peer.inventory.as_ref().map(|inventory| &inventory.head));
        let heads: Vec<Bytes> = self.own.head().into_iter().chain(peers).map(|head| head.wire().clone()).collect();
        for heads in heads.chunks(HEADS_PER_FRAME_MAX) {
            self.send(link, &Message::Heads(heads.to_vec()));
        }
    }

    /// Signs, hints and gossips whatever is due.
    pub(super) fn tell_holdings(&mut self) {
        let now = self.now;
        let place = self.registry.place_of(&self.me).or(self.config.place);
        if let Some((frame, part)) = self.own.sign(now, &self.config.library, &self.config.device, place) {
            self.send_to_all(&frame);
            self.gossip.signed(now.elapsed, part);
        }
        if let Some(frame) = self.own.have(now.elapsed) {
            self.send_to_all(&frame);
        }
        if self.gossip.due.is_some_and(|due| due <= now.elapsed) {
            self.gossip.due = None;
            let all: Vec<LogPoint> = std::mem::take(&mut self.gossip.points).into_values().collect();
            let mut inventory = self.gossip.inventory.take();
            for points in all.chunks(GOSSIP_POINTS_MAX).chain(all.is_empty().then_some(&[][..])) {
                let announcement = Announcement { points: points.to_vec(), inventory: inventory.take() };
                if let Some(message) = announcement.encode() {
                    self.effects.push(Effect::Gossip(message));
                }
            }
        }
    }

    fn send_to_all(&mut self, frame: &Bytes) {
        for (link, _) in self.sessions.iter().filter(|(_, session)| session.is_established()) {
            self.effects.push(Effect::Send { link: *link, frame: frame.clone() });
        }
    }

    pub(super) fn holdings_deadline(&self) -> Option<Timestamp> {
        [self.own.next_deadline(), self.gossip.due].into_iter().flatten().min()
    }

    pub(super) const fn keep_deadline(&self) -> Option<Timestamp> {
        self.gossip.keep_due
    }

    /// What peers hold and is not in storage yet, because losing it only costs asking again. Written before a stop, so
    /// that the next start knows how safe everything is before any peer is there.
    #[must_use]
    pub fn unkept_inventories(&self) -> Batch {
        let mut batch = Batch::new();
        for (device, peer) in self.gossip.relay.iter().filter_map(|device| Some((device, self.peers.get(device)?))) {
            if let Some(inventory) = &peer.inventory {
                batch.put(Table::Inventory, device.as_bytes().as_slice(), inventory.encode());
            }
            if let Some(heard) = peer.last_heard {
                batch.put(Table::Peer, heard_key(device), heard.0.to_le_bytes());
            }
        }
        batch
    }

    /// Writes changed inventories of peers to storage and relays their heads to every session, the peers' own
    /// among them: a device that was restored from a backup learns of its earlier inventory, which it has to outdo, from
    /// whoever heard of that only after they had greeted each other.
    pub(super) fn keep_inventories(&mut self) -> Result<(), StorageError> {
        if self.gossip.keep_due.is_none_or(|due| due > self.now.elapsed) {
            return Ok(());
        }
        self.gossip.keep_due = None;
        let batch = self.unkept_inventories();
        let changed = std::mem::take(&mut self.gossip.relay).into_iter();
        let head = |device: DeviceId| Some(self.peers.get(&device)?.inventory.as_ref()?.head.wire().clone());
        let heads: Vec<_> = changed.filter_map(head).collect();
        for heads in heads.chunks(HEADS_PER_FRAME_MAX) {
            self.send_to_all(&Message::Heads(heads.to_vec()).to_frame());
        }
        if !batch.is_empty() {
            self.metadata.commit(batch)?;
            self.flush.needed = true;
        }
        Ok(())
    }

    pub(super) fn handle_heads(&mut self, link: LinkId, heads: Vec<Bytes>) -> Result<(), StorageError> {
        for wire in heads {
            self.handle_head(link, wire)?;
        }
        self.ask_for_inventories();
        Ok(())
    }

    fn handle_head(&mut self, link: LinkId, wire: Bytes) -> Result<(), StorageError> {
        let Ok(head) = SignedHead::parse_unverified(wire.clone()) else {
            self.misbehaved(link, Misbehaviour::BadInventory);
            return Ok(());
        };
        let news = if head.head().peer == self.me { self.is_ahead_of_own(&head) } else { self.is_newer(&head) };
        if !news {
            return Ok(());
        }
        let Ok(head) = SignedHead::parse(wire, &self.config.library) else {
            self.misbehaved(link, Misbehaviour::BadInventory);
            return Ok(());
        };
        if head.head().peer == self.me {
            return self.outdo(head.head().generation);
        }
        let Some(session) = self.sessions.get_mut(&link) else { return Ok(()) };
        let is_known = session.offered.contains_key(&head.head().peer);
        if is_known || session.offered.len() < PEERS_MAX {
            let offer = Offer { head: head.clone(), failures: 0, rests_until: None };
            // A newer head does not make good that the peer did not give the one before.
            let peer = head.head().peer;
            session.offered.entry(peer).or_insert(offer).head = head;
        }
        Ok(())
    }

    fn is_ahead_of_own(&self, head: &SignedHead) -> bool {
        let own = (self.own.generation(), self.own.head().map(|head| head.head().seq));
        (head.head().generation, Some(head.head().seq)) > own
    }

    /// Someone knows of a later generation of this device than its own: it was restored or cloned. Begin one that is
    /// later still, once that is durable.
    fn outdo(&mut self, later: Generation) -> Result<(), StorageError> {
        let counter = later.counter.max(self.own.generation().counter).saturating_add(1);
        let generation = Generation { counter, nonce: self.random.next_u64() };
        self.metadata.commit(generation_batch(&generation))?;
        self.own.renew(generation);
        self.flush.covers_generation = false;
        self.flush.needed = true;
        Ok(())
    }

    /// Of two contents that a liar signed under one version all settle on the same: the one with the greater root.
    fn is_newer(&self, head: &SignedHead) -> bool {
        let order = |head: &SignedHead| (head.head().version(), head.head().root);
        let known = self.peers.get(&head.head().peer).and_then(|peer| peer.inventory.as_ref());
        known.is_none_or(|known| order(&known.head) < order(head))
    }

    /// Whose inventory is of interest: members', and those of peers that have proved their membership.
    fn counts_holdings_of(&self, peer: &DeviceId) -> bool {
        self.registry.is_member(peer) || (self.session_with(peer).is_some() && !self.registry.is_removed(peer))
    }

    /// Asks each session for the inventories that it offered and that are news, one session per inventory.
    pub(super) fn ask_for_inventories(&mut self) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            for (peer, offer) in std::mem::take(&mut session.offered) {
                if !self.is_newer(&offer.head) {
                    continue;
                }
                let waits = offer.rests_until.is_some() || !self.counts_holdings_of(&peer);
                if waits || self.sessions.values().any(|session| session.asked.contains_key(&peer)) {
                    if let Some(session) = self.sessions.get_mut(&link) {
                        session.offered.insert(peer, offer);
                    }
                } else if !self.adopt_equal(&offer.head) {
                    self.ask_inventory(link, offer, false);
                }
            }
        }
    }

    /// Asks for an inventory: for what has changed in what is known of it, or for the whole.
    fn ask_inventory(&mut self, link: LinkId, offer: Offer, whole: bool) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let (peer, version) = (offer.head.head().peer, offer.head.head().version());
        session.asked.insert(peer, Asked { offer, whole, until: self.now.elapsed + ANSWER });
        let inventory = self.peers.get(&peer).and_then(|known| known.inventory.as_ref());
        let known = inventory.map(|inventory| inventory.head.head().version());
        // What is known under the very version is another content: the whole is wanted.
        let known = known.filter(|known| !whole && *known < version);
        self.send(link, &Message::WantInventory(WantInventory { peer, known }));
    }

    /// What peers did not give in time is asked of others, and of them again after a rest.
    pub(super) fn expire_inventories(&mut self) {
        let now = self.now.elapsed;
        for session in self.sessions.values_mut() {
            for offer in session.offered.values_mut() {
                offer.rests_until = offer.rests_until.filter(|until| *until > now);
            }
            for (peer, mut asked) in session.asked.extract_if(.., |_, asked| asked.until <= now) {
                let failures = asked.offer.failures;
                asked.offer.failures += 1;
                asked.offer.rests_until = Some(now + backoff(failures, REST_MS, REST_MS_MAX, &mut self.random));
                if let Some(newer) = session.offered.remove(&peer) {
                    asked.offer.head = newer.head;
                }
                session.offered.insert(peer, asked.offer);
            }
        }
        self.ask_for_inventories();
    }

    /// A new head over content that is known already needs no exchange.
    fn adopt_equal(&mut self, head: &SignedHead) -> bool {
        let known = self.peers.get_mut(&head.head().peer).and_then(|peer| peer.inventory.as_mut());
        let Some(known) = known.filter(|known| known.head.head().root == head.head().root) else { return false };
        known.head = head.clone();
        self.note_inventory(head.head().peer);
        true
    }

    fn note_inventory(&mut self, peer: DeviceId) {
        self.gossip.relay.insert(peer);
        self.gossip.keep_due.get_or_insert(self.now.elapsed + KEEP_AFTER);
    }

    pub(super) fn handle_want_inventory(&mut self, link: LinkId, want: &WantInventory) {
        let frames = if want.peer == self.me {
            self.own.frames_since(want.known)
        } else {
            let inventory = self.peers.get(&want.peer).and_then(|peer| peer.inventory.as_ref());
            let newer =
                |inventory: &&PeerInventory| want.known.is_none_or(|known| inventory.head.head().version() > known);
            inventory.filter(newer).map(PeerInventory::frames).unwrap_or_default()
        };
        self.effects.extend(frames.into_iter().map(|frame| Effect::Send { link, frame }));
    }

    pub(super) fn handle_inventory(&mut self, link: LinkId, part: InventoryPart) -> Result<(), StorageError> {
        if part.base.is_none() && part.more && part.changes.is_empty() {
            return self.handle_heads(link, vec![part.head]);
        }
        let Some(head) = self.newer_head(&part.head) else {
            return Ok(());
        };
        let Ok(head) = head else {
            self.misbehaved(link, Misbehaviour::BadInventory);
            return Ok(());
        };
        let peer = head.head().peer;
        let outcome = match part.base {
            Some(base) => self.apply_delta(head.clone(), base, &part.changes),
            None => self.assemble(link, head.clone(), part),
        };
        let asked = self.sessions.get(&link).and_then(|session| session.asked.get(&peer)).map(|asked| asked.whole);
        let offer = Offer { head, failures: 0, rests_until: None };
        match outcome {
            Outcome::Adopted | Outcome::Incomplete => {}
            Outcome::Bad => self.misbehaved(link, Misbehaviour::BadInventory),
            Outcome::MissesBase if asked.is_none() => self.ask_inventory(link, offer, false),
            // What it changes may be another content under the same version, if their owner signed two.
            Outcome::Unfit if asked != Some(true) => self.ask_inventory(link, offer, true),
            Outcome::MissesBase | Outcome::Unfit => {}
        }
        self.ask_for_inventories();
        Ok(())
    }

    /// The head, verified, when it is newer than what is known and of interest.
    fn newer_head(&self, wire: &Bytes) -> Option<Result<SignedHead, Misbehaviour>> {
        let Ok(head) = SignedHead::parse_unverified(wire.clone()) else {
            return Some(Err(Misbehaviour::BadInventory));
        };
        let peer = head.head().peer;
        if peer == self.me || !self.is_newer(&head) || !self.counts_holdings_of(&peer) {
            return None;
        }
        Some(SignedHead::parse(wire.clone(), &self.config.library).map_err(|_| Misbehaviour::BadInventory))
    }

    fn apply_delta(&mut self, head: SignedHead, base: u64, changes: &[HoldingChanges]) -> Outcome {
        let known = self.peers.get(&head.head().peer).and_then(|peer| peer.inventory.as_ref());
        let Some(known) = known.filter(|known| known.head.head().version() == (head.head().generation, base)) else {
            return Outcome::MissesBase;
        };
        if positions_in(changes) > HOLDINGS_POSITIONS_MAX {
            return Outcome::Bad;
        }
        let mut holdings = known.holdings.clone();
        holdings.apply(changes);
        if holdings.root() != head.head().root {
            return Outcome::Unfit;
        }
        self.adopt(head, holdings, Some(changes.to_vec()))
    }

    fn assemble(&mut self, link: LinkId, head: SignedHead, part: InventoryPart) -> Outcome {
        let Some(session) = self.sessions.get_mut(&link) else { return Outcome::Incomplete };
        let begun = session.assembly.take().filter(|(wire, _)| *wire == part.head);
        let mut holdings = begun.map(|(_, holdings)| holdings).unwrap_or_default();
        if positions_in(&part.changes) > HOLDINGS_POSITIONS_MAX {
            return Outcome::Bad;
        }
        holdings.apply(&part.changes);
        if holdings.is_over_limit() {
            return Outcome::Bad;
        }
        if part.more {
            session.assembly = Some((part.head, holdings));
            return Outcome::Incomplete;
        }
        self.adopt(head, holdings, None)
    }

    /// Lets a complete inventory count, if its content is what was signed.
    fn adopt(&mut self, head: SignedHead, mut holdings: Holdings, changes: Option<Vec<HoldingChanges>>) -> Outcome {
        if holdings.is_over_limit() || holdings.root() != head.head().root {
            return Outcome::Bad;
        }
        let device = head.head().peer;
        let peer = self.peers.entry(device).or_default();
        let changes = changes.unwrap_or_else(|| {
            let before = peer.inventory.take().map(|inventory| inventory.holdings).unwrap_or_default();
            before.changes_to(&holdings)
        });
        peer.inventory = Some(PeerInventory { head, holdings });
        for session in self.sessions.values_mut() {
            session.asked.remove(&device);
        }
        // Hints that this brings over the limit are the peer's own fault, found with its next hint.
        let _ = self.scheduler.announce(&device, &changes, &mut self.chunks);
        if !changes.is_empty() {
            self.effects.push(Effect::HoldingsChanged { peer: device, changes });
        }
        self.note_inventory(device);
        Outcome::Adopted
    }

    pub(super) fn handle_have(&mut self, link: LinkId, changes: &[HoldingChanges]) {
        if positions_in(changes) > HOLDINGS_POSITIONS_MAX {
            return self.misbehaved(link, Misbehaviour::BadInventory);
        }
        if let Some(peer) = self.sessions.get(&link).map(|session| session.peer)
            && !self.scheduler.announce(&peer, changes, &mut self.chunks)
        {
            self.misbehaved(link, Misbehaviour::BadInventory);
        }
    }

    pub(super) fn handle_gossiped(&mut self, from: &DeviceId, body: &Bytes) -> Result<(), StorageError> {
        if *from == self.me || !self.registry.is_member(from) {
            return Ok(());
        }
        let Ok(Some(announcement)) = Announcement::decode(body) else { return Ok(()) };
        if let Some(peer) = self.peers.get_mut(from) {
            peer.last_heard = Some(self.now.wall);
        }
        // It is there, if not yet connected to this device.
        self.call_on_hearsay(from);
        let link = self.session_with(from);
        if let Some(link) = link {
            self.note_gossiped_points(link, announcement.points);
        }
        let Some(part) = announcement.inventory else { return Ok(()) };
        let Some(Ok(head)) = self.newer_head(&part.head) else { return Ok(()) };
        let base = part.base.filter(|_| head.head().peer == *from);
        let outcome = base.map(|base| self.apply_delta(head, base, &part.changes));
        if outcome != Some(Outcome::Adopted)
            && let Some(link) = link
        {
            self.handle_heads(link, vec![part.head])?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Adopted,
    /// More pieces follow.
    Incomplete,
    /// It changes an inventory that is not the one known here.
    MissesBase,
    /// It makes of the inventory known here something else than was signed.
    Unfit,
    /// It is not what was signed, or too much.
    Bad,
}

fn positions_in(changes: &[HoldingChanges]) -> u64 {
    let spans = changes.iter().flat_map(|changes| changes.held.iter().chain(&changes.erased));
    spans.map(|span| u64::from(span.count)).sum()
}
