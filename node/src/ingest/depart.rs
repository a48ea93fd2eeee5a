//! What is not there any more: files that are gone, folders that are missed, that were moved, and that are left.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_protocol::metadata::StorageError;
use holdfast_store::{FileIdentity, ReadError, Unseen};
use roaring::RoaringBitmap;

use super::absence::{self, Disks, MissedFolder, Since};
use super::finish::Step;
use super::flow::lock;
use super::walk::{HALTED_DELAY, Missing, Walker, is_empty, is_gone};
use super::{ImportEvent, ImportProblem};

/// Files by which it is told that a folder was moved.
const MOVED_FILES: usize = 100;
/// Bytes that are copied into the store at a time, before it is looked at what else there is to do.
const COPIED_BYTES: usize = 32 << 20;
/// Files of a folder that is left that the library is told of at a time.
const LEFT_FILES_MAX: usize = 4096;
/// How often it is looked whether the library has forgotten them.
const LEAVING_INTERVAL: Duration = Duration::from_secs(2);

impl Walker {
    /// Reports the known files of a watched folder that the walk did not see: as gone, or as missed.
    pub(super) fn report_gone(&mut self, folder: usize, seen: &RoaringBitmap) {
        let flow = self.flow.clone();
        let root = &flow.config.folders[folder].path;
        let unseen = match self.store.unseen(root, seen) {
            Ok(unseen) => unseen,
            Err(error) => return self.storage_failed(error),
        };
        lock(&flow.folders)[folder].missed.clear();
        if unseen.is_empty() {
            self.missed.retain(|missed, _| !missed.starts_with(root));
            return;
        }
        if is_empty(root) {
            self.problem(ImportProblem::FolderEmptied { folder: root.clone(), photos: unseen.len() });
            return self.misses(folder, Missing::Empty);
        }
        let awaited = flow.settling().renamed();
        let is_absent = |file: &Unseen| {
            flow.folder_of(&file.path) == Some(folder)
                && !awaited.contains(&file.path)
                && matches!(file.path.symlink_metadata(), Err(error) if is_gone(&error))
        };
        let unseen = unseen.into_iter().filter(is_absent).collect();
        match self.departed(root, unseen, seen) {
            Ok((gone, missed)) => {
                gone.into_iter().for_each(|path| self.gone(path));
                for MissedFolder { path, files, .. } in &missed {
                    self.problem(ImportProblem::SubfolderMissed { path: path.clone(), files: *files });
                }
                lock(&flow.folders)[folder].missed = missed;
            }
            Err(error) => self.storage_failed(error),
        }
    }

