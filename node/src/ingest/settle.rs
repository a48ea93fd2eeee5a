//! Files that may still be being written: they are looked at until two looks agree, and taken in together.
//!
//! Invariants:
//! - A file that was modified lately is handed on only when two looks, at least the quiet time apart, saw the same state.
//! - Files of one copy are handed on together: once none has changed for the quiet time, or the first has waited for
//!   [`GATHERED_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_store::FileStat;

/// How long a finished file waits for others of its copy.
const GATHERED_MAX: Duration = Duration::from_secs(10);
/// Doublings of the quiet time until a file that changes while it is read is looked at again.
const DOUBLINGS_MAX: u32 = 8;

/// A look at a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) path: PathBuf,
    /// What the file was called a moment ago.
    pub(super) renamed_from: Option<PathBuf>,
    /// The state that a look saw the quiet time ago; if it is still the same, the file is finished.
    pub(super) seen: Option<FileStat>,
    /// How often it was found changing while it was read.
    pub(super) attempt: u32,
}

impl Look {
    /// The first look at a file.
    pub(super) const fn at(path: PathBuf) -> Self {
        Self { path, renamed_from: None, seen: None, attempt: 0 }
    }
}

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Settling {
    quiet: Duration,
    fresh: BTreeMap<PathBuf, Fresh>,
    /// When the first of them was found, and when one was seen changing last.
    gathered: Option<(Instant, Instant)>,
    again: Vec<(Instant, Look)>,
}

/// What was seen last of a file that was modified lately.
#[derive(Debug)]
struct Fresh {
    stat: FileStat,
    /// Since when it is so.
    since: Instant,
    renamed_from: Option<PathBuf>,
}

