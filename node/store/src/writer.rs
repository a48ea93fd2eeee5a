//! Putting chunks into segments: append, then commit.
//!
//! Commit argument: a batch of records is appended, its segments are synced, and only then does one metadata batch
//! name the records and the table show them. A crash before the sync loses only what nobody was told of. A crash
//! after it, with the metadata batch lost, leaves a segment that is longer than its index: recovery scans that tail,
//! checks every hash, writes and syncs it again before it shows what it found. So one sync a batch is enough.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::limits::SEALED_CHUNK_BYTES_MAX;
use holdfast_protocol::metadata::{Batch, StorageError};

use super::disk::{Access, DiskFile, storage_error};
use super::index::Block;
use super::segment::{self, HEADER_BYTES, Record};
use super::table::Row;
use super::{ChunkStore, IN_PLACE, lock, read, write};

/// Appended bytes and chunks after which an append commits by itself, so that what is unsynced stays bounded.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;
const UNSYNCED_CHUNKS_MAX: usize = 4096;
/// Space that is left free for the metadata, which must never meet a full disk halfway.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Appended bytes after which the free space is asked for again.
const FREE_CHECK_BYTES: u64 = 16 << 20;

/// What is being appended.
pub(super) struct Writer {
    /// The segment that takes the next record, once there was one to take.
    active: Option<Active>,
    /// The segment that may be continued, and where; `active` begins there.
    resume: Option<(u32, u64)>,
    next_segment: u32,
    pending: Vec<(u32, Record)>,
    pending_chunks: BTreeSet<ChunkId>,
    pending_bytes: u64,
    unsynced: Vec<Arc<dyn DiskFile>>,
    /// Appends so far, and how many of them are durable.
    appended: u64,
    durable: u64,
    checked_bytes: u64,
    failed: bool,
}

struct Active {
    number: u32,
    file: Arc<dyn DiskFile>,
    tail: u64,
}

/// The block of the index that still grows.
#[derive(Default)]
pub(super) struct IndexTail(Option<Block>);

impl IndexTail {
    /// Continues behind `block`.
    pub(super) const fn new(block: Option<Block>) -> Self {
        Self(block)
    }

    /// Adds `records`, which follow what was added before, to the blocks that `batch` writes.
    fn extend(&mut self, records: &[(u32, Record)], batch: &mut Batch) {
        for (segment, record) in records {
            let next = match self.0.take() {
                Some(block) if block.segment != *segment => {
                    block.put(batch);
                    Block::first(*segment)
                }
                Some(block) if block.is_full() => {
                    block.put(batch);
                    Block::after(*segment, block.end)
                }
                Some(block) => block,
                None => Block::first(*segment),
            };
            self.0.insert(next).push(*record);
        }
        self.0.iter().for_each(|block| block.put(batch));
    }

    /// The growing block is another one now; an erased record left it.
    pub(super) fn replace(&mut self, block: &Block) {
        if let Some(tail) = self.0.as_mut().filter(|tail| (tail.segment, tail.start) == (block.segment, block.start)) {
            *tail = block.clone();
        }
    }
}

impl Writer {
    pub(super) fn new(resume: Option<(u32, u64)>, next_segment: u32) -> Self {
        Self {
            active: None,
            resume,
            next_segment,
            pending: Vec::new(),
            pending_chunks: BTreeSet::new(),
            pending_bytes: 0,
            unsynced: Vec::new(),
            appended: 0,
            durable: 0,
            checked_bytes: FREE_CHECK_BYTES,
            failed: false,
        }
    }

