//! Every deposited chunk: its positions, whether it is held, and whether it is wanted.
//!
//! A chunk has a **slot**, numbered in the order in which chunks were learned; consecutive positions mostly have
//! consecutive slots, so that a photo's chunks are neighbours. About 55 bytes a chunk, the tables included.
//!
//! Invariants:
//! - a chunk is live while any of its positions is neither released nor void;
//! - `wanted` is exactly the set of live chunks that are not held;
//! - released positions stay released, also those of deposits that have not arrived yet.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use crate::deposit::{Deposit, DepositRefused, DepositedChunk};
use crate::id::{AuthorId, ChunkId};
use crate::inventory::Span;
use crate::limits::VECTOR_AUTHORS_MAX;
use crate::position::Position;

/// A chunk's number in this table.
pub(super) type Slot = u32;

const HELD: u8 = 1;
const REQUESTED: u8 = 2;

#[derive(Debug, Clone)]
struct Entry {
    chunk: ChunkId,
    length: u32,
    index: u32,
    author: u8,
    flags: u8,
    /// The number of the peer that it was last served to; 0 for none.
    served_to: u8,
    /// How many connected peers hold it, saturating; kept by the scheduler.
    sources: u8,
}

/// A further position of a chunk that was deposited more than once.
#[derive(Debug, Clone, Copy)]
struct Again {
    author: u8,
    index: u32,
}

#[derive(Debug, Clone)]
struct AuthorSlots {
    author: AuthorId,
    slots: Vec<Slot>,
    released: RoaringBitmap,
    /// From where on positions keep nothing alive: the log ended before them, or nobody vouches for its author (yet).
    void_from: Option<u32>,
    /// From where on positions mean nothing: the log ended before them, and they may be another chunk's for others, or
    /// nobody's.
    meaningless_from: Option<u32>,
}

impl AuthorSlots {
    fn is_void(&self, index: u32) -> bool {
        self.void_from.is_some_and(|from| index >= from)
    }

    /// The slots of positions that mean something.
    fn meaningful(&self) -> &[Slot] {
        let end = self.meaningless_from.map_or(self.slots.len(), |from| self.slots.len().min(from as usize));
        &self.slots[..end]
    }
}

/// See the head of the module.
#[derive(Debug)]
pub(super) struct ChunkTable {
    entries: Vec<Entry>,
    by_id: HashTable<Slot>,
    hash_keys: [u64; 2],
    again: BTreeMap<Slot, Vec<Again>>,
    authors: Vec<AuthorSlots>,
    author_numbers: BTreeMap<AuthorId, u8>,
    /// Releases of positions whose author is not known yet.
    early_releases: BTreeMap<AuthorId, RoaringBitmap>,
    wanted: RoaringBitmap,
    wanted_bytes: u64,
}

impl ChunkTable {
    /// An empty table; `hash_keys` are secret, so that nobody can make chunk ids collide.
    pub(super) fn new(hash_keys: [u64; 2]) -> Self {
        Self {
            entries: Vec::new(),
            by_id: HashTable::new(),
            hash_keys,
            again: BTreeMap::new(),
            authors: Vec::new(),
            author_numbers: BTreeMap::new(),
            early_releases: BTreeMap::new(),
            wanted: RoaringBitmap::new(),
            wanted_bytes: 0,
        }
    }

