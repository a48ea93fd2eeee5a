//! Taking chunks out, giving space back, and looking for rot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::metadata::{Batch, StorageError, Table};

use super::disk::{Access, storage_error};
use super::index;
use super::segment::{self, HEADER_BYTES, Record};
use super::table::Row;
use super::writer::IndexTail;
use super::{ChunkStore, Location, ReadError, location, lock, read, write};

/// Where a scrub continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubCursor(Next);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Segment { segment: u32, offset: u32 },
    File { number: u32 },
}

impl Default for ScrubCursor {
    /// The beginning.
    fn default() -> Self {
        Self(Next::Segment { segment: 0, offset: 0 })
    }
}

/// Where the cursor of the scrub that never ends is kept in the metadata.
const SCRUB_KEY: &[u8] = b"scrub";

impl ScrubCursor {
    /// `0 u8 ‖ segment u32 ‖ offset u32` in segments, `1 u8 ‖ number u32` in files.
    fn encode(self) -> Vec<u8> {
        match self.0 {
            Next::Segment { segment, offset } => [&[0][..], &segment.to_le_bytes(), &offset.to_le_bytes()].concat(),
            Next::File { number } => [&[1][..], &number.to_le_bytes()].concat(),
        }
    }

    /// `None` for what is no cursor of this version.
    fn decode(kept: &[u8]) -> Option<Self> {
        let (kind, rest) = kept.split_first()?;
        let (first, rest) = rest.split_first_chunk()?;
        let first = u32::from_le_bytes(*first);
        match (kind, rest) {
            (0, offset) => {
                let offset = u32::from_le_bytes(offset.try_into().ok()?);
                Some(Self(Next::Segment { segment: first, offset }))
            }
            (1, []) => Some(Self(Next::File { number: first })),
            _ => None,
        }
    }
}

/// What a part of a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrub {
    /// Sealed bytes that were read and compared to their ids.
    pub checked_bytes: u64,
    /// Chunks that are no longer held, because no location had their bytes: report them as lost.
    pub lost: Vec<ChunkId>,
    /// Chunks that could not be read before and can be again: report them as stored.
    pub found: Vec<ChunkId>,
    /// Originals that are not as they were: look at them again.
    pub changed: Vec<PathBuf>,
    /// Originals that are not there or cannot be read now.
    pub missing: Vec<PathBuf>,
    /// Where to continue; nothing when everything was looked at.
    pub next: Option<ScrubCursor>,
}

impl ChunkStore {
    /// Removes chunks from segments, and forgets that originals hold them (the originals stay as they are). Their
    /// bytes are gone from the disk when this returns. Returns the bytes given back.
    ///
    /// The caller does not put the same chunks at the same time; who reads them meanwhile may find them damaged.
    ///
    /// # Errors
    /// When the disk or the metadata fails.
    pub fn remove(&self, chunks: &[ChunkId]) -> Result<u64, StorageError> {
        let mut index = lock(&self.index);
        self.commit_all(&mut index)?;
        let mut rows = Vec::new();
        let mut in_segments: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        let mut in_files: BTreeMap<u32, Vec<ChunkId>> = BTreeMap::new();
        for chunk in chunks {
            let hidden = lock(&self.unreadable).get(chunk).copied();
            for row in read(&self.chunks).find(self.fingerprint.of_chunk(chunk)).chain(hidden) {
                rows.push(row);
                match location(row) {
                    Location::Segment(segment) => {
                        let record = Record { chunk: *chunk, offset: row.first, length: row.second };
                        in_segments.entry(segment).or_default().push(record);
                    }
                    Location::InPlace { file, .. } => in_files.entry(file.get()).or_default().push(*chunk),
                }
            }
        }
        let mut batch = Batch::new();
        for (segment, records) in &in_segments {
            let offsets = records.iter().map(|record| record.offset).collect();
            self.drop_records(&mut index, *segment, &offsets, &mut batch)?;
        }
        for (number, gone) in &in_files {
            self.drop_cuts(*number, gone, &mut batch)?;
        }
        if rows.is_empty() {
            return Ok(0);
        }
        // Erased first: a crash in between leaves locations without bytes, which the next read or removal forgets.
        // The other way round it would leave bytes that nobody knows of, for a rebuilt index to find.
        let mut freed = 0;
        for (segment, records) in &in_segments {
            freed += self.erase(*segment, records)?;
        }
        self.metadata().commit(batch)?;
        for row in rows {
            self.hide_row(row);
        }
        chunks.iter().for_each(|chunk| _ = lock(&self.unreadable).remove(chunk));
        in_files.keys().for_each(|number| lock(&self.records).remove(*number));
        Ok(freed)
    }

