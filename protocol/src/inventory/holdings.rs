//! Which positions a peer holds and which it has erased.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::spans::{self, Span};
use crate::id::AuthorId;
use crate::limits::VECTOR_AUTHORS_MAX;
use crate::position::{Position, Run};
use crate::varint;

/// Positions in one inventory at most, held and erased together: 64 Mi, which bounds its bitmaps to 8 MiB.
pub const HOLDINGS_POSITIONS_MAX: u64 = 64 << 20;

/// What changed in the holdings of one author's positions. Each list is canonical: ascending spans that never touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingChanges {
    /// Whose positions.
    pub author: AuthorId,
    /// Positions held from now on.
    pub held: Vec<Span>,
    /// Positions no longer held.
    pub lost: Vec<Span>,
    /// Positions erased on a release.
    pub erased: Vec<Span>,
    /// Positions no longer counted as erased, because their chunk was deposited and stored again.
    pub restored: Vec<Span>,
}

impl HoldingChanges {
    /// No changes to the positions of `author`.
    #[must_use]
    pub const fn none(author: AuthorId) -> Self {
        Self { author, held: Vec::new(), lost: Vec::new(), erased: Vec::new(), restored: Vec::new() }
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lists().iter().all(|list| list.is_empty())
    }

    const fn lists(&self) -> [&Vec<Span>; 4] {
        [&self.held, &self.lost, &self.erased, &self.restored]
    }

    /// Appends `author 32 ‖ held ‖ lost ‖ erased ‖ restored` to `out`.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.author.as_bytes());
        for list in self.lists() {
            spans::put(out, list);
        }
    }

    /// Takes what [`HoldingChanges::put`] wrote; `None` when malformed.
    pub(crate) fn take(input: &mut &[u8]) -> Option<Self> {
        let (id, rest) = input.split_first_chunk::<32>()?;
        *input = rest;
        let mut list = || spans::take(input, usize::MAX);
        Some(Self {
            author: AuthorId::from_bytes(*id),
            held: list()?,
            lost: list()?,
            erased: list()?,
            restored: list()?,
        })
    }

    /// Appends `count varint ‖ count × changes`.
    pub(crate) fn put_all(all: &[Self], out: &mut Vec<u8>) {
        varint::put(out, all.len() as u64);
        for changes in all {
            changes.put(out);
        }
    }

    /// Takes what [`HoldingChanges::put_all`] wrote; `None` when malformed or not in ascending order of authors.
    pub(crate) fn take_all(input: &mut &[u8]) -> Option<Vec<Self>> {
        let count = varint::take(input).filter(|&count| count <= VECTOR_AUTHORS_MAX as u64)?;
        let mut all = Vec::<Self>::new();
        for _ in 0..count {
            let changes = Self::take(input)?;
            if all.last().is_some_and(|last| last.author >= changes.author) {
                return None;
            }
            all.push(changes);
        }
        Some(all)
    }
}

/// Held and erased positions of one author.
#[derive(Debug, Clone, Default)]
struct AuthorHoldings {
    held: RoaringBitmap,
    erased: RoaringBitmap,
    /// Hash of the canonical lists, until the next change.
    hash: Option<[u8; 32]>,
}

/// The positions that a peer holds and has erased, by author.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    authors: BTreeMap<AuthorId, AuthorHoldings>,
}

impl PartialEq for Holdings {
    fn eq(&self, other: &Self) -> bool {
        self.filled()
            .map(|(author, own)| (author, &own.held, &own.erased))
            .eq(other.filled().map(|(author, own)| (author, &own.held, &own.erased)))
    }
}

impl Eq for Holdings {}

impl Holdings {
    /// Nothing held, nothing erased.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether `position` is held.
    #[must_use]
    pub fn holds(&self, position: &Position) -> bool {
        self.held(&position.author).is_some_and(|held| held.contains(position.index))
    }

    /// Whether every position of `run` is held. An empty run is.
    #[must_use]
    pub fn holds_run(&self, run: &Run) -> bool {
        let indices = run.indices();
        // A run past the last possible position is cut short by `indices`, and cannot be held.
        let whole = indices.end - indices.start == run.count;
        whole && (run.count == 0 || self.held(&run.author).is_some_and(|held| held.contains_range(indices)))
    }

    /// The held positions of `author`.
    #[must_use]
    pub fn held(&self, author: &AuthorId) -> Option<&RoaringBitmap> {
        self.authors.get(author).map(|own| &own.held)
    }

    /// The erased positions of `author`.
    #[must_use]
    pub fn erased(&self, author: &AuthorId) -> Option<&RoaringBitmap> {
        self.authors.get(author).map(|own| &own.erased)
    }

    /// Held positions, counted over all authors.
    #[must_use]
    pub fn held_count(&self) -> u64 {
        self.authors.values().map(|own| own.held.len()).sum()
    }

    /// Erased positions, counted over all authors.
    #[must_use]
    pub fn erased_count(&self) -> u64 {
        self.authors.values().map(|own| own.erased.len()).sum()
    }