    /// Gives back memory that growing left over.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.authors.iter_mut().for_each(|author| author.slots.shrink_to_fit());
    }

    fn author_number(&mut self, author: &AuthorId) -> Option<u8> {
        if let Some(&number) = self.author_numbers.get(author) {
            return Some(number);
        }
        let number = u8::try_from(self.authors.len()).ok()?;
        let released = self.early_releases.remove(author).unwrap_or_default();
        self.authors.push(AuthorSlots {
            author: *author,
            slots: Vec::new(),
            released,
            void_from: None,
            meaningless_from: None,
        });
        self.author_numbers.insert(*author, number);
        Some(number)
    }

    fn slots_of(&self, author: &AuthorId) -> Option<&AuthorSlots> {
        self.author_numbers.get(author).map(|&number| &self.authors[usize::from(number)])
    }

    /// How many positions `author` has given.
    pub(super) fn next_position(&self, author: &AuthorId) -> u32 {
        self.slots_of(author).map_or(0, |slots| slots.slots.len() as u32)
    }

    /// Gives positions to the chunks of a deposit, and returns their slots, each once: a hostile deposit names one chunk
    /// thousands of times.
    pub(super) fn deposit(&mut self, author: &AuthorId, deposit: &Deposit) -> Result<Vec<Slot>, DepositRefused> {
        let expected = self.next_position(author);
        if deposit.first != expected {
            return Err(DepositRefused::NotNext { first: deposit.first, expected });
        }
        let number = self.author_number(author).ok_or(DepositRefused::TooMany)?;
        for (index, chunk) in (deposit.first..).zip(&deposit.chunks) {
            let slot = self.add(number, index, chunk);
            self.authors[usize::from(number)].slots.push(slot);
        }
        let slots = distinct(self.authors[usize::from(number)].slots[expected as usize..].iter().copied());
        slots.iter().for_each(|slot| _ = self.review(*slot));
        Ok(slots)
    }

    fn add(&mut self, author: u8, index: u32, chunk: &DepositedChunk) -> Slot {
        if let Some(slot) = self.slot(&chunk.chunk) {
            self.again.entry(slot).or_default().push(Again { author, index });
            return slot;
        }
        let slot = self.entries.len() as Slot;
        let DepositedChunk { chunk, length } = *chunk;
        self.entries.push(Entry { chunk, length, index, author, flags: 0, served_to: 0, sources: 0 });
        let (keys, entries) = (self.hash_keys, &self.entries);
        self.by_id.insert_unique(hash(keys, &chunk), slot, |&slot| hash(keys, &entries[slot as usize].chunk));
        slot
    }

    /// The slot of `chunk`, when it has been deposited.
    pub(super) fn slot(&self, chunk: &ChunkId) -> Option<Slot> {
        let same = |&slot: &Slot| self.entries[slot as usize].chunk == *chunk;
        self.by_id.find(hash(self.hash_keys, chunk), same).copied()
    }

    /// The slot at a position; `None` when that is not known, or means nothing behind the end of a log.
    pub(super) fn slot_at(&self, position: &Position) -> Option<Slot> {
        self.slots_of(&position.author)?.meaningful().get(position.index as usize).copied()
    }

    /// The slots at those of `span`'s positions that are known and mean something.
    pub(super) fn slots_in(&self, author: &AuthorId, span: &Span) -> &[Slot] {
        let slots = self.slots_of(author).map_or(&[][..], AuthorSlots::meaningful);
        let indices = span.indices();
        let end = slots.len().min(indices.end as usize);
        slots.get(indices.start as usize..end).unwrap_or_default()
    }

    /// From where on positions of `author`, whose log has ended, mean nothing: at the latest from those on that are not known.
    pub(super) fn meaningless_from(&self, author: &AuthorId) -> u32 {
        self.slots_of(author).map_or(0, |of| of.meaningless_from.unwrap_or(of.slots.len() as u32))
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The chunk's id, and the sealed length that its first depositor claims.
    pub(super) fn chunk(&self, slot: Slot) -> DepositedChunk {
        let entry = &self.entries[slot as usize];
        DepositedChunk { chunk: entry.chunk, length: entry.length }
    }

    /// All positions of a chunk that mean something, the first one learned first.
    pub(super) fn positions(&self, slot: Slot) -> impl Iterator<Item = Position> + '_ {
        let entry = &self.entries[slot as usize];
        let again = self.again.get(&slot).into_iter().flatten().map(|again| (again.author, again.index));
        std::iter::once((entry.author, entry.index))
            .chain(again)
            .filter(|(author, index)| {
                self.authors[usize::from(*author)].meaningless_from.is_none_or(|from| *index < from)
            })
            .map(|(author, index)| Position { author: self.authors[usize::from(author)].author, index })
    }

    /// Marks positions of `author` as released, for ever; returns the slots that are live no more.
    pub(super) fn release(&mut self, author: &AuthorId, spans: &[Span]) -> Vec<Slot> {
        const EARLY_AUTHORS_MAX: usize = VECTOR_AUTHORS_MAX / 4;
        let Some(&number) = self.author_numbers.get(author) else {
            let known = self.early_releases.contains_key(author);
            if known || self.early_releases.len() < EARLY_AUTHORS_MAX {
                let early = self.early_releases.entry(*author).or_default();
                insert_spans(early, spans);
            }
            return Vec::new();
        };
        let released = &mut self.authors[usize::from(number)].released;
        insert_spans(released, spans);
        self.review_spans(author, spans)
    }

    /// Sets from where on `author`'s positions keep nothing alive, and from where on they mean nothing; returns those of which
    /// either is different now, with their slots.
    pub(super) fn set_end(
        &mut self,
        author: &AuthorId,
        void_from: Option<u32>,
        meaningless_from: Option<u32>,
    ) -> Vec<(Position, Slot)> {
        let is_ended = void_from.is_some() || meaningless_from.is_some();
        if !is_ended && !self.author_numbers.contains_key(author) {
            return Vec::new();
        }
        let Some(number) = self.author_number(author) else { return Vec::new() };
        let own = &mut self.authors[usize::from(number)];
        let end = own.slots.len() as u32;
        let mut first = end;
        for (before, after) in [(own.void_from, void_from), (own.meaningless_from, meaningless_from)] {
            if before != after {
                first = [before, after].into_iter().flatten().fold(first, u32::min);
            }
        }
        (own.void_from, own.meaningless_from) = (void_from, meaningless_from);
        let position = |index| (Position { author: *author, index }, own.slots[index as usize]);
        let changed: Vec<_> = (first..end).map(position).collect();
        distinct(changed.iter().map(|(_, slot)| *slot)).into_iter().for_each(|slot| _ = self.review(slot));
        changed
    }

    fn review_spans(&mut self, author: &AuthorId, spans: &[Span]) -> Vec<Slot> {
        let slots: Vec<Slot> = spans.iter().flat_map(|span| self.slots_in(author, span)).copied().collect();
        distinct(slots).into_iter().filter(|&slot| self.review(slot)).collect()
    }

    /// Whether any of the chunk's positions still counts.
    pub(super) fn is_live(&self, slot: Slot) -> bool {
        let entry = &self.entries[slot as usize];
        let counts = |author: u8, index| {
            let own = &self.authors[usize::from(author)];
            !own.released.contains(index) && !own.is_void(index)
        };
        counts(entry.author, entry.index)
            || self.again.get(&slot).is_some_and(|again| again.iter().any(|again| counts(again.author, again.index)))
    }

    /// Brings `wanted` in line with the chunk's state; whether that changed it.
    fn review(&mut self, slot: Slot) -> bool {
        let wanted = !self.is_held(slot) && self.is_live(slot);
        let length = u64::from(self.entries[slot as usize].length);
        if wanted && self.wanted.insert(slot) {
            self.wanted_bytes += length;
            true
        } else if !wanted && self.wanted.remove(slot) {
            self.wanted_bytes = self.wanted_bytes.saturating_sub(length);
            true
        } else {
            false
        }
    }

    /// Whether the chunk is durable here.
    pub(super) fn is_held(&self, slot: Slot) -> bool {
        self.entries[slot as usize].flags & HELD != 0
    }

    /// Notes that the chunk is durable here, or no more; whether that is news.
    pub(super) fn set_held(&mut self, slot: Slot, held: bool) -> bool {
        if self.is_held(slot) == held {
            return false;
        }
        self.entries[slot as usize].flags ^= HELD;
        self.review(slot);
        true
    }

    /// Whether the chunk is to be fetched: live and not held.
    pub(super) fn is_wanted(&self, slot: Slot) -> bool {
        let entry = &self.entries[slot as usize];
        entry.flags & HELD == 0 && self.wanted.contains(slot)
    }

    /// Whether a request for it is under way.
    pub(super) fn is_requested(&self, slot: Slot) -> bool {
        self.entries[slot as usize].flags & REQUESTED != 0
    }

    /// Notes whether a request for it is under way.
    pub(super) fn set_requested(&mut self, slot: Slot, requested: bool) {
        let flags = &mut self.entries[slot as usize].flags;
        *flags = if requested { *flags | REQUESTED } else { *flags & !REQUESTED };
    }

    /// How many connected peers hold it.
    pub(super) fn sources(&self, slot: Slot) -> u8 {
        self.entries[slot as usize].sources
    }

    /// Sets how many connected peers hold it.
    pub(super) fn set_sources(&mut self, slot: Slot, sources: u8) {
        self.entries[slot as usize].sources = sources;
    }

    /// The number of the peer that it was last served to; 0 for none.
    pub(super) fn served_to(&self, slot: Slot) -> u8 {
        self.entries[slot as usize].served_to
    }

    /// Notes the number of the peer that it is served to.
    pub(super) fn set_served_to(&mut self, slot: Slot, peer: u8) {
        self.entries[slot as usize].served_to = peer;
    }

    /// Live chunks that are not held.
    pub(super) const fn wanted(&self) -> &RoaringBitmap {
        &self.wanted
    }

    /// Their sealed bytes.
    pub(super) const fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }
}