    /// Gives back the space of the sparsest segment, if more than half of one is free: moves what lives elsewhere
    /// and removes the file. Returns the bytes given back, 0 when there is nothing to do. Putting waits meanwhile,
    /// less than a second.
    ///
    /// # Errors
    /// When the disk is full or fails; then the segment stays.
    pub fn compact(&self) -> Result<u64, StorageError> {
        let mut index = lock(&self.index);
        self.commit_all(&mut index)?;
        let open = lock(&self.writer).open_segment();
        let sparsest = {
            let usage = lock(&self.usage);
            // What cannot be read cannot be moved: its segment stays.
            let stuck: BTreeSet<u32> = lock(&self.unreadable).values().map(|row| row.owner).collect();
            let closed = usage.segments.iter().filter(|(number, _)| Some(**number) != open && !stuck.contains(number));
            let sparse = closed.filter(|(_, usage)| usage.live_bytes * 2 <= usage.tail - HEADER_BYTES);
            sparse.min_by_key(|(_, usage)| usage.live_bytes).map(|(number, usage)| (*number, *usage))
        };
        let Some((segment, usage)) = sparsest else { return Ok(0) };
        let blocks = index::blocks(&**self.metadata(), segment)?;
        let mut sealed = Vec::new();
        let mut damaged = Vec::new();
        for record in blocks.iter().flat_map(|block| &block.records) {
            let row = self.row(segment, record);
            if !read(&self.chunks).find(row.key).any(|known| known == row) {
                continue;
            }
            match self.read_segment_row(&record.chunk, row, &mut sealed) {
                Ok(true) => {
                    if self.append_again(record.chunk, &sealed)? {
                        self.commit_all(&mut index)?;
                    }
                }
                Ok(false) => damaged.push(row),
                Err(error) => return Err(error),
            }
        }
        self.commit_all(&mut index)?;
        if !damaged.is_empty() {
            // Reading or scrubbing them will say so; a segment with damage is not thrown away silently.
            damaged.into_iter().for_each(|row| self.hide_row(row));
        }
        write(&self.chunks).retain(|row| row.owner != segment);
        lock(&self.usage).segments.remove(&segment);
        lock(&self.handles).remove(segment);
        let fail = |error: std::io::Error| storage_error(&error);
        self.disk.remove(&segment::path(&self.directory, segment)).map_err(fail)?;
        self.disk.sync_directory(&self.directory).map_err(fail)?;
        let mut batch = Batch::new();
        blocks.iter().for_each(|block| block.remove(&mut batch));
        if !batch.is_empty() {
            self.metadata().commit(batch)?;
        }
        Ok((usage.tail - HEADER_BYTES).saturating_sub(usage.live_bytes))
    }

    /// Reads chunks and compares them to their ids, from `cursor` on and for about `bytes` bytes.
    ///
    /// # Errors
    /// When the metadata cannot be read, or the disk fails in a way that says nothing about the chunks.
    pub fn scrub(&self, cursor: ScrubCursor, bytes: u64) -> Result<Scrub, StorageError> {
        let mut scrub = Scrub { next: Some(cursor), ..Scrub::default() };
        while let Some(ScrubCursor(next)) = scrub.next {
            if scrub.checked_bytes >= bytes {
                break;
            }
            let next = match next {
                Next::Segment { segment, offset } => self.scrub_segment(segment, offset, bytes, &mut scrub)?,
                Next::File { number } => self.scrub_file(number, &mut scrub)?,
            };
            scrub.next = next.map(ScrubCursor);
        }
        Ok(scrub)
    }

