//! The watched folders: which they are, and what changes when a person adds, moves, leaves or forgets one.

use std::path::{Path, PathBuf};

use holdfast_protocol::time::WallTime;
use roaring::RoaringBitmap;

use super::imports::ingest_config;
use super::runtime::Runtime;
use crate::api::view::{Folder, Folders, MissedFolder, SkippedPath};
use crate::api::{Refusal, RefusalKind, Response};
use crate::home::Settings;
use crate::ingest::{FolderFiles, real_path};

/// Names watched folders by where they are: one that a link has taken the place of is where the link leads, and is called as
/// before. The store is told with the start of ingest.
pub(super) fn follow_links(settings: &mut Settings) {
    for folder in settings.folders.clone() {
        let real = real_path(&folder);
        if real == folder || !real.is_dir() {
            continue;
        }
        if settings.folders.iter().any(|other| real.starts_with(other)) {
            settings.leave(&folder); // its files are watched under other names
        } else {
            settings.move_folder(&folder, &real);
        }
    }
}

/// An answer, or the reason why there is none.
type Answer = Result<Response, Refusal>;

impl Runtime {
    pub(super) fn folders(&self) -> Vec<Folder> {
        let known = self.ingest.folders();
        self.settings.folders.iter().zip(known).map(|(path, known)| self.folder(path, known)).collect()
    }

    fn folder(&self, path: &Path, known: FolderFiles) -> Folder {
        let missed = known.missed.into_iter().map(|folder| MissedFolder {
            path: folder.path,
            files: folder.files,
            since_ms: WallTime(i64::try_from(folder.since.as_millis()).unwrap_or(i64::MAX)),
        });
        Folder {
            path: path.to_owned(),
            files: known.files,
            present: !known.is_missing,
            label: self.settings.labels.get(path).cloned().unwrap_or_default(),
            missed: missed.collect(),
            skipped: known.skipped,
        }
    }

    /// The watched folders, and what was passed over in them if it is to be `named`.
    pub(super) fn list_folders(&self, named: bool) -> Response {
        let mut skipped = Vec::new();
        for index in (0..self.settings.folders.len()).filter(|_| named) {
            let of_folder = self.ingest.skipped(index);
            skipped.extend(of_folder.named().map(|(path, reason)| SkippedPath { path: path.to_owned(), reason }));
        }
        let Settings { leaving, excluded, .. } = self.settings.clone();
        Response::Folders(Folders { folders: self.folders(), leaving, excluded, skipped })
    }

    pub(super) fn watch_folder(&mut self, path: PathBuf) -> Answer {
        readable(&path)?;
        let mut settings = self.settings.clone();
        settings.watch(path);
        self.change_folders(settings)?;
        Ok(self.list_folders(false))
    }

    pub(super) fn move_folder(&mut self, from: &Path, to: &Path) -> Answer {
        self.watched(from)?;
        readable(to)?;
        if from.is_dir() {
            let message = format!("{} is still there", from.display());
            return Err(Refusal::new(RefusalKind::Usage, message, "move it first, then say where it is"));
        }
        let known = self.store.unseen(to, &RoaringBitmap::new()).map_err(|error| Refusal::failed(&error))?;
        if !known.is_empty() {
            let message = format!("{} photos in {} are in the library already", known.len(), to.display());
            let next =
                format!("let go of the names in the folder that is gone: `holdfast folders remove {}`", from.display());
            return Err(Refusal::new(RefusalKind::Usage, message, next));
        }
        let mut settings = self.settings.clone();
        settings.move_folder(from, to);
        self.change_folders(settings)?;
        Ok(self.list_folders(false))
    }

    pub(super) fn leave_folder(&mut self, path: &Path) -> Answer {
        self.watched(path)?;
        let mut settings = self.settings.clone();
        settings.leave(path);
        self.change_folders(settings)?;
        Ok(self.list_folders(false))
    }

    pub(super) fn forget_folder(&self, path: PathBuf) -> Answer {
        let known = self.ingest.folders();
        let is_missed = known.iter().flat_map(|folder| &folder.missed).any(|missed| missed.path == path);
        if !is_missed && !self.settings.leaving.contains(&path) {
            let message = format!("{} is not missed", path.display());
            return Err(Refusal::new(RefusalKind::NotFound, message, "see `holdfast folders` for those that are"));
        }
        self.ingest.forget(path).map_err(|error| Refusal::failed(&error))?;
        Ok(self.list_folders(false))
    }

    /// Ingest found a folder that was not there in another one that is watched too, and new.
    pub(super) fn folder_moved(&mut self, from: &Path, to: &Path) {
        tracing::info!(from = %from.display(), to = %to.display(), "a watched folder was moved");
        let mut settings = self.settings.clone();
        settings.move_folder(from, to);
        self.change_folders_unasked(settings);
    }

    /// The store knows the files of a folder that moved by their new paths.
    pub(super) fn move_finished(&mut self, from: &Path, to: &Path) {
        let mut settings = self.settings.clone();
        settings.moved(from, to);
        match self.home.remember(&settings) {
            Ok(()) => self.settings = settings,
            // It is done once more with the next start, and changes nothing then.
            Err(error) => tracing::warn!(%error, "the settings could not be written"),
        }
    }

    /// Nothing more is to be copied from a folder that is watched no longer.
    pub(super) fn folder_left(&mut self, path: &Path) {
        let mut settings = self.settings.clone();
        settings.left(path);
        self.change_folders_unasked(settings);
    }

    /// Imports nothing from a folder inside a watched one from now on.
    pub(super) fn pass_over(&mut self, path: PathBuf) -> Result<(), Refusal> {
        let mut settings = self.settings.clone();
        settings.excluded.push(path);
        self.change_folders(settings)
    }

    /// Goes on with other folders, now and after the next start.
    fn change_folders(&mut self, settings: Settings) -> Result<(), Refusal> {
        self.home.remember(&settings).map_err(|error| Refusal::failed(&error))?;
        self.settings = settings;
        self.ingest.restart(ingest_config(&self.settings, &self.home)).map_err(|error| Refusal::failed(&error))
    }

    /// As [`Runtime::change_folders`], when nobody waits for an answer: what fails is found out again with the next start.
    fn change_folders_unasked(&mut self, settings: Settings) {
        if let Err(refusal) = self.change_folders(settings) {
            tracing::warn!(problem = refusal.message, "the watched folders could not be changed");
        }
    }

    fn watched(&self, path: &Path) -> Result<(), Refusal> {
        if self.settings.folders.iter().any(|folder| folder == path) {
            return Ok(());
        }
        let message = format!("{} is not watched", path.display());
        Err(Refusal::new(RefusalKind::NotFound, message, "see `holdfast folders` for those that are"))
    }
}

fn readable(path: &Path) -> Result<(), Refusal> {
    let refused = |why: String| {
        let message = format!("cannot watch {}: {why}", path.display());
        Refusal::new(RefusalKind::Usage, message, "name a folder that exists and that this user can read")
    };
    if !path.is_absolute() {
        return Err(refused("it is no absolute path".to_owned()));
    }
    std::fs::read_dir(path).map(|_| ()).map_err(|error| refused(error.to_string()))
}
