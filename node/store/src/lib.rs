//! Where chunks lie: in segments, or in place in the originals they were cut from.
//!
//! Invariants:
//! - A chunk is acknowledged ([`ChunkStore::commit`] returned) only when its bytes are on the disk, and is found again
//!   after any crash from then on: first its segment is synced, then the index names it, then it is acknowledged.
//! - Bytes are served only when they hash to the chunk's id, wherever they come from.
//! - What was removed stays removed: the record is erased on the disk before [`ChunkStore::remove`] returns.
//! - After a failed sync nothing is acknowledged until the store is opened again; reading goes on.
//! - Memory is about 22 bytes a chunk location and as much a file, and two bounded caches.
//!
//! Calls block on the disk; they are meant for worker threads. `FORMAT.md` says what is on the disk.

pub mod disk;
mod file_record;
mod folders;
mod in_place;
mod index;
mod maintenance;
mod recovery;
mod segment;
pub mod simulated;
mod table;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::metadata::{Metadata, StorageError};
use holdfast_protocol::sealing::ChunkSealer;

use disk::{Access, Disk, DiskFile, storage_error};
use segment::HEADER_BYTES;
use table::{Fingerprint, Row, Table};

pub use disk::{FileIdentity, FileStat};
pub use file_record::{FileRecord, InPlaceCut, REPLACES_MAX};
pub use folders::Unseen;
pub use in_place::{FileNumber, Known};
pub use maintenance::{Scrub, ScrubCursor};
pub use recovery::Recovery;

/// The chunks of one home, for any number of threads.
pub struct ChunkStore {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    segment_bytes: u64,
    fingerprint: Fingerprint,
    metadata: Mutex<Box<dyn Metadata + Send>>,
    sealer: RwLock<Option<ChunkSealer>>,
    chunks: RwLock<Table>,
    files: RwLock<in_place::Files>,
    writer: Mutex<writer::Writer>,
    /// Held by whoever changes the index, so that commits, removals and compaction take turns.
    index: Mutex<writer::IndexTail>,
    usage: Mutex<Usage>,
    /// Locations that could not be read when they were last asked for.
    unreadable: Mutex<BTreeMap<ChunkId, Row>>,
    handles: Mutex<Handles>,
    records: Mutex<in_place::RecordCache>,
    /// For the plaintexts of chunks that are sealed again.
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The folder of the segments; made when missing.
    pub directory: PathBuf,
    /// Secret random bytes, new ones each time or always the same: nobody outside may know them, or they could make
    /// chunks that this store takes for one another.
    pub fingerprint_key: [u8; 32],
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Chunk locations in segments.
    pub segment_chunks: u64,
    /// Bytes of the segments' live records.
    pub segment_bytes: u64,
    /// Bytes of the segments that belong to no live record, given back by compaction.
    pub sparse_bytes: u64,
    /// Chunk locations in originals; a chunk of two equal files counts twice.
    pub in_place_chunks: u64,
    /// Sealed bytes of the chunks in originals.
    pub in_place_bytes: u64,
    /// Files known.
    pub files: u64,
}

/// Why a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not here.
    #[error("chunk {} is not held here; it will be fetched from another peer", chunk.short())]
    NotHeld {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Its bytes in a segment are not what they were, or the disk cannot read them there or in an original. The store has
    /// forgotten that location, so the chunk can be put again; report it as lost. What could not be read is tried again by
    /// a scrub and at the next start.
    #[error("chunk {} is damaged on this disk; it will be fetched from another peer", chunk.short())]
    Damaged {
        /// The chunk.
        chunk: ChunkId,
    },
    /// The original was changed since it was read. The store has forgotten that location; report the chunk as lost
    /// and look at the file again.
    #[error("{} has changed; it will be read again", path.display())]
    Changed {
        /// The original.
        path: PathBuf,
    },
    /// The original is not there. Its folder may only be unmounted, so the location is kept.
    #[error("{} is not there; connect its disk, or the chunk is fetched from another peer", path.display())]
    Missing {
        /// The original.
        path: PathBuf,
    },
    /// The original cannot be read.
    #[error("{} cannot be read: {detail}; make it readable for this user", path.display())]
    Unreadable {
        /// The original.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// This device lacks the key to seal the original's bytes again, or none was given yet.
    #[error("chunk {} cannot be sealed again before this device has the library's keys", chunk.short())]
    NoKey {
        /// The chunk.
        chunk: ChunkId,
    },
    /// The store itself failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReadError {
    /// Whether the chunk is not held here, or no more: the replica is told, and fetches it back if it is wanted. What
    /// may come back by itself (a disk that is not connected, a file that cannot be opened now) is no loss.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::NotHeld { .. } | Self::Damaged { .. } | Self::Changed { .. })
    }
}