    /// Whether there are more authors or positions than any inventory may have.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.authors.len() > VECTOR_AUTHORS_MAX || self.held_count() + self.erased_count() > HOLDINGS_POSITIONS_MAX
    }

    /// Marks one position as held; whether it was not before.
    pub fn insert(&mut self, position: &Position) -> bool {
        let own = self.authors.entry(position.author).or_default();
        own.hash = None;
        own.erased.remove(position.index);
        own.held.insert(position.index)
    }

    /// Marks one position as not held; whether it was before.
    pub fn remove(&mut self, position: &Position) -> bool {
        let Some(own) = self.authors.get_mut(&position.author) else { return false };
        own.hash = None;
        own.held.remove(position.index)
    }

    /// Applies `changes`.
    pub fn apply(&mut self, changes: &[HoldingChanges]) {
        for changes in changes {
            let own = self.authors.entry(changes.author).or_default();
            own.hash = None;
            for span in &changes.lost {
                own.held.remove_range(span.indices());
            }
            for span in &changes.held {
                own.held.insert_range(span.indices());
            }
            for span in &changes.restored {
                own.erased.remove_range(span.indices());
            }
            for span in &changes.erased {
                own.erased.insert_range(span.indices());
            }
        }
    }

    /// The changes that lead from nothing to these holdings.
    #[must_use]
    pub fn as_changes(&self) -> Vec<HoldingChanges> {
        Self::new().changes_to(self)
    }

    /// The changes that lead from these holdings to `target`. Costs as much as both are large.
    #[must_use]
    pub fn changes_to(&self, target: &Self) -> Vec<HoldingChanges> {
        let empty = AuthorHoldings::default();
        let mut authors: Vec<_> = self.authors.keys().chain(target.authors.keys()).copied().collect();
        authors.sort_unstable();
        authors.dedup();
        let changes = authors.into_iter().map(|author| {
            let before = self.authors.get(&author).unwrap_or(&empty);
            let after = target.authors.get(&author).unwrap_or(&empty);
            HoldingChanges {
                author,
                held: spans::of_bitmap(&(&after.held - &before.held)),
                lost: spans::of_bitmap(&(&before.held - &after.held)),
                erased: spans::of_bitmap(&(&after.erased - &before.erased)),
                restored: spans::of_bitmap(&(&before.erased - &after.erased)),
            }
        });
        changes.filter(|changes| !changes.is_empty()).collect()
    }

    /// The hash of the whole content: equal sets have equal roots on every node. Only authors that changed since the
    /// last call are hashed again.
    pub fn root(&mut self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast 1 inventory root");
        for (author, own) in &mut self.authors {
            if own.held.is_empty() && own.erased.is_empty() {
                continue;
            }
            let hash = *own.hash.get_or_insert_with(|| {
                let mut lists = Vec::new();
                spans::put(&mut lists, &spans::of_bitmap(&own.held));
                spans::put(&mut lists, &spans::of_bitmap(&own.erased));
                *blake3::hash(&lists).as_bytes()
            });
            hasher.update(author.as_bytes());
            hasher.update(&hash);
        }
        *hasher.finalize().as_bytes()
    }

    fn filled(&self) -> impl Iterator<Item = (&AuthorId, &AuthorHoldings)> {
        self.authors.iter().filter(|(_, own)| !own.held.is_empty() || !own.erased.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inventory::spans::any_spans;

    fn any_changes() -> impl Strategy<Value = Vec<HoldingChanges>> {
        let lists = (any_spans(0), any_spans(0), any_spans(0), any_spans(0));
        proptest::collection::btree_map(0u8..6, lists, 0..4).prop_map(|authors| {
            let changes = |(author, (held, lost, erased, restored))| {
                let author = AuthorId::from_bytes([author; 32]);
                HoldingChanges { author, held, lost, erased, restored }
            };
            authors.into_iter().map(changes).collect()
        })
    }

    fn holdings(changes: &[HoldingChanges]) -> Holdings {
        let mut holdings = Holdings::new();
        holdings.apply(changes);
        holdings
    }

    proptest! {
        #[test]
        fn changes_round_trip(changes in any_changes()) {
            let mut bytes = Vec::new();
            HoldingChanges::put_all(&changes, &mut bytes);
            let mut input = bytes.as_slice();
            prop_assert_eq!(HoldingChanges::take_all(&mut input), Some(changes));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn malformed_changes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            HoldingChanges::take_all(&mut bytes.as_slice());
        }

        #[test]
        fn changes_lead_from_one_set_to_the_other(first in any_changes(), second in any_changes()) {
            let (mut before, mut after) = (holdings(&first), holdings(&second));
            before.root();
            before.apply(&before.clone().changes_to(&after));
            prop_assert_eq!(&before, &after);
            prop_assert_eq!(before.root(), after.root());
        }

        #[test]
        fn equal_roots_mean_equal_sets(first in any_changes(), second in any_changes()) {
            let (mut first, mut second) = (holdings(&first), holdings(&second));
            prop_assert_eq!(first.root() == second.root(), first == second);
        }
    }

    #[test]
    fn a_run_is_held_when_all_of_it_is() {
        let author = AuthorId::from_bytes([1; 32]);
        let mut holdings = Holdings::new();
        for index in [3, 4, 6] {
            assert!(holdings.insert(&Position { author, index }));
        }
        let run = |start, count| Run { author, start, count };
        assert!(holdings.holds_run(&run(3, 2)) && holdings.holds_run(&run(9, 0)));
        assert!(!holdings.holds_run(&run(3, 4)) && !holdings.holds_run(&run(u32::MAX, 2)));
    }
}