    /// Goes on with the scrub where the last call of this stopped, also before a restart: the next `bytes` bytes or so, and from
    /// the beginning again after the last ones.
    ///
    /// # Errors
    /// As [`ChunkStore::scrub`], and when the metadata cannot be written.
    pub fn scrub_on(&self, bytes: u64) -> Result<Scrub, StorageError> {
        let kept = self.metadata().get(Table::Local, SCRUB_KEY)?;
        let cursor = kept.and_then(|kept| ScrubCursor::decode(&kept)).unwrap_or_default();
        let scrub = self.scrub(cursor, bytes)?;
        let mut batch = Batch::new();
        batch.put(Table::Local, SCRUB_KEY, scrub.next.unwrap_or_default().encode());
        self.metadata().commit(batch)?;
        Ok(scrub)
    }

    /// The chunk whose record covers the byte at `at` of the segment in `path`, as far as the index knows: what a bad
    /// sector has damaged.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn chunk_at(&self, path: &Path, at: u64) -> Result<Option<ChunkId>, StorageError> {
        let Some(segment) = segment::number(path) else { return Ok(None) };
        let blocks = index::blocks(&**self.metadata(), segment)?;
        let mut records = blocks.iter().flat_map(|block| &block.records);
        let covering = records.find(|record| (u64::from(record.offset)..record.end()).contains(&at));
        Ok(covering.map(|record| record.chunk))
    }

    fn scrub_segment(
        &self,
        segment: u32,
        offset: u32,
        bytes: u64,
        scrub: &mut Scrub,
    ) -> Result<Option<Next>, StorageError> {
        let Some(segment) = lock(&self.usage).segments.range(segment..).next().map(|(number, _)| *number) else {
            return Ok(Some(Next::File { number: 0 }));
        };
        let blocks = index::blocks(&**self.metadata(), segment)?;
        let records = blocks.iter().flat_map(|block| &block.records).filter(|record| record.offset >= offset);
        let mut sealed = Vec::new();
        for record in records {
            if scrub.checked_bytes >= bytes {
                return Ok(Some(Next::Segment { segment, offset: record.offset }));
            }
            let row = self.row(segment, record);
            let is_shown = read(&self.chunks).find(row.key).any(|known| known == row);
            let is_hidden = lock(&self.unreadable).get(&record.chunk) == Some(&row);
            if !is_shown && !is_hidden {
                continue;
            }
            match self.read_row(&record.chunk, row, &mut sealed) {
                Ok(()) if is_hidden => {
                    self.show_again(*record, row);
                    scrub.found.push(record.chunk);
                }
                Ok(()) => self.mend_header(segment, *record, row),
                Err(_) if is_hidden => {}
                Err(ReadError::Storage(error)) => return Err(error),
                // Compaction may have moved it since.
                Err(_) => scrub.lost.extend((!self.contains(&record.chunk)).then_some(record.chunk)),
            }
            scrub.checked_bytes += u64::from(record.length);
        }
        Ok(Some(Next::Segment { segment: segment.saturating_add(1), offset: 0 }))
    }

    /// Writes the header of a record that is well again if it has rotted: without it the record would be lost with the
    /// index. Should this fail, the next scrub tries again.
    fn mend_header(&self, segment: u32, record: Record, row: Row) {
        let (header, at) = (record.header(segment), u64::from(record.offset));
        let mut found = [0; HEADER_BYTES as usize];
        let is_read = self.segment_file(segment).and_then(|file| file.read_exact_at(&mut found, at)).is_ok();
        if !is_read || found == header {
            return;
        }
        // While this is held the record is not removed: what was erased must not come back.
        let _index = lock(&self.index);
        if read(&self.chunks).find(row.key).any(|known| known == row) {
            let file = self.disk.open(&segment::path(&self.directory, segment), Access::Write);
            let _ = file.and_then(|file| file.write_at(&[&header], at));
        }
    }

    /// Lets a record be found again that could not be read before.
    fn show_again(&self, record: Record, row: Row) {
        if lock(&self.unreadable).remove(&record.chunk).is_some() {
            write(&self.chunks).insert(row);
            lock(&self.usage).add(row.owner, &record);
        }
    }

    fn scrub_file(&self, number: u32, scrub: &mut Scrub) -> Result<Option<Next>, StorageError> {
        let (files, next) = self.files_from(number, 1)?;
        let mut sealed = Vec::new();
        for (number, record) in files {
            for row in self.cut_rows(number, &record.cuts) {
                let chunk = &record.cuts[row.first as usize].chunk;
                let shown = read(&self.chunks).find(row.key).find(|known| known.owner == row.owner);
                let hidden = lock(&self.unreadable).get(chunk).copied().filter(|hidden| hidden.owner == row.owner);
                let Some(row) = shown.or(hidden) else { continue };
                let outcome = self.read_row(chunk, row, &mut sealed);
                if outcome.as_ref().is_err_and(ReadError::is_loss) && shown.is_some() {
                    scrub.lost.extend((!self.contains(chunk)).then_some(*chunk));
                }
                let paths = match outcome {
                    Ok(()) => {
                        if shown.is_none() && lock(&self.unreadable).remove(chunk).is_some() {
                            self.show_rows([row]);
                            scrub.found.push(*chunk);
                        }
                        scrub.checked_bytes += u64::from(row.second);
                        continue;
                    }
                    Err(ReadError::Storage(error)) => return Err(error),
                    Err(ReadError::Changed { .. }) => &mut scrub.changed,
                    Err(_) => &mut scrub.missing,
                };
                if paths.last() != Some(&record.path) {
                    paths.push(record.path.clone());
                }
            }
        }
        Ok(next.map(|number| Next::File { number }))
    }

    /// A segment does not hold the bytes that `row` promises: forgets the location, so that the chunk can be put
    /// again. The bytes stay on the disk, for whoever wants to look at them; no scan takes them for the chunk's.
    pub(super) fn forget_damaged(&self, chunk: ChunkId, row: Row) {
        let mut index = lock(&self.index);
        self.hide_row(row);
        lock(&self.unreadable).remove(&chunk);
        if let Ok(file) = self.disk.open(&segment::path(&self.directory, row.owner), Access::Write) {
            let _ = Record { chunk, offset: row.first, length: row.second }.disown(row.owner, &*file);
        }
        let mut batch = Batch::new();
        // Should this fail, the next open or read finds the damage again.
        if self.drop_records(&mut index, row.owner, &BTreeSet::from([row.first]), &mut batch).is_ok() {
            let _ = self.metadata().commit(batch);
        }
    }

    /// Whether a segment has the bytes that `row` promises, which `sealed` then is.
    fn read_segment_row(&self, chunk: &ChunkId, row: Row, sealed: &mut Vec<u8>) -> Result<bool, StorageError> {
        sealed.resize(row.second as usize, 0);
        let file = self.segment_file(row.owner).map_err(|error| storage_error(&error))?;
        match file.read_exact_at(sealed, u64::from(row.first) + HEADER_BYTES) {
            Ok(()) => Ok(*blake3::hash(sealed).as_bytes() == *chunk.as_bytes()),
            Err(error) if super::is_transient(&error) => Err(storage_error(&error)),
            Err(_) => Ok(false),
        }
    }

    /// Puts the blocks of `segment` into `batch` that named records at `offsets`, without those.
    fn drop_records(
        &self,
        index: &mut IndexTail,
        segment: u32,
        offsets: &BTreeSet<u32>,
        batch: &mut Batch,
    ) -> Result<(), StorageError> {
        for mut block in index::blocks(&**self.metadata(), segment)? {
            let count = block.records.len();
            block.records.retain(|record| !offsets.contains(&record.offset));
            if block.records.len() < count {
                block.put(batch);
                index.replace(&block);
            }
        }
        Ok(())
    }

    fn erase(&self, segment: u32, records: &[Record]) -> Result<u64, StorageError> {
        let fail = |error: std::io::Error| storage_error(&error);
        let file = self.disk.open(&segment::path(&self.directory, segment), Access::Write).map_err(fail)?;
        let mut freed = 0;
        for record in records {
            record.erase(&*file).map_err(fail)?;
            freed += u64::from(record.length);
        }
        file.sync().map_err(|error| {
            self.poison();
            fail(error)
        })?;
        Ok(freed)
    }
}
