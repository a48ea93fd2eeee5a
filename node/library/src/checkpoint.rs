//! Checkpoints: what spares a restart from taking in whole logs again.
//!
//! A checkpoint is one batch of metadata: the changed documents in their cached form, their photo rows, how far each
//! log was taken in, and the index version of that moment. It is written once the index durably has that version; what
//! happened since is in the logs. Without a checkpoint, or with a damaged one, everything is rebuilt from the logs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_crdt::DocumentId;
use holdfast_protocol::codec;
use holdfast_protocol::id::AuthorId;
use holdfast_protocol::limits::VECTOR_AUTHORS_MAX;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError, Table};
use holdfast_protocol::time::{Now, Timestamp};
use serde::{Deserialize, Serialize};

use super::documents::{self, Documents};
use super::{Event, Library, LibraryError};

const CHECKPOINT_KEY: &[u8] = b"checkpoint";
const CHECKPOINT_BYTES_MAX: usize = 64 + VECTOR_AUTHORS_MAX * 48;
const ROWS_PAGE: usize = 64;
const FORMAT: u8 = 2;
/// Index versions count in so many steps from one rebuilding of the index to the next: one that was begun anew and not
/// finished never passes for one that a checkpoint was written over.
const REBUILDING: u64 = 1 << 40;
/// How long changes may be held in memory only; a restart takes them in from the logs again.
const INTERVAL: Duration = Duration::from_secs(20);
/// Changed documents that are kept open before a checkpoint lets them go.
const CHANGED_DOCUMENTS_MAX: usize = 24;

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    format: u8,
    index_version: u64,
    applied: Vec<(AuthorId, u64)>,
}

/// What changed since the last checkpoint, and the one that waits for the index.
#[derive(Default)]
pub(super) struct Checkpoints {
    changed: BTreeSet<DocumentId>,
    due: Option<Timestamp>,
    is_changed: bool,
    waiting: Option<(u64, Batch)>,
    indexed: u64,
}

impl Checkpoints {
    pub(super) const fn changed(&mut self) {
        self.is_changed = true;
    }

    pub(super) fn document_changed(&mut self, document: DocumentId) {
        self.is_changed = true;
        self.changed.insert(document);
    }

    pub(super) fn indexed(&mut self, version: u64) {
        self.indexed = self.indexed.max(version);
    }

    pub(super) const fn deadline(&self) -> Option<Timestamp> {
        self.due
    }
}

impl<M: Metadata> Library<M> {
    /// Loads rows, versions and positions of the last checkpoint. `indexed` is what the index durably has: when that is
    /// older than the checkpoint, or of another rebuilding, every photo is described again.
    pub(super) fn restore(&mut self, indexed: Option<u64>) -> Result<(), LibraryError> {
        let saved = self.replica.metadata().get(Table::Catalog, CHECKPOINT_KEY)?;
        let was_saved = saved.is_some();
        let saved = saved.and_then(|bytes| codec::decode::<Checkpoint>(&bytes, CHECKPOINT_BYTES_MAX).ok());
        let saved = saved.filter(|checkpoint| checkpoint.format == FORMAT);
        let Some(checkpoint) = saved.filter(|_| self.restore_rows().unwrap_or(false)) else {
            if was_saved {
                self.events.push(Event::Rebuilt { document: None });
            }
            self.photos = super::PhotoTable::default();
            Documents::forget_saved(self.replica.metadata_mut())?;
            self.index_version = indexed.unwrap_or(0);
            return Ok(());
        };
        self.photos.shrink();
        self.applied = checkpoint.applied.into_iter().collect::<BTreeMap<_, _>>();
        let reached = checkpoint.index_version;
        let behind = indexed.is_none_or(|indexed| indexed < reached || indexed / REBUILDING != reached / REBUILDING);
        self.index_version = reached.max(indexed.unwrap_or(0));
        if behind {
            self.index_version = (self.index_version / REBUILDING + 1) * REBUILDING;
            // The next checkpoint says of every photo whether it is described by then.
            for document in self.photos.documents() {
                self.checkpoints.document_changed(document);
            }
        }
        for slot in 0..self.photos.len() as u32 {
            let row = self.photos.row_mut(slot);
            row.described &= !behind;
            if !row.described {
                self.to_describe.push_back(slot);
            }
            self.count_run(slot);
        }
        if behind {
            let contents = self.opened(DocumentId::Library)?.contents(DocumentId::Library).collect();
            self.learn(DocumentId::Library, contents);
        }
        Ok(())
    }

    /// False when rows cannot be read: everything is taken in from the logs then.
    fn restore_rows(&mut self) -> Result<bool, StorageError> {
        let mut from = Vec::new();
        loop {
            let page = self.replica.metadata().scan(Table::Catalog, documents::rows_prefix(), &from, ROWS_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(true) };
            from = [last.as_slice(), &[0]].concat();
            for (key, rows) in &page {
                let Some(document) = documents::document_of_rows(key) else { return Ok(false) };
                if self.photos.decode_document(document, rows).is_err() {
                    return Ok(false);
                }
            }
        }
    }

    /// Takes a checkpoint when one is due, and writes one whose moment the index has reached.
    pub(super) fn checkpoint_if_due(&mut self, now: Now) -> Result<(), StorageError> {
        if let Some((_, batch)) = self.checkpoints.waiting.take_if(|(version, _)| *version <= self.checkpoints.indexed)
        {
            self.replica.metadata_mut().commit(batch)?;
            let Self { documents, checkpoints, .. } = self;
            documents.close_saved(&checkpoints.changed);
        }
        if !self.checkpoints.is_changed || self.checkpoints.waiting.is_some() {
            return Ok(());
        }
        let due = *self.checkpoints.due.get_or_insert(now.elapsed + INTERVAL);
        if now.elapsed >= due || self.checkpoints.changed.len() > CHANGED_DOCUMENTS_MAX {
            self.checkpoint();
        }
        Ok(())
    }

    /// Takes a checkpoint of this moment; it is written once the index has caught up. Before a stop: call this, carry
    /// out the effects, and wait until nothing is outstanding.
    pub fn checkpoint(&mut self) {
        let mut batch = self.checkpoints.waiting.take().map(|(_, batch)| batch).unwrap_or_default();
        for document in std::mem::take(&mut self.checkpoints.changed) {
            if let Some(saved) = self.documents.catalog.save(document) {
                batch.put(Table::Catalog, documents::document_key(document), saved);
            }
            batch.put(Table::Catalog, documents::rows_key(document), self.photos.encode_document(document));
        }
        // Changes of this very input leave with it, under the next version.
        let index_version = self.index_version + u64::from(!self.index_changes.is_empty());
        let applied = self.applied.iter().map(|(author, seq)| (*author, *seq)).collect();
        let checkpoint = codec::encode(&Checkpoint { format: FORMAT, index_version, applied });
        batch.put(Table::Catalog, CHECKPOINT_KEY, checkpoint);
        self.checkpoints.is_changed = false;
        self.checkpoints.due = None;
        self.checkpoints.waiting = Some((index_version, batch));
    }
}
