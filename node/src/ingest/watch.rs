//! Noticing changes as they happen, folder by folder. What is missed here, the periodic walk finds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::flow::Flow;

/// The system's notifications for the watched folders and every folder in them.
pub(super) struct Watch {
    watcher: Result<RecommendedWatcher, notify::Error>,
    directories: BTreeSet<PathBuf>,
    /// The system takes no more, as far as is known.
    is_full: bool,
}

impl Watch {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        let watcher = notify::recommended_watcher(move |event: Result<Event, notify::Error>| match event {
            Ok(event) if event.need_rescan() => flow.dirty.everything(),
            Ok(event) => take(&flow, event),
            Err(_) => flow.dirty.everything(),
        });
        Self { watcher, directories: BTreeSet::new(), is_full: false }
    }

    /// Watches `directory`, not what is below it, unless it is watched already. Fails with what keeps it from being watched,
    /// in words for the person who can change it; the system's limit is said once, and then no more is tried until
    /// [`Watch::end_gone`].
    pub(super) fn begin(&mut self, directory: &Path) -> Result<(), String> {
        if self.is_full || self.directories.contains(directory) {
            return Ok(());
        }
        let outcome = match &mut self.watcher {
            Ok(watcher) => watcher.watch(directory, RecursiveMode::NonRecursive),
            Err(error) => {
                self.is_full = true;
                return Err(error.to_string());
            }
        };
        match outcome {
            Ok(()) => {
                self.directories.insert(directory.to_owned());
                Ok(())
            }
            Err(error) => match error.kind {
                notify::ErrorKind::MaxFilesWatch => {
                    self.is_full = true;
                    let watched = self.directories.len();
                    Err(format!(
                        "the system watches no more than {watched} folders; raise the limit with \
                         `sudo sysctl fs.inotify.max_user_watches=524288`"
                    ))
                }
                // It is gone again, or not readable: the walk says so.
                notify::ErrorKind::PathNotFound => Ok(()),
                notify::ErrorKind::Io(ref error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
                _ => Err(error.to_string()),
            },
        }
    }

    /// Stops watching what was at `path` and below: it is gone, or called otherwise now. Whether it may have been a folder.
    pub(super) fn end(&mut self, path: &Path) -> bool {
        let ended: Vec<PathBuf> = self.directories.extract_if(.., |watched| watched.starts_with(path)).collect();
        self.unwatch(&ended);
        self.is_full || !ended.is_empty()
    }

    /// Stops watching what is gone, before a walk through everything: should it be called otherwise now, the system would
    /// take the one for the other. Then more is tried.
    pub(super) fn end_gone(&mut self) {
        let ended: Vec<PathBuf> = self.directories.extract_if(.., |watched| !watched.is_dir()).collect();
        self.unwatch(&ended);
        self.is_full = false;
    }

    fn unwatch(&mut self, directories: &[PathBuf]) {
        if let Ok(watcher) = &mut self.watcher {
            // The system has stopped by itself where they are gone.
            directories.iter().for_each(|directory| _ = watcher.unwatch(directory));
        }
    }
}

/// Reading is not a change; the end of writing is.
fn take(flow: &Flow, event: Event) {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => flow.writing.ended(&event.paths),
        EventKind::Access(_) => return,
        EventKind::Modify(ModifyKind::Data(_)) => flow.writing.goes_on(&event.paths),
        EventKind::Remove(_) => {
            flow.writing.ended(&event.paths);
            flow.dirty.replaced(&event.paths);
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => flow.writing.ended(&event.paths),
        // Where it came from, if that is watched, the next event says.
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => flow.dirty.replaced(&event.paths),
        _ => {}
    }
    if let (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), [from, to]) = (event.kind, &event.paths[..]) {
        flow.dirty.renamed(from.clone(), to.clone());
    }
    flow.dirty.add(event.paths);
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::LibraryId;
    use holdfast_protocol::secrets::LibrarySecrets;

    use super::*;
    use crate::ingest::IngestConfig;

    #[test]
    fn folders_are_watched_once_they_are_there_and_let_go_when_they_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("Pictures");
        let secrets = LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32]);
        let mut watch = Watch::new(Arc::new(Flow::new(IngestConfig::new(Vec::new()), secrets)));
        assert_eq!((watch.begin(&folder), watch.directories.len()), (Ok(()), 0));
        std::fs::create_dir_all(folder.join("2021")).unwrap();
        for directory in [folder.clone(), folder.join("2021")] {
            assert_eq!((watch.begin(&directory), watch.begin(&directory)), (Ok(()), Ok(())));
        }
        assert_eq!(watch.directories.len(), 2);
        std::fs::remove_dir(folder.join("2021")).unwrap();
        watch.end_gone();
        assert_eq!(watch.directories.len(), 1);
        assert!(!watch.end(&folder.join("a.jpg")) && watch.end(directory.path()));
        assert!(watch.directories.is_empty());
    }
}
