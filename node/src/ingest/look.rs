//! Looking at what lies in a folder: which files are new or changed, which may still be being written, what is passed over.

use std::fs::Metadata;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_library::FileChange;
use holdfast_store::{FileStat, Known};
use roaring::RoaringBitmap;
use walkdir::{DirEntry, WalkDir};

use super::file_system;
use super::flow::{ignored_key, lock};
use super::read::{Found, age};
use super::settle::Look;
use super::skip::{self, SkipReason};
use super::walk::{Walker, is_gone};
use super::{ImportProblem, ScanSummary};

/// A file system's clock may be ahead of this one's by so much; what is further in the future says nothing.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What was seen on the way.
#[derive(Default)]
struct Tally {
    /// The store's numbers of the files that are there.
    seen: RoaringBitmap,
    summary: ScanSummary,
}

impl Walker {
    pub(super) fn walk_tree(&mut self, folder: usize, root: &Path) {
        let flow = self.flow.clone();
        let entered = |entry: &DirEntry| {
            let reason = match entry.depth() {
                0 => None,
                _ if entry.file_type().is_dir() && flow.config.excluded.iter().any(|path| path == entry.path()) => {
                    Some(SkipReason::Own)
                }
                // Another watched folder, or one that is left: its files have one name, of its own.
                _ if flow.is_root(entry.path()) => return false,
                _ => skip::by_name(entry.file_name()),
            };
            reason.inspect(|reason| flow.skip(folder, entry.path(), *reason)).is_none()
        };
        let mut tally = Tally::default();
        for entry in WalkDir::new(root).into_iter().filter_entry(entered) {
            if flow.is_halted() {
                return;
            }
            match entry {
                Ok(entry) if entry.file_type().is_dir() => self.enter(folder, entry.path()),
                Ok(entry) if entry.file_type().is_file() => match entry.metadata() {
                    Ok(metadata) => {
                        let look = Look::at(entry.into_path());
                        self.look(folder, look, &FileStat::of(&metadata), &mut tally);
                    }
                    Err(error) => self.walk_problem(folder, &error),
                },
                Ok(entry) if entry.file_type().is_symlink() => {
                    flow.skip(folder, entry.path(), self.link(entry.path()));
                }
                Ok(entry) => flow.skip(folder, entry.path(), SkipReason::Special),
                Err(error) => self.walk_problem(folder, &error),
            }
        }
        self.count(folder, tally);
    }

    pub(super) fn look_at(&mut self, folder: usize, look: Look, metadata: &Metadata) {
        self.look(folder, look, &FileStat::of(metadata), &mut Tally::default());
    }

    /// A folder comes up: what will change in it is noticed from now on, before it is listed.
    fn enter(&mut self, folder: usize, path: &Path) {
        let Some(watch) = &mut self.watch else { return };
        if let Err(detail) = watch.begin(path)
            && self.unwatched.insert(folder)
        {
            let interval_minutes = (self.flow.config.rescan_interval.as_secs() / 60).max(1);
            self.problem(ImportProblem::NotWatched { folder: path.to_owned(), interval_minutes, detail });
        }
        if !self.polled.contains(&folder) && file_system::is_remote(path) {
            self.polled.insert(folder);
        }
    }

    /// Hands a file to the readers if it is new or changed, and finished.
    fn look(&mut self, folder: usize, look: Look, stat: &FileStat, tally: &mut Tally) {
        if !self.is_changed(&look.path, stat, tally) {
            return;
        }
        let settled = look.seen == Some(*stat);
        let writing = self.flow.writing.is_open(&look.path);
        if writing || !settled && look.attempt == 0 && self.is_fresh(stat) {
            self.flow.settling().wait_for(Instant::now(), look, *stat);
            return;
        }
        self.flow.begin(stat.size);
        // Fails only when ingest ends.
        _ = self.found.send(Found { look, folder, size: stat.size });
    }

