//! Catalog documents: opened from their cached form when they are needed, and the bodies that carry their changes.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crdt::{Catalog, CatalogBody, DocumentId};
use holdfast_protocol::envelope::Envelope;
use holdfast_protocol::id::AuthorId;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError, Table};
use holdfast_protocol::sealing::BodySealer;

/// Documents that stay open when nothing needs more.
const DOCUMENTS_OPEN: usize = 12;
const FORGET_PAGE: usize = 64;
const DOCUMENT_PREFIX: &str = "document/";
const ROWS_PREFIX: &str = "photos/";

/// What documents were made of: equal on all devices that have taken in the same logs.
pub type DocumentHeads = BTreeMap<DocumentId, Vec<[u8; 32]>>;

/// The catalog and where its documents are cached.
pub(super) struct Documents {
    pub(super) catalog: Catalog,
}

impl Documents {
    pub(super) fn new(author: AuthorId) -> Self {
        Self { catalog: Catalog::new(author, DOCUMENTS_OPEN) }
    }

    /// Opens `document` from its cached form; false when that is damaged and it is not open.
    pub(super) fn open_saved<M: Metadata>(&mut self, document: DocumentId, metadata: &M) -> Result<bool, StorageError> {
        if self.catalog.is_open(document) {
            return Ok(true);
        }
        let saved = metadata.get(Table::Catalog, &document_key(document))?;
        Ok(self.catalog.open(document, saved.as_deref()).is_ok())
    }

    /// Removes everything that is cached, so that it is made again from the logs.
    pub(super) fn forget_saved<M: Metadata>(metadata: &mut M) -> Result<(), StorageError> {
        loop {
            let page = metadata.scan(Table::Catalog, &[], &[], FORGET_PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (key, _) in page {
                batch.remove(Table::Catalog, key);
            }
            metadata.commit(batch)?;
        }
    }

    /// Closes documents that did not change since they were saved, until few enough are open.
    pub(super) fn close_saved(&mut self, changed: &BTreeSet<DocumentId>) {
        let open: Vec<_> = self.catalog.documents().filter(|document| !changed.contains(document)).collect();
        let surplus = self.catalog.documents().count().saturating_sub(DOCUMENTS_OPEN);
        for document in open.into_iter().take(surplus) {
            self.catalog.close(document);
        }
    }

    /// The heads of every document that anybody wrote to, of those that are closed as they were saved.
    pub(super) fn heads<M: Metadata>(&self, metadata: &M) -> Result<DocumentHeads, StorageError> {
        let saved = metadata.scan(Table::Catalog, DOCUMENT_PREFIX.as_bytes(), &[], usize::MAX)?;
        let saved: BTreeMap<DocumentId, Vec<u8>> = saved
            .into_iter()
            .filter_map(|(key, saved)| {
                let name = std::str::from_utf8(&key).ok()?.strip_prefix(DOCUMENT_PREFIX)?;
                Some((name.parse().ok()?, saved))
            })
            .collect();
        let documents: BTreeSet<DocumentId> = self.catalog.documents().chain(saved.keys().copied()).collect();
        let heads_of = |document, saved: Option<&[u8]>| {
            let mut closed = Catalog::new(self.catalog.author(), 1);
            closed.open(document, saved).ok()?;
            closed.heads(document)
        };
        let mut heads = DocumentHeads::new();
        for document in documents {
            let saved = saved.get(&document).map(Vec::as_slice);
            let of = self.catalog.heads(document).or_else(|| heads_of(document, saved));
            if let Some(mut of) = of.filter(|of| Some(of) != heads_of(document, None).as_ref()) {
                of.sort_unstable();
                heads.insert(document, of);
            }
        }
        Ok(heads)
    }

    /// Opens the sealed body of a catalog envelope; the error says why it cannot be.
    pub(super) fn open_body(&self, bodies: &BodySealer, envelope: &Envelope) -> Result<CatalogBody, String> {
        let plaintext = bodies
            .open(envelope.epoch, &envelope.author, envelope.seq, &envelope.body)
            .map_err(|error| error.to_string())?;
        CatalogBody::decode(&plaintext).map_err(|error| error.to_string())
    }
}

pub(super) fn document_key(document: DocumentId) -> Vec<u8> {
    format!("{DOCUMENT_PREFIX}{document}").into_bytes()
}

pub(super) fn rows_key(document: DocumentId) -> Vec<u8> {
    format!("{ROWS_PREFIX}{document}").into_bytes()
}

/// The document whose photo rows stand under `key`.
pub(super) fn document_of_rows(key: &[u8]) -> Option<DocumentId> {
    std::str::from_utf8(key).ok()?.strip_prefix(ROWS_PREFIX)?.parse().ok()
}

/// What all keys of photo rows start with.
pub(super) const fn rows_prefix() -> &'static [u8] {
    ROWS_PREFIX.as_bytes()
}
