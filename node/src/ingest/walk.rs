//! The walking thread: waits for something to do, and goes through everything, one folder, or what the watcher named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant};

use holdfast_protocol::metadata::StorageError;
use holdfast_store::ChunkStore;

use super::absence::{Since, is_folder};
use super::depart::Leaving;
use super::finish::Step;
use super::flow::{Flow, Scan, Target, lock};
use super::read::Found;
use super::settle::Look;
use super::skip::Skipped;
use super::watch::Watch;
use super::{ImportEvent, ImportProblem, ScanSummary, Watching, skip};

/// How often a missing folder is looked for.
const MISSING_INTERVAL: Duration = Duration::from_secs(5);
/// Between walks that are caused by something that is back.
const RETURN_INTERVAL: Duration = Duration::from_secs(30);
/// When to try again after the store failed.
pub(super) const HALTED_DELAY: Duration = Duration::from_secs(30);
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

/// The walking thread.
pub(super) struct Walker {
    pub(super) flow: Arc<Flow>,
    pub(super) store: Arc<ChunkStore>,
    pub(super) steps: Sender<Step>,
    pub(super) found: SyncSender<Found>,
    pub(super) watch: Option<Watch>,
    /// Watched folders whose disk is not connected, most likely, by index.
    pub(super) missing: BTreeMap<usize, Missing>,
    /// Folders inside them that are missed.
    pub(super) missed: BTreeMap<PathBuf, Since>,
    /// Folders that are left and whose files are still known.
    pub(super) leaving: Vec<Leaving>,
    /// Watched folders that another one was moved to, most likely, by index: the library was just told so.
    moved: BTreeSet<usize>,
    /// Watched folders whose changes the system may not hear of, by index.
    pub(super) polled: BTreeSet<usize>,
    /// Folders whose watching failed in this walk: it is said once.
    pub(super) unwatched: BTreeSet<usize>,
    next_walk: Instant,
    next_poll: Instant,
    /// Nothing that is back is a reason for a walk before this.
    next_return: Instant,
}

