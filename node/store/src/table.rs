//! A compact multimap from 64-bit keys to three words, for what must be known of every chunk and file without a
//! read: 20 bytes a row, about 22 with the slack.
//!
//! Invariants:
//! - `sorted` and `recent` are each sorted by key; equal keys lie next to each other in either.
//! - A row whose owner is [`DEAD`] is not there; it leaves at the next merge.
//! - `recent` never holds more than [`RECENT_MAX`] rows, so that an insertion moves a bounded number of bytes.

use holdfast_protocol::id::ChunkId;

const RECENT_MAX: usize = 4096;
const DEAD: u32 = u32::MAX;

/// One row. `owner` says what the other two words mean, and is never `u32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: u64,
    pub(super) first: u32,
    pub(super) second: u32,
    pub(super) owner: u32,
}

/// As kept: the key's high and low half, then the three words.
type Packed = [u32; 5];

#[derive(Default)]
pub(super) struct Table {
    sorted: Vec<Packed>,
    recent: Vec<Packed>,
    dead: usize,
}

impl Table {
    /// A table of `rows`, which come in any order.
    pub(super) fn from_rows(rows: Vec<Row>) -> Self {
        let mut sorted: Vec<Packed> = rows.into_iter().map(Row::pack).collect();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.shrink_to_fit();
        Self { sorted, recent: Vec::new(), dead: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.recent.len() - self.dead
    }

    /// The rows under `key`.
    pub(super) fn find(&self, key: u64) -> impl Iterator<Item = Row> + '_ {
        let run = |rows: &'_ [Packed]| {
            let start = rows.partition_point(|row| packed_key(row) < key);
            let count = rows[start..].iter().take_while(|row| packed_key(row) == key).count();
            start..start + count
        };
        let (sorted, recent) = (run(&self.sorted), run(&self.recent));
        self.sorted[sorted].iter().chain(&self.recent[recent]).filter(|row| row[4] != DEAD).map(Row::unpack)
    }

    /// Adds `row` unless it is there.
    pub(super) fn insert(&mut self, row: Row) {
        if self.find(row.key).any(|known| known == row) {
            return;
        }
        if self.recent.len() == RECENT_MAX {
            self.merge();
        }
        let at = self.recent.partition_point(|known| packed_key(known) <= row.key);
        self.recent.insert(at, row.pack());
    }

    /// Removes exactly `row`; whether it was there.
    pub(super) fn remove(&mut self, row: Row) -> bool {
        let wanted = row.pack();
        for rows in [&mut self.sorted, &mut self.recent] {
            let start = rows.partition_point(|known| packed_key(known) < row.key);
            let run = rows[start..].iter_mut().take_while(|known| packed_key(known) == row.key);
            if let Some(found) = run.into_iter().find(|known| **known == wanted) {
                found[4] = DEAD;
                self.dead += 1;
                return true;
            }
        }
        false
    }

    /// Keeps the rows for which `keep` is true.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Row) -> bool) {
        for rows in [&mut self.sorted, &mut self.recent] {
            rows.retain(|row| row[4] != DEAD && keep(Row::unpack(row)));
        }
        self.dead = 0;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        self.sorted.iter().chain(&self.recent).filter(|row| row[4] != DEAD).map(Row::unpack)
    }

    /// Bytes of memory that the rows take.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.sorted.capacity() + self.recent.capacity()) * size_of::<Packed>()
    }

    /// Moves `recent` into `sorted`, in place: both are read from their ends, and the greater row goes to the back.
    fn merge(&mut self) {
        let Self { sorted, recent, dead } = self;
        sorted.retain(|row| row[4] != DEAD);
        recent.retain(|row| row[4] != DEAD);
        *dead = 0;
        // A sixteenth of slack at most, where doubling would leave half of the table empty.
        if sorted.capacity() - sorted.len() < recent.len() {
            sorted.reserve_exact(recent.len().max(sorted.len() / 16));
        }
        let mut left = sorted.len();
        let mut right = recent.len();
        sorted.resize(left + right, [0; 5]);
        while right > 0 {
            let from_sorted = left > 0 && packed_key(&sorted[left - 1]) > packed_key(&recent[right - 1]);
            sorted[left + right - 1] = if from_sorted { sorted[left - 1] } else { recent[right - 1] };
            if from_sorted {
                left -= 1;
            } else {
                right -= 1;
            }
        }
        recent.clear();
    }
}

impl Row {
    const fn pack(self) -> Packed {
        [(self.key >> 32) as u32, self.key as u32, self.first, self.second, self.owner]
    }

    const fn unpack(packed: &Packed) -> Self {
        Self { key: packed_key(packed), first: packed[2], second: packed[3], owner: packed[4] }
    }
}

const fn packed_key(packed: &Packed) -> u64 {
    (packed[0] as u64) << 32 | packed[1] as u64
}

/// Makes table keys of identifiers and paths. Keyed, so that nobody outside can make two chunks that this node
/// takes for one.
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    pub(super) fn of_chunk(&self, chunk: &ChunkId) -> u64 {
        self.of_bytes(chunk.as_bytes())
    }

    pub(super) fn of_bytes(&self, bytes: &[u8]) -> u64 {
        let hash = blake3::keyed_hash(&self.0, bytes);
        u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn row(key: u64, owner: u32) -> Row {
        Row { key: key.wrapping_mul(0x9e37_79b9_7f4a_7c15), first: owner ^ 5, second: 7, owner }
    }

    #[test]
    fn many_rows_are_found_in_little_memory() {
        let count = 300_000;
        let mut table = Table::default();
        for key in 0..count {
            table.insert(row(key, 1));
        }
        assert_eq!(table.len(), count as usize);
        assert!((0..count).all(|key| table.find(row(key, 1).key).eq([row(key, 1)])));
        let bytes = table.memory_bytes() as f64 / count as f64;
        assert!(bytes <= 24.0, "{bytes} bytes a row");
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_rows(steps in prop::collection::vec((0u8..4, 0u64..40, 0u32..3), 0..200)) {
            let mut table = Table::default();
            let mut model = BTreeSet::new();
            for (step, key, owner) in steps {
                match step {
                    0 | 1 => {
                        table.insert(row(key, owner));
                        model.insert((key, owner));
                    }
                    2 => prop_assert_eq!(table.remove(row(key, owner)), model.remove(&(key, owner))),
                    _ => table.merge(),
                }
                prop_assert_eq!(table.len(), model.len());
                for key in 0..40 {
                    let found: BTreeSet<u32> = table.find(row(key, 0).key).map(|row| row.owner).collect();
                    let expected: BTreeSet<u32> =
                        model.iter().filter(|(known, _)| *known == key).map(|(_, owner)| *owner).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
