//! Walking through the watched folders: which files are new, changed or gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant};

use holdfast_protocol::metadata::StorageError;
use roaring::RoaringBitmap;
use walkdir::{DirEntry, WalkDir};

use super::finish::Step;
use super::flow::{Flow, Scan, Target, ignored_key, lock};
use super::read::Found;
use super::watch::Watch;
use super::{ImportProblem, ScanSummary, Watching};
use crate::library::FileChange;
use crate::store::{ChunkStore, FileStat, Known};

/// How often a missing folder is looked for.
const MISSING_INTERVAL: Duration = Duration::from_secs(5);
/// When to try again after the store failed.
const HALTED_DELAY: Duration = Duration::from_secs(30);
/// Between walks through everything that were caused by a folder that vanished.
const VANISHED_DELAY: Duration = Duration::from_secs(10);
/// Folders that other programs keep their own things in.
const SKIPPED: [&str; 6] =
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db"];

/// What a folder looks like whose disk is not connected.
#[derive(Debug, Clone, Copy)]
enum Missing {
    /// It is not there.
    Gone,
    /// It shows nothing, although photos of it are known.
    Empty,
}

/// The walking thread.
pub(super) struct Walker {
    flow: Arc<Flow>,
    store: Arc<ChunkStore>,
    steps: Sender<Step>,
    found: SyncSender<Found>,
    watch: Option<Watch>,
    /// Watched folders whose disk is not connected, most likely, by index.
    missing: BTreeMap<usize, Missing>,
    next_walk: Instant,
}

impl Walker {
    pub(super) fn new(flow: Arc<Flow>, store: Arc<ChunkStore>, steps: Sender<Step>, found: SyncSender<Found>) -> Self {
        let watch = (flow.config.watching == Watching::Always).then(|| Watch::new(flow.clone()));
        Self { flow, store, steps, found, watch, missing: BTreeMap::new(), next_walk: Instant::now() }
    }

    pub(super) fn run(mut self) {
        let mut target = Target::Everything;
        while !self.flow.is_stopping() {
            self.flow.walking(true);
            match target {
                Target::Everything => self.walk_everything(),
                Target::Paths(paths) => self.walk_paths(paths, 0),
                Target::Nothing => {}
            }
            self.look_again();
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
            if !self.missing.is_empty() {
                deadline = deadline.min(now + MISSING_INTERVAL);
            }
        }
        if let Some(due) = lock(&self.flow.scan).again.iter().map(|(due, ..)| *due).min() {
            deadline = deadline.min(due);
        }
        let target = self.flow.dirty.wait(deadline);
        let back = self.missing.iter().any(|(folder, missing)| {
            let path = &self.flow.config.folders[*folder].path;
            match missing {
                Missing::Gone => path.is_dir(),
                Missing::Empty => !is_empty(path),
            }
        });
        let due = self.watch.is_some() && self.next_walk <= Instant::now();
        if matches!(target, Target::Nothing) && (back || due) { Target::Everything } else { target }
    }

    fn walk_everything(&mut self) {
        self.next_walk = Instant::now() + self.flow.config.rescan_interval;
        self.begin();
        lock(&self.flow.folders).iter_mut().for_each(|folder| folder.new = 0);
        let mut walked = Vec::new();
        let flow = self.flow.clone();
        for (index, folder) in flow.config.folders.iter().enumerate() {
            if !folder.path.is_dir() {
                self.problem(ImportProblem::FolderMissing { folder: folder.path.clone() });
                self.misses(index, Missing::Gone);
                continue;
            }
            self.missing.remove(&index);
            // Watching begins before the walk, so that no change falls between them.
            if let Some(Err(problem)) = self.watch.as_mut().map(|watch| watch.begin(&folder.path)) {
                self.problem(problem);
            }
            self.walk_tree(index, &folder.path, 0);
            walked.push(index);
        }
        self.flow.wait_idle();
        if self.flow.is_halted() {
            return self.halted();
        }
        let seen = std::mem::take(&mut lock(&self.flow.scan).seen);
        for index in walked {
            self.report_gone(index, &seen);
        }
        self.finish();
    }

