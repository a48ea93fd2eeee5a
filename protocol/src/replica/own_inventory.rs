//! What this node says about its own holdings.
//!
//! Invariants: it names only what the caller knows to be durable; a head is signed only once the generation it stands in
//! is durable; (generation, seq) never names two contents, because each opening begins a new generation and each head of
//! it has the next number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use roaring::RoaringBitmap;

use crate::id::{AuthorId, DeviceId, LibraryId, PlaceId};
use crate::inventory::{Generation, Head, HoldingChanges, Holdings, SignedHead, spans};
use crate::keys::DeviceKey;
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::message::{InventoryPart, Message};
use crate::position::Position;
use crate::time::{Now, Timestamp};

/// After this long without a change the changes so far are signed.
const QUIET: Duration = Duration::from_secs(1);
/// So long after the first change they are signed in any case.
const PUBLISH_AFTER: Duration = Duration::from_secs(5);
/// After so many changes they are signed early, but not more often than each [`QUIET`].
const PUBLISH_CHANGES: u64 = 500;
/// Unsigned hints to connected peers.
const HAVE_AFTER: Duration = Duration::from_millis(100);
/// Published changes kept for peers that have missed a few.
const RECENT_MAX: usize = 32;

/// Changes gathered until they are told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    authors: BTreeMap<AuthorId, (RoaringBitmap, RoaringBitmap)>,
    count: u64,
}

impl Pending {
    pub(super) fn record(&mut self, position: &Position, held: bool) {
        let (gained, lost) = self.authors.entry(position.author).or_default();
        let (to, from) = if held { (gained, lost) } else { (lost, gained) };
        // What is gained and lost again in between is no change.
        if !from.remove(position.index) {
            to.insert(position.index);
        }
        self.count += 1;
    }

    pub(super) fn take(&mut self) -> Vec<HoldingChanges> {
        self.count = 0;
        let changes = |(author, (gained, lost)): (AuthorId, (RoaringBitmap, RoaringBitmap))| HoldingChanges {
            held: spans::of_bitmap(&gained),
            lost: spans::of_bitmap(&lost),
            ..HoldingChanges::none(author)
        };
        std::mem::take(&mut self.authors).into_iter().map(changes).filter(|changes| !changes.is_empty()).collect()
    }
}

/// See the head of the module.
#[derive(Debug)]
pub(super) struct OwnInventory {
    holdings: Holdings,
    generation: Generation,
    head: Option<SignedHead>,
    /// Frames that lead from one number to the next, the last one to `head`.
    recent: VecDeque<(u64, Bytes)>,
    unsigned: Pending,
    unannounced: Pending,
    first_change: Option<Timestamp>,
    last_change: Timestamp,
    last_signed: Timestamp,
    have_due: Option<Timestamp>,
    /// Whether the generation is durable.
    generation_durable: bool,
}

impl OwnInventory {
    pub(super) fn new(holdings: Holdings, generation: Generation) -> Self {
        Self {
            holdings,
            generation,
            head: None,
            recent: VecDeque::new(),
            unsigned: Pending::default(),
            unannounced: Pending::default(),
            first_change: None,
            last_change: Timestamp::default(),
            last_signed: Timestamp::default(),
            have_due: None,
            generation_durable: false,
        }
    }

