//! The bytes of one simulated file, and what a power failure may take of them.
//!
//! Invariant: `before` and `dropped` have the durable bytes of exactly those sectors that may differ from what is durable.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;

use super::coin;

pub(super) const SECTOR_BYTES: usize = 512;

/// See the head of the module. Clones share the bytes until one of them changes.
#[derive(Clone, Default)]
pub(super) struct Content {
    bytes: Arc<Vec<u8>>,
    before: BTreeMap<usize, Box<[u8]>>,
    /// Sectors that a failed sync left for written although they are not: no later sync writes them, only a new write does.
    dropped: BTreeMap<usize, Box<[u8]>>,
    durable_length: usize,
    /// Counts changes, as the modification time.
    pub(super) changes: u64,
}

/// What a power failure leaves of the sectors that were not synced.
enum Survival {
    Nothing,
    Everything,
    /// Those before one of them.
    Before(usize),
    /// Any.
    Scattered,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a sync would write nothing.
    pub(super) fn is_synced(&self) -> bool {
        self.before.is_empty() && self.durable_length == self.bytes.len()
    }

    /// Writes `part` at `start`, growing the file where needed.
    pub(super) fn write(&mut self, part: &[u8], start: usize) {
        self.remember(start..start + part.len());
        let bytes = Arc::make_mut(&mut self.bytes);
        if bytes.len() < start + part.len() {
            bytes.resize(start + part.len(), 0);
        }
        bytes[start..start + part.len()].copy_from_slice(part);
        self.changes += 1;
    }

    /// Makes a range read as zeros.
    pub(super) fn clear(&mut self, range: Range<usize>) {
        self.remember(range.clone());
        Arc::make_mut(&mut self.bytes)[range].fill(0);
        self.changes += 1;
    }

    pub(super) fn set_length(&mut self, length: usize) {
        self.remember(length..self.durable_length.max(length));
        Arc::make_mut(&mut self.bytes).resize(length, 0);
        self.changes += 1;
    }

    pub(super) fn sync(&mut self) {
        self.before.clear();
        self.durable_length = self.bytes.len();
    }

    /// Every second sync that fails leaves what it should have written for written, as Linux does.
    pub(super) fn fail_sync(&mut self, random: &mut ChaCha20Rng) {
        if coin(random) {
            self.dropped.append(&mut self.before);
        }
    }

    /// Everything is durable, whatever happened before.
    pub(super) fn settle(&mut self) {
        self.dropped.clear();
        self.sync();
    }

    /// Changes the bytes behind everyone's back, durably.
    pub(super) fn tamper(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(Arc::make_mut(&mut self.bytes));
        self.settle();
        self.changes += 1;
    }

    /// Flips a bit without a trace; whether there was one.
    pub(super) fn rot(&mut self, at: usize, bit: u32) -> bool {
        let is_there = at < self.bytes.len();
        if is_there {
            Arc::make_mut(&mut self.bytes)[at] ^= 1 << (bit % 8);
        }
        is_there
    }

