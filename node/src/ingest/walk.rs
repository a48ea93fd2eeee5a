//! The walking thread: waits for something to do, and goes through everything, one folder, or what the watcher named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant};

use holdfast_protocol::metadata::StorageError;
use holdfast_store::{ChunkStore, FileStat};

use super::finish::Step;
use super::flow::{Flow, Scan, Target, lock};
use super::read::Found;
use super::settle::Look;
use super::skip::Skipped;
use super::watch::Watch;
use super::{ImportEvent, ImportProblem, ScanSummary, Watching, skip};

/// How often a missing folder is looked for.
const MISSING_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is looked whether all of a folder that is left has been let go.
const LEAVING_INTERVAL: Duration = Duration::from_secs(2);
/// When to try again after the store failed.
const HALTED_DELAY: Duration = Duration::from_secs(30);
/// Between walks through everything that were caused by a folder that vanished.
const VANISHED_DELAY: Duration = Duration::from_secs(10);
/// Between walks through folders whose changes the system does not hear of, and how much longer than a walk it is at least.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
const POLL_PAUSE: u32 = 10;

/// What a folder looks like whose disk is not connected.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing {
    /// It is not there.
    Gone,
    /// It shows nothing, although photos of it are known.
    Empty,
}

/// How far a folder is that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// What is held in its files is not in the store yet.
    Held,
    /// It is, and the library is to forget the files.
    Copied,
}

/// The walking thread.
pub(super) struct Walker {
    pub(super) flow: Arc<Flow>,
    pub(super) store: Arc<ChunkStore>,
    pub(super) steps: Sender<Step>,
    pub(super) found: SyncSender<Found>,
    pub(super) watch: Option<Watch>,
    /// Watched folders whose disk is not connected, most likely, by index.
    pub(super) missing: BTreeMap<usize, Missing>,
    /// Folders inside them that are missed, since when.
    pub(super) missed: BTreeMap<PathBuf, Duration>,
    /// Folders of [`super::IngestConfig::leaving`] whose files are still known, by index.
    pub(super) leaving: BTreeMap<usize, Leaving>,
    /// Watched folders that another one was moved to, by index: what is in them is known, and the library is being told how.
    pub(super) moved: BTreeSet<usize>,
    /// Watched folders whose changes the system may not hear of, by index.
    pub(super) polled: BTreeSet<usize>,
    /// Folders that the walk came through.
    pub(super) walked: BTreeSet<PathBuf>,
    /// Folders whose watching failed in this walk: it is said once.
    pub(super) unwatched: BTreeSet<usize>,
    next_walk: Instant,
    next_poll: Instant,
}

impl Walker {
    pub(super) fn new(flow: Arc<Flow>, store: Arc<ChunkStore>, steps: Sender<Step>, found: SyncSender<Found>) -> Self {
        let watch = (flow.config.watching == Watching::Always).then(|| Watch::new(flow.clone()));
        let leaving = (0..flow.config.leaving.len()).map(|index| (index, Leaving::Held)).collect();
        Self {
            flow,
            store,
            steps,
            found,
            watch,
            missing: BTreeMap::new(),
            missed: BTreeMap::new(),
            leaving,
            moved: BTreeSet::new(),
            polled: BTreeSet::new(),
            walked: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            next_walk: Instant::now(),
            next_poll: Instant::now(),
        }
    }

    pub(super) fn run(mut self) {
        match self.store.missed() {
            Ok(missed) => {
                let is_watched =
                    |path: &PathBuf| self.flow.config.folders.iter().any(|root| path.starts_with(&root.path));
                self.missed = missed.into_iter().filter(|(path, _)| is_watched(path)).collect();
            }
            Err(error) => self.storage_failed(error),
        }
        self.moved = self.tell_moved();
        let mut target = Target::Everything;
        while !self.flow.is_stopping() {
            self.flow.walking(true);
            match target {
                Target::Everything => self.walk_everything(),
                Target::Paths(paths, renamed) => self.walk_paths(paths, &renamed),
                Target::Nothing => {}
            }
            self.poll();
            self.look_again();
            self.leave();
            self.flow.walking(false);
            target = self.wait();
        }
    }