impl Settling {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, fresh: BTreeMap::new(), gathered: None, again: Vec::new() }
    }

    /// A file was modified lately: it is looked at again once it and those that came with it have been left alone.
    pub(super) fn wait_for(&mut self, now: Instant, look: Look, stat: FileStat) {
        let known = self.fresh.get_mut(&look.path);
        let is_known = known.as_ref().is_some_and(|known| known.stat == stat);
        let before = look.renamed_from.or_else(|| known?.renamed_from.take());
        if is_known && let Some(known) = self.fresh.get_mut(&look.path) {
            known.renamed_from = before;
            return;
        }
        self.fresh.insert(look.path, Fresh { stat, since: now, renamed_from: before });
        let first = self.gathered.map_or(now, |(first, _)| first);
        self.gathered = Some((first, now));
    }

    /// A file changed while it was read: it is looked at again after a while, longer each time.
    pub(super) fn again(&mut self, now: Instant, look: Look) {
        let delay = self.quiet.max(Duration::from_millis(100)) * 2u32.saturating_pow(look.attempt.min(DOUBLINGS_MAX));
        self.after(now + delay, Look { attempt: look.attempt + 1, ..look });
    }

    /// A file is looked at again then.
    pub(super) fn after(&mut self, due: Instant, look: Look) {
        self.again.retain(|(_, known)| known.path != look.path);
        self.again.push((due, Look { seen: None, ..look }));
    }

    /// A file is not there any more.
    pub(super) fn forget(&mut self, path: &Path) {
        self.fresh.remove(path);
        self.again.retain(|(_, look)| look.path != path);
    }

    /// What files were called that are still to be looked at.
    pub(super) fn renamed(&self) -> BTreeSet<PathBuf> {
        let fresh = self.fresh.values().filter_map(|fresh| fresh.renamed_from.clone());
        fresh.chain(self.again.iter().filter_map(|(_, look)| look.renamed_from.clone())).collect()
    }

    /// When the next look is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let gathered = self.gathered.map(|gathered| self.gathered_until(gathered));
        self.again.iter().map(|(due, _)| *due).chain(gathered).min()
    }

    /// The files to look at now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Look> {
        let mut due: Vec<Look> = self.again.extract_if(.., |(due, _)| *due <= now).map(|(_, look)| look).collect();
        if self.gathered.is_some_and(|gathered| self.gathered_until(gathered) <= now) {
            let quiet = self.quiet;
            let settled = self.fresh.extract_if(.., |_, fresh| now >= fresh.since + quiet);
            due.extend(settled.map(|(path, Fresh { stat, renamed_from, .. })| Look {
                renamed_from,
                seen: Some(stat),
                ..Look::at(path)
            }));
            // Those that changed a moment ago are the first of the next gathering.
            let changed = self.fresh.values().map(|fresh| fresh.since);
            self.gathered = changed.clone().min().zip(changed.max());
        }
        due
    }

    fn gathered_until(&self, (first, changed): (Instant, Instant)) -> Instant {
        (changed + self.quiet).min(first + GATHERED_MAX.max(self.quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    fn stat(size: u64) -> FileStat {
        FileStat { size, ..FileStat::default() }
    }

    fn look(path: &str) -> Look {
        Look::at(path.into())
    }

    fn names(looks: &[Look]) -> Vec<&str> {
        looks.iter().filter_map(|look| look.path.to_str()).collect()
    }

    #[test]
    fn files_of_one_copy_come_together_when_all_are_quiet() {
        let (mut settling, start) = (Settling::new(QUIET), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        settling.wait_for(at(0), look("a"), stat(1));
        settling.wait_for(at(1), look("b"), stat(1));
        settling.wait_for(at(1), look("a"), stat(1));
        settling.wait_for(at(2), look("c"), stat(1));
        assert_eq!((settling.deadline(), settling.take_due(at(3))), (Some(at(4)), vec![]));
        let due = settling.take_due(at(4));
        assert_eq!(names(&due), ["a", "b", "c"]);
        assert!(due.iter().all(|look| look.seen == Some(stat(1))));
        assert_eq!(settling.deadline(), None);
    }

    #[test]
    fn what_goes_on_changing_does_not_hold_up_the_others_for_ever() {
        let (mut settling, start) = (Settling::new(QUIET), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        settling.wait_for(at(0), look("done"), stat(1));
        for second in 0..10 {
            settling.wait_for(at(second), look("film"), stat(second));
            assert_eq!(settling.take_due(at(second)), []);
        }
        assert_eq!(settling.deadline(), Some(at(10)));
        assert_eq!(names(&settling.take_due(at(10))), ["done"]);
        assert_eq!(settling.deadline(), Some(at(11)));
        assert_eq!(names(&settling.take_due(at(11))), ["film"]);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_left_alone_for_longer_each_time() {
        let (mut settling, now) = (Settling::new(QUIET), Instant::now());
        settling.again(now, look("a"));
        assert_eq!(settling.deadline(), Some(now + QUIET));
        settling.again(now, Look { attempt: 3, ..look("a") });
        assert_eq!(settling.deadline(), Some(now + 8 * QUIET), "one look for one file");
        assert_eq!(settling.take_due(now + 8 * QUIET), [Look { attempt: 4, ..look("a") }]);
    }

    #[test]
    fn what_a_file_was_called_is_known_until_it_is_finished() {
        let (mut settling, start) = (Settling::new(QUIET), Instant::now());
        let renamed = |path: &str| Look { renamed_from: Some("half".into()), ..look(path) };
        settling.wait_for(start, renamed("whole"), stat(1));
        settling.wait_for(start + QUIET, look("whole"), stat(2));
        settling.wait_for(start + QUIET, look("whole"), stat(2));
        assert_eq!(settling.renamed(), BTreeSet::from(["half".into()]));
        let due = settling.take_due(start + 2 * QUIET);
        assert_eq!(due, [Look { seen: Some(stat(2)), ..renamed("whole") }]);
        settling.again(start, due[0].clone());
        assert_eq!(settling.renamed().len(), 1);
        settling.forget(Path::new("whole"));
        assert_eq!((settling.renamed().len(), settling.deadline()), (0, None));
    }

    #[test]
    fn a_long_quiet_time_keeps_nobody_busy() {
        let (mut settling, start, quiet) = (Settling::new(6 * GATHERED_MAX), Instant::now(), 6 * GATHERED_MAX);
        settling.wait_for(start, look("a"), stat(1));
        assert_eq!(settling.deadline(), Some(start + quiet));
        assert_eq!(names(&settling.take_due(start + quiet)), ["a"]);
    }
}
