//! Files that a program has open and writes to, as far as the system tells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::flow::lock;

/// A program that has not written for so long only keeps the file open.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// Files that are remembered; of more, only their dates tell.
const FILES_MAX: usize = 4096;

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Writing {
    files: Mutex<BTreeMap<PathBuf, Instant>>,
}

impl Writing {
    /// Somebody writes to these.
    pub(super) fn goes_on(&self, paths: &[PathBuf]) {
        let (mut files, now) = (lock(&self.files), Instant::now());
        if files.len() >= FILES_MAX {
            files.retain(|_, latest| now - *latest < IDLE_MAX);
        }
        for path in paths {
            if files.len() < FILES_MAX || files.contains_key(path) {
                files.insert(path.clone(), now);
            }
        }
    }

    /// These were closed, or are gone.
    pub(super) fn ended(&self, paths: &[PathBuf]) {
        let mut files = lock(&self.files);
        paths.iter().for_each(|path| _ = files.remove(path));
    }

    /// Whether somebody has the file open for writing.
    pub(super) fn is_open(&self, path: &Path) -> bool {
        lock(&self.files).get(path).is_some_and(|latest| latest.elapsed() < IDLE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_from_the_first_write_until_it_is_closed() {
        let (writing, paths) = (Writing::default(), [PathBuf::from("a"), PathBuf::from("b")]);
        assert!(!writing.is_open(&paths[0]));
        writing.goes_on(&paths);
        writing.ended(&paths[1..]);
        assert!(writing.is_open(&paths[0]) && !writing.is_open(&paths[1]));
    }
}
