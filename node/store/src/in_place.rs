//! Files outside the store: which state of them was taken in, and which chunks can be sealed again from them.
//!
//! Invariants:
//! - A chunk sealed again is compared to its id, so that an original that changed unnoticed is never served.
//! - The table of files in memory answers "is this file as it was?" without a read; a rescan of unchanged files
//!   never touches the metadata.
//! - A row's cut number is a hint: the record's own list decides.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::metadata::{Batch, StorageError, Table as Tables};
use holdfast_protocol::sealing::sealed_length;

use super::disk::{Access, FileStat};
use super::file_record::{FileRecord, InPlaceCut, State, decode, encode};
use super::table::{Row, Table};
use super::{ChunkStore, IN_PLACE, ReadError, index, is_unreadable, lock, path_bytes, read, write};

/// The number that the store gave a file, below 2³¹; it stays with the file until that is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNumber(pub(super) u32);

impl FileNumber {
    /// The number, for a bitmap of files that were seen.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What is known of a file by its path and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was never taken in.
    No,
    /// It was taken in, in another state.
    Changed(FileNumber),
    /// It was taken in as it is, but a crash or a failure kept its import from being finished: import it again.
    Unfinished(FileNumber),
    /// It was taken in as it is.
    Unchanged(FileNumber),
}

/// Set in the owner of a file's row until its import is finished.
pub(super) const UNFINISHED: u32 = 1 << 31;

/// Rows: the path's fingerprint, the state's hash in two words, and the number with [`UNFINISHED`].
#[derive(Default)]
pub(super) struct Files {
    pub(super) table: Table,
    pub(super) next: u32,
}

impl ChunkStore {
    /// What is known of the file at `path`, which is now in state `stat`. Costs no read.
    #[must_use]
    pub fn look_up(&self, path: &Path, stat: &FileStat) -> Known {
        let Some(row) = self.file_row(path) else { return Known::No };
        let number = FileNumber(row.owner & !UNFINISHED);
        if [row.first, row.second] != self.stat_words(stat) {
            Known::Changed(number)
        } else if row.owner & UNFINISHED == 0 {
            Known::Unchanged(number)
        } else {
            Known::Unfinished(number)
        }
    }

    /// The number of the file at `path`, in whatever state it was taken in.
    #[must_use]
    pub fn file_number(&self, path: &Path) -> Option<FileNumber> {
        self.file_row(path).map(|row| FileNumber(row.owner & !UNFINISHED))
    }