    /// Keeps the durable bytes of the sectors of `range`, which are about to change.
    fn remember(&mut self, range: Range<usize>) {
        for sector in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
            let (bytes, durable_length) = (&self.bytes, self.durable_length.min(self.bytes.len()));
            let dropped = self.dropped.remove(&sector);
            self.before.entry(sector).or_insert_with(|| {
                let start = (sector * SECTOR_BYTES).min(durable_length);
                dropped.unwrap_or_else(|| bytes[start..(start + SECTOR_BYTES).min(durable_length)].into())
            });
        }
    }

    /// Takes away what was not synced, or parts of it.
    pub(super) fn lose_power(&mut self, random: &mut ChaCha20Rng) {
        if self.is_synced() && self.dropped.is_empty() {
            return;
        }
        let survival = match random.next_u32() % 8 {
            0 | 1 => Survival::Nothing,
            2 => Survival::Everything,
            3 | 4 => Survival::Before(random.next_u32() as usize % (self.before.len() + 1)),
            _ => Survival::Scattered,
        };
        let length = if coin(random) { self.bytes.len() } else { self.durable_length };
        let bytes = Arc::make_mut(&mut self.bytes);
        bytes.resize(length, 0);
        let before = std::mem::take(&mut self.before).into_iter().enumerate();
        let lost = before.filter(|(place, _)| match survival {
            Survival::Nothing => true,
            Survival::Everything => false,
            Survival::Before(end) => *place >= end,
            Survival::Scattered => coin(random),
        });
        for (sector, before) in lost.map(|(_, sector)| sector).chain(std::mem::take(&mut self.dropped)) {
            let start = (sector * SECTOR_BYTES).min(length);
            let end = (start + SECTOR_BYTES).min(length);
            let kept = before.len().min(end - start);
            bytes[start..start + kept].copy_from_slice(&before[..kept]);
            bytes[start + kept..end].fill(0);
        }
        self.durable_length = length;
    }

    /// What is durable if the power fails in the middle of a sync; what can be read stays as it is.
    pub(super) fn sync_in_part(&mut self, random: &mut ChaCha20Rng) {
        let kept: Vec<usize> = self.before.keys().copied().filter(|_| coin(random)).collect();
        if coin(random) {
            self.durable_length = self.bytes.len();
        }
        // A sector behind the durable end is still lost with the length.
        for sector in kept.into_iter().filter(|sector| (sector + 1) * SECTOR_BYTES <= self.durable_length) {
            self.before.remove(&sector);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    use super::*;

    proptest! {
        #[test]
        fn what_was_synced_survives_and_every_sector_is_old_or_new(
            steps in prop::collection::vec((0u8..4, 0usize..4000, 1usize..1500, any::<u8>()), 1..12),
            more in prop::collection::vec((0u8..4, 0usize..4000, 1usize..1500, any::<u8>()), 0..6),
            seed: u64,
        ) {
            let mut content = Content::default();
            let act = |content: &mut Content, (what, start, length, value): (u8, usize, usize, u8)| match what {
                0 | 1 => content.write(&vec![value; length], start),
                2 => content.set_length(start),
                _ => {
                    let end = (start + length).min(content.len());
                    content.clear(start.min(end)..end);
                }
            };
            steps.into_iter().for_each(|step| act(&mut content, step));
            content.settle();
            let synced = content.bytes().to_vec();
            let is_untouched = more.is_empty();
            more.into_iter().for_each(|step| act(&mut content, step));
            let written = content.bytes().to_vec();
            content.lose_power(&mut ChaCha20Rng::seed_from_u64(seed));
            let left = content.bytes();
            if is_untouched {
                prop_assert_eq!(left, &synced[..]);
            }
            prop_assert!(left.len() == synced.len() || left.len() == written.len());
            for start in (0..left.len()).step_by(SECTOR_BYTES) {
                let end = (start + SECTOR_BYTES).min(left.len());
                let padded = |of: &[u8]| -> Vec<u8> {
                    (start..end).map(|at| of.get(at).copied().unwrap_or(0)).collect()
                };
                let sector = &left[start..end];
                prop_assert!(sector == padded(&synced) || sector == padded(&written), "sector at {}", start);
            }
        }
    }

    #[test]
    fn what_a_failed_sync_dropped_is_durable_only_when_it_is_written_again() {
        let mut random = ChaCha20Rng::seed_from_u64(1);
        let mut dropped = 0;
        for _ in 0..20 {
            let mut content = Content::default();
            content.write(&[7; 2000], 0);
            content.fail_sync(&mut random);
            content.sync();
            let mut again = content.clone();
            content.lose_power(&mut random);
            dropped += usize::from(content.bytes() == [0; 2000]);
            again.write(&[7; 2000], 0);
            again.sync();
            again.lose_power(&mut random);
            assert_eq!(again.bytes(), [7; 2000]);
        }
        assert!((1..20).contains(&dropped), "{dropped}");
    }
}