impl ChunkStore {
    /// Opens the store in `config.directory`, making it when missing, and says what it found there.
    ///
    /// The caller holds the lock of the home. `metadata` is the same database that the deposits go to: a
    /// prefix of its commits survives a crash, so that a location committed before a deposit is there when the
    /// deposit is.
    ///
    /// # Errors
    /// When the disk or the metadata cannot be read, or a later version wrote the store.
    pub fn open(
        config: StoreConfig,
        disk: Arc<dyn Disk>,
        metadata: Box<dyn Metadata + Send>,
        sealer: Option<ChunkSealer>,
    ) -> Result<(Self, Recovery), StorageError> {
        recovery::open(config, segment::SEGMENT_BYTES, disk, metadata, sealer)
    }

    /// As [`ChunkStore::open`], with segments that are full at `segment_bytes`: where few chunks should fill several.
    ///
    /// # Errors
    /// As [`ChunkStore::open`].
    pub fn open_in_segments_of(
        segment_bytes: u64,
        config: StoreConfig,
        disk: Arc<dyn Disk>,
        metadata: Box<dyn Metadata + Send>,
        sealer: Option<ChunkSealer>,
    ) -> Result<(Self, Recovery), StorageError> {
        recovery::open(config, segment_bytes, disk, metadata, sealer)
    }

    /// Seals chunks of originals with `sealer` from now on: after pairing, and after every new epoch.
    pub fn set_sealer(&self, sealer: ChunkSealer) {
        *write(&self.sealer) = Some(sealer);
    }

    /// Whether `chunk` is held durably.
    #[must_use]
    pub fn contains(&self, chunk: &ChunkId) -> bool {
        read(&self.chunks).find(self.fingerprint.of_chunk(chunk)).next().is_some()
    }

    /// The sealed bytes' count of a chunk that is held.
    #[must_use]
    pub fn length(&self, chunk: &ChunkId) -> Option<u32> {
        read(&self.chunks).find(self.fingerprint.of_chunk(chunk)).next().map(|row| row.second)
    }

    /// The sealed bytes of `chunk`; they hash to its id.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, chunk: &ChunkId) -> Result<Vec<u8>, ReadError> {
        let mut sealed = Vec::new();
        self.read_into(chunk, &mut sealed)?;
        Ok(sealed)
    }

    /// Makes `sealed` the sealed bytes of `chunk`; they hash to its id. A buffer that is used again is neither
    /// allocated nor cleared again. After an error its content is undefined.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_into(&self, chunk: &ChunkId, sealed: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut tried = Vec::new();
        loop {
            let mut failure = ReadError::NotHeld { chunk: *chunk };
            let mut rows: Vec<Row> = read(&self.chunks).find(self.fingerprint.of_chunk(chunk)).collect();
            rows.retain(|row| !tried.contains(row));
            rows.sort_unstable_by_key(|row| row.owner);
            if rows.is_empty() {
                return Err(failure);
            }
            for row in rows {
                tried.push(row);
                match self.read_row(chunk, row, sealed) {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = error,
                }
            }
            // Compaction may have moved the chunk between the look at the table and the read: look once more.
            let moved = read(&self.chunks).find(self.fingerprint.of_chunk(chunk)).any(|row| !tried.contains(&row));
            if !moved {
                return Err(failure);
            }
        }
    }

    /// How much is held, and how.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let files = read(&self.files).table.len() as u64;
        let usage = lock(&self.usage);
        let sparse = |segment: &SegmentUsage| (segment.tail - HEADER_BYTES).saturating_sub(segment.live_bytes);
        StoreStats {
            segment_chunks: usage.segments.values().map(|segment| segment.live_chunks).sum(),
            segment_bytes: usage.segments.values().map(|segment| segment.live_bytes).sum(),
            sparse_bytes: usage.segments.values().map(sparse).sum(),
            in_place_chunks: usage.in_place_chunks,
            in_place_bytes: usage.in_place_bytes,
            files,
        }
    }

    /// Bytes of memory that the tables of chunks and files take.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        read(&self.chunks).memory_bytes() + read(&self.files).table.memory_bytes()
    }

    fn read_row(&self, chunk: &ChunkId, row: Row, sealed: &mut Vec<u8>) -> Result<(), ReadError> {
        match location(row) {
            Location::InPlace { file, cut } => self.reseal(chunk, row, file, cut, sealed),
            Location::Segment(segment) => {
                sealed.resize(row.second as usize, 0);
                let outcome = self
                    .segment_file(segment)
                    .and_then(|file| file.read_exact_at(sealed, u64::from(row.first) + HEADER_BYTES));
                match outcome {
                    Ok(()) if *blake3::hash(sealed).as_bytes() == *chunk.as_bytes() => Ok(()),
                    Err(error) if is_unreadable(&error) => Err(self.hide_unreadable(*chunk, row)),
                    Err(error) if is_transient(&error) => Err(storage_error(&error).into()),
                    _ => {
                        self.forget_damaged(*chunk, row);
                        Err(ReadError::Damaged { chunk: *chunk })
                    }
                }
            }
        }
    }

    /// Nothing is known of the bytes: the location goes from the table, so that the chunk is fetched from elsewhere if it
    /// can be, and not from the disk, so that it is there again when it can be read.
    fn hide_unreadable(&self, chunk: ChunkId, row: Row) -> ReadError {
        self.hide_row(row);
        lock(&self.unreadable).insert(chunk, row);
        ReadError::Damaged { chunk }
    }

    /// A handle of `segment` for reading.
    fn segment_file(&self, segment: u32) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = lock(&self.handles).get(segment) {
            return Ok(file);
        }
        let file = self.disk.open(&segment::path(&self.directory, segment), Access::Read)?;
        lock(&self.handles).put(segment, file.clone());
        Ok(file)
    }

    fn metadata(&self) -> MutexGuard<'_, Box<dyn Metadata + Send>> {
        lock(&self.metadata)
    }
}

