//! What a node stands on: a disk with its home and its folder, and the store and the metadata that lie there.
//!
//! Invariants: whatever the store and the metadata keep goes through one virtual disk, so that a crash, a full disk or a
//! failing one means both; nothing of a process that died writes any more.

mod backup;
mod cloned;
mod drive;
mod ingest;
mod lost;
mod rot;
mod strike;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_library::Outstanding;
use holdfast_protocol::id::{AuthorId, ChunkId, PhotoId};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_store::disk::{Access, Disk as _};
use holdfast_store::simulated::{Failing, SimulatedDisk};
use holdfast_store::{ChunkStore, FileStat, ReadError, Recovery, StoreConfig};

use crate::chance::Chance;
use crate::metadata::VirtualMetadata;
use crate::node::Acknowledged;
use crate::workload::Folder;

pub use backup::Backup;
pub use ingest::Ingested;
pub(crate) use ingest::Looked;
pub(crate) use lost::deposited;

/// Everything that Holdfast keeps.
const HOME: &str = "/home";
const SEGMENTS: &str = "/home/segments";
/// Less than the store and the metadata want to have left, with a margin.
const SPACE_WANTED: u64 = 160 << 20;
/// The watched folder.
const FOLDER: &str = "/pictures";

/// Whether originals are copied into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Pictures stay in their files and are sealed again when someone asks.
    InPlace,
    /// Sealed copies lie in segments.
    Copy,
}

/// How a process ends that nobody stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The machine loses its power: what was not synced is lost or torn.
    PowerLoss,
    /// The process is killed: the system still has what it wrote, and the database what it flushed.
    Killed,
}

impl Death {
    /// Two of three machines lose their power.
    pub(crate) fn any(chance: &mut Chance) -> Self {
        if chance.one_in(3) { Self::Killed } else { Self::PowerLoss }
    }
}

/// See the head of the module.
pub struct Machine {
    /// The disk.
    pub disk: SimulatedDisk,
    /// The metadata.
    pub metadata: VirtualMetadata,
    keep: Keep,
    segment_bytes: u64,
    /// While the node is up.
    store: Option<ChunkStore>,
    outstanding: Outstanding,
    /// Files that were read and whose chunks are not durable yet.
    batch: Vec<ingest::ReadFile>,
    /// Whether the disk has failed, or was full, since the process began.
    has_failed: bool,
    has_failed_to_read: bool,
    /// Whether the node is to be started again, because its store takes nothing more.
    pub(crate) is_doomed: bool,
    /// Whether ingest is to walk through the folder once more.
    pub(crate) is_walk_due: bool,
    failing: Failing,
    /// Chunks of which this machine's own copy was destroyed behind its back, until it durably has another; with the number
    /// of batches that ingest had handed out by then.
    pub destroyed: BTreeMap<ChunkId, u64>,
    /// Batches that ingest has handed out.
    pub(crate) batches: u64,
    /// Every chunk that was ever appended or taken in here.
    pub(crate) taken: BTreeSet<ChunkId>,
}

/// What the faults of a run have destroyed: nobody can be asked for it.
#[derive(Debug, Default)]
pub struct Excused {
    /// Chunks of which the last copy is gone.
    pub chunks: BTreeSet<ChunkId>,
    /// Chunks that machines had which are no more or were put back. Nothing else can be gone that nobody destroyed.
    pub taken_along: BTreeSet<ChunkId>,
    /// Photos that only a log knew which is gone.
    pub photos: BTreeSet<PhotoId>,
    /// What was acknowledged by nodes that have forgotten it since, and others know.
    pub entrusted: Vec<Acknowledged>,
    /// Folders of nodes that have forgotten which files they told of: names of deleted ones may stay.
    pub folders: BTreeSet<String>,
    /// Folders of machines that were copied: two say what lies in them, and the last one to speak is believed.
    pub copied_folders: BTreeSet<String>,
    /// Authors who write more than one version of their log.
    pub forked: BTreeSet<AuthorId>,
}

