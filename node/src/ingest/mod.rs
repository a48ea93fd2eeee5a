//! From files in folders to durable chunks.
//!
//! ```text
//! watch ─┐                                   ┌─ media workers (facts, thumbnails) ─┐
//! timer ─┼─► walk: what changed? ─► read: hash, cut, seal (threads) ──────────────►├─► finish: manifest,
//! retry ─┘                                   └─ metadata chunks ─► segments        │   one sync for many files,
//!                                                                                  ┘   adopt, hand out
//! ```
//!
//! Invariants:
//! - Every byte of a file is read once. What is handed out is durable, and is what the file held at one moment: its
//!   state is compared before and after.
//! - The queue is the folders themselves: a file that was not acknowledged as catalogued is found again by the next
//!   walk, also after a crash.
//! - A missing or emptied folder, or one that cannot be read, removes no names: at any depth, until a person says that it is
//!   gone or a day has passed.
//! - A file is read once it is finished: nobody has it open for writing as far as the system tells, two looks agree, and its
//!   format does not say that its end is missing.
//! - Everything that lies in a folder is taken in, or counted with the reason why not.
//! - Memory is bounded: a buffer of 8 MiB and a chunk per reading thread, [`IN_FLIGHT_MAX`] files on their way.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a driver: it reads folders, clocks and threads"
)]

mod absence;
mod depart;
mod event;
mod file_system;
mod finish;
mod flow;
mod look;
mod read;
mod settle;
mod skip;
#[cfg(test)]
mod tests;
mod walk;
mod watch;
mod whole;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast_media::MediaPool;
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_store::ChunkStore;
use tokio::sync::mpsc;

pub use absence::MissedFolder;
pub use event::{
    FileName, FolderFiles, ImportEvent, ImportId, ImportProblem, ImportedPhoto, IngestProgress, RemovedName,
    ScanSummary,
};
use finish::{Finisher, Step};
use flow::Flow;
pub use skip::{SkipReason, Skipped};
use walk::Walker;

/// Files that are read and not yet acknowledged as catalogued.
pub const IN_FLIGHT_MAX: usize = 8192;
/// Events that wait for the library.
const EVENTS_MAX: usize = 64;
/// Files that were found and wait to be read.
const FOUND_MAX: usize = 1024;

/// Where the bytes of an imported file are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// In the original: it is sealed again when a peer asks. Only metadata and thumbnails take space twice.
    #[default]
    InPlace,
    /// In the store's segments.
    Copy,
}

/// Whether to go on after the first walk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watching {
    /// Notice changes as they happen.
    #[default]
    Always,
    /// Walk when asked to, the first time at once.
    OnRequest,
}

/// A folder whose photos are imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Where its photos' bytes are kept.
    pub keep: Keep,
    /// What it is called in the catalog, for as long as it is watched; `None` when nobody remembers what it was called.
    pub label: Option<String>,
}

/// A folder's own name, without what it lies in.
pub(crate) fn own_name(folder: &Path) -> Option<String> {
    folder.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Where an absolute path leads, whether all of it is there yet or not.
#[must_use]
pub fn real_path(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let Some((ancestor, mut real)) = known else { return path.to_owned() };
    real.extend(path.strip_prefix(ancestor).into_iter().flatten());
    real
}

/// What folders are called that were not told: by their own name if that tells them apart, else by their path.
pub(crate) fn labels(folders: &[PathBuf]) -> Vec<String> {
    let label = |folder: &PathBuf| {
        let alike = folders.iter().filter(|other| own_name(other) == own_name(folder)).count() > 1;
        own_name(folder).filter(|_| !alike).unwrap_or_else(|| folder.to_string_lossy().into_owned())
    };
    folders.iter().map(label).collect()
}

/// How ingest works.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// The folders.
    pub folders: Vec<WatchedFolder>,
    /// Folders that are watched no longer: what is held in their files is copied into the store, and then they are let go.
    pub leaving: Vec<WatchedFolder>,
    /// Folders that are somewhere else now, from old to new: the store is told so first.
    pub moves: Vec<(PathBuf, PathBuf)>,
    /// The number of the first import: above those of an earlier run that may still be acknowledged.
    pub first_import: ImportId,
    /// Folders inside them that are not looked into: the node's own home, an export.
    pub excluded: Vec<PathBuf>,
    /// Whether to go on after the first walk.
    pub watching: Watching,
    /// Time between walks that find what watching missed.
    pub rescan_interval: Duration,
    /// A file that was modified more recently is left alone: it may still be being written.
    pub quiet: Duration,
    /// Threads that read, cut and seal.
    pub readers: usize,
}

impl IngestConfig {
    /// Watches `folders`, with the usual intervals and two reading threads where there are two cores.
    #[must_use]
    pub fn new(folders: Vec<WatchedFolder>) -> Self {
        Self {
            folders,
            leaving: Vec::new(),
            moves: Vec::new(),
            first_import: ImportId(0),
            excluded: Vec::new(),
            watching: Watching::default(),
            rescan_interval: Duration::from_secs(15 * 60),
            quiet: Duration::from_secs(2),
            readers: thread::available_parallelism().map_or(1, |cores| cores.get().min(2)),
        }
    }
}

/// Why ingest did not start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The system refuses threads.
    #[error("cannot start a thread to read photos: {0}; close other programs and restart")]
    Thread(std::io::Error),
    /// A folder has no absolute path.
    #[error("{} is no usable folder: {error}; give an absolute path", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// The running import. Dropping it stops the threads after the files that they are reading; what was not handed out
