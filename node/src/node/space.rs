//! Whether the disk has room for what comes.
//!
//! The store refuses chunks while there still is room for the metadata of what is in already. When other programs take
//! that room too, the library stands still: it goes on answering, and takes in nothing that it might have to write down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::time::Timestamp;

use crate::api::view::Problem;

/// Below this the store takes no more chunks.
const ROOM_BYTES: u64 = 80 << 20;
/// Below this nothing is taken in. The metadata refuses at 32 MiB: what is under way ends before that.
const STANDSTILL_BYTES: u64 = 64 << 20;
/// How often the disk is asked. What comes in within such a time is little against what is free at a standstill.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A refusal counts for this long: it may have been a quota, of which free bytes tell nothing.
const REFUSAL_COUNTS: Duration = Duration::from_secs(45);

/// What is known of the free space of a home.
pub(super) struct Space {
    folders: [PathBuf; 2],
    free_bytes: u64,
    looked: Option<Timestamp>,
    refused: Option<Timestamp>,
    /// What was told, until there is room again: the number in it does not change with every byte.
    problem: Option<Problem>,
}

/// What changed.
pub(super) enum Change {
    /// The disk is full.
    Full(Problem),
    /// There is room again.
    Room(Problem),
}

impl Space {
    pub(super) fn new(metadata: PathBuf, store: PathBuf) -> Self {
        Self { folders: [metadata, store], free_bytes: u64::MAX, looked: None, refused: None, problem: None }
    }

    /// Whether nothing may be taken in.
    pub(super) const fn is_standstill(&self) -> bool {
        self.free_bytes < STANDSTILL_BYTES
    }

    /// What keeps anything from being written down, to refuse a request with.
    pub(super) fn standstill(&self) -> Option<Problem> {
        self.problem.clone().filter(|_| self.is_standstill())
    }

    /// Something was refused for want of space.
    pub(super) const fn refused(&mut self, now: Timestamp) {
        self.refused = Some(now);
    }

    /// Looks at the disk, unless that was done just now.
    pub(super) fn look(&mut self, now: Timestamp) -> Option<Change> {
        if self.looked.is_some_and(|looked| now.since(looked) < LOOK_INTERVAL) {
            return None;
        }
        self.looked = Some(now);
        // What cannot be asked is found out by writing.
        let free = self.folders.iter().map(|folder| (free_bytes(folder).unwrap_or(u64::MAX), folder));
        let (free_bytes, folder) = free.min_by_key(|(free, _)| *free)?;
        let is_freed = self.free_bytes < ROOM_BYTES && free_bytes >= ROOM_BYTES;
        self.refused = self.refused.filter(|refused| !is_freed && now.since(*refused) < REFUSAL_COUNTS);
        let is_full = free_bytes < ROOM_BYTES || self.refused.is_some();
        self.free_bytes = free_bytes;
        match (is_full, self.problem.is_some()) {
            (true, false) => {
                let what = format!("the disk is full: {} MB free at {}", free_bytes / 1_000_000, folder.display());
                let next = "free some space, and Holdfast continues by itself".to_owned();
                let problem = Problem { what, next: Some(next) };
                Some(Change::Full(self.problem.insert(problem).clone()))
            }
            (false, true) => self.problem.take().map(Change::Room),
            _ => None,
        }
    }
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(folder).ok()?;
    Some(status.f_bavail.saturating_mul(status.f_frsize))
}
