//! What people do to photos that are in the library: captions, tags, albums, favourites, the trash.
//!
//! An edit is written at once, as one change for each document that it touches, and told of as done
//! ([`Effect::Edited`]) only after a flush that began behind it. Captions are sealed under the photo's own key and names of
//! tags and albums under the library's; which photo has which tag or stands in which album is open to members.

use std::collections::BTreeMap;

use holdfast_crdt::{AlbumId, DocumentId, Edit, EditRefused, Lifecycle, TagId};
use holdfast_protocol::codec;
use holdfast_protocol::id::{ChunkId, DeviceId, PhotoId};
use holdfast_protocol::manifest::ManifestHead;
use holdfast_protocol::metadata::Metadata;
use holdfast_protocol::position::Position;
use holdfast_protocol::replica::TaskId;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::{Now, WallTime};

use super::describe::CAPTION_CONTEXT;
use super::{Effect, Library, LibraryError};

/// Photos of one gesture: what fits in one envelope.
pub const EDIT_PHOTOS_MAX: usize = 100;
/// Bytes of a caption.
pub const CAPTION_BYTES_MAX: usize = 3800;
/// Bytes of the name of a tag or an album.
pub const LABEL_BYTES_MAX: usize = 512;

/// What is done to one photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhotoEdit {
    /// Makes it a favourite, or not.
    Favourite(bool),
    /// Sets its caption; an empty one takes it away. Settles captions that were written at the same time.
    Caption {
        /// The caption.
        text: String,
        /// The sealed bytes of the photo's manifest, see [`Library::manifest_of`]: the photo's key stands there alone.
        manifest: Vec<u8>,
    },
    /// Gives it the tag that people call by this name. Letter case and surrounding white space make no other tag.
    Tag(String),
    /// Takes the tag of this name away.
    Untag(String),
    /// Puts it into an album, sorted by `position` among the others.
    Album(AlbumId, Vec<u8>),
    /// Takes it out of an album.
    LeaveAlbum(AlbumId),
    /// Puts it into the trash.
    Trash,
    /// Takes it out of the trash.
    Restore,
}

