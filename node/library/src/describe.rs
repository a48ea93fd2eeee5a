//! From a photo's manifest and what the catalog says about it to what the index shows.
//!
//! Names, captions and facts are sealed under the photo's key, and the key stands in the manifest alone. So a photo
//! that another device imported is described once its manifest is here; one imported here, at once.

use std::time::Duration;

use holdfast_crdt::{Lifecycle, Name, PhotoState};
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::manifest::{CaptureTime, Facts, ManifestHead};
use holdfast_protocol::media_type::MediaType;
use holdfast_protocol::metadata::Metadata;
use holdfast_protocol::position::Position;
use holdfast_protocol::replica::TaskId;
use holdfast_protocol::sealing::PhotoKey;
use holdfast_protocol::time::Now;

use super::import::{FileName, ImportedPhoto};
use super::record;
use super::{Effect, Library, LibraryError, READS_MAX};
use crate::index::{Captured, IndexChange, IndexedName, IndexedPhoto, IndexedState};

/// When a manifest that is here and could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// The caption of a photo, as it is sealed.
pub(super) const CAPTION_CONTEXT: &[u8] = b"caption";

impl<M: Metadata> Library<M> {
    /// Whether manifests that are here are still to be read.
    #[must_use]
    pub fn is_describing(&self) -> bool {
        !self.reading.is_empty() || !self.to_describe.is_empty()
    }

    /// Asks for the manifests of photos that are to be described, as many as may be read at once.
    pub(super) fn read_manifests(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.read_again_at.take_if(|at| *at <= now.elapsed).is_some() {
            let is_held = |chunk: &ChunkId| self.replica.holds(chunk);
            let held: Vec<ChunkId> = self.awaiting_manifest.keys().copied().filter(is_held).collect();
            held.iter().for_each(|chunk| self.manifest_arrived(chunk));
        }
        while self.reading.len() < READS_MAX {
            let Some(slot) = self.to_describe.pop_front() else { break };
            if self.photos.row(slot).described {
                continue;
            }
            let run = self.photos.row(slot).run;
            let manifest = Position { author: run.author, index: run.start };
            let Some(deposited) = self.replica.chunk_at(&manifest) else {
                self.awaiting_deposit.insert(slot);
                continue;
            };
            if self.replica.holds(&deposited.chunk) {
                let task = self.task();
                self.reading.insert(task, (slot, deposited.chunk));
                out.push(Effect::ReadChunk { task, chunk: deposited.chunk });
            } else {
                self.awaiting_manifest.entry(deposited.chunk).or_default().insert(slot);
            }
        }
    }

    /// A chunk is here: photos that waited for it as their manifest can be described. One that is being read was perhaps
    /// asked for before it was here again: should that fail, it is read once more.
    pub(super) fn manifest_arrived(&mut self, chunk: &ChunkId) {
        self.to_describe.extend(self.awaiting_manifest.remove(chunk).into_iter().flatten());
        self.to_describe.extend(self.reading.values().filter(|(_, read)| read == chunk).map(|(slot, _)| *slot));
    }