    fn departed(
        &mut self,
        root: &Path,
        unseen: Vec<Unseen>,
        seen: &RoaringBitmap,
    ) -> Result<(Vec<PathBuf>, Vec<MissedFolder>), StorageError> {
        let mut absence = absence::sort(root, unseen, &Seen { walker: self, seen });
        let photos = absence.photos();
        if !photos.is_empty() {
            absence.found_elsewhere(&self.store.photos_among(seen, &photos)?);
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().max(Duration::from_millis(1));
        let missed = absence.settle(root, wall, Instant::now(), &mut self.missed);
        Ok((absence.gone, missed))
    }

    /// Something that the watcher named, perhaps a folder, is not there any more.
    pub(super) fn path_gone(&mut self, folder: usize, path: PathBuf, was_folder: bool) {
        // An emptied folder is more likely an unmounted disk: the walk through everything tells.
        if is_empty(&self.flow.config.folders[folder].path) {
            return self.walk_soon();
        }
        let was_folder = self.watch.as_mut().is_some_and(|watch| watch.end(&path)) || was_folder;
        let volume = |path: &Path| Some(self.flow.identity(&path.parent()?.metadata().ok()?).device);
        match self.store.file(&path) {
            Ok(Some(record)) if volume(&path) == Some(record.identity.device) => self.gone(path),
            // It was never taken in.
            Ok(None) if !was_folder => {}
            // Perhaps a whole folder, or another disk: that is found out by comparing everything.
            Ok(_) => self.walk_soon(),
            Err(error) => self.storage_failed(error),
        }
    }

    /// What was missed before the start is missed since then.
    pub(super) fn recall_missed(&mut self) {
        let now = Instant::now();
        let folders = &self.flow.config.folders;
        let is_watched = |path: &Path| folders.iter().any(|root| path.starts_with(&root.path));
        match self.store.missed() {
            Ok(known) => {
                let word = known.iter().filter(|(_, since)| since.is_zero()).map(|(path, _)| path.clone());
                self.flow.forgotten().extend(word);
                let watched = known.into_iter().filter(|(path, _)| is_watched(path));
                self.missed = watched.map(|(path, since)| (path, Since::new(since, now))).collect();
            }
            Err(error) => self.storage_failed(error),
        }
    }

    /// What is missed is still missed after a restart, and since when; a person's word is kept as well.
    pub(super) fn remember_missed(&mut self) {
        let flow = self.flow.clone();
        let forgotten = flow.forgotten();
        let word = forgotten.iter().map(|path| (path.clone(), Duration::ZERO));
        let missed = self.missed.iter().map(|(path, since)| (path.clone(), since.wall)).chain(word).collect();
        let outcome = self.store.missed().and_then(|known| match known == missed {
            true => Ok(()),
            false => self.store.remember_missed(&missed),
        });
        if let Err(error) = outcome {
            self.storage_failed(error);
        }
    }

    /// Takes out of what is missed and left what a person says is gone.
    pub(super) fn take_forgotten(&mut self) {
        let forgotten = std::mem::take(&mut *self.flow.forgotten());
        for path in forgotten {
            self.missed.entry(path.clone()).and_modify(|since| since.wall = Duration::ZERO);
            let is_left = |leaving: &&mut Leaving| self.flow.root(leaving.folder) == path;
            if let Some(leaving) = self.leaving.iter_mut().find(is_left) {
                (leaving.is_given_up, leaving.due) = (true, Instant::now());
            }
        }
    }

    /// Knows the files of folders that are somewhere else by their new paths, before anything there is taken for new.
    pub(super) fn move_files(&self) {
        for (from, to) in &self.flow.config.moves {
            match self.store.move_files(from, to) {
                Ok(lost) => {
                    if !lost.is_empty() {
                        self.step(Step::Tell(ImportEvent::ChunksLost(lost)));
                    }
                    let (from, to) = (from.clone(), to.clone());
                    self.step(Step::Tell(ImportEvent::MoveFinished { from, to }));
                }
                Err(error) => self.storage_failed(error),
            }
        }
    }

    /// Looks, once after the start, whether a watched folder that is not there was moved to another one: the files there are
    /// the very same. Returns those others.
    pub(super) fn tell_moved(&self) -> BTreeSet<usize> {
        let mut moved = BTreeSet::new();
        let folders = &self.flow.config.folders;
        let none = RoaringBitmap::new();
        for from in folders.iter().filter(|folder| !folder.path.is_dir()) {
            let Ok(known) = self.store.unseen(&from.path, &none) else { continue };
            let is_there = |to: &super::WatchedFolder| {
                let sample = || known.iter().step_by(known.len().div_ceil(MOVED_FILES));
                let is_same = |file: &&Unseen| {
                    let moved = file.path.strip_prefix(&from.path).ok().map(|inside| to.path.join(inside));
                    let identity = moved
                        .and_then(|path| path.symlink_metadata().ok())
                        .map(|metadata| self.flow.identity(&metadata));
                    identity == Some(file.identity) && file.identity != FileIdentity::default()
                };
                // Some may have been edited or deleted since.
                !known.is_empty() && sample().filter(is_same).count() * 10 >= sample().count() * 9
            };
            // Files that are known there have names of their own.
            let is_new =
                |to: &super::WatchedFolder| self.store.unseen(&to.path, &none).is_ok_and(|known| known.is_empty());
            let moved_to = folders.iter().position(|to| to.path.is_dir() && is_there(to) && is_new(to));
            if let Some(index) = moved_to {
                let to = folders[index].path.clone();
                self.step(Step::Tell(ImportEvent::FolderMoved { from: from.path.clone(), to }));
                moved.insert(index);
            }
        }
        moved
    }

    /// Lets go of folders that are watched no longer: what is held in their files is copied into the store first.
    pub(super) fn leave(&mut self) {
        for mut leaving in std::mem::take(&mut self.leaving) {
            if leaving.due <= Instant::now()
                && let Err(error) = self.let_go(&mut leaving)
            {
                self.storage_failed(error);
                leaving.due = Instant::now() + HALTED_DELAY;
            }
            if leaving.is_copied && leaving.files.as_ref().is_some_and(Vec::is_empty) {
                let path = self.flow.root(leaving.folder).to_owned();
                self.step(Step::Tell(ImportEvent::FolderLeft { path }));
            } else {
                self.leaving.push(leaving);
            }
        }
    }

    /// Does some of what there is to do, and says when to go on.
    fn let_go(&self, leaving: &mut Leaving) -> Result<(), StorageError> {
        let now = Instant::now();
        let files = match leaving.files.take() {
            Some(files) => files,
            None => self.known_of(leaving.folder)?,
        };
        let files = leaving.files.insert(files);
        if leaving.is_copied {
            files.retain(|path| self.store.file_number(path).is_some());
            // One handful at a time.
            if self.flow.departing.load(Ordering::Acquire) == 0 {
                files.iter().take(LEFT_FILES_MAX).for_each(|path| self.gone(path.clone()));
            }
            leaving.due = now + LEAVING_INTERVAL;
            return Ok(());
        }
        leaving.due = now;
        if let Some(unreadable) = self.keep_copies(leaving)? {
            let folder = self.flow.root(leaving.folder).to_owned();
            self.problem(ImportProblem::FolderNotLeft { folder, detail: unreadable.to_string() });
            leaving.due = now + HALTED_DELAY;
        }
        Ok(())
    }

    /// The known files of a folder that are in no other one.
    fn known_of(&self, folder: usize) -> Result<Vec<PathBuf>, StorageError> {
        let known = self.store.unseen(self.flow.root(folder), &RoaringBitmap::new())?;
        let paths = known.into_iter().map(|file| file.path);
        Ok(paths.filter(|path| self.flow.folder_of(path) == Some(folder)).collect())
    }

    /// Copies some of what is held in files into the store, durably. What the files do not hold any more is fetched from
    /// others; what cannot be read just now is waited for, unless a person says otherwise, and is returned.
    fn keep_copies(&self, leaving: &mut Leaving) -> Result<Option<ReadError>, StorageError> {
        let (mut sealed, mut bytes, mut unreadable) = (Vec::new(), 0, None);
        let files = leaving.files.as_deref().unwrap_or_default();
        'files: while let Some(path) = files.get(leaving.copied.0) {
            let cuts = self.store.file(path)?.map(|record| record.cuts).unwrap_or_default();
            for cut in cuts.iter().skip(leaving.copied.1) {
                if bytes >= COPIED_BYTES || self.flow.is_stopping() {
                    break 'files;
                }
                match self.store.read_into(&cut.chunk, &mut sealed) {
                    Ok(()) => {
                        self.store.append(cut.chunk, &sealed)?;
                        bytes += sealed.len();
                    }
                    Err(ReadError::Storage(error)) => return Err(error),
                    Err(error) if !error.is_loss() && !leaving.is_given_up => {
                        unreadable = Some(error);
                        break 'files;
                    }
                    Err(_) => {}
                }
                leaving.copied.1 += 1;
            }
            leaving.copied = (leaving.copied.0 + 1, 0);
        }
        self.store.commit()?;
        leaving.is_copied = leaving.copied.0 == files.len();
        Ok(unreadable)
    }
}