    /// Whether a file was modified so lately that it may not be finished. A time in the future is another clock's.
    fn is_fresh(&self, stat: &FileStat) -> bool {
        let quiet = self.flow.config.quiet;
        let ahead =
            || age(&FileStat { mtime_ns: stat.mtime_ns.saturating_sub(CLOCK_AHEAD_MAX.as_nanos() as i64), ..*stat });
        !quiet.is_zero() && age(stat).map_or_else(|| ahead().is_some(), |age| age < quiet)
    }

    /// Whether a file is to be read. Costs no read itself.
    fn is_changed(&self, path: &Path, stat: &FileStat, tally: &mut Tally) -> bool {
        match self.store.look_up(path, stat) {
            Known::No => {
                let ignored = {
                    let scan = lock(&self.flow.scan);
                    let key = (!scan.ignored.is_empty()).then(|| ignored_key(path, stat));
                    key.and_then(|key| scan.ignored.get(&key).copied())
                };
                if let Some(reason) = ignored {
                    tally.summary.ignored += 1;
                    let folder = self.flow.folder_of(path);
                    folder.into_iter().for_each(|folder| self.flow.skip(folder, path, reason));
                    return false;
                }
                tally.summary.files += 1;
                true
            }
            Known::Changed(number) => {
                tally.seen.insert(number.get());
                tally.summary.files += 1;
                true
            }
            Known::Unfinished(number) => {
                tally.seen.insert(number.get());
                tally.summary.files += 1;
                // Unless the library has it already and only has not said so.
                !matches!(lock(&self.flow.unacknowledged).latest(path), Some(FileChange::Imported(_)))
            }
            Known::Unchanged(number) => {
                tally.seen.insert(number.get());
                tally.summary.files += 1;
                tally.summary.unchanged += 1;
                false
            }
        }
    }

    fn count(&self, folder: usize, tally: Tally) {
        lock(&self.flow.folders)[folder].files |= &tally.seen;
        let mut scan = lock(&self.flow.scan);
        scan.seen |= tally.seen;
        scan.summary.files += tally.summary.files;
        scan.summary.unchanged += tally.summary.unchanged;
        scan.summary.ignored += tally.summary.ignored;
    }

    /// Links are not followed: what they lead to is taken in itself when it lies in a watched folder.
    fn link(&self, path: &Path) -> SkipReason {
        let Ok(target) = path.canonicalize() else { return SkipReason::Link };
        let is_taken_in = |root: &Path| {
            let inside = target.strip_prefix(root);
            inside.is_ok_and(|inside| inside.iter().all(|part| skip::by_name(part).is_none()))
        };
        let folders = &self.flow.config.folders;
        let is_inside = !self.is_excluded(&target) && folders.iter().any(|folder| is_taken_in(&folder.path));
        if is_inside { SkipReason::LinkInside } else { SkipReason::Link }
    }

    fn walk_problem(&mut self, folder: usize, error: &walkdir::Error) {
        let Some(system) = error.io_error() else { return };
        // What vanished during the walk is no problem.
        if !is_gone(system) {
            let path = error.path().unwrap_or(Path::new("")).to_owned();
            self.flow.skip(folder, &path, SkipReason::Unreadable);
            self.problem(ImportProblem::FolderUnreadable { path, detail: system.to_string() });
        }
    }

    /// Says of a folder what somebody may believe to be in the library, and is not.
    pub(super) fn tell_skipped(&self, index: usize) {
        let skipped = self.flow.skipped(index);
        let (folder, counts) = (self.flow.config.folders[index].path.clone(), skipped.counts());
        let of = |wanted: fn(SkipReason) -> bool| {
            let mut paths = skipped.named().filter(|(_, reason)| wanted(*reason)).map(|(path, _)| path);
            let counted = counts.iter().filter(|(reason, _)| wanted(**reason)).map(|(_, count)| count).sum();
            paths.next().map(|example| (counted, example.to_owned()))
        };
        if let Some((links, example)) = of(|reason| reason == SkipReason::Link) {
            self.problem(ImportProblem::LinksNotFollowed { folder: folder.clone(), links, example });
        }
        if let Some((files, example)) = of(|reason| matches!(reason, SkipReason::Empty | SkipReason::NoPicture)) {
            self.problem(ImportProblem::NoPictures { folder, files, example });
        }
    }
}