    /// The segment that is written to or may be.
    pub(super) fn open_segment(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.number).or(self.resume.map(|(number, _)| number))
    }

    fn write(&mut self, store: &ChunkStore, chunk: ChunkId, sealed: &[u8]) -> io::Result<()> {
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        let total = HEADER_BYTES + segment::padded(length);
        self.checked_bytes += total;
        if self.checked_bytes > FREE_CHECK_BYTES {
            if store.disk.free_bytes(&store.directory)? < FREE_BYTES_MIN + FREE_CHECK_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.checked_bytes = 0;
        }
        if self.active.as_ref().is_none_or(|active| active.tail >= store.segment_bytes) {
            self.active = Some(self.next_active(store)?);
        }
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        let record = Record { chunk, offset: u32::try_from(active.tail).unwrap_or(u32::MAX), length };
        let padding = [0; HEADER_BYTES as usize];
        let padding = &padding[..(segment::padded(length) - u64::from(length)) as usize];
        active.file.write_at(&[&record.header(active.number), sealed, padding], active.tail)?;
        active.tail = record.end();
        if !self.unsynced.iter().any(|file| Arc::ptr_eq(file, &active.file)) {
            self.unsynced.push(active.file.clone());
        }
        self.pending.push((active.number, record));
        self.pending_chunks.insert(chunk);
        self.pending_bytes += total;
        self.appended += 1;
        Ok(())
    }

    /// Continues the last segment, or begins a new one. Its name is durable before anything in it can be, and all
    /// segments before it are synced, so that without an index only the last one has to be read through.
    fn next_active(&mut self, store: &ChunkStore) -> io::Result<Active> {
        if let Some((number, tail)) = self.resume.take().filter(|(_, tail)| *tail < store.segment_bytes) {
            let path = segment::path(&store.directory, number);
            let file = store.disk.open(&path, Access::Write)?;
            // What a crash left behind the last whole record goes, so that it cannot be found again.
            file.set_length(tail)?;
            lock(&store.handles).put(number, file.clone());
            return Ok(Active { number, file, tail });
        }
        if let Some(error) = self.active.take().and_then(|full| full.file.sync().err()) {
            self.failed = true;
            return Err(error);
        }
        let number = self.next_segment;
        let path = segment::path(&store.directory, number);
        let file = store.disk.open(&path, Access::Create)?;
        self.next_segment += 1;
        file.write_at(&[&segment::file_header(number)], 0)?;
        store.disk.sync_directory(&store.directory)?;
        lock(&store.handles).put(number, file.clone());
        Ok(Active { number, file, tail: HEADER_BYTES })
    }
}

/// A batch on its way to the disk.
struct Unsynced {
    records: Vec<(u32, Record)>,
    files: Vec<Arc<dyn DiskFile>>,
    appended: u64,
}

impl ChunkStore {
    /// Appends `sealed` to a segment, unless a segment holds the chunk already: its bytes are read then, since what is
    /// acknowledged must be there, and these may be the last good ones. It counts as held once a
    /// [`ChunkStore::commit`] that begins later has returned.
    ///
    /// The caller has made or checked the hash: `chunk` is the BLAKE3 hash of `sealed`.
    ///
    /// # Errors
    /// When the disk is full or fails. Chunks appended before are not affected by a full disk.
    pub fn append(&self, chunk: ChunkId, sealed: &[u8]) -> Result<(), StorageError> {
        debug_assert_eq!(blake3::hash(sealed).as_bytes(), chunk.as_bytes(), "bytes that are not the chunk's");
        let key = self.fingerprint.of_chunk(&chunk);
        let known: Vec<Row> = read(&self.chunks).find(key).filter(|row| row.owner & IN_PLACE == 0).collect();
        let mut kept = Vec::new();
        if known.into_iter().any(|row| self.read_row(&chunk, row, &mut kept).is_ok()) {
            return Ok(());
        }
        if self.append_again(chunk, sealed)? { self.commit() } else { Ok(()) }
    }

    /// Appends and commits one chunk.
    ///
    /// # Errors
    /// As [`ChunkStore::append`] and [`ChunkStore::commit`].
    pub fn put(&self, chunk: ChunkId, sealed: &[u8]) -> Result<(), StorageError> {
        self.append(chunk, sealed)?;
        self.commit()
    }