    /// A manifest was read (`None`: it could not be, and is awaited from a peer, or read again later if it is still here).
    pub(super) fn describe_read(&mut self, now: Now, task: TaskId, bytes: Option<&[u8]>) -> Result<(), LibraryError> {
        let Some((slot, chunk)) = self.reading.remove(&task) else { return Ok(()) };
        let Some(bytes) = bytes else {
            self.awaiting_manifest.entry(chunk).or_default().insert(slot);
            if self.replica.holds(&chunk) {
                self.read_again_at.get_or_insert(now.elapsed + READ_AGAIN);
            }
            return Ok(());
        };
        match ManifestHead::open(&self.sealer, &chunk, bytes) {
            Ok(manifest) if manifest.photo(&self.secrets) == self.photos.row(slot).photo => {
                let key = manifest.photo_key(&self.secrets);
                self.describe(slot, &key, manifest.media, &manifest.facts, manifest.length)
            }
            // Its author made it up wrongly; the bytes are kept and counted, and shown without facts.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Describes a photo whose key and facts are at hand.
    pub(super) fn describe_imported(&mut self, photo: &ImportedPhoto) -> Result<(), LibraryError> {
        let Some(slot) = self.photos.slot(&photo.photo) else { return Ok(()) };
        self.describe(slot, &photo.photo_key, photo.media, &photo.facts, photo.name.size)
    }

    fn describe(
        &mut self,
        slot: u32,
        key: &PhotoKey,
        media: MediaType,
        facts: &Facts,
        bytes: u64,
    ) -> Result<(), LibraryError> {
        let row = *self.photos.row(slot);
        let document = self.photos.document(slot);
        let device = self.replica.registry().device_of(&row.run.author);
        let Some(state) = self.opened(document)?.photo(document, &row.photo) else { return Ok(()) };
        self.index_changes.push(IndexChange::Photo(Box::new(IndexedPhoto {
            photo: row.photo,
            document: document.to_string(),
            device,
            captured: facts.captured.as_ref().and_then(captured),
            media: media.mime().to_owned(),
            bytes,
            width: facts.dimensions.map_or(0, |size| size.width),
            height: facts.dimensions.map_or(0, |size| size.height),
            orientation: facts.orientation.exif(),
            duration_ms: facts.duration_ms.unwrap_or(0),
            location: facts.location.map(|location| (location.latitude_e7, location.longitude_e7)),
            camera: camera(facts),
            unreadable: facts.unreadable.clone(),
        })));
        self.index_changes.extend(open_changes(row.photo, &state));
        self.index_changes.extend(sealed_changes(row.photo, key, &state));
        self.photos.row_mut(slot).described = true;
        self.checkpoints.document_changed(document);
        Ok(())
    }
}

/// What the catalog says of a photo in the open.
fn open_changes(photo: PhotoId, state: &PhotoState) -> Vec<IndexChange> {
    let mut changes = vec![
        IndexChange::State { photo, state: indexed_state(state) },
        IndexChange::Favourite { photo, favourite: state.favourite },
        IndexChange::Successor { photo, successor: shown_successor(state) },
    ];
    changes.extend(state.tags.iter().map(|tag| IndexChange::Tag { photo, tag: hex(tag.as_bytes()), tagged: true }));
    changes.extend(state.albums.iter().map(|(album, position)| IndexChange::Album {
        photo,
        album: hex(album.as_bytes()),
        position: Some(hex(position)),
    }));
    changes
}

/// Whether the catalog shows a photo.
pub(super) const fn indexed_state(state: &PhotoState) -> IndexedState {
    match state.state.lifecycle {
        Lifecycle::Live => IndexedState::Live,
        Lifecycle::Trashed => IndexedState::Trashed,
        Lifecycle::Erased => IndexedState::Erased,
    }
}

/// The newer version that hides a photo: only while no file shows the earlier one. Another device may have imported it
/// while this one edited the only file that it knew of.
pub(super) fn shown_successor(state: &PhotoState) -> Option<PhotoId> {
    state.successor.filter(|_| !state.names.values().any(Name::is_here))
}

/// How the index writes identifiers and positions of the catalog.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// What the catalog says of a photo under its key: names and captions.
fn sealed_changes(photo: PhotoId, key: &PhotoKey, state: &PhotoState) -> Vec<IndexChange> {
    let names = shown_names(key, state).into_iter();
    let mut changes: Vec<_> = names.map(|(key, name)| IndexChange::Name { photo, key, name }).collect();
    let written = std::iter::once(&state.caption.value).chain(&state.caption.conflicts).flatten();
    let captions: Vec<String> =
        written.filter_map(|sealed| String::from_utf8(key.open(CAPTION_CONTEXT, sealed).ok()?).ok()).collect();
    changes.push(IndexChange::Caption { photo, captions });
    changes
}

/// What a photo is called, with the names' keys: by the files that are there, or without any by the one that went last.
fn shown_names(key: &PhotoKey, state: &PhotoState) -> Vec<([u8; 16], IndexedName)> {
    let names = state.names.iter().filter_map(|(id, name)| {
        let file = record::open_name(key, &name.sealed)?.name;
        let FileName { folder, path, mtime_ns: modified_ns, mode, .. } = file;
        let name = IndexedName { path: path.inside(&folder), modified_ns, mode, gone_since: name.gone_since };
        Some((*id.as_bytes(), name))
    });
    let (here, gone): (Vec<_>, Vec<_>) = names.partition(|(_, name)| name.gone_since.is_none());
    if here.is_empty() {
        let last = |(_, name): &([u8; 16], IndexedName)| (name.gone_since, name.path.clone());
        return gone.into_iter().max_by_key(last).into_iter().collect();
    }
    here
}

fn captured(time: &CaptureTime) -> Option<Captured> {
    let date = (time.year, time.month, time.day);
    let clock = (time.hour, time.minute, time.second, time.millisecond);
    Captured::from_civil(date, clock, time.offset_minutes)
}

fn camera(facts: &Facts) -> Option<String> {
    let parts = [&facts.camera_make, &facts.camera_model, &facts.lens];
    let line = parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}