/// Why an edit was not made. What stands in documents before the one that refused is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No such photo.
    #[error("photo {} is not in the library; it may still be on its way here", .0.short())]
    UnknownPhoto(PhotoId),
    /// Too much for one gesture.
    #[error("{photos} photos are too many for one edit; edit at most {EDIT_PHOTOS_MAX} at once")]
    TooMany {
        /// How many were asked for.
        photos: usize,
    },
    /// The text cannot be kept.
    #[error("the text has {bytes} bytes, and may have {bytes_max} and must not be blank where it names something")]
    WrongText {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The manifest is not this photo's.
    #[error("what was read as the manifest of photo {} is not it; read it again", .0.short())]
    WrongManifest(PhotoId),
    /// It is erased.
    #[error("photo {} is erased; restore it first", .0.short())]
    Erased(PhotoId),
    /// Logs have still to be compared with other devices: this one may have been restored from a backup.
    #[error(
        "this device has just started and still compares what it knows with the others; try again in a few seconds"
    )]
    Comparing,
    /// This device was removed from the library.
    #[error(
        "this device was removed from the library: what it has can be read, and nothing be changed; let it join again"
    )]
    Removed,
    /// The catalog refused it.
    #[error(transparent)]
    Refused(#[from] EditRefused),
    /// The library failed.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

/// One put into a document, with everything sealed.
enum Put {
    Favourite(PhotoId, bool),
    Caption(PhotoId, Option<Vec<u8>>),
    Tag(PhotoId, TagId, bool),
    Album(PhotoId, AlbumId, Option<Vec<u8>>),
    State(PhotoId, Lifecycle, WallTime, DeviceId),
    TagName(TagId, Vec<u8>),
    AlbumName(AlbumId, Option<Vec<u8>>),
}

impl Put {
    fn write(self, edit: &mut Edit<'_>) {
        match self {
            Self::Favourite(photo, favourite) => edit.set_favourite(photo, favourite),
            Self::Caption(photo, sealed) => edit.set_caption(photo, sealed.as_deref()),
            Self::Tag(photo, tag, present) => edit.set_tag(photo, tag, present),
            Self::Album(photo, album, position) => edit.set_album_position(photo, album, position.as_deref()),
            Self::State(photo, lifecycle, now, by) => edit.set_state(photo, lifecycle, now, by),
            Self::TagName(tag, sealed) => edit.set_tag_name(tag, Some(&sealed)),
            Self::AlbumName(album, sealed) => edit.set_album_name(album, sealed.as_deref()),
        }
    }
}

impl<M: Metadata> Library<M> {
    /// Edits photos, all in one gesture. [`Effect::Edited`] names the task when it is durable.
    ///
    /// # Errors
    /// When an edit cannot be made, or the library fails.
    pub fn edit_photos(
        &mut self,
        now: Now,
        edits: Vec<(PhotoId, PhotoEdit)>,
    ) -> Result<(TaskId, Vec<Effect>), EditError> {
        if edits.len() > EDIT_PHOTOS_MAX {
            return Err(EditError::TooMany { photos: edits.len() });
        }
        let mut puts: BTreeMap<DocumentId, Vec<Put>> = BTreeMap::new();
        for (photo, edit) in edits {
            let slot = self.photos.slot(&photo).ok_or(EditError::UnknownPhoto(photo))?;
            let document = self.photos.document(slot);
            if let PhotoEdit::Tag(name) = &edit {
                let sealed = self.seal_label(name)?;
                puts.entry(DocumentId::Library).or_default().push(Put::TagName(tag_id(&self.secrets, name), sealed));
            }
            let put = self.sealed_put(now.wall, document, photo, edit)?;
            puts.entry(document).or_default().push(put);
        }
        self.write_puts(now, puts)
    }

    /// Names an album, which makes it exist; `None` removes it.
    ///
    /// # Errors
    /// When the name cannot be kept, or the library fails.
    pub fn name_album(
        &mut self,
        now: Now,
        album: AlbumId,
        name: Option<&str>,
    ) -> Result<(TaskId, Vec<Effect>), EditError> {
        let sealed = name.map(|name| self.seal_label(name)).transpose()?;
        self.write_puts(now, BTreeMap::from([(DocumentId::Library, vec![Put::AlbumName(album, sealed)])]))
    }

    /// The chunk that holds a photo's manifest; `None` while the photo or its deposit is not known here.
    #[must_use]
    pub fn manifest_of(&self, photo: &PhotoId) -> Option<ChunkId> {
        let run = self.photos.row(self.photos.slot(photo)?).run;
        Some(self.replica.chunk_at(&Position { author: run.author, index: run.start })?.chunk)
    }

    fn sealed_put(
        &mut self,
        now: WallTime,
        document: DocumentId,
        photo: PhotoId,
        edit: PhotoEdit,
    ) -> Result<Put, EditError> {
        Ok(match edit {
            PhotoEdit::Favourite(favourite) => Put::Favourite(photo, favourite),
            PhotoEdit::Caption { text, manifest } => Put::Caption(photo, self.seal_caption(photo, &text, &manifest)?),
            PhotoEdit::Tag(name) => Put::Tag(photo, tag_id(&self.secrets, &name), true),
            PhotoEdit::Untag(name) => Put::Tag(photo, tag_id(&self.secrets, &name), false),
            PhotoEdit::Album(album, position) => Put::Album(photo, album, Some(position)),
            PhotoEdit::LeaveAlbum(album) => Put::Album(photo, album, None),
            PhotoEdit::Trash => {
                let state = self.opened(document)?.photo(document, &photo);
                if state.is_some_and(|state| state.state.lifecycle == Lifecycle::Erased) {
                    return Err(EditError::Erased(photo));
                }
                Put::State(photo, Lifecycle::Trashed, now, self.device)
            }
            PhotoEdit::Restore => Put::State(photo, Lifecycle::Live, now, self.device),
        })
    }

    fn seal_caption(&self, photo: PhotoId, text: &str, manifest: &[u8]) -> Result<Option<Vec<u8>>, EditError> {
        if text.len() > CAPTION_BYTES_MAX {
            return Err(EditError::WrongText { bytes: text.len(), bytes_max: CAPTION_BYTES_MAX });
        }
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = EditError::WrongManifest(photo);
        let chunk = self.manifest_of(&photo).ok_or(EditError::UnknownPhoto(photo))?;
        let manifest = ManifestHead::open(&self.sealer, &chunk, manifest).map_err(|_| wrong.clone())?;
        if manifest.photo(&self.secrets) != photo {
            return Err(wrong);
        }
        Ok(Some(manifest.photo_key(&self.secrets).seal(CAPTION_CONTEXT, text.as_bytes())))
    }

    fn seal_label(&self, name: &str) -> Result<Vec<u8>, EditError> {
        let name = name.trim();
        if name.is_empty() || name.len() > LABEL_BYTES_MAX {
            return Err(EditError::WrongText { bytes: name.len(), bytes_max: LABEL_BYTES_MAX });
        }
        Ok(self.sealer.seal(name.as_bytes()).bytes)
    }

    fn write_puts(
        &mut self,
        now: Now,
        puts: BTreeMap<DocumentId, Vec<Put>>,
    ) -> Result<(TaskId, Vec<Effect>), EditError> {
        if self.is_removed() {
            return Err(EditError::Removed);
        }
        if self.is_comparing(now) {
            return Err(EditError::Comparing);
        }
        let mut out = Vec::new();
        self.continue_if_behind(now, puts.keys().copied().collect(), &mut out)?;
        for (document, puts) in puts {
            let change = self.opened(document)?.edit(document, |edit| puts.into_iter().for_each(|put| put.write(edit)));
            if let Some(change) = change? {
                self.append_change(now, change, &mut out)?;
            }
        }
        let task = self.task();
        self.unflushed_edits.insert(task);
        out.push(Effect::Flush(task));
        self.settle(now, &mut out)?;
        Ok((task, out))
    }
}

/// The tag of this name: the same on every device, and no name to those without the library's secrets.
fn tag_id(secrets: &LibrarySecrets, name: &str) -> TagId {
    let keyed = secrets.photo_id(blake3::hash(&codec::encode(&("tag", name.trim().to_lowercase()))).as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&keyed.as_bytes()[..16]);
    TagId::from_bytes(id)
}
