//! Files that may still be being written: they are looked at until two looks agree, and taken in together.
//!
//! Invariants:
//! - A file that was modified lately is handed on only when two looks, at least the quiet time apart, saw the same state.
//! - Files of one copy are handed on together: once none has changed for the quiet time, or the first has waited for
//!   [`GATHERED_MAX`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast_store::FileStat;

/// How long a finished file waits for others of its copy.
const GATHERED_MAX: Duration = Duration::from_secs(10);
/// Doublings of the quiet time until a file that changes while it is read is looked at again.
const DOUBLINGS_MAX: u32 = 8;

/// A file to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) path: PathBuf,
    /// The state that a look saw the quiet time ago; if it is still the same, the file is finished.
    pub(super) seen: Option<FileStat>,
    /// How often it was found changing while it was read.
    pub(super) attempt: u32,
}

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Settling {
    quiet: Duration,
    /// What was seen last of each file, and since when it is so.
    fresh: BTreeMap<PathBuf, (FileStat, Instant)>,
    /// When the first of them was found, and when one was seen changing last.
    gathered: Option<(Instant, Instant)>,
    again: Vec<(Instant, Look)>,
}

impl Settling {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, fresh: BTreeMap::new(), gathered: None, again: Vec::new() }
    }

    /// A file was modified lately: it is looked at again once it and those that came with it have been left alone.
    pub(super) fn wait_for(&mut self, now: Instant, path: PathBuf, stat: FileStat) {
        if self.fresh.get(&path).is_some_and(|(known, _)| *known == stat) {
            return;
        }
        self.fresh.insert(path, (stat, now));
        let first = self.gathered.map_or(now, |(first, _)| first);
        self.gathered = Some((first, now));
    }

    /// A file changed while it was read: it is looked at again after a while, longer each time.
    pub(super) fn again(&mut self, now: Instant, path: PathBuf, attempt: u32) {
        let delay = self.quiet.max(Duration::from_millis(100)) * 2u32.saturating_pow(attempt.min(DOUBLINGS_MAX));
        self.after(now + delay, path, attempt + 1);
    }

    /// A file is looked at again then.
    pub(super) fn after(&mut self, due: Instant, path: PathBuf, attempt: u32) {
        self.again.retain(|(_, look)| look.path != path);
        self.again.push((due, Look { path, seen: None, attempt }));
    }

    /// When the next look is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let gathered = self.gathered.map(|(first, changed)| (changed + self.quiet).min(first + GATHERED_MAX));
        self.again.iter().map(|(due, _)| *due).chain(gathered).min()
    }

    /// The files to look at now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Look> {
        let mut due: Vec<Look> = self.again.extract_if(.., |(due, _)| *due <= now).map(|(_, look)| look).collect();
        let is_gathered =
            |(first, changed): &(Instant, Instant)| now >= *first + GATHERED_MAX || now >= *changed + self.quiet;
        if self.gathered.take_if(|gathered| is_gathered(gathered)).is_some() {
            let quiet = self.quiet;
            let settled = self.fresh.extract_if(.., |_, (_, since)| now >= *since + quiet);
            due.extend(settled.map(|(path, (stat, _))| Look { path, seen: Some(stat), attempt: 0 }));
            // Those that changed a moment ago are the first of the next gathering.
            let changed = self.fresh.values().map(|(_, since)| *since);
            self.gathered = changed.clone().min().zip(changed.max());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    fn stat(size: u64) -> FileStat {
        FileStat { size, ..FileStat::default() }
    }

    fn names(looks: &[Look]) -> Vec<&str> {
        looks.iter().filter_map(|look| look.path.to_str()).collect()
    }

    #[test]
    fn files_of_one_copy_come_together_when_all_are_quiet() {
        let (mut settling, start) = (Settling::new(QUIET), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        settling.wait_for(at(0), "a".into(), stat(1));
        settling.wait_for(at(1), "b".into(), stat(1));
        settling.wait_for(at(1), "a".into(), stat(1));
        settling.wait_for(at(2), "c".into(), stat(1));
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
        settling.wait_for(at(0), "done".into(), stat(1));
        for second in 0..10 {
            settling.wait_for(at(second), "film".into(), stat(second));
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
        settling.again(now, "a".into(), 0);
        assert_eq!(settling.deadline(), Some(now + QUIET));
        settling.again(now, "a".into(), 3);
        assert_eq!(settling.deadline(), Some(now + 8 * QUIET), "one look for one file");
        assert_eq!(settling.take_due(now + 8 * QUIET), [Look { path: "a".into(), seen: None, attempt: 4 }]);
    }
}