    /// Walks through what the watcher named: files, new folders, and things that are gone.
    fn walk_paths(&mut self, paths: BTreeSet<PathBuf>, attempt: u32) {
        self.begin();
        let (mut gone, mut walked) = (Vec::new(), None::<PathBuf>);
        // A folder comes before what is in it.
        for path in paths {
            let covered = walked.as_ref().is_some_and(|walked| path.starts_with(walked));
            let Some(folder) = self.flow.folder_of(&path) else { continue };
            let root = &self.flow.config.folders[folder].path;
            let hidden = path.strip_prefix(root).is_ok_and(|inside| inside.iter().any(is_skipped));
            if hidden || self.is_excluded(&path) {
                continue;
            }
            if !root.is_dir() || path == *root && is_empty(root) {
                // Unmounted, perhaps: the walk through everything says so.
                self.next_walk = self.next_walk.min(Instant::now() + VANISHED_DELAY);
                continue;
            }
            match path.symlink_metadata() {
                Ok(_) if covered => {}
                Ok(metadata) if metadata.is_dir() => {
                    self.walk_tree(folder, &path, attempt);
                    walked = Some(path);
                }
                Ok(metadata) if metadata.is_file() => self.look_at(folder, path, FileStat::of(&metadata), attempt),
                Ok(_) => {}
                Err(error) if is_gone(&error) => gone.push(path),
                Err(error) => {
                    self.problem(ImportProblem::FileUnreadable { path, detail: error.to_string() });
                }
            }
        }
        // Names go only after everything new is in: a moved file is never without one.
        self.flow.wait_idle();
        if self.flow.is_halted() {
            return self.halted();
        }
        for path in gone {
            // An emptied folder is more likely an unmounted disk: the walk through everything tells.
            let root = self.flow.folder_of(&path).map(|folder| &self.flow.config.folders[folder].path);
            if root.is_none_or(|root| is_empty(root)) {
                self.next_walk = self.next_walk.min(Instant::now() + VANISHED_DELAY);
                continue;
            }
            match self.store.file(&path) {
                Ok(Some(_)) => self.step(Step::Gone(path)),
                // Perhaps a whole folder: that is found out by comparing everything.
                Ok(None) => self.next_walk = self.next_walk.min(Instant::now() + VANISHED_DELAY),
                Err(error) => self.storage_failed(error),
            }
        }
    }

