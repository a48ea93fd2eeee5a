//! In how many places each photo is, kept as it changes.
//!
//! A photo is one or several runs of positions (it has several when several devices imported it). A peer holds the photo
//! when it holds all of one run. For each peer the table keeps which photos it holds whole, and over all photos how many
//! have how many copies in how many places: every count is there before it is asked for.
//!
//! Invariants: counts depend only on what was said last about each run, place and holding, not on the order; a change costs
//! as much as the photos it touches, times the peers.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use crate::id::{AuthorId, DeviceId, PlaceId};
use crate::inventory::{HoldingChanges, Holdings, Span};
use crate::position::Run;

/// A photo in the table: the caller's number for it, small and dense.
pub type PhotoSlot = u32;

/// How well founded a claim to hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// A signed inventory says so.
    Claimed,
}

/// The copies of one photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// Who holds all of it, in the order of ids.
    pub peers: Vec<DeviceId>,
    /// In how many distinct places; all copies without a confirmed place together count as one.
    pub places: u32,
    /// How well founded.
    pub evidence: Evidence,
}

/// Counts over all photos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Photos in the table.
    pub photos: u64,
    /// `(copies, places)` → photos. No entry is zero.
    pub histogram: BTreeMap<(u32, u32), u64>,
}

impl Counts {
    /// Photos with at least so many copies in at least so many places.
    #[must_use]
    pub fn at_least(&self, copies: u32, places: u32) -> u64 {
        self.histogram.iter().filter(|((c, p), _)| *c >= copies && *p >= places).map(|(_, photos)| photos).sum()
    }
}

/// The runs of one author: sorted by their start, none overlapping the next.
#[derive(Debug, Clone, Default)]
struct AuthorRuns {
    runs: Vec<(Span, PhotoSlot)>,
    /// Whether runs were added out of order since the last look.
    unsorted: bool,
}

#[derive(Debug, Clone)]
struct Holder {
    device: DeviceId,
    place: Option<PlaceId>,
    holdings: Holdings,
    /// Photos that it holds whole.
    whole: RoaringBitmap,
}

/// What is counted for one photo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    copies: u16,
    places: u16,
}

/// Who holds which photo, and how many photos are held how often. See the head of the module.
#[derive(Debug, Clone, Default)]
pub struct CopyTable {
    authors: BTreeMap<AuthorId, AuthorRuns>,
    /// Photos in the table.
    present: RoaringBitmap,
    counts: Vec<Count>,
    /// The first run of each photo, by author number; further ones in `more_runs`.
    runs: Vec<Option<(u16, Span)>>,
    author_ids: Vec<AuthorId>,
    more_runs: BTreeMap<PhotoSlot, Vec<Run>>,
    holders: Vec<Holder>,
    histogram: BTreeMap<(u32, u32), u64>,
}

impl CopyTable {
    /// A table without photos and peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one run of `photo`; a photo may have several, any of which makes a copy. Adding the same run again, or an
    /// empty one, changes nothing.
    pub fn add_run(&mut self, photo: PhotoSlot, run: Run) {
        let span = Span { start: run.start, count: run.end().saturating_sub(run.start) };
        if span.count == 0 || self.runs_of(photo).any(|known| known == run) {
            return;
        }
        self.make_room(photo);
        let index = photo as usize;
        match self.runs[index] {
            None => self.runs[index] = Some((self.author_number(&run.author), span)),
            Some(_) => self.more_runs.entry(photo).or_default().push(run),
        }
        let runs = self.authors.entry(run.author).or_default();
        runs.unsorted |= runs.runs.last().is_some_and(|(last, _)| last.start > span.start);
        runs.runs.push((span, photo));
        if self.present.insert(photo) {
            *self.histogram.entry((0, 0)).or_default() += 1;
        }
        for index in 0..self.holders.len() {
            if self.holders[index].holdings.holds_run(&run) {
                self.set_whole(index, photo, true);
            }
        }
    }

    fn make_room(&mut self, photo: PhotoSlot) {
        let length = photo as usize + 1;
        if self.counts.len() < length {
            self.counts.resize(length, Count::default());
            self.runs.resize(length, None);
        }
    }

