//! Changes that cannot be applied yet, because something they build on has not arrived.
//!
//! Each origin has a queue in the order of its log, and only the head of a queue is ever looked at. So which of an
//! author's changes is the first refused one follows from its log alone, never from what arrived in between.
//!
//! What waits has a bound: of what a log says itself, and of all together that it carries of others, however many they are.

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
        self.drop_earlier(&origin, change);
        let (changes, bytes) = self
            .sharing_room_with(origin)
            .fold((0, 0), |(changes, bytes), queue| (changes + queue.changes.len(), bytes + queue.bytes));
        if changes >= WAITING_CHANGES_MAX || bytes + change.len() > WAITING_BYTES_MAX {
            return false;
        }
        let queue = self.queues.entry(origin).or_default();
        queue.bytes += change.len();
        queue.changes.push_back(change.to_vec());
        true
    }

    /// The queues of which the bound is one.
    fn sharing_room_with(&self, origin: Origin) -> impl Iterator<Item = &Queue> {
        let own = if origin.is_carried() { None } else { self.queues.get(&origin) };
        let is_shared = move |other: &Origin| other.is_carried() && other.log == origin.log;
        let carried = origin.is_carried().then(|| self.queues.iter().filter(move |(other, _)| is_shared(other)));
        own.into_iter().chain(carried.into_iter().flatten().map(|(_, queue)| queue))
    }

    /// What is carried again from an earlier end begins with what the changes build on that were carried before: those
    /// would stand before it in the queue, and wait for it for ever.
    fn drop_earlier(&mut self, origin: &Origin, change: &[u8]) {
        if origin.is_carried()
            && let Some(queue) = self.queues.get_mut(origin)
            && let Some(at) = queue.changes.iter().position(|earlier| earlier == change)
        {
            queue.changes.remove(at);
            queue.bytes -= change.len();
            if at == 0 {
                queue.head = None;
            }
        }
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
        let is_drained = |origin: &&Origin| self.sharing_room_with(**origin).next().is_none();
        let drained = self.overflowed.iter().find(is_drained).copied()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const CARRIER: AuthorId = AuthorId::from_bytes([1; 32]);

    fn carried(number: u8) -> Origin {
        Origin { author: AuthorId::from_bytes([number; 32]), log: CARRIER }
    }

    #[test]
    fn what_a_log_carries_of_others_has_one_room_however_many_they_are() {
        let mut waiting = Waiting::default();
        let change = vec![0; CHANGE_BYTES_MAX];
        let kept = (2..200).filter(|&number| waiting.push(carried(number), &change)).count();
        assert_eq!(kept, WAITING_BYTES_MAX / CHANGE_BYTES_MAX);
        assert!(waiting.push(CARRIER.into(), &change), "its own changes have their own");
        let other = Origin { author: carried(2).author, log: carried(9).author };
        assert!(waiting.push(other, &change), "and so has what another carries");
        waiting.overflow(carried(100));
        for number in 2..2 + kept as u8 {
            assert_eq!(waiting.take_drained(), None);
            waiting.pop(&carried(number)).unwrap();
        }
        assert_eq!(waiting.take_drained(), Some(carried(100)));
    }

    #[test]
    fn what_is_carried_again_from_an_earlier_end_waits_behind_what_it_builds_on() {
        let mut waiting = Waiting::default();
        for change in [5, 6, 3, 4, 5, 6, 7] {
            assert!(waiting.push(carried(2), &[change]));
        }
        let order: Vec<u8> = waiting.iter().map(|(_, change)| change[0]).collect();
        assert_eq!(order, [3, 4, 5, 6, 7]);
        assert_eq!(waiting.queues[&carried(2)].bytes, 5);
    }
}
