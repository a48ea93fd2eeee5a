//! What it means that a known file is not there any more.
//!
//! A file that is not in its folder was deleted or moved. But when the whole folder is not there, or another disk lies in its
//! place, more likely a disk is not connected: its photos are missed, keep their names and count as they did, until they are
//! back, a person says that they are gone, or they have been missed for [`MISSED_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_protocol::id::PhotoId;
use holdfast_store::Unseen;

/// After this, what is missed is gone…
const MISSED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// …and not before the node has looked for it for so long since it was started: meanwhile the clock may have been set, and
/// disks take their time.
const LOOKED_FOR_MIN: Duration = Duration::from_secs(60 * 60);

/// Since when a folder is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    /// By the clock on the wall, since the Unix epoch; zero at a person's word that it is gone.
    pub(super) wall: Duration,
    /// When it was missed first since the node was started.
    pub(super) noticed: Instant,
    /// Whether a folder was in its place all the same when it was looked for last.
    pub(super) is_there: bool,
}

impl Since {
    /// It has been missed since then, and is looked for from `now` on.
    pub(super) const fn new(wall: Duration, now: Instant) -> Self {
        Self { wall, noticed: now, is_there: false }
    }

    fn is_over(&self, wall: Duration, now: Instant) -> bool {
        let is_looked_for = now.saturating_duration_since(self.noticed) >= LOOKED_FOR_MIN;
        self.wall.is_zero() || is_looked_for && wall.saturating_sub(self.wall) >= MISSED_MAX
    }
}

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

/// What is known of the disks.
pub(super) trait Disks {
    /// The number of the volume that a folder lies on.
    fn volume(&self, folder: &fs::Metadata) -> u64;

    /// Whether other files of `folder` that were taken in from this volume are where they were: then it is the same folder,
    /// whatever number the system gives its disk since the last start.
    fn is_alive(&self, folder: &Path, volume: u64) -> bool;
}

/// Tells files that are gone from those that are missed. `root` is the watched folder, which is there.
pub(super) fn sort(root: &Path, unseen: Vec<Unseen>, disks: &impl Disks) -> Absence {
    let mut absence = Absence::default();
    let mut places: BTreeMap<(PathBuf, u64), Place> = BTreeMap::new();
    for file in unseen {
        let Some(folder) = file.path.parent() else { continue };
        let volume = file.identity.device;
        let place = places.entry((folder.to_owned(), volume)).or_insert_with(|| Place::of(root, folder, volume, disks));
        match place {
            Place::Here => absence.gone.push(file.path),
            Place::OfAnother => absence.missed.entry(folder.to_owned()).or_default().push(file),
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
    /// those below `root`. `wall` is the time since the Unix epoch.
    pub(super) fn settle(
        &mut self,
        root: &Path,
        wall: Duration,
        now: Instant,
        since: &mut BTreeMap<PathBuf, Since>,
    ) -> Vec<MissedFolder> {
        since.retain(|folder, _| !folder.starts_with(root) || self.missed.contains_key(folder));
        let mut missed = Vec::new();
        for (path, files) in std::mem::take(&mut self.missed) {
            let known = since.entry(path.clone()).or_insert(Since::new(wall, now));
            known.is_there = is_folder(&path);
            // A clock that was set back starts anew.
            known.wall = known.wall.min(wall);
            if known.is_over(wall, now) {
                self.gone.extend(files.into_iter().map(|file| file.path));
                since.remove(&path);
            } else {
                missed.push(MissedFolder { files: files.len() as u64, since: known.wall, path });
            }
        }
        missed
    }
}

/// Whether a folder is there, and not just a link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// What is where a file's folder was.
enum Place {
    /// The same folder.
    Here,
    /// A folder of another volume.
    OfAnother,
    /// Nothing; `top` is the uppermost folder that is not there.
    Gone { top: PathBuf },
}

impl Place {
    fn of(root: &Path, folder: &Path, volume: u64, disks: &impl Disks) -> Self {
        if disks.is_alive(folder, volume) {
            return Self::Here;
        }
        let mut top = folder;
        for ancestor in folder.ancestors() {
            match fs::metadata(ancestor) {
                Ok(metadata) if ancestor == folder && disks.volume(&metadata) == volume => return Self::Here,
                Ok(_) if ancestor == folder => return Self::OfAnother,
                Ok(_) => break,
                Err(_) if ancestor == root => break,
                Err(_) => top = ancestor,
            }
        }
        Self::Gone { top: top.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_store::FileIdentity;

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
            sort(self.directory.path(), unseen.to_vec(), self)
        }

        fn names(&self, paths: &[PathBuf]) -> Vec<String> {
            let name = |path: &PathBuf| path.strip_prefix(self.directory.path()).unwrap().display().to_string();
            paths.iter().map(name).collect()
        }
    }

    impl Disks for Album {
        fn volume(&self, folder: &fs::Metadata) -> u64 {
            FileIdentity::of(folder).device
        }

        fn is_alive(&self, folder: &Path, volume: u64) -> bool {
            let here = self.volume(&fs::metadata(self.directory.path()).unwrap());
            folder.ends_with("alive") && volume != here
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
        let (start, day, hour) = (Instant::now(), MISSED_MAX, LOOKED_FOR_MIN);
        let mut since = BTreeMap::from([(PathBuf::from("/elsewhere"), Since::new(hour, start))]);
        let mut settle = |wall: Duration, looked_for: Duration, word: bool| {
            let mut absence = album.sort(&[album.unseen("nas/a.jpg", true)]);
            if word {
                since.insert(root.join("nas"), Since::new(Duration::ZERO, start));
            }
            let missed = absence.settle(root, wall, start + looked_for, &mut since);
            (missed.first().map(|folder| folder.since), absence.gone.len(), since.len())
        };
        assert_eq!(settle(20 * day, Duration::ZERO, false), (Some(20 * day), 0, 2));
        assert_eq!(settle(21 * day - hour, day, false), (Some(20 * day), 0, 2));
        assert_eq!(settle(21 * day, hour / 2, false), (Some(20 * day), 0, 2), "the node was off meanwhile");
        assert_eq!(settle(5 * day, hour, false), (Some(5 * day), 0, 2), "the clock was set back");
        assert_eq!(settle(6 * day, 2 * hour, false), (None, 1, 1));
        assert_eq!(settle(6 * day, Duration::ZERO, true), (None, 1, 1));
    }

    #[test]
    fn what_is_there_all_the_while_is_told_from_what_comes_back() {
        let album = Album::new();
        let mut since = BTreeMap::new();
        let mut absence =
            album.sort(&[album.unseen("here/of another disk.jpg", false), album.unseen("nas/a.jpg", true)]);
        absence.settle(album.directory.path(), MISSED_MAX, Instant::now(), &mut since);
        assert_eq!(since.values().map(|since| since.is_there).collect::<Vec<_>>(), [true, false]);
    }
}
