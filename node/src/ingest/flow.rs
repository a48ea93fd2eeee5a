//! What the threads of ingest share: keys, bounds, progress, and when to stop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_library::Outstanding;
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_store::{FileIdentity, FileStat};
use roaring::RoaringBitmap;

use super::absence::MissedFolder;
use super::file_system::Volumes;
use super::settle::{Look, Settling};
use super::skip::{SkipReason, Skipped};
use super::writing::Writing;
use super::{FolderFiles, IN_FLIGHT_MAX, ImportId, IngestConfig, IngestProgress, labels};

/// Shared by all threads.
pub(super) struct Flow {
    pub(super) config: IngestConfig,
    /// Folders that are missed or left of which a person says that they are gone.
    forgotten: Mutex<BTreeSet<PathBuf>>,
    /// What each watched folder is called in the catalog, and behind them each that is left.
    pub(super) labels: Vec<String>,
    pub(super) dirty: Dirty,
    pub(super) writing: Writing,
    volumes: Mutex<Volumes>,
    settling: Mutex<Settling>,
    keys: Mutex<Keys>,
    stopping: AtomicBool,
    /// Set when the store fails: nothing more is read in this walk.
    halted: AtomicBool,
    counters: Mutex<Counters>,
    changed: Condvar,
    pub(super) unacknowledged: Mutex<Outstanding>,
    /// Names on their way to the finishing thread that are to go.
    pub(super) departing: AtomicUsize,
    pub(super) bytes_imported: AtomicU64,
    pub(super) files_imported: AtomicU64,
    pub(super) scan: Mutex<Scan>,
    /// What is in each watched folder.
    pub(super) folders: Mutex<Vec<Folder>>,
}

/// What is in a watched folder.
#[derive(Clone, Default)]
pub(super) struct Folder {
    /// The store's numbers of its files.
    pub(super) files: RoaringBitmap,
    /// Files that were taken in since the latest walk through everything began.
    pub(super) new: u64,
    /// What was passed over.
    pub(super) skipped: Skipped,
    /// Folders in it that are missed.
    pub(super) missed: Vec<MissedFolder>,
    /// It is not there itself, or shows nothing.
    pub(super) is_missing: bool,
}

/// The secrets in use.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) secrets: LibrarySecrets,
    pub(super) sealer: ChunkSealer,
}

#[derive(Default)]
struct Counters {
    /// Handed to the readers and not yet finished or given up.
    outstanding: u64,
    outstanding_bytes: u64,
    /// Read and not yet acknowledged.
    in_flight: usize,
    walking: bool,
}

/// What one walk has found so far.
#[derive(Default)]
pub(super) struct Scan {
    /// The store's numbers of the files that are there.
    pub(super) seen: RoaringBitmap,
    pub(super) summary: super::ScanSummary,
    /// Files that counted as photos until they were opened.
    pub(super) newly_ignored: u64,
    /// Files that are neither photos nor videos, as they were when that was found out.
    pub(super) ignored: HashMap<u64, SkipReason>,
}

impl Flow {
    pub(super) fn new(config: IngestConfig, secrets: LibrarySecrets) -> Self {
        let sealer = ChunkSealer::new(&secrets);
        let all = || config.folders.iter().chain(&config.leaving);
        let paths: Vec<PathBuf> = all().map(|folder| folder.path.clone()).collect();
        let remembered = all().map(|folder| folder.label.clone());
        let labels = remembered.zip(labels(&paths)).map(|(label, derived)| label.unwrap_or(derived)).collect();
        let folders = vec![Folder::default(); paths.len()];
        let unacknowledged = Mutex::new(Outstanding::starting_at(config.first_import));
        Self {
            settling: Mutex::new(Settling::new(config.quiet)),
            config,
            labels,
            folders: Mutex::new(folders),
            forgotten: Mutex::default(),
            dirty: Dirty::default(),
            writing: Writing::default(),
            volumes: Mutex::new(Volumes::connected()),
            keys: Mutex::new(Keys { secrets, sealer }),
            stopping: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            counters: Mutex::default(),
            changed: Condvar::new(),
            unacknowledged,
            departing: AtomicUsize::new(0),
            bytes_imported: AtomicU64::new(0),
            files_imported: AtomicU64::new(0),
            scan: Mutex::default(),
        }
    }

    pub(super) fn keys(&self) -> Keys {
        lock(&self.keys).clone()
    }