    /// The record of the file at `path`.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn file(&self, path: &Path) -> Result<Option<FileRecord>, StorageError> {
        match self.file_row(path) {
            Some(row) => Ok(self.load(row.owner & !UNFINISHED)?.filter(|record| record.path == path)),
            None => Ok(None),
        }
    }

    /// Takes files in: from now on their cuts are held. A record replaces the one of an earlier state of its path.
    /// The files count as unfinished until [`ChunkStore::finish_files`]. Returns the chunks that are no longer held
    /// because a file was replaced.
    ///
    /// The records are durable with the next flush of the metadata, as are deposits that are committed later.
    ///
    /// # Errors
    /// When the metadata cannot be written; then nothing changes.
    pub fn adopt_files(&self, records: &[FileRecord]) -> Result<Vec<ChunkId>, StorageError> {
        let mut files = write(&self.files);
        let mut batch = Batch::new();
        let mut next = files.next;
        let mut adopted = Vec::with_capacity(records.len());
        // Of a path that comes twice, the last record counts.
        let records: BTreeMap<&Path, &FileRecord> = records.iter().map(|record| (&*record.path, record)).collect();
        for record in records.into_values() {
            let old_row = files.table.find(self.path_key(&record.path)).next();
            let number = old_row.map_or(next, |row| row.owner & !UNFINISHED);
            next = next.max(number + 1);
            let old = if old_row.is_some() { self.load(number)? } else { None };
            batch.put(Tables::File, number.to_be_bytes(), encode(record, State::Unfinished)?);
            adopted.push((number, record, old));
        }
        if next > UNFINISHED {
            return Err(StorageError::Failed { detail: "there are more files than can be numbered".into() });
        }
        self.metadata().commit(batch)?;
        files.next = next;
        let mut dropped = Vec::new();
        for (number, record, old) in adopted {
            for row in files.table.find(self.path_key(&record.path)).collect::<Vec<_>>() {
                files.table.remove(row);
            }
            files.table.insert(self.new_file_row(record, number, State::Unfinished));
            if let Some(old) = old {
                dropped.extend(self.hide_cuts(number, &old.cuts));
            }
            self.show_cuts(number, &record.cuts);
            lock(&self.records).remove(number);
        }
        drop(files);
        Ok(self.no_longer_held(dropped))
    }

    /// Marks files as imported: their photos are deposited and in the catalog. Unknown paths are ignored.
    ///
    /// # Errors
    /// When the metadata cannot be written; then nothing changes.
    pub fn finish_files<P: AsRef<Path>>(&self, paths: &[P]) -> Result<(), StorageError> {
        self.mark_files(paths, State::Finished)
    }

    /// Takes back that a file is imported: the catalog is about to be told that it is gone, and would have to be told anew that
    /// it is there. An unknown path is ignored.
    ///
    /// # Errors
    /// When the metadata cannot be written; then nothing changes.
    pub fn reopen_file(&self, path: &Path) -> Result<(), StorageError> {
        self.mark_files(&[path], State::Unfinished)
    }

    fn mark_files<P: AsRef<Path>>(&self, paths: &[P], state: State) -> Result<(), StorageError> {
        let mut files = write(&self.files);
        let mut batch = Batch::new();
        let mut marked = Vec::new();
        for path in paths {
            let is_other = |row: &Row| (row.owner & UNFINISHED == 0) != (state == State::Finished);
            let row = files.table.find(self.path_key(path.as_ref())).find(is_other);
            let Some(row) = row else { continue };
            let key = (row.owner & !UNFINISHED).to_be_bytes();
            let value = self.metadata().get(Tables::File, &key)?;
            let Some((record, _)) = value.as_deref().and_then(decode) else { continue };
            batch.put(Tables::File, key, encode(&record, state)?);
            marked.push(row);
        }
        if marked.is_empty() {
            return Ok(());
        }
        self.metadata().commit(batch)?;
        for row in marked {
            if files.table.remove(row) {
                files.table.insert(Row { owner: row.owner ^ UNFINISHED, ..row });
            }
        }
        Ok(())
    }

    /// Forgets files that are gone or no longer watched. Returns the chunks that are no longer held because of it.
    ///
    /// # Errors
    /// When the metadata cannot be written; then nothing changes.
    pub fn forget_files<P: AsRef<Path>>(&self, paths: &[P]) -> Result<Vec<ChunkId>, StorageError> {
        let mut files = write(&self.files);
        let mut batch = Batch::new();
        let mut forgotten = Vec::new();
        for path in paths {
            let Some(row) = files.table.find(self.path_key(path.as_ref())).next() else { continue };
            let number = row.owner & !UNFINISHED;
            let cuts = self.load(number)?.map(|record| record.cuts).unwrap_or_default();
            batch.remove(Tables::File, number.to_be_bytes());
            forgotten.push((row, number, cuts));
        }
        if forgotten.is_empty() {
            return Ok(Vec::new());
        }
        self.metadata().commit(batch)?;
        let mut dropped = Vec::new();
        for (row, number, cuts) in forgotten {
            files.table.remove(row);
            dropped.extend(self.hide_cuts(number, &cuts));
            lock(&self.records).remove(number);
        }
        drop(files);
        Ok(self.no_longer_held(dropped))
    }

    /// Makes `sealed` the chunk that lies at cut `cut` of `file`.
    pub(super) fn reseal(
        &self,
        chunk: &ChunkId,
        row: Row,
        file: FileNumber,
        cut: u32,
        sealed: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let sealer = read(&self.sealer).clone().ok_or(ReadError::NoKey { chunk: *chunk })?;
        let record = self.record(file.0)?.ok_or(ReadError::NotHeld { chunk: *chunk })?;
        let hinted = record.cuts.get(cut as usize).filter(|cut| cut.chunk == *chunk);
        let cut = hinted.or_else(|| record.cuts.iter().find(|cut| cut.chunk == *chunk));
        let cut = cut.ok_or(ReadError::NotHeld { chunk: *chunk })?;
        let changed = || {
            self.hide_row(row);
            ReadError::Changed { path: record.path.clone() }
        };
        // A file that cannot even be opened may lie on a disk that is not connected.
        let failed = |error: io::Error| unreadable(&record.path, &error);
        let original = self.disk.open(&record.path, Access::Read).map_err(failed)?;
        // What the hash would say as well. The change time says less: it moves when a file is linked or renamed.
        let stat = original.stat().map_err(failed)?;
        if (stat.size, stat.mtime_ns) != (record.stat.size, record.stat.mtime_ns) {
            return Err(changed());
        }
        let mut plaintext = lock(&self.buffers).pop().unwrap_or_default();
        plaintext.resize(cut.length as usize, 0);
        let outcome = match original.read_exact_at(&mut plaintext, cut.offset) {
            Ok(()) => {
                sealed.clear();
                match sealer.reseal_into(&plaintext, cut.epoch, sealed) {
                    Some(id) if id == *chunk => Ok(()),
                    Some(_) => Err(changed()),
                    None => Err(ReadError::NoKey { chunk: *chunk }),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(changed()),
            Err(error) if is_unreadable(&error) => Err(self.hide_unreadable(*chunk, row)),
            Err(error) => Err(failed(error)),
        };
        let mut buffers = lock(&self.buffers);
        if buffers.len() < BUFFERS_MAX {
            buffers.push(plaintext);
        }
        outcome
    }

    /// Takes the chunks of `cuts` that lie in file `number` out of the table; those that were there.
    pub(super) fn hide_cuts(&self, number: u32, cuts: &[InPlaceCut]) -> Vec<ChunkId> {
        // What could not be read in the file is not to come back with it.
        lock(&self.unreadable).retain(|_, row| row.owner != IN_PLACE | number);
        let mut chunks = write(&self.chunks);
        let mut usage = lock(&self.usage);
        let mut hidden = Vec::new();
        for cut in cuts {
            let key = self.fingerprint.of_chunk(&cut.chunk);
            for row in chunks.find(key).filter(|row| row.owner == IN_PLACE | number).collect::<Vec<_>>() {
                if chunks.remove(row) {
                    usage.forget(row);
                    hidden.push(cut.chunk);
                }
            }
        }
        hidden
    }

    /// Lets the chunks of `cuts` be found in file `number`.
    fn show_cuts(&self, number: u32, cuts: &[InPlaceCut]) {
        self.show_rows(self.cut_rows(number, cuts));
    }

    /// Lets chunks be found in originals.
    pub(super) fn show_rows(&self, rows: impl IntoIterator<Item = Row>) {
        let mut chunks = write(&self.chunks);
        let mut usage = lock(&self.usage);
        for row in rows {
            // A file of equal stretches names a chunk twice; one location is enough.
            if !chunks.find(row.key).any(|known| known.owner == row.owner) {
                chunks.insert(row);
                usage.in_place_chunks += 1;
                usage.in_place_bytes += u64::from(row.second);
            }
        }
    }

    pub(super) fn cut_rows<'a>(&'a self, number: u32, cuts: &'a [InPlaceCut]) -> impl Iterator<Item = Row> + 'a {
        cuts.iter().zip(0..).map(move |(cut, at)| Row {
            key: self.fingerprint.of_chunk(&cut.chunk),
            first: at,
            second: u32::try_from(sealed_length(cut.length as usize)).unwrap_or(u32::MAX),
            owner: IN_PLACE | number,
        })
    }

    pub(super) fn new_file_row(&self, record: &FileRecord, number: u32, state: State) -> Row {
        let [first, second] = self.stat_words(&record.stat);
        let flag = if state == State::Finished { 0 } else { UNFINISHED };
        Row { key: self.path_key(&record.path), first, second, owner: number | flag }
    }

    pub(super) fn hide_row(&self, row: Row) {
        if write(&self.chunks).remove(row) {
            lock(&self.usage).forget(row);
        }
    }

    pub(super) fn no_longer_held(&self, mut chunks: Vec<ChunkId>) -> Vec<ChunkId> {
        chunks.retain(|chunk| !self.contains(chunk));
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    fn file_row(&self, path: &Path) -> Option<Row> {
        read(&self.files).table.find(self.path_key(path)).next()
    }

    pub(super) fn path_key(&self, path: &Path) -> u64 {
        self.fingerprint.of_bytes(path_bytes(path))
    }

    fn stat_words(&self, stat: &FileStat) -> [u32; 2] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&stat.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&stat.mtime_ns.to_le_bytes());
        bytes[16..].copy_from_slice(&stat.ctime_ns.to_le_bytes());
        let hash = self.fingerprint.of_bytes(&bytes);
        [(hash >> 32) as u32, hash as u32]
    }

    /// The record of file `number`, kept for the next chunk of the same file.
    fn record(&self, number: u32) -> Result<Option<Arc<FileRecord>>, StorageError> {
        if let Some(record) = lock(&self.records).get(number) {
            return Ok(Some(record));
        }
        let record = self.load(number)?.map(Arc::new);
        if let Some(record) = &record {
            lock(&self.records).put(number, record.clone());
        }
        Ok(record)
    }

    pub(super) fn load(&self, number: u32) -> Result<Option<FileRecord>, StorageError> {
        let value = self.metadata().get(Tables::File, &number.to_be_bytes())?;
        Ok(value.and_then(|value| decode(&value)).map(|(record, _)| record))
    }

    /// Puts records without some of their cuts into `batch`: chunks that were removed.
    pub(super) fn drop_cuts(&self, number: u32, gone: &[ChunkId], batch: &mut Batch) -> Result<(), StorageError> {
        let Some(value) = self.metadata().get(Tables::File, &number.to_be_bytes())? else { return Ok(()) };
        let Some((mut record, state)) = decode(&value) else { return Ok(()) };
        record.cuts.retain(|cut| !gone.contains(&cut.chunk));
        batch.put(Tables::File, number.to_be_bytes(), encode(&record, state)?);
        Ok(())
    }

    /// Up to `limit` files from number `from` on, and the number to continue with.
    pub(super) fn files_from(&self, from: u32, limit: usize) -> Result<(NumberedRecords, Option<u32>), StorageError> {
        let page = self.metadata().scan(Tables::File, &[], &from.to_be_bytes(), limit)?;
        let number = |key: &[u8]| Some(u32::from_be_bytes(key.try_into().ok()?));
        let next = page.last().filter(|_| page.len() == limit).and_then(|(key, _)| Some(number(key)? + 1));
        let records = page.iter().filter_map(|(key, value)| Some((number(key)?, decode(value)?.0))).collect();
        Ok((records, next))
    }
}

