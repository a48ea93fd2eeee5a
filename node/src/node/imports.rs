//! Between ingest and the library: what was read from folders becomes inputs, and is told of once it is catalogued.

use std::path::PathBuf;

use holdfast_library::{ImportId, Input};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::replica;

use super::NodeError;
use super::runtime::Runtime;
use crate::api::Happening;
use crate::home::{Home, Originals, Settings};
use crate::ingest::{ImportEvent, ImportProblem, IngestConfig, Keep, WatchedFolder};

pub(super) fn ingest_config(settings: &Settings, home: &Home) -> IngestConfig {
    let keep = match settings.originals {
        Originals::InPlace => Keep::InPlace,
        Originals::Copied => Keep::Copy,
    };
    let watched = |paths: &[PathBuf]| {
        let label = |path: &PathBuf| settings.labels.get(path).cloned();
        paths.iter().map(|path| WatchedFolder { path: path.clone(), keep, label: label(path) }).collect()
    };
    let mut config = IngestConfig::new(watched(&settings.folders));
    config.leaving = watched(&settings.leaving);
    config.moves.clone_from(&settings.moving);
    config.excluded = std::iter::once(home.root().to_owned()).chain(settings.excluded.iter().cloned()).collect();
    config
}

impl Runtime {
    pub(super) fn take_import(&mut self, event: ImportEvent) -> Result<(), NodeError> {
        match event {
            ImportEvent::Imported(photo) => {
                let (photo_id, name, bytes) = (photo.photo, photo.name.path.to_string(), photo.name.size);
                let happening = Happening::Imported { photo: photo_id, name, bytes };
                self.uncatalogued.insert(photo.import, Some(happening));
                // A while after it was handed out: what the store has lost since, it may have said before this.
                let chunks = photo.chunks.iter().map(|(chunk, _)| *chunk);
                let (stored, lost): (Vec<_>, Vec<_>) = chunks.partition(|chunk| self.store.contains(chunk));
                self.handle(Input::Imported(photo))?;
                self.handle(Input::Replica(replica::Input::ChunksStored(stored)))?;
                if !lost.is_empty() {
                    self.handle(Input::Replica(replica::Input::ChunksLost(lost)))?;
                }
                Ok(())
            }
            ImportEvent::NameRemoved(removed) => {
                self.uncatalogued.insert(removed.import, None);
                self.handle(Input::NameRemoved(removed))
            }
            ImportEvent::ChunksLost(chunks) => self.take_losses(chunks),
            ImportEvent::Problem(problem) => {
                if let ImportProblem::Storage(StorageError::Full) = problem {
                    self.space.refused(self.clock.now().elapsed);
                } else {
                    self.news.import_problem(&problem);
                }
                Ok(())
            }
            ImportEvent::FolderMoved { from, to } => {
                self.folder_moved(&from, &to);
                Ok(())
            }
            ImportEvent::MoveFinished { from, to } => {
                self.move_finished(&from, &to);
                Ok(())
            }
            ImportEvent::FolderLeft { path } => {
                self.folder_left(&path);
                Ok(())
            }
            ImportEvent::ScanFinished(_) => {
                self.news.scanned(&self.settings.folders, &self.ingest.folders());
                Ok(())
            }
        }
    }

    /// Imports are in the library, durably.
    pub(super) fn catalogued(&mut self, imports: Vec<ImportId>) {
        for happening in imports.iter().filter_map(|import| self.uncatalogued.remove(import).flatten()) {
            self.news.imported(happening);
        }
        self.ingest.catalogued(imports);
    }
}
