//! In how many places each photo is, kept as it changes.

use crate::id::{DeviceId, PlaceId};
use crate::inventory::HoldingChanges;
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
    /// Who holds all of it.
    pub peers: Vec<DeviceId>,
    /// In how many distinct places; all unconfirmed ones together count as one.
    pub places: u32,
    /// How well founded.
    pub evidence: Evidence,
}

/// Counts over all photos.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Photos in the table.
    pub photos: u64,
    /// `(copies, places)` → photos.
    pub histogram: std::collections::BTreeMap<(u32, u32), u64>,
}

impl Counts {
    /// Photos with at least so many copies in at least so many places.
    #[must_use]
    pub fn at_least(&self, copies: u32, places: u32) -> u64 {
        self.histogram.iter().filter(|((c, p), _)| *c >= copies && *p >= places).map(|(_, n)| n).sum()
    }
}

/// Who holds which photo, and how many photos are held how often.
#[derive(Debug, Clone, Default)]
pub struct CopyTable {}

#[allow(clippy::todo, unused_variables)]
impl CopyTable {
    /// Adds one run of `photo`; a photo may have several, any of which makes a copy. Slots are made as needed.
    pub fn add_run(&mut self, photo: PhotoSlot, run: Run) {
        todo!()
    }
    /// Takes a photo out of all counts (trashed, erased).
    pub fn remove_photo(&mut self, photo: PhotoSlot) {
        todo!()
    }
    /// Where a peer stands.
    pub fn set_place(&mut self, peer: DeviceId, place: Option<PlaceId>) {
        todo!()
    }
    /// Forgets a peer: it was removed from the library.
    pub fn remove_peer(&mut self, peer: &DeviceId) {
        todo!()
    }
    /// Applies what [`Effect::HoldingsChanged`](crate::replica::Effect::HoldingsChanged) carries; returns photos whose copies changed.
    pub fn apply(&mut self, peer: DeviceId, changes: &[HoldingChanges]) -> Vec<PhotoSlot> {
        todo!()
    }
    /// The counts over all photos.
    #[must_use]
    pub fn counts(&self) -> Counts {
        todo!()
    }
    /// The copies of one photo; `None` when it is not in the table.
    #[must_use]
    pub fn copies(&self, photo: PhotoSlot) -> Option<Copies> {
        todo!()
    }
    /// `(copies, places)` of one photo without naming peers; zeros when it is not in the table.
    #[must_use]
    pub fn count_of(&self, photo: PhotoSlot) -> (u32, u32) {
        todo!()
    }
    /// Slots of photos with fewer copies or places than asked, in ascending order from `from`, at most `limit`.
    #[must_use]
    pub fn below(&self, copies: u32, places: u32, from: PhotoSlot, limit: usize) -> Vec<PhotoSlot> {
        todo!()
    }
}