/// is found again at the next start.
pub struct Ingest {
    flow: Arc<Flow>,
    store: Arc<ChunkStore>,
    media: Option<Arc<MediaPool>>,
    events: mpsc::Sender<ImportEvent>,
    steps: Sender<Step>,
    threads: Vec<JoinHandle<()>>,
}

impl Ingest {
    /// Starts to import: first everything that changed since the last time, then what changes.
    ///
    /// `media` examines the files; without it they are imported without facts and thumbnails, for tests and benchmarks.
    /// The receiver must be drained; ingest waits while it is full, and ends when it is dropped.
    ///
    /// # Errors
    /// When a folder's path is unusable or threads cannot be started. A missing folder is reported as an event instead.
    pub fn start(
        config: IngestConfig,
        store: Arc<ChunkStore>,
        secrets: LibrarySecrets,
        media: Option<Arc<MediaPool>>,
    ) -> Result<(Self, mpsc::Receiver<ImportEvent>), IngestError> {
        let mut config = config;
        for path in config.folders.iter_mut().map(|folder| &mut folder.path).chain(&mut config.excluded) {
            *path = absolute(path)?;
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        Ok((Self::launch(config, store, secrets, media, events, Vec::new())?, receiver))
    }

    /// Starts the threads; the walking one waits for the end of those of the run before.
    fn launch(
        config: IngestConfig,
        store: Arc<ChunkStore>,
        secrets: LibrarySecrets,
        media: Option<Arc<MediaPool>>,
        events: mpsc::Sender<ImportEvent>,
        before: Vec<JoinHandle<()>>,
    ) -> Result<Self, IngestError> {
        let (steps, steps_receiver) = channel();
        let (found, found_receiver) = sync_channel(FOUND_MAX);
        let flow = Arc::new(Flow::new(config, secrets));
        let mut ingest = Self { flow, store, media, events, steps, threads: Vec::new() };
        let finisher = Finisher::new(ingest.flow.clone(), ingest.store.clone(), ingest.events.clone());
        ingest.spawn("finish", move || finisher.run(&steps_receiver))?;
        let found_receiver = Arc::new(std::sync::Mutex::new(found_receiver));
        for _ in 0..ingest.flow.config.readers.max(1) {
            let Self { flow, store, media, steps, .. } = &ingest;
            let reader = read::Reader::new(flow.clone(), store.clone(), media.clone(), steps.clone());
            let found = found_receiver.clone();
            ingest.spawn("read", move || reader.run(&found))?;
        }
        let walker = Walker::new(ingest.flow.clone(), ingest.store.clone(), ingest.steps.clone(), found);
        ingest.spawn("walk", move || {
            join(before);
            walker.run();
        })?;
        Ok(ingest)
    }

    /// Goes on with other folders, named by their real paths; does not wait for anything itself. What was handed out and is
    /// not acknowledged is handed out again.
    ///
    /// # Errors
    /// When threads cannot be started; then nothing is imported any more.
    pub fn restart(&mut self, config: IngestConfig) -> Result<(), IngestError> {
        self.stop();
        // What is still acknowledged to the run before is no import of this one.
        let config = IngestConfig { first_import: self.flow.next_import(), ..config };
        let (secrets, before) = (self.flow.keys().secrets, std::mem::take(&mut self.threads));
        let Self { store, media, events, .. } = &*self;
        *self = Self::launch(config, store.clone(), secrets, media.clone(), events.clone(), before)?;
        Ok(())
    }

    fn stop(&self) {
        self.flow.stop();
        _ = self.steps.send(Step::Stop);
    }

    /// What these name is in the catalog, durably: it need not be found again.
    pub fn catalogued(&self, imports: Vec<ImportId>) {
        // The receiving thread only ends with ingest itself.
        _ = self.steps.send(Step::Catalogued(imports));
    }

    /// Walks through all folders soon.
    pub fn rescan(&self) {
        self.flow.dirty.everything();
    }

    /// Seals with these secrets from now on: a new epoch began.
    pub fn renew_secrets(&self, secrets: LibrarySecrets) {
        self.flow.renew(secrets);
    }

    /// A person says that a folder which is missed is gone: with the next walk, its files count as deleted. Of one that is
    /// left, what cannot be read is not waited for.
    ///
    /// # Errors
    /// When the word cannot be kept; then it is as if it was not given.
    pub fn forget(&self, folder: PathBuf) -> Result<(), StorageError> {
        {
            let mut forgotten = self.flow.forgotten();
            let mut missed = self.store.missed()?;
            missed.insert(folder.clone(), Duration::ZERO);
            self.store.remember_missed(&missed)?;
            forgotten.insert(folder);
        }
        self.rescan();
        Ok(())
    }

    /// What was passed over in a watched folder, given by its place in the order of all.
    #[must_use]
    pub fn skipped(&self, folder: usize) -> Skipped {
        self.flow.skipped(folder)
    }

    /// What is known of each watched folder, in their order.
    #[must_use]
    pub fn folders(&self) -> Vec<FolderFiles> {
        self.flow.folder_files()
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> IngestProgress {
        self.flow.progress()
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), IngestError> {
        let thread = thread::Builder::new().name(format!("ingest-{name}")).spawn(run).map_err(IngestError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.stop();
        join(std::mem::take(&mut self.threads));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    // A panic was already reported by the thread itself.
    threads.into_iter().for_each(|thread| _ = thread.join());
}

/// The path without relative parts; a folder that exists is named by its real path, so that the watcher's names and the
/// walk's are the same.
fn absolute(path: &Path) -> Result<PathBuf, IngestError> {
    let failed = |error| IngestError::Folder { path: path.to_owned(), error };
    path.canonicalize().or_else(|_| std::path::absolute(path)).map_err(failed)
}