    pub(super) const fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    pub(super) const fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) const fn head(&self) -> Option<&SignedHead> {
        self.head.as_ref()
    }

    /// Begins another generation, because someone knows of a later one; it counts once `set_durable` was called.
    pub(super) fn renew(&mut self, generation: Generation) {
        self.generation = generation;
        self.head = None;
        self.recent.clear();
        self.generation_durable = false;
    }

    /// The generation is durable: heads may be signed.
    pub(super) const fn set_durable(&mut self) {
        self.generation_durable = true;
    }

    /// Notes that a position is held, or no more.
    pub(super) fn record(&mut self, now: Timestamp, position: &Position, held: bool) {
        let news = if held { self.holdings.insert(position) } else { self.holdings.remove(position) };
        if news {
            self.unsigned.record(position, held);
            self.unannounced.record(position, held);
            self.first_change.get_or_insert(now);
            self.last_change = now;
            self.have_due.get_or_insert(now + HAVE_AFTER);
        }
    }

    /// When the changes so far are to be signed: at once when nothing was signed yet.
    fn sign_due(&self) -> Option<Timestamp> {
        if !self.generation_durable {
            return None;
        }
        if self.head.is_none() {
            return Some(Timestamp::default());
        }
        let first = self.first_change?;
        let many = self.unsigned.count >= PUBLISH_CHANGES;
        let due = if many { self.last_signed + QUIET } else { (self.last_change + QUIET).min(first + PUBLISH_AFTER) };
        Some(due)
    }

    /// Signs what has changed, if it is time, and returns the frame to send to every session: the changes, or the head
    /// alone when there is nothing before it or they are too many.
    pub(super) fn sign(
        &mut self,
        now: Now,
        library: &LibraryId,
        key: &DeviceKey,
        place: Option<PlaceId>,
    ) -> Option<(Bytes, InventoryPart)> {
        if self.sign_due().is_none_or(|due| due > now.elapsed) {
            return None;
        }
        let changes = self.unsigned.take();
        self.first_change = None;
        self.last_signed = now.elapsed;
        let base = self.head.as_ref().map(|head| head.head().seq);
        let head = Head {
            peer: key.device_id(),
            generation: self.generation,
            seq: base.map_or(0, |base| base + 1),
            root: self.holdings.root(),
            held: self.holdings.held_count(),
            erased: self.holdings.erased_count(),
            place,
            time: now.wall,
        };
        let head = SignedHead::sign(head, library, key);
        let part = InventoryPart { head: head.wire().clone(), base, more: false, changes };
        self.head = Some(head);
        let frame = Message::Inventory(part.clone()).to_frame();
        if let Some(base) = base
            && frame.len() <= CONTROL_FRAME_BYTES_MAX
        {
            self.recent.push_back((base, frame.clone()));
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
            return Some((frame, part));
        }
        self.recent.clear();
        let alone = InventoryPart { base: None, more: true, changes: Vec::new(), ..part };
        Some((Message::Heads(vec![alone.head.clone()]).to_frame(), alone))
    }

    /// The frames that bring someone who knows `known` up to date.
    pub(super) fn frames_since(&self, known: Option<(Generation, u64)>) -> Vec<Bytes> {
        let Some(head) = &self.head else { return Vec::new() };
        let since = known.filter(|(generation, _)| *generation == self.generation).map(|(_, seq)| seq);
        if let Some(since) = since
            && self.recent.front().is_some_and(|(first, _)| *first <= since)
        {
            return self.recent.iter().filter(|(base, _)| *base >= since).map(|(_, frame)| frame.clone()).collect();
        }
        // The head covers what was signed; what has changed since is in neither.
        let mut signed = self.holdings.clone();
        for (author, (gained, lost)) in &self.unsigned.authors {
            let changes = HoldingChanges {
                held: spans::of_bitmap(lost),
                lost: spans::of_bitmap(gained),
                ..HoldingChanges::none(*author)
            };
            signed.apply(&[changes]);
        }
        let parts = InventoryPart::whole(head, &signed.as_changes());
        parts.into_iter().map(|part| Message::Inventory(part).to_frame()).collect()
    }

    /// The unsigned hint for every session, if it is time.
    pub(super) fn have(&mut self, now: Timestamp) -> Option<Bytes> {
        self.have_due.filter(|due| *due <= now)?;
        self.have_due = None;
        let changes = self.unannounced.take();
        if changes.is_empty() {
            return None;
        }
        let frame = Message::Have(changes).to_frame();
        // A frame that is too long is left out: the signed inventory will say it.
        (frame.len() <= CONTROL_FRAME_BYTES_MAX).then_some(frame)
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        [self.sign_due(), self.have_due].into_iter().flatten().min()
    }
}

/// What is known about a peer's inventory.
#[derive(Debug, Clone)]
pub(super) struct PeerInventory {
    pub(super) head: SignedHead,
    pub(super) holdings: Holdings,
}

impl PeerInventory {
    /// The form in which it is kept in storage.
    pub(super) fn encode(&self) -> Vec<u8> {
        let changes = self.holdings.as_changes();
        InventoryPart { head: self.head.wire().clone(), base: None, more: false, changes }.encode()
    }

    /// Decodes what [`PeerInventory::encode`] wrote; `None` when it is damaged.
    pub(super) fn decode(bytes: Vec<u8>, peer: &DeviceId) -> Option<Self> {
        let part = InventoryPart::decode(&bytes.into()).ok()?;
        let head = SignedHead::parse_unverified(part.head).ok().filter(|head| head.head().peer == *peer)?;
        let mut holdings = Holdings::new();
        holdings.apply(&part.changes);
        (holdings.root() == head.head().root).then_some(Self { head, holdings })
    }

    /// The frames that give it to someone else.
    pub(super) fn frames(&self) -> Vec<Bytes> {
        let parts = InventoryPart::whole(&self.head, &self.holdings.as_changes());
        parts.into_iter().map(|part| Message::Inventory(part).to_frame()).collect()
    }
}
