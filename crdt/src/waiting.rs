//! Changes that cannot be applied yet, because something they build on has not arrived.
//!
//! Each origin has a queue in the order of its log, and only the head of a queue is ever looked at. So which of an
//! author's changes is the first refused one follows from its log alone, never from what arrived in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_protocol::id::AuthorId;

use crate::guard::screen::Screened;
use crate::limits::{CHANGE_BYTES_MAX, WAITING_BYTES_MAX, WAITING_CHANGES_MAX};
use crate::origin::Origin;

/// The queues of one document.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queues: BTreeMap<Origin, Queue>,
    /// Origins of which changes were dropped for want of room, so that their later ones must not be taken either.
    overflowed: BTreeSet<Origin>,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The head, once it was screened and found to wait.
    head: Option<Box<Screened>>,
}

impl Waiting {
    /// Puts a change at the end of its origin's queue; false when there is no room for it.
    pub(crate) fn push(&mut self, origin: Origin, change: &[u8]) -> bool {
        if self.overflowed.contains(&origin) {
            return false;
        }
        // A change that is too large is refused in its turn; of that, its beginning is enough.
        let change = &change[..change.len().min(CHANGE_BYTES_MAX + 1)];
        let queue = self.queues.entry(origin).or_default();
        if queue.changes.len() >= WAITING_CHANGES_MAX || queue.bytes + change.len() > WAITING_BYTES_MAX {
            return false;
        }
        queue.bytes += change.len();
        queue.changes.push_back(change.to_vec());
        true
    }

    /// Takes no more changes of `origin`: one was dropped.
    pub(crate) fn overflow(&mut self, origin: Origin) {
        self.overflowed.insert(origin);
    }

    /// The origin's next change.
    pub(crate) fn head(&mut self, origin: &Origin) -> Option<(&[u8], &mut Option<Box<Screened>>)> {
        let Queue { changes, head, .. } = self.queues.get_mut(origin)?;
        changes.front().map(|change| (change.as_slice(), head))
    }

    /// Takes the origin's next change out.
    pub(crate) fn pop(&mut self, origin: &Origin) -> Option<Vec<u8>> {
        let queue = self.queues.get_mut(origin)?;
        let change = queue.changes.pop_front()?;
        queue.bytes -= change.len();
        queue.head = None;
        if queue.changes.is_empty() {
            self.queues.remove(origin);
        }
        Some(change)
    }

    /// Puts a change back in front of its origin's queue.
    pub(crate) fn push_front(&mut self, origin: Origin, change: Vec<u8>) {
        let queue = self.queues.entry(origin).or_default();
        queue.bytes += change.len();
        queue.changes.push_front(change);
        queue.head = None;
    }

    /// An origin of which changes were dropped and nothing waits any more: from now on its changes are taken again.
    pub(crate) fn take_drained(&mut self) -> Option<Origin> {
        let drained = self.overflowed.iter().find(|origin| !self.queues.contains_key(origin)).copied()?;
        self.overflowed.remove(&drained);
        Some(drained)
    }

    /// Drops everything of `author`, whose changes count no more.
    pub(crate) fn forget(&mut self, author: &AuthorId) {
        self.queues.retain(|origin, _| origin.author != *author);
        self.overflowed.retain(|origin| origin.author != *author);
    }

    /// Origins with waiting changes, in order.
    pub(crate) fn origins(&self) -> Vec<Origin> {
        self.queues.keys().copied().collect()
    }

    /// Whether changes of `author` wait, or were dropped.
    pub(crate) fn concerns(&self, author: &AuthorId) -> bool {
        self.queues.keys().chain(&self.overflowed).any(|origin| origin.author == *author)
    }

    /// How many changes wait.
    pub(crate) fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.changes.len()).sum()
    }

    /// Everything that waits, in the order of the queues.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Origin, &[u8])> {
        self.queues
            .iter()
            .flat_map(|(origin, queue)| queue.changes.iter().map(move |change| (origin, change.as_slice())))
    }

    /// Origins whose changes must be fed again.
    pub(crate) fn overflowed(&self) -> &BTreeSet<Origin> {
        &self.overflowed
    }
}
