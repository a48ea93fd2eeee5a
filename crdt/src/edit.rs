//! One gesture of a person, or one batch of an import, written as one change.

use std::collections::BTreeMap;

use holdfast_protocol::id::{AuthorId, DeviceId, PhotoId};
use holdfast_protocol::position::Run;
use holdfast_protocol::time::WallTime;

use crate::document::DocumentId;
use crate::key::{AlbumId, Key, NameId, TagId, encode_run};
use crate::limits::{EDIT_BYTES_MAX, OPERATIONS_MAX};
use crate::name::Name;
use crate::patch::Patch;
use crate::photo::PhotoState;
use crate::replica::Replica;
use crate::state::{Lifecycle, State};

/// Why a local edit was not made. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditRefused {
    /// The document is not open.
    #[error("document {document} is not open; open it first")]
    NotOpen {
        /// Which document.
        document: DocumentId,
    },
    /// This does not belong into this document.
    #[error("{key:?} does not belong into document {document}")]
    WrongDocument {
        /// What was to be written.
        key: String,
        /// Where.
        document: DocumentId,
    },
    /// A value is too long, or has a form that other devices would refuse.
    #[error("the value of {key:?} is {bytes} bytes long, which is too long or malformed; shorten it")]
    WrongValue {
        /// Of what.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// The edit would not fit in one envelope.
    #[error("an edit of {bytes} bytes does not fit in one envelope; make several of at most 100 photos each")]
    TooLarge {
        /// Keys and values together.
        bytes: usize,
    },
    /// Not all of this device's own earlier changes are in the document yet.
    #[error("earlier changes of this device are still on their way into {document}; try again when they have arrived")]
    Behind {
        /// Which document.
        document: DocumentId,
    },
    /// Automerge failed.
    #[error("the edit of {document} could not be written; close the document and open it again")]
    Failed {
        /// Which document.
        document: DocumentId,
    },
}