impl Walker {
    pub(super) fn new(flow: Arc<Flow>, store: Arc<ChunkStore>, steps: Sender<Step>, found: SyncSender<Found>) -> Self {
        let watch = (flow.config.watching == Watching::Always).then(|| Watch::new(flow.clone()));
        let (watched, now) = (flow.config.folders.len(), Instant::now());
        let leaving = (0..flow.config.leaving.len()).map(|index| Leaving::new(watched + index, now)).collect();
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
            unwatched: BTreeSet::new(),
            next_walk: now,
            next_poll: now,
            next_return: now,
        }
    }

    pub(super) fn run(mut self) {
        self.move_files();
        self.recall_missed();
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
        // Also when changes never cease.
        if self.is_walk_due(now) {
            return Target::Everything;
        }
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
        let leaving = self.leaving.iter().map(|leaving| leaving.due);
        let settling = self.flow.settling().deadline();
        deadline = leaving.chain(settling).fold(deadline, Instant::min);
        let target = self.flow.dirty.wait(deadline);
        let now = Instant::now();
        match target {
            Target::Nothing if self.is_walk_due(now) => Target::Everything,
            Target::Nothing if self.next_return <= now && self.is_back() => {
                self.next_return = now + RETURN_INTERVAL;
                Target::Everything
            }
            target => target,
        }
    }

    fn is_walk_due(&self, now: Instant) -> bool {
        self.watch.is_some() && self.next_walk <= now
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
        // Of a folder that another disk lies in the place of, the periodic walk tells.
        roots || self.missed.iter().any(|(path, since)| !since.is_there && is_folder(path) && !is_empty(path))
    }

    fn walk_everything(&mut self) {
        self.next_walk = Instant::now() + self.flow.config.rescan_interval;
        self.begin();
        let begun = Instant::now();
        self.flow.look_at_volumes();
        self.take_forgotten();
        if let Some(watch) = &mut self.watch {
            watch.end_gone();
        }
        self.unwatched.clear();
        self.polled.clear();
        let (mut walked, moved) = (Vec::new(), std::mem::take(&mut self.moved));
        let flow = self.flow.clone();
        for (index, folder) in flow.config.folders.iter().enumerate() {
            lock(&flow.folders)[index].new = 0;
            if moved.contains(&index) {
                continue;
            }
            if !folder.path.is_dir() {
                self.problem(ImportProblem::FolderMissing { folder: folder.path.clone() });
                self.misses(index, Missing::Gone);
                continue;
            }
            self.missing.remove(&index);
            {
                let folder = &mut lock(&flow.folders)[index];
                (folder.is_missing, folder.skipped) = (false, Skipped::default());
            }
            self.walk_tree(index, &folder.path);
            walked.push(index);
        }
        self.flow.wait_idle();
        self.next_poll = next_poll(begun);
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
                lock(&self.flow.folders)[index].skipped = Skipped::default();
                self.walk_tree(index, &folder);
            }
        }
        self.flow.wait_idle();
        self.next_poll = next_poll(begun);
        if self.flow.is_halted() {
            self.halted();
        }
    }

    /// Walks through what the watcher named: files, new folders, and things that are gone.
    fn walk_paths(&mut self, paths: BTreeSet<PathBuf>, renamed: &BTreeMap<PathBuf, PathBuf>) {
        self.begin();
        let (mut gone, mut covered) = (Vec::new(), None::<PathBuf>);
        // Before what they are called now is watched: the system would take the one for the other.
        let mut folders: BTreeSet<&Path> = BTreeSet::new();
        if let Some(watch) = &mut self.watch {
            folders.extend(renamed.values().map(PathBuf::as_path).filter(|before| watch.end(before)));
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
                    let renamed_from = renamed.get(&path).cloned();
                    self.look_at(folder, Look { renamed_from, ..Look::at(path) }, &metadata);
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
        let awaited = self.flow.settling().renamed();
        for (folder, path) in gone {
            lock(&self.flow.folders)[folder].skipped.remove(&path);
            self.flow.settling().forget(&path);
            // Half a file that is being completed under another name is replaced by the whole one.
            if !awaited.contains(&path) {
                let was_folder = folders.contains(&*path);
                self.path_gone(folder, path, was_folder);
            }
        }
    }

    /// The watched folder that `path` is taken in from, if it is.
    fn taken_in(&mut self, path: &Path) -> Option<usize> {
        let is_watched = |folder: &usize| *folder < self.flow.config.folders.len();
        let folder = self.flow.folder_of(path).filter(is_watched)?;
        let root = &self.flow.config.folders[folder].path;
        let is_hidden =
            path.strip_prefix(root).is_ok_and(|inside| inside.iter().any(|part| skip::by_name(part).is_some()));
        if is_hidden || self.is_excluded(path) {
            return None;
        }
        if !root.is_dir() || path == *root && is_empty(root) {
            // Unmounted, perhaps: the walk through everything says so.
            lock(&self.flow.folders)[folder].is_missing = true;
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
        let renamed: Vec<PathBuf> = due.iter().filter_map(|look| look.renamed_from.clone()).collect();
        for look in due {
            let Some(folder) = self.taken_in(&look.path) else { continue };
            match look.path.symlink_metadata() {
                Ok(metadata) if metadata.is_file() => self.look_at(folder, look, &metadata),
                // What is gone the watcher names, or the next walk.
                Ok(_) | Err(_) => {}
            }
        }
        self.flow.wait_idle();
        if self.flow.is_halted() {
            return self.halted();
        }
        if !renamed.is_empty() {
            self.flow.dirty.add(renamed);
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
        let then = Instant::now() + HALTED_DELAY;
        (self.next_walk, self.next_return) = (then, then);
    }

    /// Walks through everything soon: what vanished is found out about by comparing everything.
    pub(super) fn walk_soon(&mut self) {
        self.next_walk = self.next_walk.min(Instant::now() + VANISHED_DELAY);
    }

    /// A folder is most likely not connected: looks for it often, and watches anew what will be in its place.
    pub(super) fn misses(&mut self, folder: usize, missing: Missing) {
        self.missing.insert(folder, missing);
        lock(&self.flow.folders)[folder].is_missing = true;
        if let Some(watch) = &mut self.watch {
            _ = watch.end(&self.flow.config.folders[folder].path);
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

    /// The name of a known file goes.
    pub(super) fn gone(&self, path: PathBuf) {
        self.flow.departing.fetch_add(1, Ordering::AcqRel);
        self.step(Step::Gone(path));
    }

    pub(super) fn problem(&self, problem: ImportProblem) {
        self.step(Step::problem(problem));
    }

    pub(super) fn step(&self, step: Step) {
        // Fails only when ingest ends.
        _ = self.steps.send(step);
    }
}

/// When folders are walked through again whose changes the system does not hear of, after a walk that began then.
fn next_poll(begun: Instant) -> Instant {
    Instant::now() + POLL_INTERVAL.max(begun.elapsed() * POLL_PAUSE)
}

/// Whether a folder shows nothing: it is empty, or not there any more.
pub(super) fn is_empty(root: &Path) -> bool {
    fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none())
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
