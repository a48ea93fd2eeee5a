//! Noticing changes as they happen. What is missed here, the periodic walk finds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::ImportProblem;
use super::flow::Flow;

/// The system's notifications for the watched folders.
pub(super) struct Watch {
    flow: Arc<Flow>,
    watcher: Result<RecommendedWatcher, notify::Error>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        let told = flow.clone();
        let watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
            Ok(event) if event.need_rescan() => told.dirty.everything(),
            Ok(event) if is_change(&event.kind) => told.dirty.add(event.paths),
            Ok(_) => {}
            Err(_) => told.dirty.everything(),
        });
        Self { flow, watcher, folders: BTreeSet::new() }
    }

    /// Watches `folder`, if it is not watched yet. Tries again and says what keeps it from being watched for as long as
    /// something does.
    pub(super) fn begin(&mut self, folder: &Path) -> Result<(), ImportProblem> {
        if self.folders.contains(folder) {
            return Ok(());
        }
        let outcome = match &mut self.watcher {
            Ok(watcher) => watcher.watch(folder, RecursiveMode::Recursive).map_err(|error| detail(&error)),
            Err(error) => Err(detail(error)),
        };
        match outcome {
            Ok(()) => {
                self.folders.insert(folder.to_owned());
                Ok(())
            }
            Err(detail) => Err(ImportProblem::NotWatched {
                folder: folder.to_owned(),
                interval_minutes: (self.flow.config.rescan_interval.as_secs() / 60).max(1),
                detail,
            }),
        }
    }

    /// Stops watching a folder that is gone, so that it is watched again when it is back.
    pub(super) fn end(&mut self, folder: &Path) {
        if self.folders.remove(folder)
            && let Ok(watcher) = &mut self.watcher
        {
            // It is gone: the system stopped watching by itself.
            _ = watcher.unwatch(folder);
        }
    }
}

fn detail(error: &notify::Error) -> String {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "the system watches no more folders; raise fs.inotify.max_user_watches".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Reading is not a change; the end of writing is.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::LibraryId;
    use holdfast_protocol::secrets::LibrarySecrets;

    use super::*;
    use crate::ingest::IngestConfig;

    #[test]
    fn a_folder_that_cannot_be_watched_is_told_of_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("Pictures");
        let secrets = LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32]);
        let mut watch = Watch::new(Arc::new(Flow::new(IngestConfig::new(Vec::new()), secrets)));
        let problem = watch.begin(&folder).unwrap_err();
        assert_eq!(watch.begin(&folder), Err(problem));
        std::fs::create_dir(&folder).unwrap();
        assert_eq!((watch.begin(&folder), watch.begin(&folder)), (Ok(()), Ok(())));
    }
}
