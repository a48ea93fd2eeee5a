//! What is not there any more: files that are gone, folders that are missed, that were moved, and that are left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_protocol::metadata::StorageError;
use holdfast_store::{FileIdentity, Unseen};
use roaring::RoaringBitmap;

use super::absence::{self, MissedFolder};
use super::finish::Step;
use super::flow::lock;
use super::walk::{Leaving, Missing, Walker, is_empty, is_gone};
use super::{ImportEvent, ImportProblem};

/// Files by which it is told that a folder was moved.
const MOVED_FILES: usize = 100;
/// Bytes that are copied into the store before they are made durable.
const COPIED_BYTES: usize = 32 << 20;

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
        let is_absent = |file: &Unseen| {
            flow.folder_of(&file.path) == Some(folder)
                && matches!(file.path.symlink_metadata(), Err(error) if is_gone(&error))
        };
        let unseen = unseen.into_iter().filter(is_absent).collect();
        match self.departed(root, unseen, seen) {
            Ok((gone, missed)) => {
                gone.into_iter().for_each(|path| self.step(Step::Gone(path)));
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
        let store = &self.store;
        let is_seen = |path: &Path| store.file_number(path).is_some_and(|number| seen.contains(number.get()));
        let is_alive = |folder: &Path| {
            folder
                .read_dir()
                .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| is_seen(&entry.path()))))
        };
        let mut absence = absence::sort(root, unseen, is_alive);
        let photos = absence.photos();
        if !photos.is_empty() {
            absence.found_elsewhere(&store.photos_among(seen, &photos)?);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let missed = absence.settle(root, now, &mut self.missed);
        Ok((absence.gone, missed))
    }

    /// Something that the watcher named is not there any more.
    pub(super) fn path_gone(&mut self, folder: usize, path: PathBuf) {
        // An emptied folder is more likely an unmounted disk: the walk through everything tells.
        if is_empty(&self.flow.config.folders[folder].path) {
            return self.walk_soon();
        }
        if let Some(watch) = &mut self.watch {
            watch.end(&path);
        }
        let device = |path: &Path| path.parent()?.metadata().ok().map(|folder| FileIdentity::of(&folder).device);
        match self.store.file(&path) {
            Ok(Some(record)) if device(&path) == Some(record.identity.device) => self.step(Step::Gone(path)),
            // Perhaps a whole folder, or another disk: that is found out by comparing everything.
            Ok(_) => self.walk_soon(),
            Err(error) => self.storage_failed(error),
        }
    }

    /// What is missed is still missed after a restart, and since when.
    pub(super) fn remember_missed(&mut self) {
        let outcome = self.store.missed().and_then(|known| match known == self.missed {
            true => Ok(()),
            false => self.store.remember_missed(&self.missed),
        });
        if let Err(error) = outcome {
            self.storage_failed(error);
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
                    let identity =
                        moved.and_then(|path| path.symlink_metadata().ok()).map(|file| FileIdentity::of(&file));
                    identity == Some(file.identity) && file.identity != FileIdentity::default()
                };
                // Some may have been edited or deleted since.
                !known.is_empty() && sample().filter(is_same).count() * 10 >= sample().count() * 9
            };
            if let Some(index) = folders.iter().position(|to| to.path.is_dir() && is_there(to)) {
                let to = folders[index].path.clone();
                self.step(Step::Tell(ImportEvent::FolderMoved { from: from.path.clone(), to }));
                moved.insert(index);
            }
        }
        moved
    }

    /// Lets go of folders that are watched no longer: what is held in their files is copied into the store first.
    pub(super) fn leave(&mut self) {
        for (index, leaving) in self.leaving.clone() {
            let path = self.flow.config.leaving[index].path.clone();
            let known = match self.known_of(self.flow.config.folders.len() + index, &path) {
                Ok(known) => known,
                Err(error) => return self.storage_failed(error),
            };
            if leaving == Leaving::Held {
                match self.keep_copies(&known) {
                    Ok(Copying::Done) => _ = self.leaving.insert(index, Leaving::Copied),
                    Ok(Copying::Stopped) => return,
                    Err(error) => return self.storage_failed(error),
                }
            }
            if known.is_empty() {
                self.leaving.remove(&index);
                self.step(Step::Tell(ImportEvent::FolderLeft { path }));
            }
            known.into_iter().for_each(|file| self.step(Step::Gone(file.path)));
        }
    }

    /// The known files of a folder that are in no other one.
    fn known_of(&self, folder: usize, path: &Path) -> Result<Vec<Unseen>, StorageError> {
        let mut known = self.store.unseen(path, &RoaringBitmap::new())?;
        known.retain(|file| self.flow.folder_of(&file.path) == Some(folder));
        Ok(known)
    }

    /// Copies what is held in files into the store, durably. What cannot be read is lost here, and is fetched from others.
    fn keep_copies(&self, files: &[Unseen]) -> Result<Copying, StorageError> {
        let (mut sealed, mut copied) = (Vec::new(), 0);
        for file in files {
            let Some(record) = self.store.file(&file.path)? else { continue };
            for cut in &record.cuts {
                if self.flow.is_stopping() {
                    return Ok(Copying::Stopped);
                }
                if self.store.read_into(&cut.chunk, &mut sealed).is_ok() {
                    self.store.append(cut.chunk, &sealed)?;
                    copied += sealed.len();
                }
                if copied >= COPIED_BYTES {
                    self.store.commit()?;
                    copied = 0;
                }
            }
        }
        self.store.commit()?;
        Ok(Copying::Done)
    }
}

/// How a copying ended.
enum Copying {
    Done,
    Stopped,
}
