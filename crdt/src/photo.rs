//! Everything a catalog says about one photo.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::id::{AuthorId, PhotoId};
use holdfast_protocol::position::Run;

use crate::key::{AlbumId, NameId, TagId};
use crate::name::Name;
use crate::patch::{Patch, Register};
use crate::state::State;

/// A photo as its document has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoState {
    /// Its sealed record.
    pub record: Vec<u8>,
    /// Records of others who imported the same photo at the same time.
    pub other_records: Vec<Vec<u8>>,
    /// Where further authors deposited its chunks.
    pub runs: BTreeMap<AuthorId, Run>,
    /// Whether it is a favourite.
    pub favourite: bool,
    /// Sealed caption.
    pub caption: Register,
    /// Its tags.
    pub tags: BTreeSet<TagId>,
    /// The albums it is in, and where.
    pub albums: BTreeMap<AlbumId, Vec<u8>>,
    /// Sealed date that a person chose.
    pub date: Register,
    /// Shown, in the trash or erased.
    pub state: State,
    /// The names of its files: of those that are there, and of those that are gone.
    pub names: BTreeMap<NameId, Name>,
    /// The photo that an edit made of it.
    pub successor: Option<PhotoId>,
}

impl PhotoState {
    /// Gathers the patches of one photo; `None` when it has no record.
    pub(crate) fn gather(patches: impl Iterator<Item = Patch>) -> Option<Self> {
        let mut photo = Self {
            record: Vec::new(),
            other_records: Vec::new(),
            runs: BTreeMap::new(),
            favourite: false,
            caption: Register::default(),
            tags: BTreeSet::new(),
            albums: BTreeMap::new(),
            date: Register::default(),
            state: State::default(),
            names: BTreeMap::new(),
            successor: None,
        };
        for patch in patches {
            photo.take(patch);
        }
        (!photo.record.is_empty()).then_some(photo)
    }

    fn take(&mut self, patch: Patch) {
        match patch {
            Patch::PhotoAdded { record, others, .. } => {
                self.record = record;
                self.other_records = others;
            }
            Patch::Run { run, .. } => {
                self.runs.insert(run.author, run);
            }
            Patch::Favourite { favourite, .. } => self.favourite = favourite,
            Patch::Caption { caption, .. } => self.caption = caption,
            Patch::Tag { tag, present, .. } => {
                if present {
                    self.tags.insert(tag);
                }
            }
            Patch::Album { album, position, .. } => {
                if let Some(position) = position {
                    self.albums.insert(album, position);
                }
            }
            Patch::Date { date, .. } => self.date = date,
            Patch::State { state, .. } => self.state = state,
            Patch::Name { id, name, .. } => {
                self.names.insert(id, name);
            }
            Patch::Successor { successor, .. } => self.successor = successor,
            Patch::AlbumNamed { .. } | Patch::TagNamed { .. } | Patch::Setting { .. } => {}
        }
    }
}
