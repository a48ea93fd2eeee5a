//! The catalog of one library: the documents that are open.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::id::{AuthorId, PhotoId};

use crate::document::DocumentId;
use crate::edit::{Edit, EditRefused, LocalChange};
use crate::origin::Origin;
use crate::patch::Patch;
use crate::photo::PhotoState;
use crate::refusal::ChangeRefused;
use crate::replica::{Replica, Written};

/// Why a document was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The saved bytes are damaged, or another document's.
    #[error(
        "the saved form of document {document} is damaged; open it without and apply its changes from the log again"
    )]
    Damaged {
        /// Which document.
        document: DocumentId,
    },
}

/// A document that is not open was to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("document {document} is not open; open it first")]
pub struct NotOpen {
    /// Which document.
    pub document: DocumentId,
}

/// What became of changes that were applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The new values, in the order of their keys.
    pub patches: Vec<Patch>,
    /// How many changes are new in the document.
    pub applied: usize,
    /// How many changes wait, now, for others that they build on. They are kept in the document's saved form.
    pub waiting: usize,
    /// Authors of whom a change was refused just now, and why. Their later changes to this document are ignored from
    /// now on, by every device alike.
    pub refused: Vec<(AuthorId, ChangeRefused)>,
    /// Whose logs more changes wait of than there is room for. What did not fit was dropped, and is fed again when
    /// [`Catalog::feed_again`] says so.
    pub overflowed: Vec<AuthorId>,
}

/// A document that was closed to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Which document.
    pub document: DocumentId,
    /// Its saved form; `None` when nothing changed since it was last saved or opened.
    pub saved: Option<Vec<u8>>,
}

/// The open documents of one library, for one author.
///
/// The caller keeps the saved forms and the log. Four rules are its part:
/// - each origin's changes to a document are applied in the order of its log;
/// - a saved form is made durable together with, or after, the log that it came from, never before;
/// - own changes that are in the log are all applied before anything is edited;
/// - after changes were applied, [`Catalog::feed_again`] is asked until it names nobody.
#[derive(Debug)]
pub struct Catalog {
    author: AuthorId,
    incarnation: u32,
    capacity: usize,
    open: BTreeMap<DocumentId, Open>,
    uses: u64,
}

#[derive(Debug)]
struct Open {
    replica: Replica,
    last_use: u64,
}

impl Catalog {
    /// A catalog that edits as `author` and wants to hold at most `capacity` documents open.
    #[must_use]
    pub fn new(author: AuthorId, capacity: usize) -> Self {
        Self { author, incarnation: 0, capacity: capacity.max(1), open: BTreeMap::new(), uses: 0 }
    }

    /// The author that edits.
    #[must_use]
    pub fn author(&self) -> AuthorId {
        self.author
    }

    /// Edits as another incarnation than the first. Two catalogs that may not know all of each other's changes, as
    /// of a device and its copy, must not be the same incarnation: the changes of one would be refused then.
    pub const fn set_incarnation(&mut self, incarnation: u32) {
        self.incarnation = incarnation;
    }

    /// From now on edits are those of `author`.
    pub const fn continue_as(&mut self, author: AuthorId) {
        self.author = author;
    }

    /// Opens a document from its saved form, or an empty one. Does nothing when it is open.
    ///
    /// # Errors
    /// When the saved form is damaged; the document is not open then.
    pub fn open(&mut self, document: DocumentId, saved: Option<&[u8]>) -> Result<(), OpenError> {
        self.uses += 1;
        let last_use = self.uses;
        if let Some(open) = self.open.get_mut(&document) {
            open.last_use = last_use;
            return Ok(());
        }
        let replica = match saved {
            Some(saved) => Replica::load(document, saved).ok_or(OpenError::Damaged { document })?,
            None => Replica::genesis(document),
        };
        self.open.insert(document, Open { replica, last_use });
        Ok(())
    }

    /// Whether the document is open.
    #[must_use]
    pub fn is_open(&self, document: DocumentId) -> bool {
        self.open.contains_key(&document)
    }

    /// The open documents, in order.
    pub fn documents(&self) -> impl Iterator<Item = DocumentId> {
        self.open.keys().copied()
    }

    /// The open documents that changed since they were last saved, in order.
    pub fn unsaved(&self) -> impl Iterator<Item = DocumentId> {
        self.open.iter().filter(|(_, open)| open.replica.unsaved).map(|(document, _)| *document)
    }

    /// The saved form of an open document, which counts as saved from now on.
    pub fn save(&mut self, document: DocumentId) -> Option<Vec<u8>> {
        self.open.get_mut(&document).map(|open| open.replica.save())
    }

    /// Closes a document without saving it, for example because its changes could not be made durable.
    pub fn close(&mut self, document: DocumentId) {
        self.open.remove(&document);
    }