    fn author_number(&mut self, author: &AuthorId) -> u16 {
        let known = self.author_ids.iter().position(|known| known == author);
        known.unwrap_or_else(|| {
            self.author_ids.push(*author);
            self.author_ids.len() - 1
        }) as u16
    }

    fn runs_of(&self, photo: PhotoSlot) -> impl Iterator<Item = Run> + '_ {
        let first = self.runs.get(photo as usize).copied().flatten().map(|(number, span)| Run {
            author: self.author_ids[usize::from(number)],
            start: span.start,
            count: span.count,
        });
        first.into_iter().chain(self.more_runs.get(&photo).into_iter().flatten().copied())
    }

    /// Takes a photo out of all counts (it is trashed or erased). Its slot may be used again.
    pub fn remove_photo(&mut self, photo: PhotoSlot) {
        if !self.present.remove(photo) {
            return;
        }
        // Its runs stay in their authors' lists, where they make a look at this slot now and then, and nothing else.
        self.more_runs.remove(&photo);
        self.runs[photo as usize] = None;
        for holder in &mut self.holders {
            holder.whole.remove(photo);
        }
        let count = std::mem::take(&mut self.counts[photo as usize]);
        self.uncount(count);
    }

    /// Says where a peer stands; `None` when its place is not confirmed. Costs as much as it holds photos.
    pub fn set_place(&mut self, peer: DeviceId, place: Option<PlaceId>) {
        let index = self.holder(peer);
        if self.holders[index].place != place {
            let whole = std::mem::take(&mut self.holders[index].whole);
            whole.iter().for_each(|photo| self.adjust(index, photo, false));
            self.holders[index].place = place;
            whole.iter().for_each(|photo| self.adjust(index, photo, true));
            self.holders[index].whole = whole;
        }
    }

    /// Forgets a peer: it was removed from the library.
    pub fn remove_peer(&mut self, peer: &DeviceId) {
        if let Ok(index) = self.holders.binary_search_by_key(peer, |holder| holder.device) {
            let whole = std::mem::take(&mut self.holders[index].whole);
            whole.iter().for_each(|photo| self.adjust(index, photo, false));
            self.holders.remove(index);
        }
    }

    /// Applies what [`Effect::HoldingsChanged`](crate::replica::Effect::HoldingsChanged) carries, and returns the photos
    /// whose copies changed, in ascending order.
    pub fn apply(&mut self, peer: DeviceId, changes: &[HoldingChanges]) -> Vec<PhotoSlot> {
        let index = self.holder(peer);
        self.holders[index].holdings.apply(changes);
        let mut touched = Vec::new();
        for changes in changes {
            let Some(of) = self.authors.get_mut(&changes.author) else { continue };
            of.sort();
            for span in changes.held.iter().chain(&changes.lost) {
                touched.extend(of.photos_in(span));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|&photo| {
            let whole = self.runs_of(photo).any(|run| self.holders[index].holdings.holds_run(&run));
            self.set_whole(index, photo, whole)
        });
        touched
    }

    /// The index of a peer's holder, made when there is none.
    fn holder(&mut self, peer: DeviceId) -> usize {
        self.holders.binary_search_by_key(&peer, |holder| holder.device).unwrap_or_else(|index| {
            let (holdings, whole) = (Holdings::new(), RoaringBitmap::new());
            self.holders.insert(index, Holder { device: peer, place: None, holdings, whole });
            index
        })
    }

    /// Notes whether a holder has a photo whole; whether that is news.
    fn set_whole(&mut self, index: usize, photo: PhotoSlot, whole: bool) -> bool {
        let held = &mut self.holders[index].whole;
        let news = if whole { held.insert(photo) } else { held.remove(photo) };
        if news {
            self.adjust(index, photo, whole);
        }
        news
    }

    /// Counts a copy at a holder that came or went. Only holders in the same place matter for the count of places.
    fn adjust(&mut self, index: usize, photo: PhotoSlot, came: bool) {
        let place = self.holders[index].place;
        let other =
            |(at, holder): (usize, &Holder)| at != index && holder.place == place && holder.whole.contains(photo);
        let shared = self.holders.iter().enumerate().any(other);
        let before = self.counts[photo as usize];
        let (copies, places) = (1, u16::from(!shared));
        let after = if came {
            Count { copies: before.copies + copies, places: before.places + places }
        } else {
            Count { copies: before.copies - copies, places: before.places - places }
        };
        self.counts[photo as usize] = after;
        self.uncount(before);
        *self.histogram.entry((after.copies.into(), after.places.into())).or_default() += 1;
    }

    fn uncount(&mut self, count: Count) {
        let key = (u32::from(count.copies), u32::from(count.places));
        if let Some(photos) = self.histogram.get_mut(&key) {
            *photos -= 1;
            if *photos == 0 {
                self.histogram.remove(&key);
            }
        }
    }

    /// How many photos of the table a device holds whole.
    #[must_use]
    pub fn held_by(&self, device: &DeviceId) -> u64 {
        let holder = self.holders.binary_search_by_key(device, |holder| holder.device);
        holder.map_or(0, |index| self.holders[index].whole.len())
    }

    /// Whether one device holds a photo whole that another does not. A few operations on bitmaps.
    #[must_use]
    pub fn has_more(&self, device: &DeviceId, than: &DeviceId) -> bool {
        match (self.whole(device), self.whole(than)) {
            (Some(ours), Some(theirs)) => !ours.is_subset(theirs),
            (ours, _) => ours.is_some_and(|ours| !ours.is_empty()),
        }
    }

    fn whole(&self, device: &DeviceId) -> Option<&RoaringBitmap> {
        let index = self.holders.binary_search_by_key(device, |holder| holder.device).ok()?;
        Some(&self.holders[index].whole)
    }

    /// How many photos have so many copies in so many places only because a device's own copies count. A few operations on
    /// bitmaps for each holder.
    #[must_use]
    pub fn resting_on(&self, device: &DeviceId, copies: u32, places: u32) -> u64 {
        // By how many others, and in how many other places at least: one bitmap for each number.
        let levels = |number: u32| vec![RoaringBitmap::new(); number.max(1) as usize];
        let (mut copied, mut spread) = (levels(copies), levels(places));
        let mut by_place: BTreeMap<Option<PlaceId>, RoaringBitmap> = BTreeMap::new();
        for holder in self.holders.iter().filter(|holder| holder.device != *device) {
            raise(&mut copied, &holder.whole);
            *by_place.entry(holder.place).or_default() |= &holder.whole;
        }
        by_place.values().for_each(|whole| raise(&mut spread, whole));
        let without = copied.last().zip(spread.last()).map_or(0, |(copied, spread)| copied.intersection_len(spread));
        self.counts().at_least(copies, places).saturating_sub(without)
    }

    /// The counts over all photos.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { photos: self.present.len(), histogram: self.histogram.clone() }
    }

    /// The copies of one photo; `None` when it is not in the table.
    #[must_use]
    pub fn copies(&self, photo: PhotoSlot) -> Option<Copies> {
        self.present.contains(photo).then(|| {
            let holders = self.holders.iter().filter(|holder| holder.whole.contains(photo));
            let places = u32::from(self.counts[photo as usize].places);
            Copies { peers: holders.map(|holder| holder.device).collect(), places, evidence: Evidence::Claimed }
        })
    }

    /// `(copies, places)` of one photo without naming peers; zeros when it is not in the table.
    #[must_use]
    pub fn count_of(&self, photo: PhotoSlot) -> (u32, u32) {
        let count = self.counts.get(photo as usize).copied().unwrap_or_default();
        (count.copies.into(), count.places.into())
    }

    /// Photos with fewer copies or places than asked, in ascending order.
    pub fn below(&self, copies: u32, places: u32) -> impl Iterator<Item = PhotoSlot> {
        self.present.iter().filter(move |photo| {
            let (c, p) = self.count_of(*photo);
            c < copies || p < places
        })
    }
}