    /// Looks at files again that were changing when they were read.
    fn look_again(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = lock(&self.flow.scan).again.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, path, attempt) in due {
            self.walk_paths(BTreeSet::from([path]), attempt);
        }
    }

    fn begin(&mut self) {
        self.flow.resume();
        let mut scan = lock(&self.flow.scan);
        *scan = Scan {
            ignored: std::mem::take(&mut scan.ignored),
            again: std::mem::take(&mut scan.again),
            ..Scan::default()
        };
    }

    fn finish(&mut self) {
        let summary = {
            let scan = lock(&self.flow.scan);
            ScanSummary { files: scan.summary.files.saturating_sub(scan.newly_ignored), ..scan.summary }
        };
        self.step(Step::WalkFinished(summary));
    }

    fn halted(&mut self) {
        self.next_walk = Instant::now() + HALTED_DELAY;
    }

    fn walk_tree(&mut self, folder: usize, root: &Path, attempt: u32) {
        let flow = self.flow.clone();
        let entered = |entry: &DirEntry| {
            entry.depth() == 0
                || !(is_skipped(entry.file_name())
                    || entry.file_type().is_dir() && flow.config.excluded.iter().any(|path| path == entry.path()))
        };
        let mut seen = RoaringBitmap::new();
        let mut summary = ScanSummary::default();
        for entry in WalkDir::new(root).into_iter().filter_entry(entered) {
            if self.flow.is_halted() {
                return;
            }
            match entry {
                Ok(entry) if entry.file_type().is_file() => match entry.metadata() {
                    Ok(metadata) => {
                        let stat = FileStat::of(&metadata);
                        if self.changed(entry.path(), &stat, &mut seen, &mut summary) {
                            self.hand_over(folder, entry.into_path(), &stat, attempt);
                        }
                    }
                    Err(error) => self.walk_problem(&error),
                },
                Ok(_) => {}
                Err(error) => self.walk_problem(&error),
            }
        }
        {
            let of_folder = &mut lock(&self.flow.folders)[folder];
            of_folder.files |= &seen;
            of_folder.new += summary.files - summary.unchanged;
        }
        let mut scan = lock(&self.flow.scan);
        scan.seen |= seen;
        scan.summary.files += summary.files;
        scan.summary.unchanged += summary.unchanged;
        scan.summary.ignored += summary.ignored;
    }

    fn look_at(&mut self, folder: usize, path: PathBuf, stat: FileStat, attempt: u32) {
        let (mut seen, mut summary) = (RoaringBitmap::new(), ScanSummary::default());
        if self.changed(&path, &stat, &mut seen, &mut summary) {
            self.hand_over(folder, path, &stat, attempt);
        }
    }

    /// Whether the file has to be read.
    fn changed(&self, path: &Path, stat: &FileStat, seen: &mut RoaringBitmap, summary: &mut ScanSummary) -> bool {
        let known = self.store.look_up(path, stat);
        let pending = |wanted: fn(&FileChange) -> bool| {
            let unacknowledged = lock(&self.flow.unacknowledged);
            !unacknowledged.is_empty() && unacknowledged.latest(path).is_some_and(wanted)
        };
        match known {
            Known::No => {
                let scan = lock(&self.flow.scan);
                if !scan.ignored.is_empty() && scan.ignored.contains(&ignored_key(path, stat)) {
                    summary.ignored += 1;
                    return false;
                }
                summary.files += 1;
                true
            }
            Known::Changed(number) => {
                seen.insert(number.get());
                summary.files += 1;
                true
            }
            Known::Unfinished(number) => {
                seen.insert(number.get());
                summary.files += 1;
                !pending(|change| matches!(change, FileChange::Imported(_)))
            }
            Known::Unchanged(number) => {
                seen.insert(number.get());
                summary.files += 1;
                summary.unchanged += 1;
                // Its name is just being removed, and now it is back.
                pending(|change| matches!(change, FileChange::Removed(_)))
            }
        }
    }

    fn hand_over(&mut self, folder: usize, path: PathBuf, stat: &FileStat, attempt: u32) {
        self.flow.begin(stat.size);
        // Fails only when ingest ends.
        _ = self.found.send(Found { path, folder, size: stat.size, attempt });
    }

    /// A folder is most likely not connected: looks for it often, and watches anew what will be in its place.
    fn misses(&mut self, folder: usize, missing: Missing) {
        self.missing.insert(folder, missing);
        if let Some(watch) = &mut self.watch {
            watch.end(&self.flow.config.folders[folder].path);
        }
    }

    /// Reports the known files of a watched folder that the walk did not see, if they are really gone.
    fn report_gone(&mut self, folder: usize, seen: &RoaringBitmap) {
        let flow = self.flow.clone();
        let root = &flow.config.folders[folder].path;
        let unseen = match self.store.unseen(root, seen) {
            Ok(unseen) => unseen,
            Err(error) => return self.storage_failed(error),
        };
        if unseen.is_empty() {
            return;
        }
        if is_empty(root) {
            self.problem(ImportProblem::FolderEmptied { folder: root.to_owned(), photos: unseen.len() });
            return self.misses(folder, Missing::Empty);
        }
        for path in unseen {
            if matches!(path.symlink_metadata(), Err(error) if is_gone(&error)) {
                self.step(Step::Gone(path));
            }
        }
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.flow.config.excluded.iter().any(|excluded| path.starts_with(excluded))
    }

    fn walk_problem(&mut self, error: &walkdir::Error) {
        let Some(system) = error.io_error() else { return };
        // What vanished during the walk is no problem.
        if !is_gone(system) {
            let path = error.path().unwrap_or(Path::new("")).to_owned();
            self.problem(ImportProblem::FolderUnreadable { path, detail: system.to_string() });
        }
    }

    fn storage_failed(&self, error: StorageError) {
        if self.flow.halt() {
            self.problem(ImportProblem::Storage(error));
        }
    }

    fn problem(&self, problem: ImportProblem) {
        self.step(Step::Problem(problem));
    }

    fn step(&self, step: Step) {
        // Fails only when ingest ends.
        _ = self.steps.send(step);
    }
}

fn is_skipped(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || SKIPPED.iter().any(|skipped| name == *skipped)
}

/// Whether a folder shows nothing: it is empty, or not there any more.
fn is_empty(root: &Path) -> bool {
    fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
