//! Answers about the library as a whole and about single photos.

use holdfast_protocol::copies::Counts;
use holdfast_protocol::id::{DeviceId, PhotoId};
use holdfast_protocol::inventory::Holdings;
use holdfast_protocol::metadata::{Metadata, StorageError};
use holdfast_protocol::position::Run;

use super::Library;
use super::documents::DocumentHeads;

/// How safe the library is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Photos by copies and places; only listed ones count.
    pub counts: Counts,
    /// Bytes of their originals.
    pub bytes: u64,
    /// Photos of which this device holds every chunk.
    pub held_here: u64,
}

/// The copies of one photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoCopies {
    /// Its chunks.
    pub run: Run,
    /// Distinct places that hold all of it.
    pub places: u32,
    /// Who holds how many of its chunks; devices that hold none are left out.
    pub holders: Vec<(DeviceId, u32)>,
}

impl<M: Metadata> Library<M> {
    /// Listed photos by copies and places, in time that does not grow with their number.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.copies.counts()
    }

    /// How safe the library is. Sums up the bytes of all its photos.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            counts: self.counts(),
            bytes: self.photos.listed_bytes(),
            held_here: self.copies.held_by(&self.device),
        }
    }

    /// What the documents of the catalog were made of: equal on all devices that have taken in the same logs.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn document_heads(&self) -> Result<DocumentHeads, StorageError> {
        self.documents.heads(self.replica.metadata())
    }

    /// How many photos a device holds whole.
    #[must_use]
    pub fn photos_held_by(&self, device: &DeviceId) -> u64 {
        self.copies.held_by(device)
    }

    /// `(copies, places)` of a photo.
    #[must_use]
    pub fn copies_of(&self, photo: &PhotoId) -> (u32, u32) {
        self.photos.slot(photo).map_or((0, 0), |slot| self.copies.count_of(slot))
    }

    /// How many photos have so many copies in so many places only because those of one device count.
    #[must_use]
    pub fn resting_on(&self, device: &DeviceId, copies: u32, places: u32) -> u64 {
        self.copies.resting_on(device, copies, places)
    }

    /// Whether this device or `peer` holds a photo whole that the other does not.
    #[must_use]
    pub fn differs_from(&self, peer: &DeviceId) -> bool {
        self.copies.has_more(&self.device, peer) || self.copies.has_more(peer, &self.device)
    }

    /// Listed photos with fewer copies or places than asked.
    pub fn photos_below(&self, copies: u32, places: u32) -> impl Iterator<Item = PhotoId> {
        self.copies.below(copies, places).map(|slot| self.photos.row(slot).photo)
    }

    /// Everything known of one photo's copies; `None` for a photo that is not in the library.
    #[must_use]
    pub fn photo_copies(&self, photo: &PhotoId) -> Option<PhotoCopies> {
        let slot = self.photos.slot(photo)?;
        let run = self.photos.row(slot).run;
        let (_, places) = self.copies.count_of(slot);
        let held = |holdings: &Holdings| {
            holdings.held(&run.author).map_or(0, |held| held.range_cardinality(run.indices()) as u32)
        };
        let holders = self.replica.holders().map(|(device, holdings)| (device, held(holdings)));
        Some(PhotoCopies { run, places, holders: holders.filter(|(_, chunks)| *chunks > 0).collect() })
    }
}