    /// Waits for something to do.
    fn wait(&mut self) -> Target {
        let now = Instant::now();
        let mut deadline = now + Duration::from_secs(3600);
        if self.watch.is_some() {
            deadline = deadline.min(self.next_walk);
            if !self.missing.is_empty() || !self.missed.is_empty() {
                deadline = deadline.min(now + MISSING_INTERVAL);
            }
            if !self.polled.is_empty() {
                deadline = deadline.min(self.next_poll);
            }
        }
        if !self.leaving.is_empty() {
            deadline = deadline.min(now + LEAVING_INTERVAL);
        }
        if let Some(due) = self.flow.settling().deadline() {
            deadline = deadline.min(due);
        }
        let target = self.flow.dirty.wait(deadline);
        let due = self.watch.is_some() && self.next_walk <= Instant::now();
        if matches!(target, Target::Nothing) && (due || self.is_back()) { Target::Everything } else { target }
    }

    /// Whether something that was missing is there again.
    fn is_back(&self) -> bool {
        let roots = self.missing.iter().any(|(folder, missing)| {
            let path = &self.flow.config.folders[*folder].path;
            match missing {
                Missing::Gone => path.is_dir(),
                Missing::Empty => !is_empty(path),
            }
        });
        // A folder that another disk lies in the place of is there all the while: the periodic walk tells.
        roots || self.missed.keys().any(|folder| !self.walked.contains(folder) && !is_empty(folder))
    }

    fn walk_everything(&mut self) {
        self.next_walk = Instant::now() + self.flow.config.rescan_interval;
        self.begin();
        for missed in self.flow.take_forgotten() {
            self.missed.entry(missed).and_modify(|since| *since = Duration::ZERO);
        }
        if let Some(watch) = &mut self.watch {
            watch.end_gone();
        }
        self.walked.clear();
        self.unwatched.clear();
        self.polled.clear();
        let mut walked = Vec::new();
        let flow = self.flow.clone();
        for (index, folder) in flow.config.folders.iter().enumerate() {
            lock(&flow.folders)[index].new = 0;
            if self.moved.contains(&index) {
                continue;
            }
            if !folder.path.is_dir() {
                self.problem(ImportProblem::FolderMissing { folder: folder.path.clone() });
                self.misses(index, Missing::Gone);
                continue;
            }
            self.missing.remove(&index);
            lock(&flow.folders)[index].skipped = Skipped::default();
            self.walk_tree(index, &folder.path);
            walked.push(index);
        }
        self.flow.wait_idle();
        if self.flow.is_halted() {
            return self.halted();
        }
        let seen = std::mem::take(&mut lock(&self.flow.scan).seen);
        for index in walked {
            self.report_gone(index, &seen);
            self.tell_skipped(index);
        }
        self.remember_missed();
        self.finish();
    }

    /// Walks through the folders whose changes the system does not hear of.
    fn poll(&mut self) {
        if self.watch.is_none() || self.polled.is_empty() || Instant::now() < self.next_poll {
            return;
        }
        let begun = Instant::now();
        self.begin();
        for index in self.polled.clone() {
            let folder = self.flow.config.folders[index].path.clone();
            if folder.is_dir() {
                self.walk_tree(index, &folder);
            }
        }
        self.flow.wait_idle();
        self.next_poll = Instant::now() + POLL_INTERVAL.max(begun.elapsed() * POLL_PAUSE);
    }

