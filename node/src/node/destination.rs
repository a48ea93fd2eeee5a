//! Where an export may write: apart from the watched folders, or into a new folder in one, which passes it over then.
//!
//! Originals are only ever read, and what is written into a watched folder would be imported again, under one more name each
//! time.

use std::path::{Path, PathBuf};

use holdfast_library::FilePath;
use holdfast_store::ChunkStore;
use roaring::RoaringBitmap;
use unicode_normalization::UnicodeNormalization as _;

use crate::api::{Refusal, RefusalKind};
use crate::export;
use crate::home::Settings;
use crate::ingest::real_path;

/// What the directory of an export is to the watched folders.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// It lies apart from them.
    Apart,
    /// It lies in this one, which passes it over.
    PassedOver(PathBuf),
    /// It lies in this one, and holds nothing yet: it is to be passed over from now on.
    New(PathBuf),
}

impl Destination {
    /// Looks where an export of files of these names into `directory` would write.
    pub(super) fn of<'a>(
        directory: &Path,
        settings: &Settings,
        names: impl Iterator<Item = &'a FilePath> + Clone,
        store: &ChunkStore,
    ) -> Result<Self, Refusal> {
        let directory = real_path(directory);
        let is_written_in = |folder: &Path| {
            let inside: Vec<String> = folder.iter().map(|part| alike(part.as_encoded_bytes())).collect();
            names.clone().any(|name| is_below(name, &inside))
        };
        for watched in &settings.folders {
            let folder = real_path(watched);
            if directory.starts_with(&folder) {
                if settings.excluded.iter().any(|excluded| directory.starts_with(excluded)) {
                    return Ok(Self::PassedOver(watched.clone()));
                }
                // An empty folder of which photos are known is a disk that is not connected.
                let is_known =
                    || store.unseen(&directory, &RoaringBitmap::new()).map_or(true, |known| !known.is_empty());
                let is_new = directory != folder && is_empty(&directory) && !is_known();
                return if is_new { Ok(Self::New(watched.clone())) } else { Err(refused(&directory, watched)) };
            }
            if folder.strip_prefix(&directory).is_ok_and(is_written_in) {
                return Err(refused(&directory, watched));
            }
        }
        Ok(Self::Apart)
    }
}

/// Whether a file of this name is written below a folder whose parts are given by what they are [`alike`].
fn is_below(name: &FilePath, folder: &[String]) -> bool {
    let mut parts = export::parts(name.as_bytes());
    folder.iter().all(|part| parts.next().is_some_and(|named| alike(named) == *part)) && parts.next().is_some()
}

/// What names have in common that some file system may take for the same, or an export writes as the same.
fn alike(part: &[u8]) -> String {
    let text = String::from_utf8_lossy(part);
    let letter = |letter: char| if letter.is_alphanumeric() { letter } else { '_' };
    text.nfc().flat_map(char::to_lowercase).map(letter).collect()
}

fn refused(directory: &Path, watched: &Path) -> Refusal {
    let message = format!(
        "cannot export to {}: that would write among the photos of the watched folder {}",
        directory.display(),
        watched.display()
    );
    Refusal::new(
        RefusalKind::Usage,
        message,
        "choose a folder that is not there yet, or one apart from those that are watched",
    )
}

/// Whether there is nothing in a folder, which may be missing.
fn is_empty(directory: &Path) -> bool {
    match directory.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_disk::{SledMetadata, SystemDisk};
    use holdfast_protocol::id::PhotoId;
    use holdfast_store::{FileIdentity, FileRecord, FileStat, StoreConfig};

    use super::*;

    #[test]
    fn nothing_is_exported_among_originals() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let [pictures, linked, trip, empty] =
            ["Pictures", "linked", "Pictures/trip", "Pictures/empty"].map(|name| root.join(name));
        std::fs::create_dir_all(&trip).unwrap();
        std::fs::create_dir_all(&empty).unwrap();
        std::fs::write(trip.join("a.jpg"), b"photo").unwrap();
        std::os::unix::fs::symlink(&pictures, &linked).unwrap();
        let metadata = Box::new(SledMetadata::open(&root.join("metadata")).unwrap());
        let config = StoreConfig { directory: root.join("store"), fingerprint_key: [3; 32] };
        let (store, _) = ChunkStore::open(config, Arc::new(SystemDisk), metadata, None).unwrap();
        let mut settings = Settings { folders: vec![pictures.clone()], ..Settings::default() };
        let names = [FilePath::from("Pictures/a.jpg")];
        let of =
            |directory: &Path, settings: &Settings| Destination::of(directory, settings, names.iter(), &store).ok();

        for among in [&pictures, &linked, &trip, &root] {
            assert_eq!(of(among, &settings), None, "{}", among.display());
        }
        for new in [&empty, &pictures.join("new/folder"), &linked.join("new")] {
            assert_eq!(of(new, &settings), Some(Destination::New(pictures.clone())), "{}", new.display());
        }
        for crafted in ["../Pictures/./x.jpg", "pictures//x.jpg", "/PICTURES/trip/x.jpg"] {
            let names = [FilePath::from("other/a.jpg"), FilePath::from(crafted)];
            assert!(Destination::of(&root, &settings, names.iter(), &store).is_err(), "{crafted}");
        }
        for apart in [&root.join("Pictures 2"), Path::new("/")] {
            assert_eq!(of(apart, &settings), Some(Destination::Apart));
        }
        assert_eq!(real_path(&linked).as_os_str(), pictures.as_os_str(), "and nothing behind it");
        let photo = FileRecord {
            path: empty.join("a.jpg"),
            stat: FileStat::default(),
            identity: FileIdentity::default(),
            photo: PhotoId::from_bytes([1; 32]),
            replaces: Vec::new(),
            content_hash: [2; 32],
            cuts: Vec::new(),
        };
        store.adopt_files(&[photo]).unwrap();
        assert_eq!(of(&empty, &settings), None, "its disk is not connected");
        settings.folders.push(empty.clone());
        settings.folders.swap(0, 1);
        assert_eq!(of(&empty, &settings), None, "watched itself, it is not passed over");
        settings.folders.remove(0);
        settings.excluded.push(trip.clone());
        assert_eq!(of(&trip.join("once more"), &settings), Some(Destination::PassedOver(pictures)));
    }
}