type NumberedRecords = Vec<(u32, FileRecord)>;

const BUFFERS_MAX: usize = 4;

fn unreadable(path: &Path, error: &io::Error) -> ReadError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Missing { path },
        _ => ReadError::Unreadable { path, detail: error.to_string() },
    }
}

/// Records of files that were read from lately, the latest first; one at least, however many cuts it has.
#[derive(Default)]
pub(super) struct RecordCache(Vec<(u32, Arc<FileRecord>)>);

impl RecordCache {
    const FILES_MAX: usize = 16;
    const CUTS_MAX: usize = 1 << 15;

    fn get(&mut self, number: u32) -> Option<Arc<FileRecord>> {
        let at = self.0.iter().position(|(known, _)| *known == number)?;
        self.0[..=at].rotate_right(1);
        Some(self.0[0].1.clone())
    }

    fn put(&mut self, number: u32, record: Arc<FileRecord>) {
        self.remove(number);
        self.0.insert(0, (number, record));
        let mut cuts = 0;
        let fitting = self.0.iter().take_while(|(_, record)| {
            cuts += record.cuts.len();
            cuts <= Self::CUTS_MAX
        });
        let fitting = fitting.count().clamp(1, Self::FILES_MAX);
        self.0.truncate(fitting);
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.0.retain(|(known, _)| *known != number);
    }
}

