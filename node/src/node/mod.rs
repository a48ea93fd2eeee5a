//! A running node: the library with real disks, sockets, folders and clocks around it.
//!
//! ```text
//! folders ─► ingest ─┐                          ┌─► network ◄─► peers
//! network ───────────┼─► runtime: one thread, ──┼─► store, metadata flushes
//! socket, embedder ──┘   one Library            └─► index, events
//! ```
//!
//! [`Node`] is the face for programs that embed Holdfast; the `holdfast` command is one of them. The runtime's thread
//! owns the [`Library`](holdfast_library::Library), hands every input in and carries every effect out; it makes no
//! decision about replication. Of chunks only manifests pass through it.

#![allow(clippy::disallowed_methods, reason = "a driver: it reads clocks and asks the system for randomness")]

mod answer;
mod connections;
mod destination;
mod export;
mod folders;
mod identity;
mod imports;
mod network;
mod news;
mod pace;
mod peers;
mod port;
mod readers;
mod runtime;
mod space;
#[cfg(test)]
mod tests;
mod upkeep;
mod workers;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_library::LibraryError;
use holdfast_media::WorkerCommand;
use holdfast_network::StartError;
use holdfast_protocol::id::{DeviceId, LibraryId};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::time::{Now, Timestamp, WallTime};
use tokio::sync::watch;

pub use identity::{Founded, JoinError, found, join, relay_key};

use crate::api::{EventLog, NodeHandle};
use crate::home::{Home, HomeError, HomeLock, Settings};
use crate::index::IndexError;
use crate::ingest::IngestError;

/// How a node is run.
pub struct NodeConfig {
    /// Where everything of it lies.
    pub home: Home,
    /// The right to work there.
    pub lock: HomeLock,
    /// Folders, addresses, place.
    pub settings: Settings,
    /// How to start the process that decodes photos; `None` imports without facts and thumbnails.
    pub worker: Option<WorkerCommand>,
    /// Where events go.
    pub events: EventLog,
}

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is no library in this home.
    #[error("there is no library in {}; create one with `holdfast up FOLDER` or join one with `holdfast join TICKET`", home.display())]
    NoLibrary {
        /// The home.
        home: PathBuf,
    },
    /// The home has keys and no log: this device does not know what it said, and could contradict itself.
    #[error("{} holds nothing of this device any more; put it back from where it went, or join again with another --home and remove this device", metadata.display())]
    LogLost {
        /// Where the log should be.
        metadata: PathBuf,
    },
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The library stopped.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The network could not be started.
    #[error(transparent)]
    Network(#[from] StartError),
    /// Folders cannot be imported.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The index cannot be opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The system refused something basic.
    #[error("the system refused {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
}

/// A node that runs until it is told to stop. Dropping it stops it without waiting.
pub struct Node {
    handle: NodeHandle,
    library: LibraryId,
    device: DeviceId,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<(), NodeError>>>,
    lock: Option<HomeLock>,
}

impl Node {
    /// Opens the home and starts the node. Must be called on a tokio runtime with time and IO.
    ///
    /// # Errors
    /// When the home holds no library or anything in it cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let NodeConfig { home, lock, settings, worker, events } = config;
        let (handle, calls) = NodeHandle::new(events.clone());
        let (stop, stopping) = watch::channel(false);
        let opened = runtime::open(home, settings, worker, events, calls, stopping)?;
        let (library, device) = (opened.library_id(), opened.device_id());
        let system = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name("library".to_owned())
            .spawn(move || system.block_on(opened.run()))
            .map_err(|error| NodeError::System { what: "a thread", error })?;
        Ok(Self { handle, library, device, stop, thread: Some(thread), lock: Some(lock) })
    }

    /// Asks the node, and follows its events. Cheap to clone; works until the node stops.
    #[must_use]
    pub const fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// The library.
    #[must_use]
    pub const fn library(&self) -> LibraryId {
        self.library
    }

    /// This device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// Tells the node to stop, without waiting: see [`Self::wait`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Tells the node to stop from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Waits until the node has stopped: after [`Self::stop`], a `Shutdown` request, or a failure.
    ///
    /// # Errors
    /// Why it stopped, if nobody asked it to. Everything acknowledged is durable all the same.
    pub async fn wait(mut self) -> Result<(), NodeError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        drop(self.lock.take());
        match ended {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                let error = std::io::Error::other("the library's thread panicked; please report this");
                Err(NodeError::System { what: "to go on", error })
            }
        }
    }
}

/// Tells a node to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Tells it, without waiting.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// The process's clocks.
#[derive(Debug, Clone, Copy)]
struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    fn now(&self) -> Now {
        let elapsed = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { elapsed: Timestamp::from_millis(elapsed), wall: wall_time() }
    }

    fn until(&self, deadline: Timestamp) -> Duration {
        deadline.since(self.now().elapsed)
    }
}

/// What the system's wall clock says.
fn wall_time() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// What this run of the machine and this very folder are called; random where the operating system says nothing of them.
/// A copy of the folder on the same machine is another.
fn boot_id(folder: &Path) -> Result<[u8; 16], NodeError> {
    let told = std::fs::read("/proc/sys/kernel/random/boot_id").and_then(|mut told| {
        let of_folder = std::fs::metadata(folder)?;
        told.extend_from_slice(&of_folder.dev().to_le_bytes());
        told.extend_from_slice(&of_folder.ino().to_le_bytes());
        Ok(told)
    });
    let hash = told.map_or_else(|_| seed(), |told| Ok(*blake3::hash(&told).as_bytes()))?;
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Ok(id)
}

/// Fresh randomness from the system.
fn seed() -> Result<[u8; 32], NodeError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| NodeError::System { what: "randomness", error: std::io::Error::other(error.to_string()) })?;
    Ok(seed)
}
