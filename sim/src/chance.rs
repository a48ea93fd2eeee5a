//! Chance from one seed: every node and every class of faults draws from a stream of its own, so that leaving one out
//! leaves the others as they were.

use std::collections::BTreeMap;
use std::fmt::Debug;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// One stream of chance.
#[derive(Debug, Clone)]
pub struct Chance(ChaCha20Rng);

impl Chance {
    /// The stream called `name` of a seed.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast simulator stream");
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        Self(ChaCha20Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
    }

    /// A number from `start` to just below `end`.
    pub fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end.saturating_sub(start))
    }

    /// A length from `start` to below `end`, short ones as likely as those of the next order of size.
    pub fn span(&mut self, start: u64, end: u64) -> u64 {
        let start = start.max(1);
        let doublings = (end / start).max(1).ilog2() + 1;
        let least = start << self.below(u64::from(doublings));
        self.between(least, (least * 2).min(end).max(least + 1))
    }

    /// True once in `times`, on average.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`; `None` when there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() { None } else { choices.get(self.below(choices.len() as u64) as usize) }
    }

    /// Thirty-two bytes, as an operating system gives them.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}

/// A stream for each of something: what happens at one of them leaves the streams of the others as they were.
#[derive(Debug)]
pub struct Streams<K> {
    seed: u64,
    name: &'static str,
    streams: BTreeMap<K, Chance>,
}

impl<K: Ord + Debug> Streams<K> {
    /// The streams called `name` of a seed.
    #[must_use]
    pub const fn new(seed: u64, name: &'static str) -> Self {
        Self { seed, name, streams: BTreeMap::new() }
    }

    /// The stream of one of them.
    pub fn of(&mut self, of: K) -> &mut Chance {
        let Self { seed, name, streams } = self;
        streams.entry(of).or_insert_with_key(|of| Chance::new(*seed, &format!("{name} {of:?}")))
    }
}