    pub(super) fn renew(&self, secrets: LibrarySecrets) {
        let sealer = ChunkSealer::new(&secrets);
        *lock(&self.keys) = Keys { secrets, sealer };
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Whoever is between its look at the flag and its wait holds this lock.
        drop(lock(&self.counters));
        self.changed.notify_all();
        self.dirty.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The store failed: reads nothing more in this walk. Whether this is the first time in it, and so worth a word.
    pub(super) fn halt(&self) -> bool {
        !self.halted.swap(true, Ordering::AcqRel)
    }

    /// A new walk tries again.
    pub(super) fn resume(&self) {
        self.halted.store(false, Ordering::Release);
    }

    /// Whether reading on makes no sense.
    pub(super) fn is_halted(&self) -> bool {
        self.is_stopping() || self.halted.load(Ordering::Acquire)
    }

    pub(super) fn walking(&self, walking: bool) {
        lock(&self.counters).walking = walking;
    }

    /// A file goes to the readers.
    pub(super) fn begin(&self, bytes: u64) {
        let mut counters = lock(&self.counters);
        counters.outstanding += 1;
        counters.outstanding_bytes += bytes;
    }

    /// A file that had been handed to the readers was imported or given up.
    pub(super) fn end(&self, bytes: u64) {
        let mut counters = lock(&self.counters);
        counters.outstanding -= 1;
        counters.outstanding_bytes -= bytes;
        self.changed.notify_all();
    }

    /// Waits until everything handed to the readers is done.
    pub(super) fn wait_idle(&self) {
        drop(self.wait(|counters| counters.outstanding == 0));
    }

    /// Takes one of the places of files between reading and acknowledgement; waits for one.
    pub(super) fn take_off(&self) {
        self.wait(|counters| counters.in_flight < IN_FLIGHT_MAX).in_flight += 1;
    }

    /// Gives places back.
    pub(super) fn land(&self, files: usize) {
        let mut counters = lock(&self.counters);
        counters.in_flight = counters.in_flight.saturating_sub(files);
        self.changed.notify_all();
    }

    fn wait(&self, mut ready: impl FnMut(&Counters) -> bool) -> MutexGuard<'_, Counters> {
        let waiting = |counters: &mut Counters| !ready(counters) && !self.is_stopping();
        self.changed.wait_while(lock(&self.counters), waiting).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> IngestProgress {
        let counters = lock(&self.counters);
        IngestProgress {
            busy: counters.walking || counters.outstanding > 0,
            files_waiting: counters.outstanding,
            bytes_waiting: counters.outstanding_bytes,
            files_imported: self.files_imported.load(Ordering::Relaxed),
            bytes_imported: self.bytes_imported.load(Ordering::Relaxed),
        }
    }

    /// Passes a file over for as long as it stays as it is.
    pub(super) fn ignore(&self, folder: usize, path: &Path, stat: &FileStat, reason: SkipReason) {
        self.skip(folder, path, reason);
        let mut scan = lock(&self.scan);
        scan.summary.ignored += 1;
        scan.newly_ignored += 1;
        if scan.ignored.len() < IGNORED_MAX {
            scan.ignored.insert(ignored_key(path, stat), reason);
        }
    }

    /// Counts what is passed over.
    pub(super) fn skip(&self, folder: usize, path: &Path, reason: SkipReason) {
        lock(&self.folders)[folder].skipped.add(path, reason);
    }

    /// What is known of each watched folder.
    pub(super) fn folder_files(&self) -> Vec<FolderFiles> {
        let of_folder = |folder: &Folder| FolderFiles {
            files: folder.files.len(),
            new: folder.new,
            skipped: folder.skipped.counts(),
            missed: folder.missed.clone(),
            is_missing: folder.is_missing,
        };
        lock(&self.folders).iter().take(self.config.folders.len()).map(of_folder).collect()
    }

    /// What was passed over in a watched folder, by name.
    pub(super) fn skipped(&self, folder: usize) -> Skipped {
        lock(&self.folders).get(folder).map(|folder| folder.skipped.clone()).unwrap_or_default()
    }

    /// Folders of which a person says that they are gone, until the walking thread has taken them out.
    pub(super) fn forgotten(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        lock(&self.forgotten)
    }

    /// The number of the next import.
    pub(super) fn next_import(&self) -> ImportId {
        lock(&self.unacknowledged).next()
    }

    /// Files that may still be being written. Whoever adds one wakes the walker, which looks at them.
    pub(super) fn settling(&self) -> MutexGuard<'_, Settling> {
        lock(&self.settling)
    }

