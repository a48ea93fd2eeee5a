//! What people do: new photos, copies on several devices, moved, edited and deleted files; captions, tags, albums,
//! favourites and the trash.
//!
//! Photos are small made-up JPEG files; they are cut, sealed and described by the code that ships.

mod act;
mod gesture;

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_library::{FileName, ImportId, ImportedPhoto};
use holdfast_protocol::cutting::{CutKind, cuts};
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::manifest::{CaptureSource, CaptureTime, ContentBuilder, Dimensions, Facts, Manifest, Thumbnail};
use holdfast_protocol::media_type::MediaType;
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_store::InPlaceCut;

pub use gesture::{Act, Folder, Gesture, fresh_picture, next_act};

/// Files that are remembered; about 50 MiB.
const MADE_MAX: usize = 512;

thread_local! {
    static MADE: RefCell<BTreeMap<Content, Bytes>> = const { RefCell::new(BTreeMap::new()) };
}

/// Names the bytes of a made-up photo: a picture, and how often its description was edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    /// Which picture.
    pub picture: u32,
    /// Which version of its description.
    pub revision: u32,
}

impl Content {
    /// The file. Made once: it is wanted again and again, by every world of a thread.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        MADE.with_borrow_mut(|made| {
            if made.len() >= MADE_MAX {
                made.clear();
            }
            made.entry(self).or_insert_with(|| self.make().into()).clone()
        })
    }

    fn make(self) -> Vec<u8> {
        let mut description = vec![0; 600 + (self.revision as usize % 7) * 100];
        fill(&mut description, &[1, self.picture, self.revision]);
        // Most are small; some are cut into several chunks.
        let length = if self.picture % 9 == 4 { 700_000 } else { 2_000 + (self.picture as usize * 977) % 30_000 };
        let mut picture = vec![0; length];
        fill(&mut picture, &[2, self.picture]);
        // No marker inside, so that the file has the structure that it seems to have.
        for byte in description.iter_mut().chain(&mut picture) {
            *byte = (*byte).min(0xFE);
        }
        let segment = (description.len() as u16 + 2).to_be_bytes();
        let head = [&[0xFF, 0xD8, 0xFF, 0xE1], &segment[..], &description, &[0xFF, 0xDA, 0, 2]].concat();
        [&head[..], &picture, &[0xFF, 0xD9]].concat()
    }

    fn facts(self) -> Facts {
        let dated = !self.picture.is_multiple_of(4);
        let captured = CaptureTime {
            year: 2020 + (self.picture % 2) as i16,
            month: 1 + (self.picture % 3) as u8,
            day: 1 + (self.picture % 28) as u8,
            hour: 12,
            minute: 0,
            second: 0,
            millisecond: 0,
            offset_minutes: None,
            source: CaptureSource::Original,
        };
        let dimensions = Some(Dimensions { width: 640, height: 480 });
        Facts { captured: dated.then_some(captured), dimensions, ..Facts::default() }
    }
}

fn fill(bytes: &mut [u8], name: &[u32]) {
    let mut hasher = blake3::Hasher::new();
    for part in name {
        hasher.update(&part.to_le_bytes());
    }
    hasher.finalize_xof().fill(bytes);
}

/// A photo as ingest hands it over, and its sealed chunks for the store.
#[derive(Debug)]
pub struct Prepared {
    /// The import; its id and what it replaces are to be filled in.
    pub imported: ImportedPhoto,
    /// The chunks.
    pub chunks: Vec<(ChunkId, Bytes)>,
    /// Those that can be sealed again from the file.
    pub cuts: Vec<InPlaceCut>,
    /// The hash of the file.
    pub content_hash: [u8; 32],
}

/// Cuts, seals and describes a file that should hold `content`, as ingest does; `file` is what it does hold.
#[must_use]
pub fn prepare_file(secrets: &LibrarySecrets, content: Content, file: &[u8], name: FileName) -> Prepared {
    let sealer = ChunkSealer::new(secrets);
    let mut at = 0;
    let mut builder = ContentBuilder::new(&sealer);
    let (mut pieces, mut in_place) = (Vec::new(), Vec::new());
    for cut in cuts(file) {
        let mut sealed = Vec::new();
        let id = builder.push(&file[at..at + cut.length], cut.kind, &mut sealed);
        if cut.kind != CutKind::Metadata {
            let (offset, length) = (at as u64, cut.length as u32);
            in_place.push(InPlaceCut { chunk: id, offset, length, epoch: sealer.epoch() });
        }
        at += cut.length;
        pieces.push((id, Bytes::from(sealed)));
    }
    let small = content.picture.to_le_bytes();
    let thumbnail = sealer.seal(&small);
    let thumbnails = vec![Thumbnail {
        chunk: thumbnail.id,
        length: small.len() as u32,
        dimensions: Dimensions { width: 64, height: 48 },
        media: MediaType::Jpeg,
    }];
    let content_of_file = builder.finish();
    let content_hash = content_of_file.hash;
    let manifest = Manifest { content: content_of_file, media: MediaType::Jpeg, facts: content.facts(), thumbnails };
    let sealed = manifest.seal(&sealer).unwrap_or_default();
    let mut chunks: Vec<_> = sealed.into_iter().map(|chunk| (chunk.id, Bytes::from(chunk.bytes))).collect();
    chunks.push((thumbnail.id, thumbnail.bytes.into()));
    chunks.extend(pieces);
    let imported = ImportedPhoto {
        renamed_from: None,
        import: ImportId(0),
        photo: manifest.photo(secrets),
        photo_key: manifest.photo_key(secrets),
        chunks: chunks.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect(),
        facts: manifest.facts,
        media: MediaType::Jpeg,
        name: FileName { size: file.len() as u64, ..name },
        replaces: Vec::new(),
    };
    Prepared { imported, chunks, cuts: in_place, content_hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_of_the_description_leaves_the_picture_as_it_is() {
        let kinds = |content: Content| cuts(&content.bytes()).map(|cut| cut.kind).collect::<Vec<_>>();
        let content = Content { picture: 4, revision: 0 };
        assert!(kinds(content).contains(&CutKind::Metadata) && kinds(content).contains(&CutKind::Picture));
        let secrets = LibrarySecrets::generate(holdfast_protocol::id::LibraryId::from_bytes([1; 32]), &[2; 32]);
        let name =
            FileName { folder: "a".into(), path: "b".into(), mtime_ns: 0, size: 0, mode: None, created_ns: None };
        let prepared = |content: Content| prepare_file(&secrets, content, &content.bytes(), name.clone());
        let (before, after) = (prepared(content), prepared(Content { revision: 1, ..content }));
        assert_ne!(before.imported.photo, after.imported.photo);
        assert_eq!(before.chunks.last(), after.chunks.last(), "the picture's chunks are shared");
    }
}
