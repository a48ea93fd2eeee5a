//! A device of a library, as far as its catalog goes: what it edits goes to its log, what others log it applies.
#![allow(dead_code, reason = "each test file uses a part")]

use holdfast_crdt::{Applied, Catalog, DocumentId, Edit, Patch};
use holdfast_protocol::id::{AuthorId, DeviceId, PhotoId};
use holdfast_protocol::time::WallTime;

pub(crate) const NOW: WallTime = WallTime(1_700_000_000_000);
pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([9; 32]);
pub(crate) const MONTH: DocumentId = DocumentId::Month { year: 2021, month: 7 };

pub(crate) struct Device {
    pub(crate) author: AuthorId,
    pub(crate) catalog: Catalog,
    /// Its changes to [`MONTH`].
    pub(crate) log: Vec<Vec<u8>>,
}

impl Device {
    pub(crate) fn new(number: u8) -> Self {
        let author = author(number);
        let mut catalog = Catalog::new(author, 8);
        catalog.open(MONTH, None).expect("a new document");
        Self { author, catalog, log: Vec::new() }
    }

    /// Edits and logs; answers the raw change, if anything changed.
    pub(crate) fn edit(&mut self, write: impl FnOnce(&mut Edit<'_>)) -> Option<Vec<u8>> {
        let change = self.catalog.edit(MONTH, write).expect("an edit within the limits")?.change;
        self.log.push(change.clone());
        Some(change)
    }

    pub(crate) fn apply(&mut self, author: AuthorId, changes: &[Vec<u8>]) -> Applied {
        let changes: Vec<_> = changes.iter().map(|change| (author, change.as_slice())).collect();
        self.catalog.apply(MONTH, &changes).expect("an open document")
    }

    /// Takes the other device's whole log.
    pub(crate) fn follow(&mut self, other: &Self) -> Applied {
        self.apply(other.author, &other.log)
    }

    pub(crate) fn heads(&self) -> Vec<[u8; 32]> {
        self.catalog.heads(MONTH).expect("an open document")
    }

    pub(crate) fn contents(&self) -> Vec<Patch> {
        self.catalog.contents(MONTH).collect()
    }

    /// Saves, closes and opens the document again.
    pub(crate) fn reopen(&mut self) {
        let saved = self.catalog.save(MONTH).expect("an open document");
        self.catalog.close(MONTH);
        self.catalog.open(MONTH, Some(&saved)).expect("what was saved opens again");
    }
}

pub(crate) fn author(number: u8) -> AuthorId {
    AuthorId::from_bytes([number; 32])
}

pub(crate) fn photo(number: u8) -> PhotoId {
    PhotoId::from_bytes([number; 32])
}
