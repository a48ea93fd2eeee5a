//! Photos on their way into the catalog.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::manifest::Facts;
use holdfast_protocol::media_type::MediaType;
use holdfast_protocol::sealing::PhotoKey;
use holdfast_protocol::time::{Now, Timestamp};

use super::path::FilePath;

/// Photos of one batch: one deposit, and one change for each document that they belong to.
const BATCH_PHOTOS_MAX: usize = 100;
/// Chunks of one batch: some huge videos rather than a hundred photos.
const BATCH_CHUNKS_MAX: usize = 16 << 10;
/// How long a photo waits for others to share its batch.
const BATCH_DELAY: Duration = Duration::from_millis(250);

/// Names something that ingest reported and that is done only once it is catalogued durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImportId(pub u64);

/// A file that was read, cut, sealed and made durable.
#[derive(Debug, Clone)]
pub struct ImportedPhoto {
    /// What to acknowledge.
    pub import: ImportId,
    /// The photo; known already when the same bytes were imported before, here or elsewhere.
    pub photo: PhotoId,
    /// Seals what the catalog says about it.
    pub photo_key: PhotoKey,
    /// Its chunks with their sealed lengths, in the order of its run: manifest, thumbnails, the file's bytes.
    pub chunks: Vec<(ChunkId, u32)>,
    /// What it says about itself.
    pub facts: Facts,
    /// What kind of file it is.
    pub media: MediaType,
    /// Where it lies.
    pub name: FileName,
    /// The photos that this file held before it was edited: the last one whose import was acknowledged, and those that
    /// came after it.
    pub replaces: Vec<PhotoId>,
    /// What the file was called when it held these, if that was another name.
    pub renamed_from: Option<FileName>,
}

impl ImportedPhoto {
    /// The capture month, which decides the catalog document; `None` for undated photos.
    #[must_use]
    pub fn month(&self) -> Option<(i16, u8)> {
        self.facts.captured.map(|captured| captured.month())
    }
}

/// Where a photo lies in the watched folders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileName {
    /// The watched folder's own name, `Pictures`.
    pub folder: String,
    /// The path inside it.
    pub path: FilePath,
    /// When the file was last modified, in nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// Bytes of the file.
    pub size: u64,
    /// Who may read, write and execute it: nine bits, as Unix has them. `None` when that is not known.
    pub mode: Option<u16>,
    /// When it was created, in nanoseconds since the Unix epoch; `None` where its file system does not say.
    pub created_ns: Option<i64>,
}

/// A name that went: the file was deleted, moved or edited.
#[derive(Debug, Clone)]
pub struct RemovedName {
    /// What to acknowledge.
    pub import: ImportId,
    /// The photo whose file it was.
    pub photo: PhotoId,
    /// Where the file lay.
    pub name: FileName,
}

/// What waits to be catalogued, in the order in which it happened.
#[derive(Debug)]
pub(super) enum Pending {
    Photo(Box<ImportedPhoto>),
    NameRemoved(Box<RemovedName>),
}

impl Pending {
    fn photo(&self) -> Option<&ImportedPhoto> {
        if let Self::Photo(photo) = self { Some(photo) } else { None }
    }

    fn chunks(&self) -> usize {
        self.photo().map_or(0, |photo| photo.chunks.len())
    }

    /// The photos that must be in the catalog already for this to be written rightly.
    pub(super) fn builds_on(&self) -> &[PhotoId] {
        match self {
            Self::Photo(photo) => &photo.replaces,
            Self::NameRemoved(removed) => std::slice::from_ref(&removed.photo),
        }
    }
}

/// Parts a batch so that nothing builds on a photo of its own part: an edit of a file that was just imported, a file
/// that is gone again, an earlier version that came back. No part is larger than a batch, however much has waited while
/// imports were held.
pub(super) fn parted(batch: Vec<Pending>) -> Vec<Vec<Pending>> {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let (mut written, mut changed): (BTreeSet<PhotoId>, BTreeSet<PhotoId>) = Default::default();
    let mut chunks = 0;
    for pending in batch {
        let photo = pending.photo().map(|imported| imported.photo);
        let earlier = pending.builds_on();
        let is_changed = |photo: &PhotoId| changed.contains(photo);
        if is_full(part.len(), chunks)
            || earlier.iter().any(|earlier| written.contains(earlier) || is_changed(earlier))
            || photo.as_ref().is_some_and(is_changed)
        {
            parts.push(std::mem::take(&mut part));
            written.clear();
            changed.clear();
            chunks = 0;
        }
        chunks += pending.chunks();
        changed.extend(earlier);
        written.extend(photo);
        part.push(pending);
    }
    parts.push(part);
    parts
}

/// Whether a batch takes no more.
const fn is_full(count: usize, chunks: usize) -> bool {
    count >= BATCH_PHOTOS_MAX || chunks >= BATCH_CHUNKS_MAX
}

/// Gathers imports into batches: catalog history costs half as much for a hundred photos at once as one by one.
///
/// Invariant: of the chunks that wait, those are in `lost` that the store has lost since, and not got back: a deposit
/// counts all its chunks as held, and would else be the last word on them.
#[derive(Debug, Default)]
pub(super) struct ImportQueue {
    pending: Vec<Pending>,
    chunks: usize,
    lost: BTreeSet<ChunkId>,
    due: Option<Timestamp>,
    held_until: Option<Timestamp>,
}

impl ImportQueue {
    pub(super) fn push(&mut self, now: Now, pending: Pending) {
        self.chunks += pending.chunks();
        self.pending.push(pending);
        self.due.get_or_insert(now.elapsed + BATCH_DELAY);
    }

    /// The store has lost chunks. Those of an import that waits are not to count as held when it is deposited: its file was
    /// replaced meanwhile, or found changed.
    pub(super) fn lost(&mut self, lost: &[ChunkId]) {
        let lost: BTreeSet<_> = lost.iter().collect();
        let photos = self.pending.iter().filter_map(Pending::photo);
        let waiting = photos.flat_map(|photo| &photo.chunks).map(|(chunk, _)| chunk);
        self.lost.extend(waiting.filter(|chunk| lost.contains(chunk)));
    }

    /// The store has chunks, whatever it lost before.
    pub(super) fn stored(&mut self, stored: &[ChunkId]) {
        if !self.lost.is_empty() {
            stored.iter().for_each(|chunk| _ = self.lost.remove(chunk));
        }
    }

    /// Whether something waits.
    pub(super) const fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing is catalogued before `until`; `None` lets it go on.
    pub(super) const fn hold(&mut self, until: Option<Timestamp>) {
        self.held_until = until;
    }

    /// When the batch is to be catalogued even if it is not full.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.due.map(|due| self.held_until.map_or(due, |until| due.max(until)))
    }

    /// The batch, once it is full or has waited long enough, and which of its chunks the store has lost.
    pub(super) fn take_due(&mut self, now: Now) -> Option<(Vec<Pending>, BTreeSet<ChunkId>)> {
        if self.held_until.is_some_and(|until| now.elapsed < until) {
            return None;
        }
        if !is_full(self.pending.len(), self.chunks) && self.due.is_none_or(|due| now.elapsed < due) {
            return None;
        }
        (self.chunks, self.due) = (0, None);
        Some((std::mem::take(&mut self.pending), std::mem::take(&mut self.lost)))
    }
}