/// An edit in the making: what is set last for a key is written, and only where it changes something.
#[derive(Debug)]
pub struct Edit<'a> {
    replica: &'a Replica,
    author: AuthorId,
    puts: BTreeMap<String, Vec<u8>>,
    refused: Option<EditRefused>,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(replica: &'a Replica, author: AuthorId) -> Self {
        Self { replica, author, puts: BTreeMap::new(), refused: None }
    }

    /// The photo as it was before this edit.
    #[must_use]
    pub fn photo(&self, photo: &PhotoId) -> Option<PhotoState> {
        self.replica.photo(photo)
    }

    /// Adds a photo with its sealed record. A record is written once: if the photo is there, nothing happens.
    pub fn put_photo(&mut self, photo: PhotoId, sealed_record: &[u8]) {
        let key = Key::Record(photo);
        if self.replica.values(&key.text()).is_empty() {
            self.put(&key, sealed_record);
        }
    }

    /// Says that this device deposited the chunks of a photo that the catalog has already: `run.author` must be the
    /// author that edits.
    pub fn put_run(&mut self, photo: PhotoId, run: Run) {
        if run.author == self.author {
            self.put(&Key::Run(photo, run.author), &encode_run(&run));
        } else {
            self.refuse(EditRefused::WrongDocument {
                key: format!("a run of {}", run.author.short()),
                document: self.replica.id(),
            });
        }
    }

    /// Makes a photo a favourite, or not.
    pub fn set_favourite(&mut self, photo: PhotoId, favourite: bool) {
        self.put(&Key::Favourite(photo), &[u8::from(favourite)]);
    }

    /// Sets the caption; `None` takes it away.
    pub fn set_caption(&mut self, photo: PhotoId, sealed: Option<&[u8]>) {
        self.put(&Key::Caption(photo), sealed.unwrap_or_default());
    }

    /// Adds or removes a tag.
    pub fn set_tag(&mut self, photo: PhotoId, tag: TagId, present: bool) {
        let key = Key::Tag(photo, tag);
        self.put_unless_absent(&key, &[u8::from(present)], !present);
    }

    /// Puts a photo into an album at `position`, moves it there, or takes it out.
    pub fn set_album_position(&mut self, photo: PhotoId, album: AlbumId, position: Option<&[u8]>) {
        let key = Key::Position(photo, album);
        self.put_unless_absent(&key, position.unwrap_or_default(), position.is_none());
    }

    /// Sets the date to show instead of the file's; `None` goes back to the file's.
    pub fn set_date_override(&mut self, photo: PhotoId, sealed: Option<&[u8]>) {
        let key = Key::Date(photo);
        self.put_unless_absent(&key, sealed.unwrap_or_default(), sealed.is_none());
    }

    /// Trashes, erases or restores a photo, unless it is that already: decided on the device `by` at the time `now`.
    pub fn set_state(&mut self, photo: PhotoId, lifecycle: Lifecycle, now: WallTime, by: DeviceId) {
        let key = Key::State(photo);
        let values = self.replica.values(&key.text());
        let state = State::resolve(values.iter().map(Vec::as_slice));
        // Restoring a photo that others delete at this very moment is a decision too: write it over the conflict.
        if state.lifecycle != lifecycle || values.len() > 1 {
            self.put(&key, &state.next(lifecycle, now, by).encode());
        }
    }

    /// Says where a file of the photo lies.
    pub fn put_name(&mut self, photo: PhotoId, name: NameId, sealed: &[u8]) {
        self.put(&Key::Name(photo, name), &Name::here(sealed).encode());
    }

    /// Says that a file of the photo is gone. Its name stays as it was; nothing happens when there is no such name, or the
    /// file is gone already.
    pub fn mark_name_gone(&mut self, photo: PhotoId, name: NameId, since: WallTime) {
        let key = Key::Name(photo, name);
        let values = self.replica.values(&key.text());
        let standing = Name::resolve(&values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if let Some(name) = standing.filter(Name::is_here) {
            self.put(&key, &Name { gone_since: Some(since), ..name }.encode());
        }
    }

    /// Says which photo an edit made of this one.
    pub fn set_successor(&mut self, photo: PhotoId, successor: Option<PhotoId>) {
        let key = Key::Successor(photo);
        let value = successor.as_ref().map_or(&[][..], |successor| successor.as_bytes());
        self.put_unless_absent(&key, value, successor.is_none());
    }

    /// Names an album, which makes it exist; `None` removes it. Library document only.
    pub fn set_album_name(&mut self, album: AlbumId, sealed: Option<&[u8]>) {
        let key = Key::AlbumName(album);
        self.put_unless_absent(&key, sealed.unwrap_or_default(), sealed.is_none());
    }

    /// Names a tag. Library document only.
    pub fn set_tag_name(&mut self, tag: TagId, sealed: Option<&[u8]>) {
        let key = Key::TagName(tag);
        self.put_unless_absent(&key, sealed.unwrap_or_default(), sealed.is_none());
    }

    /// Sets a setting: lower-case letters, digits, dots and hyphens. Library document only.
    pub fn set_setting(&mut self, name: &str, value: Option<&[u8]>) {
        let key = Key::Setting(name.to_owned());
        self.put_unless_absent(&key, value.unwrap_or_default(), value.is_none());
    }

    /// The keys and values, in the order of the keys.
    pub(crate) fn finish(self) -> Result<Vec<(String, Vec<u8>)>, EditRefused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let bytes: usize = self.puts.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
        if bytes > EDIT_BYTES_MAX || self.puts.len() > OPERATIONS_MAX {
            return Err(EditRefused::TooLarge { bytes });
        }
        Ok(self.puts.into_iter().collect())
    }

    /// Does not write that something is absent which never was there.
    fn put_unless_absent(&mut self, key: &Key, value: &[u8], absent: bool) {
        let text = key.text();
        if absent && self.replica.values(&text).is_empty() {
            self.puts.remove(&text);
        } else {
            self.put(key, value);
        }
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        let text = key.text();
        let document = self.replica.id();
        if Key::parse(&text).as_ref() != Some(key) || !key.belongs_in(document) {
            self.refuse(EditRefused::WrongDocument { key: text, document });
        } else if !key.admits(value) {
            self.refuse(EditRefused::WrongValue { key: text, bytes: value.len() });
        } else {
            self.puts.insert(text, value.to_vec());
        }
    }

    fn refuse(&mut self, refused: EditRefused) {
        self.refused.get_or_insert(refused);
    }
}

/// An edit that was made: the change for this device's log, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalChange {
    /// The document.
    pub document: DocumentId,
    /// The raw change, to be sealed into an envelope.
    pub change: Vec<u8>,
    /// The new values.
    pub patches: Vec<Patch>,
}