/// Raises photos that one more holder has: `levels[n]` has those with more than `n` holders.
fn raise(levels: &mut [RoaringBitmap], held: &RoaringBitmap) {
    for level in (1..levels.len()).rev() {
        let raised = &levels[level - 1] & held;
        levels[level] |= raised;
    }
    if let Some(first) = levels.first_mut() {
        *first |= held;
    }
}

impl AuthorRuns {
    fn sort(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            self.runs.sort_unstable();
        }
    }

    /// Photos with a run that shares a position with `span`. Runs are sorted; one deposit's runs don't overlap, so that
    /// only the run before the first one inside can reach in.
    fn photos_in(&self, span: &Span) -> impl Iterator<Item = PhotoSlot> + '_ {
        let indices = span.indices();
        let inside = self.runs.partition_point(|(run, _)| run.start < indices.start);
        let before = self.runs[..inside].iter().rev().take_while({
            let start = indices.start;
            move |(run, _)| run.indices().end > start
        });
        let within = self.runs[inside..].iter().take_while(move |(run, _)| run.start < indices.end);
        before.chain(within).map(|(_, photo)| *photo)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author(number: u8) -> AuthorId {
        AuthorId::from_bytes([number; 32])
    }

    fn device(number: u8) -> DeviceId {
        DeviceId::from_bytes([number; 32])
    }

    fn place(number: u8) -> PlaceId {
        PlaceId::from_bytes([number; 32])
    }

    fn run(author_number: u8, start: u32, count: u32) -> Run {
        Run { author: author(author_number), start, count }
    }

    fn held(author_number: u8, start: u32, count: u32) -> Vec<HoldingChanges> {
        vec![HoldingChanges { held: vec![Span { start, count }], ..HoldingChanges::none(author(author_number)) }]
    }

    fn lost(author_number: u8, start: u32, count: u32) -> Vec<HoldingChanges> {
        vec![HoldingChanges { lost: vec![Span { start, count }], ..HoldingChanges::none(author(author_number)) }]
    }

    #[test]
    fn a_copy_is_all_of_one_run() {
        let mut table = CopyTable::new();
        table.add_run(0, run(1, 0, 3));
        table.add_run(1, run(1, 3, 2));
        assert_eq!(table.apply(device(1), &held(1, 0, 2)), Vec::<u32>::new());
        assert_eq!(table.apply(device(1), &held(1, 2, 2)), [0]);
        assert_eq!(table.count_of(0), (1, 1));
        assert_eq!(table.apply(device(1), &held(1, 4, 1)), [1]);
        assert_eq!(table.counts().at_least(1, 1), 2);
        assert_eq!(table.apply(device(1), &lost(1, 1, 1)), [0]);
        assert_eq!((table.counts().at_least(1, 1), table.counts().photos), (1, 2));
        // The same photo, deposited by another device as well: that run makes a copy too.
        table.apply(device(1), &held(2, 10, 3));
        table.add_run(0, run(2, 10, 3));
        assert_eq!(table.count_of(0), (1, 1));
        assert_eq!(table.copies(0).unwrap().peers, [device(1)]);
        table.remove_photo(0);
        assert_eq!((table.copies(0), table.counts().photos), (None, 1));
    }

    #[test]
    fn unconfirmed_places_count_as_one() {
        let mut table = CopyTable::new();
        table.add_run(0, run(1, 0, 1));
        for number in 1..=4 {
            table.apply(device(number), &held(1, 0, 1));
        }
        assert_eq!(table.count_of(0), (4, 1));
        table.set_place(device(1), Some(place(1)));
        assert_eq!(table.count_of(0), (4, 2));
        table.set_place(device(2), Some(place(1)));
        table.set_place(device(3), Some(place(2)));
        assert_eq!(table.count_of(0), (4, 3));
        table.remove_peer(&device(4));
        assert_eq!(table.count_of(0), (3, 2));
        assert_eq!(table.below(3, 3).collect::<Vec<_>>(), [0]);
        assert_eq!(table.below(3, 2).count(), 0);
    }

    #[test]
    fn what_rests_on_a_device_is_what_the_others_do_not_make_safe() {
        let mut table = CopyTable::new();
        for photo in 0..3 {
            table.add_run(photo, run(1, photo, 1));
        }
        for (number, place_number, photos) in [(1, 1, 3), (2, 2, 3), (3, 2, 2), (4, 3, 1)] {
            table.set_place(device(number), Some(place(place_number)));
            table.apply(device(number), &held(1, 0, photos));
        }
        // Without 1 only the first photo lies in two places; without 2 only the last is short of a second copy.
        let resting = |copies, places| {
            (1..=5).map(|number| table.resting_on(&device(number), copies, places)).collect::<Vec<_>>()
        };
        assert_eq!(resting(2, 2), [2, 1, 0, 0, 0]);
        assert_eq!(resting(2, 1), [1, 1, 0, 0, 0]);
        assert_eq!(resting(4, 1), [1, 1, 1, 1, 0]);
        assert!(table.has_more(&device(1), &device(3)) && !table.has_more(&device(3), &device(1)));
        assert!(table.has_more(&device(4), &device(5)) && !table.has_more(&device(5), &device(4)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(PhotoSlot, u8, u32, u32),
        Remove(PhotoSlot),
        Hold(u8, u8, u32, u32),
        Lose(u8, u8, u32, u32),
        Place(u8, Option<u8>),
        Forget(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u32..12, 0u8..2, 0u32..12).prop_map(|(photo, author, index)| Step::Add(photo, author, index * 4, 1 + index % 4)),
            1 => (0u32..12).prop_map(Step::Remove),
            5 => (0u8..4, 0u8..2, 0u32..50, 1u32..20).prop_map(|(d, a, s, c)| Step::Hold(d, a, s, c)),
            3 => (0u8..4, 0u8..2, 0u32..50, 1u32..20).prop_map(|(d, a, s, c)| Step::Lose(d, a, s, c)),
            2 => (0u8..4, proptest::option::of(0u8..3)).prop_map(|(d, p)| Step::Place(d, p)),
            1 => (0u8..4).prop_map(Step::Forget),
        ]
    }

    /// The same, counted from scratch.
    #[derive(Default)]
    struct Model {
        photos: BTreeMap<PhotoSlot, Vec<Run>>,
        holdings: BTreeMap<DeviceId, (Option<PlaceId>, Holdings)>,
    }

    impl Model {
        fn counts(&self) -> Counts {
            let mut counts = Counts { photos: self.photos.len() as u64, ..Counts::default() };
            for runs in self.photos.values() {
                let holders: Vec<_> =
                    self.holdings.values().filter(|(_, of)| runs.iter().any(|run| of.holds_run(run))).collect();
                let places: std::collections::BTreeSet<_> = holders.iter().map(|(place, _)| place).collect();
                *counts.histogram.entry((holders.len() as u32, places.len() as u32)).or_default() += 1;
            }
            counts
        }
    }

    proptest! {
        #[test]
        fn counts_kept_equal_counts_from_scratch(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut table, mut model) = (CopyTable::new(), Model::default());
            for step in steps {
                match step {
                    Step::Add(photo, author, start, count) => {
                        let run = run(author, start, count);
                        table.add_run(photo, run);
                        model.photos.entry(photo).or_default().push(run);
                    }
                    Step::Remove(photo) => {
                        table.remove_photo(photo);
                        model.photos.remove(&photo);
                    }
                    Step::Hold(d, author, start, count) => {
                        table.apply(device(d), &held(author, start, count));
                        model.holdings.entry(device(d)).or_default().1.apply(&held(author, start, count));
                    }
                    Step::Lose(d, author, start, count) => {
                        table.apply(device(d), &lost(author, start, count));
                        model.holdings.entry(device(d)).or_default().1.apply(&lost(author, start, count));
                    }
                    Step::Place(d, at) => {
                        table.set_place(device(d), at.map(place));
                        model.holdings.entry(device(d)).or_default().0 = at.map(place);
                    }
                    Step::Forget(d) => {
                        table.remove_peer(&device(d));
                        model.holdings.remove(&device(d));
                    }
                }
                prop_assert_eq!(table.counts(), model.counts());
            }
        }
    }

    #[test]
    fn many_photos_with_twenty_peers_are_counted() {
        let mut table = CopyTable::new();
        for photo in 0..50_000 {
            table.add_run(photo, run(1, photo * 3, 3));
        }
        for number in 0..20 {
            table.apply(device(number), &held(1, 0, 150_000));
            table.set_place(device(number), Some(place(number % 5)));
        }
        assert_eq!(table.counts().at_least(20, 5), 50_000);
        assert_eq!(table.apply(device(3), &lost(1, 75_000, 1)), [25_000]);
        assert_eq!(table.counts().at_least(20, 5), 49_999);
    }
}