    /// Looks at a file again after a while, longer each time.
    pub(super) fn again(&self, look: Look) {
        self.settling().again(Instant::now(), look);
        self.dirty.wake();
    }

    /// Looks at a file again when it is older.
    pub(super) fn again_after(&self, delay: Duration, look: Look) {
        self.settling().after(Instant::now() + delay, look);
        self.dirty.wake();
    }

    /// Which file `metadata` is of, by its volume where that is known.
    pub(super) fn identity(&self, metadata: &Metadata) -> FileIdentity {
        let identity = FileIdentity::of(metadata);
        FileIdentity { device: lock(&self.volumes).of(identity.device), ..identity }
    }

    /// Finds out anew which volumes are connected.
    pub(super) fn look_at_volumes(&self) {
        *lock(&self.volumes) = Volumes::connected();
    }
}

/// Ignored files that are remembered; others are looked at again in every walk.
const IGNORED_MAX: usize = 1 << 20;

pub(super) fn ignored_key(path: &Path, stat: &FileStat) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update(&stat.size.to_le_bytes()).update(&stat.mtime_ns.to_le_bytes()).update(&stat.ctime_ns.to_le_bytes());
    let mut key = [0; 8];
    hasher.finalize_xof().fill(&mut key);
    u64::from_le_bytes(key)
}

/// What the watcher saw change since the last walk.
#[derive(Default)]
pub(super) struct Dirty {
    state: Mutex<DirtyState>,
    changed: Condvar,
}

#[derive(Default)]
struct DirtyState {
    everything: bool,
    paths: BTreeSet<PathBuf>,
    /// What was renamed, by the new name.
    renamed: BTreeMap<PathBuf, PathBuf>,
    first: Option<Instant>,
    latest: Option<Instant>,
    woken: bool,
}

/// What to walk through.
pub(super) enum Target {
    Everything,
    /// These, and what some of them were called before.
    Paths(BTreeSet<PathBuf>, BTreeMap<PathBuf, PathBuf>),
    Nothing,
}

/// More changed paths than this are a walk through everything.
const DIRTY_MAX: usize = 1024;
/// Changes are taken together until there was none for this long…
const SETTLED: Duration = Duration::from_millis(300);
/// …or until the first is this old.
const SETTLED_MAX: Duration = Duration::from_secs(3);

impl Dirty {
    pub(super) fn everything(&self) {
        lock(&self.state).everything = true;
        self.changed.notify_all();
    }

    pub(super) fn add(&self, paths: Vec<PathBuf>) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        state.first.get_or_insert(now);
        state.latest = Some(now);
        state.paths.extend(paths);
        if state.paths.len() > DIRTY_MAX {
            state.paths.clear();
            state.renamed.clear();
            state.everything = true;
        }
        self.changed.notify_all();
    }

    /// A file or folder is called otherwise now; [`Dirty::add`] follows.
    pub(super) fn renamed(&self, from: PathBuf, to: PathBuf) {
        let mut state = lock(&self.state);
        if state.renamed.len() < DIRTY_MAX {
            let first = state.renamed.remove(&from).unwrap_or(from);
            state.renamed.insert(to, first);
        }
    }

    /// What is at these paths now is not what was renamed to them.
    pub(super) fn replaced(&self, paths: &[PathBuf]) {
        let mut state = lock(&self.state);
        paths.iter().for_each(|path| _ = state.renamed.remove(path));
    }

    pub(super) fn wake(&self) {
        lock(&self.state).woken = true;
        self.changed.notify_all();
    }

    /// Waits until changes have settled, something was asked for, or `deadline` has come.
    pub(super) fn wait(&self, deadline: Instant) -> Target {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let settled = match (state.first, state.latest) {
                (Some(first), Some(latest)) => Some((latest + SETTLED).min(first + SETTLED_MAX)),
                _ => None,
            };
            if state.everything || settled.is_some_and(|settled| settled <= now) {
                let DirtyState { everything, paths, renamed, .. } = std::mem::take(&mut *state);
                return if everything { Target::Everything } else { Target::Paths(paths, renamed) };
            }
            if state.woken || deadline <= now {
                state.woken = false;
                return Target::Nothing;
            }
            let until = settled.map_or(deadline, |settled| settled.min(deadline));
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Takes over what a panicking thread left: every change under these locks is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