/// A folder that is watched no longer, until the library has forgotten its files.
#[derive(Debug)]
pub(super) struct Leaving {
    /// Its index behind the watched ones.
    folder: usize,
    /// Its files that are still known, once they were looked for.
    files: Option<Vec<PathBuf>>,
    /// How many of the files are in the store, and how many cuts of the next one.
    copied: (usize, usize),
    is_copied: bool,
    /// A person says that what cannot be read is not to be waited for.
    is_given_up: bool,
    /// When to go on.
    pub(super) due: Instant,
}

impl Leaving {
    pub(super) const fn new(folder: usize, now: Instant) -> Self {
        Self { folder, files: None, copied: (0, 0), is_copied: false, is_given_up: false, due: now }
    }
}

/// The files that a walk has seen, and the disks that they were taken in from.
struct Seen<'a> {
    walker: &'a Walker,
    seen: &'a RoaringBitmap,
}

impl Disks for Seen<'_> {
    fn volume(&self, folder: &Metadata) -> u64 {
        self.walker.flow.identity(folder).device
    }

    fn is_alive(&self, folder: &Path, volume: u64) -> bool {
        let store = &self.walker.store;
        let is_of_volume = |path: &Path| {
            store.file_number(path).is_some_and(|number| self.seen.contains(number.get()))
                && store.file(path).is_ok_and(|file| file.is_some_and(|file| file.identity.device == volume))
        };
        folder
            .read_dir()
            .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| is_of_volume(&entry.path()))))
    }
}