impl Machine {
    /// An empty machine.
    #[must_use]
    pub fn new(chance: &mut Chance) -> Self {
        let disk = SimulatedDisk::new(chance.below(u64::MAX));
        Self {
            metadata: VirtualMetadata::new(disk.clone()),
            disk,
            keep: if chance.one_in(3) { Keep::Copy } else { Keep::InPlace },
            segment_bytes: 1 << chance.between(17, 23),
            store: None,
            outstanding: Outstanding::default(),
            batch: Vec::new(),
            has_failed: false,
            has_failed_to_read: false,
            is_doomed: false,
            is_walk_due: false,
            failing: Failing::default(),
            destroyed: BTreeMap::new(),
            batches: 0,
            taken: BTreeSet::new(),
        }
    }

    /// Opens the store, as a process does that starts.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(&mut self, sealer: ChunkSealer, fingerprint_key: [u8; 32]) -> Result<Recovery, StorageError> {
        self.has_failed = self.is_short_of_space() || self.failing != Failing::default();
        self.has_failed_to_read = self.failing.reads > 0;
        (self.is_doomed, self.is_walk_due) = (false, false);
        let config = StoreConfig { directory: PathBuf::from(SEGMENTS), fingerprint_key };
        let (disk, metadata) = (Arc::new(self.disk.clone()), Box::new(self.metadata.clone()));
        let (store, recovery) =
            ChunkStore::open_in_segments_of(self.segment_bytes, config, disk, metadata, Some(sealer))?;
        self.store = Some(store);
        Ok(recovery)
    }

    /// The store, while the node is up.
    #[must_use]
    pub const fn store(&self) -> Option<&ChunkStore> {
        self.store.as_ref()
    }

    /// Whether the disk may have failed this process: then what the process says of it is no wonder.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed || self.disk.has_crashed()
    }

    /// Whether the disk may have failed to read something for this process.
    #[must_use]
    pub const fn has_failed_to_read(&self) -> bool {
        self.has_failed_to_read
    }

    pub(crate) fn is_short_of_space(&self) -> bool {
        self.disk.free_bytes(Path::new(HOME)).is_ok_and(|free| free < SPACE_WANTED)
    }

    /// From now on the disk has so much space left; `None` for plenty.
    pub fn set_free_bytes(&mut self, free: Option<u64>) {
        self.disk.set_capacity(free.map_or(1 << 40, |free| self.disk.used_bytes() + free));
        self.has_failed |= self.is_short_of_space();
    }

    /// From now on the disk fails so often.
    pub fn set_failing(&mut self, failing: Failing) {
        self.failing = failing;
        self.disk.set_failing(failing);
        self.has_failed |= failing != Failing::default();
        self.has_failed_to_read |= failing.reads > 0;
    }

    /// How often the disk fails.
    #[must_use]
    pub const fn failing(&self) -> Failing {
        self.failing
    }

    /// The process dies.
    pub fn die(&mut self, death: Death, chance: &mut Chance) {
        match death {
            Death::PowerLoss => self.disk.power_loss(),
            Death::Killed => self.disk.restart(),
        }
        let surviving = chance.below(self.metadata.unflushed() + 1);
        self.metadata.crash(surviving);
        // Only now: whatever the store would still like to do, the dead do nothing.
        self.store = None;
        self.outstanding = Outstanding::default();
        self.batch.clear();
    }

    /// What a power failure of this moment would leave, on a machine of its own.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let disk = self.disk.copy();
        disk.power_loss();
        self.another(disk)
    }

    /// The machine as it is now, for a backup: what a snapshot of the file system has of a node that runs.
    #[must_use]
    pub fn backup(&self) -> Self {
        let disk = self.disk.copy();
        disk.restart();
        self.another(disk)
    }

    /// A machine like this one, where nothing runs yet, with a disk that works.
    fn another(&self, disk: SimulatedDisk) -> Self {
        disk.set_failing(Failing::default());
        disk.set_capacity(1 << 40);
        Self {
            metadata: self.metadata.after_crash(disk.clone()),
            disk,
            store: None,
            outstanding: Outstanding::default(),
            batch: Vec::new(),
            has_failed: false,
            has_failed_to_read: false,
            is_doomed: false,
            is_walk_due: false,
            failing: Failing::default(),
            destroyed: self.destroyed.clone(),
            batches: self.batches,
            taken: self.taken.clone(),
            keep: self.keep,
            segment_bytes: self.segment_bytes,
        }
    }

    /// Puts the home back as it is in `backup`; the folder stays as it is.
    pub fn restore(&mut self, backup: &Self) {
        self.disk.restore(&backup.disk, Path::new(HOME));
        self.metadata.restore(&backup.metadata);
    }

    /// The sealed bytes of a chunk, as the store gives them.
    ///
    /// # Errors
    /// As [`ChunkStore::read`].
    pub fn read(&self, chunk: &ChunkId) -> Result<Vec<u8>, ReadError> {
        self.store.as_ref().map_or(Err(ReadError::NotHeld { chunk: *chunk }), |store| store.read(chunk))
    }

    /// Whether the store says that it holds a chunk.
    #[must_use]
    pub fn holds(&self, chunk: &ChunkId) -> bool {
        self.store.as_ref().is_some_and(|store| store.contains(chunk))
    }

    /// Appends a chunk that was fetched; a [`Machine::commit`] makes it durable.
    ///
    /// # Errors
    /// As [`ChunkStore::append`].
    pub fn append(&mut self, chunk: ChunkId, sealed: &[u8]) -> Result<(), StorageError> {
        self.taken.insert(chunk);
        self.store.as_ref().map_or(Err(StorageError::Poisoned), |store| store.append(chunk, sealed))
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// As [`ChunkStore::commit`].
    pub fn commit(&self) -> Result<(), StorageError> {
        self.store.as_ref().map_or(Err(StorageError::Poisoned), ChunkStore::commit)
    }

    /// A file of the watched folder.
    #[must_use]
    pub fn original(path: &str) -> PathBuf {
        Path::new(FOLDER).join(path)
    }

    /// Someone writes a file into the folder.
    pub fn write_original(&self, path: &str, bytes: Vec<u8>) {
        self.disk.tamper(&Self::original(path), |all| *all = bytes);
    }

    /// Someone deletes a file of the folder.
    pub fn remove_original(&self, path: &str) {
        self.disk.destroy(&Self::original(path));
    }

    /// What lies in the folder, by path, as the disk would give it.
    #[must_use]
    pub fn originals(&self, folder: &Folder) -> Vec<(String, Vec<u8>)> {
        self.disk.set_failing(Failing::default());
        let read = |path: &String| Some((path.clone(), self.read_original(&Self::original(path)).ok()?.0));
        folder.keys().filter_map(read).collect()
    }

    fn read_original(&self, path: &Path) -> io::Result<(Vec<u8>, FileStat)> {
        let file = self.disk.open(path, Access::Read)?;
        let stat = file.stat()?;
        let mut bytes = vec![0; usize::try_from(stat.size).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok((bytes, stat))
    }

    /// The chunks that lie in a file of the folder and nowhere else on this machine.
    #[must_use]
    pub fn only_in(&self, path: &str) -> Vec<ChunkId> {
        let Some(store) = &self.store else { return Vec::new() };
        let record = store.file(&Self::original(path)).ok().flatten();
        record.map(|record| record.cuts.into_iter().map(|cut| cut.chunk).collect()).unwrap_or_default()
    }

    /// Whether files were read and are not taken in yet.
    #[must_use]
    pub fn has_read(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Whether ingest waits for nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty() && self.batch.is_empty() && !self.is_walk_due
    }
}