    /// Closes the document that was used longest ago, if more are open than wanted.
    pub fn evict(&mut self) -> Option<Evicted> {
        if self.open.len() <= self.capacity {
            return None;
        }
        let document = *self.open.iter().min_by_key(|(_, open)| open.last_use)?.0;
        let mut open = self.open.remove(&document)?;
        let saved = open.replica.unsaved.then(|| open.replica.save());
        Some(Evicted { document, saved })
    }

    /// Whether this device cannot edit an open document: changes of its own author wait there for others that they build
    /// on, or were refused, or it had too many incarnations. [`Catalog::continue_as`] another author goes on.
    #[must_use]
    pub fn is_behind(&self, document: DocumentId) -> bool {
        let open = self.open.get(&document);
        open.is_some_and(|open| open.replica.is_behind(&self.author, self.incarnation))
    }

    /// Makes an edit as one change, which is in the document at once. Answers `None` when it changes nothing.
    ///
    /// # Errors
    /// When the edit does not fit; nothing changed then.
    pub fn edit(
        &mut self,
        document: DocumentId,
        write: impl FnOnce(&mut Edit<'_>),
    ) -> Result<Option<LocalChange>, EditRefused> {
        let (author, incarnation) = (self.author, self.incarnation);
        if self.is_behind(document) {
            return Err(EditRefused::Behind { document });
        }
        let replica = self.replica(document).map_err(|NotOpen { document }| EditRefused::NotOpen { document })?;
        let mut edit = Edit::new(replica, author);
        write(&mut edit);
        let puts = edit.finish()?;
        let Some(Written { change, keys }) = replica.write(&author, incarnation, puts)? else { return Ok(None) };
        let patches = keys.iter().filter_map(|key| replica.patch(key)).collect();
        Ok(Some(LocalChange { document, change, patches }))
    }

    /// Applies changes of any origins, each one's in the order of its log; known ones are skipped.
    ///
    /// # Errors
    /// When the document is not open.
    pub fn apply<O: Into<Origin> + Copy>(
        &mut self,
        document: DocumentId,
        changes: &[(O, &[u8])],
    ) -> Result<Applied, NotOpen> {
        let replica = self.replica(document)?;
        let changes: Vec<_> = changes.iter().map(|(origin, change)| ((*origin).into(), *change)).collect();
        let outcome = replica.apply(&changes);
        Ok(Applied {
            patches: outcome.keys.iter().filter_map(|key| replica.patch(key)).collect(),
            applied: outcome.applied,
            waiting: replica.waiting().len(),
            refused: outcome.refused,
            overflowed: replica.waiting().overflowed().iter().map(|origin| origin.log).collect(),
        })
    }

    /// An author in whose log changes to an open document stand that were dropped for want of room, now that there is
    /// room. All that its log says of this document is to be applied again, from the first of it on.
    pub fn feed_again(&mut self, document: DocumentId) -> Option<AuthorId> {
        self.open.get_mut(&document)?.replica.feed_again()
    }

    /// Authors whose changes to this document are ignored since one of them was refused.
    #[must_use]
    pub fn refused(&self, document: DocumentId) -> BTreeSet<AuthorId> {
        self.open.get(&document).map(|open| open.replica.refused().clone()).unwrap_or_default()
    }

    /// What the document was made of: equal on all devices that have applied the same changes.
    #[must_use]
    pub fn heads(&self, document: DocumentId) -> Option<Vec<[u8; 32]>> {
        self.open.get(&document).map(|open| open.replica.heads())
    }

    /// One photo of an open document.
    #[must_use]
    pub fn photo(&self, document: DocumentId, photo: &PhotoId) -> Option<PhotoState> {
        self.open.get(&document)?.replica.photo(photo)
    }

    /// The photos of an open document with their records, in the order of their keys.
    pub fn photos(&self, document: DocumentId) -> impl Iterator<Item = (PhotoId, Vec<u8>)> {
        self.scan(document, "p/").filter_map(|patch| match patch {
            Patch::PhotoAdded { photo, record, .. } => Some((photo, record)),
            _ => None,
        })
    }

    /// Everything an open document says, as patches in the order of the keys: what an index is rebuilt from.
    pub fn contents(&self, document: DocumentId) -> impl Iterator<Item = Patch> {
        self.scan(document, "")
    }

    fn scan(&self, document: DocumentId, prefix: &str) -> impl Iterator<Item = Patch> + use<'_> {
        self.open.get(&document).map(|open| open.replica.scan(prefix)).into_iter().flatten()
    }

    fn replica(&mut self, document: DocumentId) -> Result<&mut Replica, NotOpen> {
        self.uses += 1;
        let open = self.open.get_mut(&document).ok_or(NotOpen { document })?;
        open.last_use = self.uses;
        Ok(&mut open.replica)
    }
}
