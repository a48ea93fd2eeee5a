//! Chunks: the bulk path.
//!
//! Fetching: requests go out on one stream of the link, answers come back on it in order. Bytes are read into recycled
//! buffers of the length that the peer announces ([`fetch`]), verified and appended to the store on a thread of their own, and
//! reported once a commit has made them durable ([`intake`]). Serving: a thread reads, or seals again, ahead of the
//! socket into large buffers that leave with one write each ([`serve`]).
//!
//! Invariants: bytes in memory are bounded for each direction, by budgets that all links share. A chunk is reported
//! stored only after the commit that covers it. A peer can send nothing that was not asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::{
    id::ChunkId,
    limits::{SEALED_CHUNK_BYTES_MAX, WINDOW_BYTES_MAX},
    metadata::StorageError,
};
use tokio::sync::{Semaphore, mpsc};

use self::intake::Arrived;
use super::events::Events;

pub(super) mod fetch;
mod intake;
pub(super) mod serve;

/// Bytes that have arrived, or are arriving, and are not yet with the store: all links together.
const INTAKE_BYTES_MAX: usize = (WINDOW_BYTES_MAX / 2) as usize;
/// Arrived chunks that wait for verification.
const INTAKE_WAITING_MAX: usize = 256;
/// Bytes that were read and wait for a socket: all links together.
const SERVE_BYTES_MAX: usize = WINDOW_BYTES_MAX as usize;
/// What is filled leaves when it holds this much.
const SERVE_BYTES: usize = 1 << 20;
/// Smaller chunks are copied together with their headers and leave with one write.
const SMALL_CHUNK_BYTES: usize = 64 << 10;
/// Buffers kept for use again.
const SPARE_BUFFERS_MAX: usize = 16;

/// Why a chunk cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFailure {
    /// It is not held, or no longer: withdrawn, changed or damaged.
    NotHeld,
    /// Not now.
    Busy,
}

type Read = dyn Fn(&ChunkId, &mut Vec<u8>) -> Result<(), ReadFailure> + Send + Sync;
type Append = dyn Fn(&ChunkId, &[u8]) -> Result<(), StorageError> + Send + Sync;
type Commit = dyn Fn() -> Result<(), StorageError> + Send + Sync;

/// Where served chunks come from.
#[derive(Clone)]
pub struct ChunkSource {
    read: Arc<Read>,
}

impl ChunkSource {
    /// A source that calls `read` on blocking threads. It makes the buffer, whose former content does not matter, the
    /// sealed and verified bytes of a chunk.
    #[must_use]
    pub fn new(read: impl Fn(&ChunkId, &mut Vec<u8>) -> Result<(), ReadFailure> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read) }
    }
}

/// Where fetched chunks go.
#[derive(Clone)]
pub struct ChunkSink {
    append: Arc<Append>,
    commit: Arc<Commit>,
}

impl ChunkSink {
    /// A sink of two blocking steps, called on two threads at once: `append` takes one verified chunk and need not make
    /// it durable; `commit` returns once everything appended before its call is durable and indexed.
    #[must_use]
    pub fn new(
        append: impl Fn(&ChunkId, &[u8]) -> Result<(), StorageError> + Send + Sync + 'static,
        commit: impl Fn() -> Result<(), StorageError> + Send + Sync + 'static,
    ) -> Self {
        Self { append: Arc::new(append), commit: Arc::new(commit) }
    }
}

/// What the bulk tasks of all links share.
pub(super) struct Chunks {
    supply: Supply,
    intake: mpsc::Sender<Arrived>,
    intake_budget: Arc<Semaphore>,
    intake_buffers: Arc<Buffers>,
    events: Events,
}

/// What serving takes from. Apart from the rest, so that a thread that serves keeps no link alive.
#[derive(Clone)]
struct Supply {
    source: ChunkSource,
    budget: Arc<Semaphore>,
    buffers: Arc<Buffers>,
}

impl Chunks {
    /// Starts the threads that verify and commit; they end with the last link's tasks.
    pub(super) fn start(source: ChunkSource, sink: ChunkSink, events: Events) -> std::io::Result<Self> {
        let intake_buffers = Arc::new(Buffers::default());
        let (intake, arrived) = mpsc::channel(INTAKE_WAITING_MAX);
        intake::start(sink, arrived, intake_buffers.clone(), events.clone())?;
        Ok(Self {
            supply: Supply { source, budget: Arc::new(Semaphore::new(SERVE_BYTES_MAX)), buffers: Arc::default() },
            intake,
            intake_budget: Arc::new(Semaphore::new(INTAKE_BYTES_MAX)),
            intake_buffers,
            events,
        })
    }
}

/// Buffers used again, so that bulk neither allocates nor faults in fresh pages for each chunk.
#[derive(Default)]
struct Buffers {
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// A buffer with whatever it last held: the caller overwrites it.
    fn take(&self) -> Vec<u8> {
        self.lock().pop().unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut spare = self.lock();
        if spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= 2 * SEALED_CHUNK_BYTES_MAX {
            spare.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