    /// Walks through what the watcher named: files, new folders, and things that are gone.
    fn walk_paths(&mut self, paths: BTreeSet<PathBuf>, renamed: &BTreeMap<PathBuf, PathBuf>) {
        self.begin();
        let (mut gone, mut covered) = (Vec::new(), None::<PathBuf>);
        if let Some(watch) = &mut self.watch {
            // Before what they are called now is watched: the system would take the one for the other.
            renamed.values().for_each(|before| watch.end(before));
        }
        // A folder comes before what is in it.
        for path in paths {
            if covered.as_ref().is_some_and(|covered| path.starts_with(covered)) && path.exists() {
                continue;
            }
            let Some(folder) = self.taken_in(&path) else { continue };
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    self.walk_tree(folder, &path);
                    covered = Some(path);
                }
                Ok(metadata) if metadata.is_file() => {
                    let look = Look { seen: None, attempt: 0, path };
                    let before = renamed.get(&look.path).cloned();
                    self.look_at(folder, look, FileStat::of(&metadata), before);
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => gone.push((folder, path)),
                Err(error) => self.problem(ImportProblem::FileUnreadable { path, detail: error.to_string() }),
            }
        }
        // Names go only after everything new is in: a moved file is never without one.
        self.flow.wait_idle();
        if self.flow.is_halted() {
            return self.halted();
        }
        for (folder, path) in gone {
            lock(&self.flow.folders)[folder].skipped.remove(&path);
            self.path_gone(folder, path);
        }
    }

    /// The watched folder that `path` is taken in from, if it is.
    fn taken_in(&mut self, path: &Path) -> Option<usize> {
        let is_watched = |folder: &usize| *folder < self.flow.config.folders.len() && !self.moved.contains(folder);
        let folder = self.flow.folder_of(path).filter(is_watched)?;
        let root = &self.flow.config.folders[folder].path;
        let is_hidden =
            path.strip_prefix(root).is_ok_and(|inside| inside.iter().any(|part| skip::by_name(part).is_some()));
        if is_hidden || self.is_excluded(path) {
            return None;
        }
        if !root.is_dir() || path == *root && is_empty(root) {
            // Unmounted, perhaps: the walk through everything says so.
            self.walk_soon();
            return None;
        }
        Some(folder)
    }

    /// Looks at files again that were being written, or changed while they were read.
    fn look_again(&mut self) {
        let due = self.flow.settling().take_due(Instant::now());
        if due.is_empty() {
            return;
        }
        self.begin();
        for look in due {
            let Some(folder) = self.taken_in(&look.path) else { continue };
            match look.path.symlink_metadata() {
                Ok(metadata) if metadata.is_file() => self.look_at(folder, look, FileStat::of(&metadata), None),
                // What is gone the watcher names, or the next walk.
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn begin(&mut self) {
        self.flow.resume();
        let mut scan = lock(&self.flow.scan);
        *scan = Scan { ignored: std::mem::take(&mut scan.ignored), ..Scan::default() };
    }

    fn finish(&mut self) {
        let summary = {
            let scan = lock(&self.flow.scan);
            ScanSummary { files: scan.summary.files.saturating_sub(scan.newly_ignored), ..scan.summary }
        };
        self.step(Step::Tell(ImportEvent::ScanFinished(summary)));
    }

    fn halted(&mut self) {
        self.next_walk = Instant::now() + HALTED_DELAY;
    }

    /// Walks through everything soon: what vanished is found out about by comparing everything.
    pub(super) fn walk_soon(&mut self) {
        self.next_walk = self.next_walk.min(Instant::now() + VANISHED_DELAY);
    }

    /// A folder is most likely not connected: looks for it often, and watches anew what will be in its place.
    pub(super) fn misses(&mut self, folder: usize, missing: Missing) {
        self.missing.insert(folder, missing);
        if let Some(watch) = &mut self.watch {
            watch.end(&self.flow.config.folders[folder].path);
        }
    }

    pub(super) fn is_excluded(&self, path: &Path) -> bool {
        self.flow.config.excluded.iter().any(|excluded| path.starts_with(excluded))
    }

    pub(super) fn storage_failed(&self, error: StorageError) {
        if self.flow.halt() {
            self.problem(ImportProblem::Storage(error));
        }
    }

    pub(super) fn problem(&self, problem: ImportProblem) {
        self.step(Step::problem(problem));
    }

    pub(super) fn step(&self, step: Step) {
        // Fails only when ingest ends.
        _ = self.steps.send(step);
    }
}

/// Whether a folder shows nothing: it is empty, or not there any more.
pub(super) fn is_empty(root: &Path) -> bool {
    fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none())
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
