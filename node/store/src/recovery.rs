//! Opening a store: the tables are built from the index, and what the index does not cover is scanned.
//!
//! What recovery writes (the index, and marks on torn records) it can do without: a store on a read-only disk can still
//! be read.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, RwLock};

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError};
use holdfast_protocol::sealing::ChunkSealer;

use super::disk::{Access, Disk, DiskFile, storage_error};
use super::index::{self, Block, blocks_of};
use super::segment::{self, HEADER_BYTES, Record, Scan, is_from_a_newer_version};
use super::table::{Fingerprint, Row, Table};
use super::writer::{IndexTail, Writer};
use super::{ChunkStore, Handles, SegmentUsage, StoreConfig, Usage, in_place, lock};

/// What was found when a store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Chunks that the index named and the segments no longer hold: report them as lost.
    pub lost: Vec<ChunkId>,
    /// Chunks found in segments that the index did not name: after a crash, the last ones.
    pub found: u64,
    /// Segments whose index was gone and was made again from their headers. Their bytes were not read: a
    /// [`ChunkStore::scrub`] is due.
    pub rebuilt_segments: u64,
    /// Bytes of segments, before their last whole record, in which no chunk could be recognised.
    pub damaged_bytes: u64,
    /// Files whose records were damaged; a rescan takes them in again.
    pub damaged_files: u64,
}

pub(super) fn open(
    config: StoreConfig,
    segment_bytes: u64,
    disk: Arc<dyn Disk>,
    metadata: Box<dyn Metadata + Send>,
    sealer: Option<ChunkSealer>,
) -> Result<(ChunkStore, Recovery), StorageError> {
    let StoreConfig { directory, fingerprint_key } = config;
    disk.create_directory(&directory).map_err(|error| storage_error(&error))?;
    // A process that died may have removed a segment; without this a power loss could bring it back later, with chunks
    // that were removed since.
    match disk.sync_directory(&directory).map_err(|error| storage_error(&error)) {
        Ok(()) | Err(StorageError::ReadOnly { .. }) => {}
        Err(error) => return Err(error),
    }
    let paths = disk.list(&directory).map_err(|error| storage_error(&error))?;
    let present: BTreeSet<u32> = paths.iter().filter_map(|path| segment::number(path)).collect();
    let mut store = ChunkStore {
        disk,
        directory,
        segment_bytes,
        fingerprint: Fingerprint::new(fingerprint_key),
        metadata: Mutex::new(metadata),
        sealer: RwLock::new(sealer),
        chunks: RwLock::default(),
        files: RwLock::default(),
        writer: Mutex::new(Writer::new(None, 0)),
        index: Mutex::default(),
        usage: Mutex::default(),
        unreadable: Mutex::default(),
        handles: Mutex::new(Handles::default()),
        records: Mutex::default(),
        buffers: Mutex::default(),
    };
    let mut recovered = Recovered::default();
    let mut last = None;
    for segment in all_segments(&store, &present)? {
        let is_last = present.last() == Some(&segment);
        let block = if present.contains(&segment) {
            recovered.take_segment(&store, segment, is_last)?
        } else {
            recovered.take_missing(&store, segment)?;
            None
        };
        last = block.or(last);
    }
    let (files, cut_rows, damaged_files) = in_place::recover(&store)?;
    let Recovered { mut rows, mut usage, mut report, batch, next_segment } = recovered;
    report.damaged_files = damaged_files;
    usage.in_place_chunks = cut_rows.len() as u64;
    usage.in_place_bytes = cut_rows.iter().map(|row| u64::from(row.second)).sum();
    rows.extend(cut_rows);
    let chunks = Table::from_rows(rows);
    report.lost.retain(|chunk| chunks.find(store.fingerprint.of_chunk(chunk)).next().is_none());
    report.lost.sort_unstable();
    report.lost.dedup();
    let committed = if batch.is_empty() { Ok(()) } else { store.metadata().commit(batch) };
    match committed {
        // What was recovered is recovered again next time.
        Ok(()) | Err(StorageError::Full | StorageError::ReadOnly { .. }) => {}
        Err(error) => return Err(error),
    }
    let resume = last.as_ref().and_then(|block| Some((block.segment, usage.segments.get(&block.segment)?.tail)));
    store.writer = Mutex::new(Writer::new(resume, next_segment));
    store.index = Mutex::new(IndexTail::new(last));
    store.chunks = RwLock::new(chunks);
    store.files = RwLock::new(files);
    store.usage = Mutex::new(usage);
    Ok((store, report))
}

