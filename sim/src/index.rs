//! A virtual index: what lists and searches would show, in memory.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_library::index::{IndexChange, IndexedName, IndexedPhoto, IndexedState};
use holdfast_protocol::id::PhotoId;

/// What the index shows of one photo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownPhoto {
    /// Its facts; `None` while nobody has described it.
    pub facts: Option<IndexedPhoto>,
    /// What it is called, by the keys of its names: where its files lie, or where the last one lay.
    pub names: BTreeMap<[u8; 16], IndexedName>,
    /// Whether it is shown at all.
    pub state: IndexedState,
    /// The newer version that hides it.
    pub successor: Option<PhotoId>,
    /// Whether it is a favourite.
    pub favourite: bool,
    /// Its captions, the shown one first.
    pub captions: Vec<String>,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its albums, and where in them it stands.
    pub albums: BTreeMap<String, String>,
}

/// The durable index of a node; a crash keeps it, since it is a file of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualIndex {
    photos: BTreeMap<PhotoId, ShownPhoto>,
    /// Names of tags and albums.
    labels: BTreeMap<String, String>,
    version: Option<u64>,
}

impl VirtualIndex {
    /// Takes in one batch of changes.
    pub fn apply(&mut self, version: u64, changes: Vec<IndexChange>) {
        self.version = Some(version);
        for change in changes {
            match change {
                IndexChange::Photo(facts) => {
                    let shown = self.photo(facts.photo);
                    shown.names.clear();
                    shown.captions.clear();
                    shown.tags.clear();
                    shown.albums.clear();
                    shown.facts = Some(*facts);
                }
                IndexChange::State { photo, state } => self.photo(photo).state = state,
                IndexChange::Successor { photo, successor } => self.photo(photo).successor = successor,
                IndexChange::Name { photo, key, name } => drop(self.photo(photo).names.insert(key, name)),
                IndexChange::Favourite { photo, favourite } => self.photo(photo).favourite = favourite,
                IndexChange::Caption { photo, captions } => self.photo(photo).captions = captions,
                IndexChange::Tag { photo, tag, tagged: true } => drop(self.photo(photo).tags.insert(tag)),
                IndexChange::Tag { photo, tag, tagged: false } => drop(self.photo(photo).tags.remove(&tag)),
                IndexChange::Album { photo, album, position: Some(position) } => {
                    self.photo(photo).albums.insert(album, position);
                }
                IndexChange::Album { photo, album, position: None } => {
                    self.photo(photo).albums.remove(&album);
                }
                IndexChange::TagName { tag, name } => self.label(format!("tag {tag}"), name),
                IndexChange::AlbumName { album, name } => self.label(format!("album {album}"), name),
                // What the workload does not touch yet.
                IndexChange::Date { .. } => {}
            }
        }
    }

    fn photo(&mut self, photo: PhotoId) -> &mut ShownPhoto {
        self.photos.entry(photo).or_default()
    }

    fn label(&mut self, key: String, name: Option<String>) {
        match name {
            Some(name) => drop(self.labels.insert(key, name)),
            None => drop(self.labels.remove(&key)),
        }
    }

    /// Names of tags and albums.
    #[must_use]
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The newest version that it has; `None` when it is new.
    #[must_use]
    pub const fn version(&self) -> Option<u64> {
        self.version
    }

    /// Every photo that it was told of.
    #[must_use]
    pub const fn photos(&self) -> &BTreeMap<PhotoId, ShownPhoto> {
        &self.photos
    }

    /// Which photo every shown file is, of those that are there.
    #[must_use]
    pub fn files(&self) -> BTreeSet<(String, PhotoId)> {
        let files = |(photo, shown): (&PhotoId, &ShownPhoto)| {
            let here = shown.names.values().filter(|name| name.gone_since.is_none());
            here.map(|name| (name.path.to_string(), *photo)).collect::<Vec<_>>()
        };
        self.photos.iter().flat_map(files).collect()
    }
}