    /// Appends a chunk even when a segment holds it, as compaction does; whether it is time to commit.
    pub(super) fn append_again(&self, chunk: ChunkId, sealed: &[u8]) -> Result<bool, StorageError> {
        if sealed.is_empty() || sealed.len() > SEALED_CHUNK_BYTES_MAX {
            return Err(StorageError::Failed { detail: format!("a chunk of {} bytes cannot be kept", sealed.len()) });
        }
        let mut writer = lock(&self.writer);
        if writer.failed {
            return Err(StorageError::Poisoned);
        }
        if !writer.pending_chunks.contains(&chunk) {
            writer.write(self, chunk, sealed).map_err(|error| storage_error(&error))?;
        }
        Ok(writer.pending_bytes >= UNSYNCED_BYTES_MAX || writer.pending.len() >= UNSYNCED_CHUNKS_MAX)
    }

    /// Makes every chunk durable whose append returned before this call. Threads that commit at the same time
    /// share one sync.
    ///
    /// # Errors
    /// When the disk fails; then the store acknowledges nothing more until it is opened again. When the metadata
    /// has no room, the batch stays and the next commit tries again.
    pub fn commit(&self) -> Result<(), StorageError> {
        let target = lock(&self.writer).appended;
        let mut index = lock(&self.index);
        self.commit_holding(&mut index, target)
    }

    /// Commits everything appended so far, for whoever holds the index.
    pub(super) fn commit_all(&self, index: &mut IndexTail) -> Result<(), StorageError> {
        let target = lock(&self.writer).appended;
        self.commit_holding(index, target)
    }

    /// A sync failed: what was written since the last one is in doubt.
    pub(super) fn poison(&self) {
        lock(&self.writer).failed = true;
    }

    fn commit_holding(&self, index: &mut IndexTail, target: u64) -> Result<(), StorageError> {
        let Some(unsynced) = self.take_unsynced(target)? else { return Ok(()) };
        // The writer is free meanwhile: others append while this batch goes to the disk.
        if let Some(error) = unsynced.files.iter().find_map(|file| file.sync().err()) {
            self.poison();
            return Err(storage_error(&error));
        }
        let mut batch = Batch::new();
        let before = index.0.clone();
        index.extend(&unsynced.records, &mut batch);
        let committed = if batch.is_empty() { Ok(()) } else { self.metadata().commit(batch) };
        if let Err(error) = committed {
            index.0 = before;
            let mut writer = lock(&self.writer);
            match error {
                StorageError::Full => writer.pending.splice(0..0, unsynced.records).for_each(drop),
                _ => writer.failed = true,
            }
            return Err(error);
        }
        self.show(&unsynced.records);
        let mut writer = lock(&self.writer);
        for (_, record) in &unsynced.records {
            writer.pending_chunks.remove(&record.chunk);
        }
        writer.durable = writer.durable.max(unsynced.appended);
        Ok(())
    }

    /// Everything appended so far, unless all up to `target` is durable.
    fn take_unsynced(&self, target: u64) -> Result<Option<Unsynced>, StorageError> {
        let mut writer = lock(&self.writer);
        if writer.failed {
            return Err(StorageError::Poisoned);
        }
        if writer.durable >= target {
            return Ok(None);
        }
        writer.pending_bytes = 0;
        Ok(Some(Unsynced {
            records: std::mem::take(&mut writer.pending),
            files: std::mem::take(&mut writer.unsynced),
            appended: writer.appended,
        }))
    }

    /// Lets durable records be found.
    fn show(&self, records: &[(u32, Record)]) {
        let mut chunks = write(&self.chunks);
        let mut usage = lock(&self.usage);
        for (segment, record) in records {
            chunks.insert(self.row(*segment, record));
            usage.add(*segment, record);
        }
    }

    pub(super) fn row(&self, segment: u32, record: &Record) -> Row {
        Row {
            key: self.fingerprint.of_chunk(&record.chunk),
            first: record.offset,
            second: record.length,
            owner: segment,
        }
    }
}