/// The rows of all files in the metadata, for opening the store: file rows, rows of cuts, and how many records were
/// damaged. Damaged records are dropped from the metadata: their files are new to the next rescan.
pub(super) fn recover(store: &ChunkStore) -> Result<(Files, Vec<Row>, u64), StorageError> {
    let (mut rows, mut cuts, mut next, mut damaged) = (Vec::new(), Vec::new(), 0, Batch::new());
    let mut from = Vec::new();
    loop {
        let page = store.metadata().scan(Tables::File, &[], &from, 256)?;
        for (key, value) in &page {
            let number = key.as_slice().try_into().ok().map(u32::from_be_bytes).filter(|number| *number < UNFINISHED);
            let Some((number, (record, state))) = number.zip(decode(value)) else {
                damaged.remove(Tables::File, key.clone());
                continue;
            };
            rows.push(store.new_file_row(&record, number, state));
            let mut of_file: Vec<Row> = store.cut_rows(number, &record.cuts).collect();
            of_file.sort_unstable_by_key(|row| row.key);
            of_file.dedup_by_key(|row| row.key);
            cuts.append(&mut of_file);
            next = next.max(number + 1);
        }
        match page.last() {
            Some((key, _)) if page.len() == 256 => from = index::successor(key),
            _ => break,
        }
    }
    let count = damaged.changes().len() as u64;
    if !damaged.is_empty() {
        store.metadata().commit(damaged)?;
    }
    Ok((Files { table: Table::from_rows(rows), next }, cuts, count))
}
