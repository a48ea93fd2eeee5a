//! What it means that a known file is not there any more.
//!
//! A file that is not in its folder was deleted or moved. But when the whole folder is not there, or another disk lies in its
//! place, more likely a disk is not connected: its photos are missed, keep their names and count as they did, until they are
//! back, a person says that they are gone, or they have been missed for [`MISSED_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::id::PhotoId;
use holdfast_store::{FileIdentity, Unseen};

/// After this, what is missed is gone.
const MISSED_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder inside a watched one that is missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedFolder {
    /// Where it was.
    pub path: PathBuf,
    /// Photos and videos that were in it.
    pub files: u64,
    /// Since when, by the clock on the wall, since the Unix epoch.
    pub since: Duration,
}

/// What a walk found out about the known files that it did not see.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Absence {
    /// Deleted or moved.
    pub(super) gone: Vec<PathBuf>,
    /// Folders that are missed, and their files.
    pub(super) missed: BTreeMap<PathBuf, Vec<Unseen>>,
}

/// Tells files that are gone from those that are missed. `root` is the watched folder, which is there. `is_alive` says
/// whether other known files of a folder are where they were: then it is the same folder, whatever number the system gives
/// its disk since the last start.
pub(super) fn sort(root: &Path, unseen: Vec<Unseen>, is_alive: impl Fn(&Path) -> bool) -> Absence {
    let mut absence = Absence::default();
    let mut places: BTreeMap<PathBuf, Place> = BTreeMap::new();
    for file in unseen {
        let Some(folder) = file.path.parent() else { continue };
        let place = places.entry(folder.to_owned()).or_insert_with(|| Place::of(root, folder, &is_alive));
        match place {
            Place::Alive => absence.gone.push(file.path),
            Place::Here { device } if *device == file.identity.device => absence.gone.push(file.path),
            Place::Here { .. } => absence.missed.entry(folder.to_owned()).or_default().push(file),
            Place::Gone { top } => absence.missed.entry(top.clone()).or_default().push(file),
        }
    }
    absence
}

impl Absence {
    /// The photos of what is missed.
    pub(super) fn photos(&self) -> BTreeSet<PhotoId> {
        self.missed.values().flatten().map(|file| file.photo).collect()
    }

    /// Photos that are here under another name were moved: nothing of them is missed.
    pub(super) fn found_elsewhere(&mut self, photos: &BTreeSet<PhotoId>) {
        for files in self.missed.values_mut() {
            let moved = files.extract_if(.., |file| photos.contains(&file.photo));
            self.gone.extend(moved.map(|file| file.path));
        }
        self.missed.retain(|_, files| !files.is_empty());
    }

    /// What has been missed for long enough is gone. `since` says since when folders have been missed, and learns it of
    /// those below `root`; a moment of zero is a person's word that one is gone.
    pub(super) fn settle(
        &mut self,
        root: &Path,
        now: Duration,
        since: &mut BTreeMap<PathBuf, Duration>,
    ) -> Vec<MissedFolder> {
        since.retain(|folder, _| !folder.starts_with(root) || self.missed.contains_key(folder));
        let mut missed = Vec::new();
        for (path, files) in std::mem::take(&mut self.missed) {
            // A clock that was set back starts anew.
            let began = since.get(&path).copied().filter(|began| *began <= now).unwrap_or(now);
            if now - began >= MISSED_MAX {
                self.gone.extend(files.into_iter().map(|file| file.path));
                since.remove(&path);
            } else {
                since.insert(path.clone(), began);
                missed.push(MissedFolder { path, files: files.len() as u64, since: began });
            }
        }
        missed
    }
}

/// What is where a file's folder was.
enum Place {
    /// The same folder: others of its files are there.
    Alive,
    /// A folder on this device.
    Here { device: u64 },
    /// Nothing; `top` is the uppermost folder that is not there.
    Gone { top: PathBuf },
}

