//! Looking after the store while nobody asks for it: everything is read once a month and compared to its hash, and the space of
//! what was removed comes back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use holdfast_protocol::metadata::StorageError;
use holdfast_store::{ChunkStore, Scrub, ScrubCursor};
use tokio::sync::mpsc;

use super::NodeError;
use super::workers::{Completion, spawn};

/// In this time everything is read once, on a node that is always on.
const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Between two parts of that.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// A part has at least so many bytes: what is small is read more often.
const PART_BYTES_MIN: u64 = 8 << 20;
/// Bytes that are read at a time when the whole store is.
const ALL_BYTES: u64 = 64 << 20;

/// The thread that does it; it ends when this is dropped.
pub(super) struct Upkeep {
    _running: Sender<()>,
}

/// Nobody is told any more.
struct Stopped;

impl Upkeep {
    /// Starts the thread. `all` reads the whole store at once: its index was made again from segments whose bytes nobody looked
    /// at.
    pub(super) fn start(store: Arc<ChunkStore>, all: bool, done: mpsc::Sender<Completion>) -> Result<Self, NodeError> {
        let (running, stopping) = channel();
        spawn("upkeep", move || {
            if !all || read_all(&store, &done).is_ok() {
                go_on(&store, &stopping, &done);
            }
        })?;
        Ok(Self { _running: running })
    }
}

fn read_all(store: &ChunkStore, done: &mpsc::Sender<Completion>) -> Result<(), Stopped> {
    let mut next = Some(ScrubCursor::default());
    while let Some(cursor) = next {
        next = tell(store.scrub(cursor, ALL_BYTES), done)?;
    }
    Ok(())
}

fn go_on(store: &ChunkStore, stopping: &Receiver<()>, done: &mpsc::Sender<Completion>) {
    while stopping.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let stats = store.stats();
        let part = part_bytes(stats.segment_bytes + stats.in_place_bytes);
        if tell(store.scrub_on(part), done).is_err() {
            return;
        }
        if let Err(error) = store.compact() {
            tracing::warn!(%error, "space could not be given back");
        }
    }
}

/// How much to read of a store of `bytes` bytes before the next interval.
fn part_bytes(bytes: u64) -> u64 {
    (bytes / (PERIOD.as_secs() / INTERVAL.as_secs())).max(PART_BYTES_MIN)
}

/// Reports what was found, and returns where to go on.
fn tell(scrub: Result<Scrub, StorageError>, done: &mpsc::Sender<Completion>) -> Result<Option<ScrubCursor>, Stopped> {
    let scrub = match scrub {
        Ok(scrub) => scrub,
        Err(error) => {
            tracing::warn!(%error, "the store could not be read through");
            return Ok(None);
        }
    };
    let lost = scrub.lost.into_iter().map(Completion::Lost);
    let found = (!scrub.found.is_empty()).then_some(Completion::Found(scrub.found));
    let changed = (!scrub.changed.is_empty()).then_some(Completion::Changed);
    for completion in lost.chain(found).chain(changed) {
        done.blocking_send(completion).map_err(|_| Stopped)?;
    }
    Ok(scrub.next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_once_a_month_and_little_more_often() {
        let parts = PERIOD.as_secs() / INTERVAL.as_secs();
        assert_eq!(part_bytes(parts << 30), 1 << 30);
        assert_eq!(part_bytes(100), PART_BYTES_MIN);
    }
}
