//! Feeding a catalog document from the logs once more: its cached form is damaged, or there was no room for changes that had
//! to wait for others.
//!
//! Nothing is lost by either: what the logs hold is the catalog.

use std::collections::BTreeSet;

use holdfast_crdt::{Applied, Catalog, DocumentId, Origin, Patch};
use holdfast_protocol::envelope::{Kind, SignedEnvelope};
use holdfast_protocol::id::AuthorId;
use holdfast_protocol::metadata::Metadata;

use super::carrying::said_by;
use super::{Event, Library, LibraryError, REPLAY_PAGE};

/// Changes of one document that are held before they are applied, about.
pub(super) const CHANGES_BYTES_MAX: usize = 16 << 20;

impl<M: Metadata> Library<M> {
    /// The catalog, with `document` open: from its cached form, or when that is damaged, made again from the logs.
    pub(super) fn opened(&mut self, document: DocumentId) -> Result<&mut Catalog, LibraryError> {
        if !self.documents.open_saved(document, self.replica.metadata())? {
            self.events.push(Event::Rebuilt { document: Some(document) });
            self.documents.catalog.open(document, None).map_err(|error| LibraryError::Catalog(error.to_string()))?;
            let authors: BTreeSet<AuthorId> = self.applied.keys().copied().collect();
            for author in authors {
                self.feed(document, &author)?;
            }
            self.feed_dropped(document)?;
            let contents = self.documents.catalog.contents(document).collect();
            self.learn(document, contents);
        }
        Ok(&mut self.documents.catalog)
    }

    /// Applies changes to an open document, and again those that there was no room for before; what is new.
    pub(super) fn apply(
        &mut self,
        document: DocumentId,
        changes: &[(Origin, Vec<u8>)],
    ) -> Result<Vec<Patch>, LibraryError> {
        let mut patches = self.apply_once(document, changes)?;
        patches.extend(self.feed_dropped(document)?);
        Ok(patches)
    }

    /// Feeds what was dropped of logs of which nothing waits any more.
    fn feed_dropped(&mut self, document: DocumentId) -> Result<Vec<Patch>, LibraryError> {
        let mut patches = Vec::new();
        while let Some(author) = self.documents.catalog.feed_again(document) {
            patches.extend(self.feed(document, &author)?);
        }
        Ok(patches)
    }

    /// Applies all changes in the log of `author` to an open document, as far as it was taken in.
    fn feed(&mut self, document: DocumentId, author: &AuthorId) -> Result<Vec<Patch>, LibraryError> {
        let end = self.applied.get(author).copied().unwrap_or(0);
        let (mut patches, mut changes, mut bytes, mut from) = (Vec::new(), Vec::new(), 0, 0);
        while from < end {
            let page = self.replica.read_log(author, from, REPLAY_PAGE)?;
            if page.is_empty() {
                break;
            }
            from += page.len() as u64;
            for signed in page.iter().filter(|signed| signed.envelope().seq < end) {
                for (origin, change) in self.changes_to(document, signed) {
                    bytes += change.len();
                    changes.push((origin, change));
                }
                if bytes >= CHANGES_BYTES_MAX {
                    patches.extend(self.apply_once(document, &changes)?);
                    (changes, bytes) = (Vec::new(), 0);
                }
            }
        }
        patches.extend(self.apply_once(document, &changes)?);
        Ok(patches)
    }

    /// The changes to `document` that an envelope carries. One that cannot be read was told of when it was taken in.
    fn changes_to(&self, document: DocumentId, signed: &SignedEnvelope) -> Vec<(Origin, Vec<u8>)> {
        let log = signed.envelope().author;
        let mut changes = Vec::new();
        let said = said_by(self.replica.registry().library(), signed);
        for said in said.iter().map(SignedEnvelope::envelope) {
            let body =
                (said.kind == Kind::Catalog).then(|| self.documents.open_body(&self.bodies, said).ok()).flatten();
            if let Some(body) = body.filter(|body| body.document == document) {
                let origin = Origin { author: said.author, log };
                changes.extend(body.changes.into_iter().map(|change| (origin, change)));
            }
        }
        changes
    }

    fn apply_once(&mut self, document: DocumentId, changes: &[(Origin, Vec<u8>)]) -> Result<Vec<Patch>, LibraryError> {
        let changes: Vec<_> = changes.iter().map(|(origin, change)| (*origin, change.as_slice())).collect();
        let applied = self.documents.catalog.apply(document, &changes);
        let Applied { patches, refused, overflowed, .. } =
            applied.map_err(|error| LibraryError::Catalog(error.to_string()))?;
        for (author, reason) in refused {
            self.events.push(Event::ChangeRefused { author, document, reason: reason.to_string() });
        }
        for author in overflowed {
            tracing::warn!(author = author.short(), %document, "changes wait for others that are not here");
        }
        Ok(patches)
    }
}