/// Every segment that is on the disk or in the index, in order.
fn all_segments(store: &ChunkStore, present: &BTreeSet<u32>) -> Result<BTreeSet<u32>, StorageError> {
    let mut all = present.clone();
    let mut from = Some(0);
    while let Some(start) = from {
        let segment = index::next_segment(&**store.metadata(), start)?;
        all.extend(segment);
        from = segment.and_then(|segment| segment.checked_add(1));
    }
    Ok(all)
}

#[derive(Default)]
struct Recovered {
    rows: Vec<Row>,
    usage: Usage,
    report: Recovery,
    /// What makes the index complete again.
    batch: Batch,
    next_segment: u32,
}

impl Recovered {
    /// Takes in a segment whose file is gone.
    fn take_missing(&mut self, store: &ChunkStore, segment: u32) -> Result<(), StorageError> {
        for block in index::blocks(&**store.metadata(), segment)? {
            block.remove(&mut self.batch);
            self.report.lost.extend(block.records.iter().map(|record| record.chunk));
        }
        // Its number is not given again while the removal of its blocks may be lost in a crash.
        self.next_segment = self.next_segment.max(segment + 1);
        Ok(())
    }

    /// Takes in a segment, and returns the last block of its index.
    fn take_segment(&mut self, store: &ChunkStore, segment: u32, is_last: bool) -> Result<Option<Block>, StorageError> {
        self.next_segment = self.next_segment.max(segment + 1);
        let fail = |error: io::Error| storage_error(&error);
        let file = store.disk.open(&segment::path(&store.directory, segment), Access::Read).map_err(fail)?;
        let length = file.stat().map_err(fail)?.size;
        if length < HEADER_BYTES {
            // The segment was begun by a process that died; nothing in it was ever acknowledged.
            return self.take_missing(store, segment).map(|()| None);
        }
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, 0).map_err(fail)?;
        if is_from_a_newer_version(&header) {
            let detail = format!("segment {segment} was written by a newer version; update Holdfast");
            return Err(StorageError::Failed { detail });
        }
        let known = index::blocks(&**store.metadata(), segment)?;
        let how = if known.is_empty() && !is_last { Scan::Headers } else { Scan::Bytes };
        if known.is_empty() && length > HEADER_BYTES {
            self.report.rebuilt_segments += u64::from(how == Scan::Headers);
        }
        let empty = SegmentUsage { tail: HEADER_BYTES, live_chunks: 0, live_bytes: 0 };
        self.usage.segments.insert(segment, empty);
        let mut last = Block::first(segment);
        let mut gap = Gap { file: &*file, segment, start: HEADER_BYTES, synced: false };
        for block in known {
            if u64::from(block.start) > gap.start {
                self.take_gap(store, &mut gap, u64::from(block.start).min(length), Some(block.start), how)?;
            }
            gap.start = gap.start.max(u64::from(block.end));
            last = self.take_block(store, block, length);
        }
        if gap.start < length {
            last = self.take_gap(store, &mut gap, length, None, how)?.unwrap_or(last);
        }
        let tail = u64::from(last.end);
        if let Some(usage) = self.usage.segments.get_mut(&segment) {
            usage.tail = usage.tail.max(tail);
        }
        Ok(Some(last))
    }

    /// Takes in what the index says, as far as the file reaches.
    fn take_block(&mut self, store: &ChunkStore, mut block: Block, length: u64) -> Block {
        let count = block.records.len();
        block.records.retain(|record| {
            let whole = record.payload() + u64::from(record.length) <= length;
            if !whole {
                self.report.lost.push(record.chunk);
            }
            whole
        });
        if block.records.len() < count {
            block.put(&mut self.batch);
        }
        self.take_records(store, block.segment, &block.records);
        block
    }

    /// Scans a stretch that the index does not cover, up to `to`. Behind it there is either a block that begins at
    /// `next`, or nothing. Returns the last block of those that cover it now.
    fn take_gap(
        &mut self,
        store: &ChunkStore,
        gap: &mut Gap<'_>,
        to: u64,
        next: Option<u32>,
        how: Scan,
    ) -> Result<Option<Block>, StorageError> {
        let fail = |error: io::Error| storage_error(&error);
        let found = segment::scan(gap.file, gap.segment, gap.start, to, how).map_err(fail)?;
        if !found.torn.is_empty() {
            // Once more has been written behind them, a scan of headers must not take them for chunks.
            let path = segment::path(&store.directory, gap.segment);
            if let Ok(file) = store.disk.open(&path, Access::Write) {
                found.torn.iter().for_each(|record| _ = record.disown(gap.segment, &*file));
                gap.synced = false;
            }
        }
        if how == Scan::Bytes && !found.records.is_empty() {
            write_again(store, gap.segment, &found.records)?;
            gap.synced = false;
        }
        if !found.records.is_empty() && !gap.synced {
            // A process that died may have left whole records that only the system's memory holds.
            gap.file.sync().map_err(fail)?;
            gap.synced = true;
        }
        self.report.found += found.records.len() as u64;
        self.report.damaged_bytes += found.damaged_bytes;
        self.take_records(store, gap.segment, &found.records);
        let start = u32::try_from(gap.start).unwrap_or(u32::MAX);
        let end = next.unwrap_or(u32::try_from(found.end).unwrap_or(u32::MAX));
        if end <= start {
            return Ok(None);
        }
        let blocks = blocks_of(gap.segment, start, end, &found.records);
        blocks.iter().for_each(|block| block.put(&mut self.batch));
        gap.start = u64::from(end);
        Ok(blocks.into_iter().next_back())
    }

    fn take_records(&mut self, store: &ChunkStore, segment: u32, records: &[Record]) {
        for record in records {
            self.rows.push(store.row(segment, record));
            self.usage.add(segment, record);
        }
    }
}

