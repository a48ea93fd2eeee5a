//! Changes that cannot be applied yet, because something they build on has not arrived.
//!
//! Each author has a queue in the order of its log, and only the head of a queue is ever looked at. So which of an
//! author's changes is the first refused one follows from its log alone, never from what arrived in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_protocol::id::AuthorId;

use crate::guard::screen::Screened;
use crate::limits::{CHANGE_BYTES_MAX, WAITING_BYTES_MAX, WAITING_CHANGES_MAX};

/// The queues of one document.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queues: BTreeMap<AuthorId, Queue>,
    /// Authors of whom changes were dropped for want of room, so that their later ones must not be taken either.
    overflowed: BTreeSet<AuthorId>,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The head, once it was screened and found to wait.
    head: Option<Box<Screened>>,
}

impl Waiting {
    /// Puts a change at the end of its author's queue; false when there is no room for it.
    pub(crate) fn push(&mut self, author: AuthorId, change: &[u8]) -> bool {
        if self.overflowed.contains(&author) {
            return false;
        }
        // A change that is too large is refused in its turn; of that, its beginning is enough.
        let change = &change[..change.len().min(CHANGE_BYTES_MAX + 1)];
        let queue = self.queues.entry(author).or_default();
        if queue.changes.len() >= WAITING_CHANGES_MAX || queue.bytes + change.len() > WAITING_BYTES_MAX {
            return false;
        }
        queue.bytes += change.len();
        queue.changes.push_back(change.to_vec());
        true
    }

    /// Takes no more changes of `author`: one was dropped.
    pub(crate) fn overflow(&mut self, author: AuthorId) {
        self.overflowed.insert(author);
    }

    /// The author's next change.
    pub(crate) fn head(&mut self, author: &AuthorId) -> Option<(&[u8], &mut Option<Box<Screened>>)> {
        let Queue { changes, head, .. } = self.queues.get_mut(author)?;
        changes.front().map(|change| (change.as_slice(), head))
    }

    /// Takes the author's next change out.
    pub(crate) fn pop(&mut self, author: &AuthorId) -> Option<Vec<u8>> {
        let queue = self.queues.get_mut(author)?;
        let change = queue.changes.pop_front()?;
        queue.bytes -= change.len();
        queue.head = None;
        if queue.changes.is_empty() {
            self.queues.remove(author);
        }
        Some(change)
    }

    /// Puts a change back in front of its author's queue.
    pub(crate) fn push_front(&mut self, author: AuthorId, change: Vec<u8>) {
        let queue = self.queues.entry(author).or_default();
        queue.bytes += change.len();
        queue.changes.push_front(change);
        queue.head = None;
    }

    /// An author of whom changes were dropped and nothing waits any more: from now on its changes are taken again.
    pub(crate) fn take_drained(&mut self) -> Option<AuthorId> {
        let drained = self.overflowed.iter().find(|author| !self.queues.contains_key(author)).copied()?;
        self.overflowed.remove(&drained);
        Some(drained)
    }

    /// Drops everything of `author`, whose changes count no more.
    pub(crate) fn forget(&mut self, author: &AuthorId) {
        self.queues.remove(author);
        self.overflowed.remove(author);
    }

    /// Authors with waiting changes, in order.
    pub(crate) fn authors(&self) -> Vec<AuthorId> {
        self.queues.keys().copied().collect()
    }

    /// Whether changes of `author` wait, or were dropped.
    pub(crate) fn concerns(&self, author: &AuthorId) -> bool {
        self.queues.contains_key(author) || self.overflowed.contains(author)
    }

    /// How many changes wait.
    pub(crate) fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.changes.len()).sum()
    }

    /// Everything that waits, in the order of the queues.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&AuthorId, &[u8])> {
        self.queues
            .iter()
            .flat_map(|(author, queue)| queue.changes.iter().map(move |change| (author, change.as_slice())))
    }

    /// Authors whose changes must be fed again.
    pub(crate) fn overflowed(&self) -> &BTreeSet<AuthorId> {
        &self.overflowed
    }
}