fn insert_spans(bitmap: &mut RoaringBitmap, spans: &[Span]) {
    for span in spans {
        bitmap.insert_range(span.indices());
    }
}

/// Mixes the parts of an id that its depositor chose with keys that it cannot know.
fn hash(keys: [u64; 2], chunk: &ChunkId) -> u64 {
    let (words, _) = chunk.as_bytes().as_chunks::<8>();
    let fold = |a: u64, b: u64| {
        let product = u128::from(a ^ keys[0]) * u128::from(b ^ keys[1]);
        product as u64 ^ (product >> 64) as u64
    };
    fold(u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])).rotate_left(32)
        ^ fold(u64::from_le_bytes(words[2]), u64::from_le_bytes(words[3]))
}

/// Each slot once, where it comes first.
pub(super) fn distinct(slots: impl IntoIterator<Item = Slot>) -> Vec<Slot> {
    let mut seen = RoaringBitmap::new();
    slots.into_iter().filter(|&slot| seen.insert(slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AuthorId = AuthorId::from_bytes([1; 32]);
    const B: AuthorId = AuthorId::from_bytes([2; 32]);

    fn chunk(number: u8) -> DepositedChunk {
        DepositedChunk { chunk: ChunkId::from_bytes([number; 32]), length: 100 }
    }

    fn deposit(table: &mut ChunkTable, author: &AuthorId, numbers: &[u8]) -> Vec<Slot> {
        let first = table.next_position(author);
        let chunks = numbers.iter().copied().map(chunk).collect();
        table.deposit(author, &Deposit { first, chunks, runs: Vec::new() }).unwrap()
    }

    fn span(start: u32, count: u32) -> Span {
        Span { start, count }
    }

    #[test]
    fn a_chunk_is_live_while_any_position_is_unreleased() {
        let mut table = ChunkTable::new([3, 4]);
        assert_eq!(deposit(&mut table, &A, &[10, 11]), [0, 1]);
        assert_eq!(deposit(&mut table, &B, &[11, 12]), [1, 2]);
        assert_eq!(table.wanted().len(), 3);
        assert_eq!(table.release(&A, &[span(0, 2)]), [0]);
        assert_eq!(table.release(&B, &[span(0, 1)]), [1]);
        assert_eq!((table.wanted().len(), table.wanted_bytes()), (1, 100));
        // Depositing again makes it live again; the old release does not touch the new position.
        assert_eq!(deposit(&mut table, &A, &[10]), [0]);
        assert!(table.is_live(0) && table.is_wanted(0));
    }

    #[test]
    fn releases_may_come_before_deposits_and_never_end() {
        let mut table = ChunkTable::new([3, 4]);
        table.release(&A, &[span(1, 1)]);
        deposit(&mut table, &A, &[10, 11, 12]);
        assert!(table.is_live(0) && !table.is_live(1) && table.is_live(2));
        let third = Position { author: A, index: 2 };
        assert_eq!(table.set_end(&A, Some(2), Some(2)), [(third, 2)]);
        assert!(!table.is_live(2));
        assert_eq!(
            (table.slot_at(&third), table.positions(2).count(), table.slots_in(&A, &span(0, 9)).len()),
            (None, 0, 2)
        );
        deposit(&mut table, &A, &[13]);
        assert!(!table.is_live(3), "nothing counts that comes later");
        assert_eq!(table.set_end(&A, None, None).len(), 2);
        assert!(!table.is_live(1) && table.is_live(2) && table.is_live(3));
    }

    #[test]
    fn deposits_continue_where_the_last_one_ended() {
        let mut table = ChunkTable::new([3, 4]);
        deposit(&mut table, &A, &[10]);
        let refused = table.deposit(&A, &Deposit { first: 5, chunks: vec![chunk(1)], runs: Vec::new() });
        assert_eq!(refused, Err(DepositRefused::NotNext { first: 5, expected: 1 }));
        assert_eq!(table.slots_in(&A, &span(0, 9)).len(), 1);
        assert_eq!(table.slots_in(&A, &span(7, 2)).len(), 0);
    }

    #[test]
    fn held_chunks_are_not_wanted() {
        let mut table = ChunkTable::new([3, 4]);
        deposit(&mut table, &A, &[10, 11]);
        assert!(table.set_held(0, true) && !table.set_held(0, true));
        assert_eq!(table.wanted().iter().collect::<Vec<_>>(), [1]);
        assert!(table.set_held(0, false));
        assert_eq!(table.wanted_bytes(), 200);
    }
}