/// Errors that say nothing about the bytes: the next attempt may succeed. A segment that is gone or ends too early is
/// damage.
fn is_transient(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// A bad sector, or a disk that answers again tomorrow: nobody can tell.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(5)
}

/// Marks the rows of chunks in originals; the other bits are the file's number, as they are the segment's elsewhere.
const IN_PLACE: u32 = 1 << 31;

/// What the owner of a chunk's row says. In a segment, `first` is the record's offset; in an original, the number of
/// the cut. `second` is the sealed length in both.
enum Location {
    Segment(u32),
    InPlace { file: FileNumber, cut: u32 },
}

fn location(row: Row) -> Location {
    if row.owner & IN_PLACE == 0 {
        Location::Segment(row.owner)
    } else {
        Location::InPlace { file: FileNumber(row.owner & !IN_PLACE), cut: row.first }
    }
}

/// What fills the disk.
#[derive(Debug, Default)]
struct Usage {
    segments: BTreeMap<u32, SegmentUsage>,
    in_place_chunks: u64,
    in_place_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct SegmentUsage {
    /// Where the next record begins or would.
    tail: u64,
    live_chunks: u64,
    /// Headers and padding included.
    live_bytes: u64,
}

impl Usage {
    fn add(&mut self, segment: u32, record: &segment::Record) {
        let empty = SegmentUsage { tail: HEADER_BYTES, live_chunks: 0, live_bytes: 0 };
        let usage = self.segments.entry(segment).or_insert(empty);
        usage.tail = usage.tail.max(record.end());
        usage.live_chunks += 1;
        usage.live_bytes += record.end() - u64::from(record.offset);
    }

    /// Takes a row out that was removed from the table.
    fn forget(&mut self, row: Row) {
        match location(row) {
            Location::InPlace { .. } => {
                self.in_place_chunks -= 1;
                self.in_place_bytes -= u64::from(row.second);
            }
            Location::Segment(segment) => {
                if let Some(usage) = self.segments.get_mut(&segment) {
                    usage.live_chunks -= 1;
                    usage.live_bytes -= HEADER_BYTES + segment::padded(row.second);
                }
            }
        }
    }
}

/// Open segments, the latest used first.
#[derive(Default)]
struct Handles(Vec<(u32, Arc<dyn DiskFile>)>);

impl Handles {
    const MAX: usize = 64;

    fn get(&mut self, segment: u32) -> Option<Arc<dyn DiskFile>> {
        let at = self.0.iter().position(|(number, _)| *number == segment)?;
        self.0[..=at].rotate_right(1);
        Some(self.0[0].1.clone())
    }

    fn put(&mut self, segment: u32, file: Arc<dyn DiskFile>) {
        self.remove(segment);
        self.0.truncate(Self::MAX - 1);
        self.0.insert(0, (segment, file));
    }

    fn remove(&mut self, segment: u32) {
        self.0.retain(|(number, _)| *number != segment);
    }
}

/// Locks that a panicking thread left behind are taken over: every change under them is one assignment or insertion.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A path as the bytes that are stored for it.
fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