impl Place {
    fn of(root: &Path, folder: &Path, is_alive: impl Fn(&Path) -> bool) -> Self {
        if is_alive(folder) {
            return Self::Alive;
        }
        let mut top = folder;
        for ancestor in folder.ancestors() {
            if let Ok(metadata) = fs::metadata(ancestor) {
                if ancestor == folder {
                    return Self::Here { device: FileIdentity::of(&metadata).device };
                }
                break;
            }
            if ancestor == root {
                break;
            }
            top = ancestor;
        }
        Self::Gone { top: top.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Album {
        directory: tempfile::TempDir,
    }

    impl Album {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("here")).unwrap();
            Self { directory }
        }

        /// A known file that is not there any more; on the disk of the album, or another one.
        fn unseen(&self, path: &str, on_this_disk: bool) -> Unseen {
            let device = FileIdentity::of(&fs::metadata(self.directory.path()).unwrap()).device;
            Unseen {
                path: self.directory.path().join(path),
                photo: PhotoId::from_bytes(*blake3::hash(path.as_bytes()).as_bytes()),
                identity: FileIdentity { device: if on_this_disk { device } else { device + 1 }, inode: 1 },
            }
        }

        fn sort(&self, unseen: &[Unseen]) -> Absence {
            sort(self.directory.path(), unseen.to_vec(), |folder| folder.ends_with("alive"))
        }

        fn names(&self, paths: &[PathBuf]) -> Vec<String> {
            let name = |path: &PathBuf| path.strip_prefix(self.directory.path()).unwrap().display().to_string();
            paths.iter().map(name).collect()
        }
    }

    #[test]
    fn a_file_is_deleted_and_a_folder_is_missed() {
        let album = Album::new();
        let absence = album.sort(&[
            album.unseen("here/deleted.jpg", true),
            album.unseen("here/of another disk.jpg", false),
            album.unseen("nas/2020/a.jpg", false),
            album.unseen("nas/2021/b.jpg", true),
            album.unseen("alive/c.jpg", false),
        ]);
        assert_eq!(album.names(&absence.gone), ["here/deleted.jpg", "alive/c.jpg"]);
        let missed: Vec<PathBuf> = absence.missed.keys().cloned().collect();
        assert_eq!(album.names(&missed), ["here", "nas"]);
        assert_eq!(absence.missed[&album.directory.path().join("nas")].len(), 2);
    }

    #[test]
    fn what_is_found_elsewhere_was_moved() {
        let album = Album::new();
        let files = [album.unseen("old/a.jpg", true), album.unseen("old/b.jpg", true)];
        let mut absence = album.sort(&files);
        assert_eq!(absence.photos().len(), 2);
        absence.found_elsewhere(&BTreeSet::from([files[0].photo]));
        assert_eq!(album.names(&absence.gone), ["old/a.jpg"]);
        absence.found_elsewhere(&absence.photos());
        assert!(absence.missed.is_empty());
    }

    #[test]
    fn what_is_missed_is_gone_after_a_day_or_at_a_persons_word() {
        let album = Album::new();
        let root = album.directory.path();
        let (day, hour) = (MISSED_MAX, Duration::from_secs(3600));
        let mut since = BTreeMap::from([(PathBuf::from("/elsewhere"), hour)]);
        let mut settle = |now: Duration, word: bool| {
            let mut absence = album.sort(&[album.unseen("nas/a.jpg", true)]);
            if word {
                since.insert(root.join("nas"), Duration::ZERO);
            }
            let missed = absence.settle(root, now, &mut since);
            (missed.first().map(|folder| folder.since), absence.gone.len(), since.len())
        };
        assert_eq!(settle(20 * day, false), (Some(20 * day), 0, 2));
        assert_eq!(settle(21 * day - hour, false), (Some(20 * day), 0, 2));
        assert_eq!(settle(5 * day, false), (Some(5 * day), 0, 2), "the clock was set back");
        assert_eq!(settle(6 * day, false), (None, 1, 1));
        assert_eq!(settle(6 * day, true), (None, 1, 1));
    }
}
