//! The watched folders: which they are, and what changes when a person adds, moves, leaves or forgets one.

use std::path::{Path, PathBuf};

use holdfast_protocol::time::WallTime;

use super::NodeError;
use super::imports::ingest_config;
use super::runtime::Runtime;
use crate::api::view::{Folder, Folders, MissedFolder, SkippedPath};
use crate::api::{Refusal, RefusalKind, Response};
use crate::home::Settings;
use crate::ingest::FolderFiles;

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
            present: path.is_dir(),
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
        Response::Folders(Folders { folders: self.folders(), leaving: self.settings.leaving.clone(), skipped })
    }

    pub(super) fn watch_folder(&mut self, path: PathBuf) -> Result<Answer, NodeError> {
        if let Err(refusal) = readable(&path) {
            return Ok(Err(refusal));
        }
        let mut settings = self.settings.clone();
        settings.watch(path);
        self.change_folders(settings)?;
        Ok(Ok(self.list_folders(false)))
    }

    pub(super) fn move_folder(&mut self, from: &Path, to: PathBuf) -> Result<Answer, NodeError> {
        if let Err(refusal) = self.watched(from).and_then(|()| readable(&to)) {
            return Ok(Err(refusal));
        }
        if from.is_dir() {
            let message = format!("{} is still there", from.display());
            return Ok(Err(Refusal::new(RefusalKind::Usage, message, "move it first, then say where it is")));
        }
        let mut settings = self.settings.clone();
        settings.move_folder(from, to.clone());
        // Between the two nothing is imported, so that no file is taken for a new one.
        self.ingest.pause();
        if let Err(error) = self.store.move_files(from, &to) {
            self.change_folders(self.settings.clone())?;
            return Ok(Err(Refusal::failed(&error)));
        }
        self.change_folders(settings)?;
        Ok(Ok(self.list_folders(false)))
    }

    pub(super) fn leave_folder(&mut self, path: &Path) -> Result<Answer, NodeError> {
        if let Err(refusal) = self.watched(path) {
            return Ok(Err(refusal));
        }
        let mut settings = self.settings.clone();
        settings.leave(path);
        self.change_folders(settings)?;
        Ok(Ok(self.list_folders(false)))
    }

    pub(super) fn forget_folder(&self, path: PathBuf) -> Answer {
        let known = self.ingest.folders();
        if !known.iter().flat_map(|folder| &folder.missed).any(|missed| missed.path == path) {
            let message = format!("{} is not missed", path.display());
            return Err(Refusal::new(RefusalKind::NotFound, message, "see `holdfast folders` for those that are"));
        }
        self.ingest.forget(path);
        Ok(self.list_folders(false))
    }

    /// Ingest found a folder that was not there in another one that is watched too.
    pub(super) fn folder_moved(&mut self, from: &Path, to: PathBuf) -> Result<(), NodeError> {
        tracing::info!(from = %from.display(), to = %to.display(), "a watched folder was moved");
        match self.move_folder(from, to)? {
            Ok(_) => Ok(()),
            // It is back where it was.
            Err(_) if from.is_dir() => self.change_folders(self.settings.clone()),
            Err(refusal) => {
                tracing::warn!(problem = refusal.message, "the folder that moved is not taken in");
                Ok(())
            }
        }
    }

    /// Nothing more is to be copied from a folder that is watched no longer.
    pub(super) fn folder_left(&mut self, path: &Path) -> Result<(), NodeError> {
        let mut settings = self.settings.clone();
        settings.left(path);
        self.home.remember(&settings)?;
        self.settings = settings;
        Ok(())
    }

    /// Imports nothing from a folder inside a watched one from now on.
    pub(super) fn pass_over(&mut self, path: PathBuf) -> Result<(), NodeError> {
        let mut settings = self.settings.clone();
        settings.excluded.push(path);
        self.change_folders(settings)
    }

    /// Goes on with other folders, now and after the next start.
    fn change_folders(&mut self, settings: Settings) -> Result<(), NodeError> {
        self.home.remember(&settings)?;
        self.new_imports = Some(self.ingest.restart(ingest_config(&settings, &self.home))?);
        self.settings = settings;
        Ok(())
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
