//! Threads that do what may wait for a disk: metadata flushes, index updates, reads of single chunks.
//!
//! Each takes work from a queue whose length is bounded by what the library has outstanding, and answers with one
//! input. A failed flush is answered by nothing but [`Completion::Failed`]: nothing is acknowledged after it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use holdfast_disk::SledMetadata;
use holdfast_library::index::IndexChange;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::replica::TaskId;
use holdfast_store::{ChunkStore, ReadError};
use tokio::sync::mpsc;

use super::NodeError;
use crate::index::{Index, IndexError};

/// Completions that wait for the library; workers wait when it is full.
const COMPLETIONS_MAX: usize = 256;

/// How often an index that found no room is tried again.
const NO_ROOM_DELAY: Duration = Duration::from_secs(1);

/// What a worker finished.
#[derive(Debug)]
pub(super) enum Completion {
    /// The metadata is flushed: for the library, and for the replica.
    Flushed { library: Vec<TaskId>, replica: Vec<TaskId> },
    /// A chunk was read, or could not be.
    ChunkRead { task: TaskId, bytes: Option<Vec<u8>> },
    /// The index is durable up to a version.
    Indexed(u64),
    /// A chunk that was held turned out to be unreadable.
    Lost(ChunkId),
    /// Chunks that could not be read for a while can be again.
    Found(Vec<ChunkId>),
    /// Originals turned out to be other than they were read.
    Changed,
    /// Nothing more can be acknowledged.
    Failed(NodeError),
}

/// The queue of completions.
pub(super) fn completions() -> (mpsc::Sender<Completion>, mpsc::Receiver<Completion>) {
    mpsc::channel(COMPLETIONS_MAX)
}

/// Reports chunks that could not be read although they were held. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Losses(pub(super) mpsc::Sender<Completion>);

impl Losses {
    /// Reports a chunk, if the error means that it is lost here. Never blocks: what finds no room is found again by the
    /// next read.
    pub(super) fn report(&self, chunk: &ChunkId, error: &ReadError) {
        if error.is_loss() {
            tracing::warn!(chunk = chunk.short(), %error, "a chunk cannot be read");
            let _ = self.0.try_send(Completion::Lost(*chunk));
        }
    }
}

/// What a flush is for.
pub(super) enum Flush {
    Library(TaskId),
    Replica(TaskId),
    /// An answer that may be given once what it says is durable.
    Answer(Box<dyn FnOnce() + Send>),
}

/// The threads' queues.
pub(super) struct Workers {
    flushes: Sender<Flush>,
    reads: Sender<(TaskId, ChunkId)>,
    index: Sender<(u64, Vec<IndexChange>)>,
}

impl Workers {
    pub(super) fn start(
        metadata: SledMetadata,
        store: Arc<ChunkStore>,
        index: Index,
        completions: mpsc::Sender<Completion>,
    ) -> Result<Self, NodeError> {
        let (flushes, flush_queue) = channel();
        let (reads, read_queue) = channel();
        let (changes, index_queue) = channel();
        let done = completions.clone();
        let flushed = metadata.clone();
        spawn("flush", move || flush(&flushed, &flush_queue, &done))?;
        let done = completions.clone();
        spawn("read", move || read(&store, &read_queue, &done))?;
        spawn("index", move || keep_index(index, &metadata, &index_queue, &completions))?;
        Ok(Self { flushes, reads, index: changes })
    }

    // The threads end only after these senders are dropped, so sending cannot fail before a failure was reported.

    pub(super) fn flush(&self, flush: Flush) {
        let _ = self.flushes.send(flush);
    }

    pub(super) fn read(&self, task: TaskId, chunk: ChunkId) {
        let _ = self.reads.send((task, chunk));
    }

    pub(super) fn index(&self, version: u64, changes: Vec<IndexChange>) {
        let _ = self.index.send((version, changes));
    }
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), NodeError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|error| NodeError::System { what: "a thread", error })
}

/// One flush answers everyone who asked before it began.
fn flush(metadata: &SledMetadata, queue: &Receiver<Flush>, done: &mpsc::Sender<Completion>) {
    while let Ok(first) = queue.recv() {
        let (mut library, mut replica, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for flush in std::iter::once(first).chain(queue.try_iter()) {
            match flush {
                Flush::Library(task) => library.push(task),
                Flush::Replica(task) => replica.push(task),
                Flush::Answer(answer) => answers.push(answer),
            }
        }
        let completion = match metadata.flush() {
            Ok(()) => {
                answers.into_iter().for_each(|answer| answer());
                Completion::Flushed { library, replica }
            }
            Err(error) => Completion::Failed(error.into()),
        };
        if done.blocking_send(completion).is_err() {
            return;
        }
    }
}

fn read(store: &ChunkStore, queue: &Receiver<(TaskId, ChunkId)>, done: &mpsc::Sender<Completion>) {
    let losses = Losses(done.clone());
    while let Ok((task, chunk)) = queue.recv() {
        let read = store.read(&chunk);
        let bytes = read.inspect_err(|error| losses.report(&chunk, error)).ok();
        if done.blocking_send(Completion::ChunkRead { task, bytes }).is_err() {
            return;
        }
    }
}

/// Applies everything that waits in one transaction, once the metadata that says it is durable.
fn keep_index(
    mut index: Index,
    metadata: &SledMetadata,
    queue: &Receiver<(u64, Vec<IndexChange>)>,
    done: &mpsc::Sender<Completion>,
) {
    const CHANGES_MAX: usize = 4096;
    while let Ok((mut version, mut changes)) = queue.recv() {
        while changes.len() < CHANGES_MAX
            && let Ok((later, more)) = queue.try_recv()
        {
            version = later;
            changes.extend(more);
        }
        let flushed = metadata.flush().map_err(NodeError::from);
        let applied = flushed.and_then(|()| {
            loop {
                match index.apply(&changes, &version.to_le_bytes()) {
                    // There will be room again. Until then the library is told nothing, and takes in ever less.
                    Err(error) if error.is_full() && !done.is_closed() => thread::sleep(NO_ROOM_DELAY),
                    applied => return Ok(applied?),
                }
            }
        });
        let completion = applied.map_or_else(Completion::Failed, |()| Completion::Indexed(version));
        if done.blocking_send(completion).is_err() {
            return;
        }
    }
}

/// The version that an index covers; `None` when it is new.
pub(super) fn covered(index: &Index) -> Result<Option<u64>, IndexError> {
    let covers = index.covers()?;
    Ok(covers.and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?))))
}