/// Writes whole records once more, as they are. The process that wrote them may have ended because a sync failed, and most
/// systems take what they could not write for written: no later sync writes it, although it can be read as long as the
/// power lasts (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
fn write_again(store: &ChunkStore, segment: u32, records: &[Record]) -> Result<(), StorageError> {
    let rewrite = || {
        let file = store.disk.open(&segment::path(&store.directory, segment), Access::Write)?;
        let mut bytes = Vec::new();
        for record in records {
            bytes.resize(HEADER_BYTES as usize + record.length as usize, 0);
            file.read_exact_at(&mut bytes, u64::from(record.offset))?;
            file.write_at(&[&bytes], u64::from(record.offset))?;
        }
        Ok(())
    };
    match rewrite().map_err(|error| storage_error(&error)) {
        // Nothing more can be done for them than a sync.
        Ok(()) | Err(StorageError::Full | StorageError::ReadOnly { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A stretch of a segment that the index does not cover.
struct Gap<'a> {
    file: &'a dyn DiskFile,
    segment: u32,
    start: u64,
    synced: bool,
}

impl Drop for ChunkStore {
    /// What was appended and not committed was never acknowledged; committing it is only a courtesy.
    fn drop(&mut self) {
        let mut index = std::mem::take(&mut *lock(&self.index));
        let _ = self.commit_all(&mut index);
    }
}
