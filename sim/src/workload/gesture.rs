//! What a person does next.

use std::collections::BTreeMap;

use holdfast_crdt::AlbumId;
use holdfast_library::PhotoEdit;
use holdfast_protocol::id::PhotoId;

use super::Content;
use crate::chance::Chance;

/// Albums of a library.
const ALBUMS: u64 = 3;
/// Names that tags have.
const TAGS: [&str; 4] = ["family", "Beach", "zoo ", "2021"];
/// Photos that one gesture edits at most.
const EDITED_AT_ONCE: u64 = 6;

/// Something that happened in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gesture {
    /// A file appeared, or has other bytes now.
    Write {
        /// Its path.
        path: String,
        /// Its bytes.
        content: Content,
    },
    /// A file is gone.
    Remove {
        /// Its path.
        path: String,
    },
    /// A file lies elsewhere now; nothing lay there.
    Move {
        /// Where it lay.
        from: String,
        /// Where it lies.
        to: String,
    },
}

impl Gesture {
    /// The path at which nothing is as it was.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Write { path, .. } | Self::Remove { path } | Self::Move { from: path, .. } => path,
        }
    }
}

/// Something that a person did, in a folder or in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// In the folder.
    Folder(Gesture),
    /// With photos that are shown; the manifests of captions are still to be read.
    Edit(Vec<(PhotoId, PhotoEdit)>),
    /// An album has this name, or is no more.
    Album(AlbumId, Option<String>),
}

/// A folder of one device: what every file holds, and as which photo it was last handed over.
pub type Folder = BTreeMap<String, (Content, PhotoId)>;

/// The picture that one gesture of one node makes, if it makes one: leaving out another gesture does not change it.
#[must_use]
pub const fn fresh_picture(node: usize, gesture: u64) -> u32 {
    (node as u32) << 20 | gesture as u32 & 0xF_FFFF
}

/// What a person does next, given the folder, the photos of the library, the pictures that exist anywhere, and one that does
/// not exist yet.
pub fn next_act(chance: &mut Chance, folder: &Folder, photos: &[PhotoId], pictures: &mut Vec<u32>, fresh: u32) -> Act {
    match chance.below(3) {
        0 if !photos.is_empty() => next_edit(chance, photos),
        _ => Act::Folder(next_gesture(chance, folder, pictures, fresh)),
    }
}

fn next_gesture(chance: &mut Chance, folder: &Folder, pictures: &mut Vec<u32>, fresh: u32) -> Gesture {
    let paths: Vec<&String> = folder.keys().collect();
    let existing = chance.pick(&paths).map(|path| (*path).clone());
    match (chance.below(11), existing) {
        (0, Some(path)) => Gesture::Remove { path },
        (1 | 2, Some(path)) => {
            let (content, _) = folder[&path];
            Gesture::Write { path, content: Content { revision: chance.below(4) as u32, ..content } }
        }
        // A picture that some device may have already.
        (3 | 4, _) if let Some(picture) = chance.pick(pictures).copied() => {
            let content = Content { picture, revision: chance.below(2) as u32 };
            Gesture::Write { path: format!("copy-{:03}.jpg", chance.below(40)), content }
        }
        (5, Some(from)) => {
            let to = format!("moved-{:03}.jpg", chance.below(40));
            if folder.contains_key(&to) { Gesture::Remove { path: from } } else { Gesture::Move { from, to } }
        }
        _ => {
            pictures.push(fresh);
            let content = Content { picture: fresh, revision: 0 };
            Gesture::Write { path: format!("IMG_{fresh:04}.jpg"), content }
        }
    }
}

fn next_edit(chance: &mut Chance, photos: &[PhotoId]) -> Act {
    let album = AlbumId::from_bytes([1 + chance.below(ALBUMS) as u8; 16]);
    let tag = (*chance.pick(&TAGS).unwrap_or(&TAGS[0])).to_owned();
    let edit = match chance.below(10) {
        0 => return Act::Album(album, (!chance.one_in(3)).then(|| format!("album {}", chance.below(5)))),
        1 => PhotoEdit::Favourite(!chance.one_in(3)),
        2 | 3 => {
            let text = if chance.one_in(4) { String::new() } else { format!("caption {}", chance.below(6)) };
            PhotoEdit::Caption { text, manifest: Vec::new() }
        }
        4 => PhotoEdit::Tag(tag),
        5 => PhotoEdit::Untag(tag),
        6 => PhotoEdit::Album(album, vec![chance.below(256) as u8]),
        7 => PhotoEdit::LeaveAlbum(album),
        8 => PhotoEdit::Trash,
        _ => PhotoEdit::Restore,
    };
    let count = chance.between(1, EDITED_AT_ONCE);
    let chosen = (0..count).filter_map(|_| Some((*chance.pick(photos)?, edit.clone())));
    Act::Edit(chosen.collect::<BTreeMap<_, _>>().into_iter().collect())
}
