//! Files outside the store, folder by folder: which a walk did not see, which have moved, and since when some are missed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_protocol::codec;
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::metadata::{Batch, StorageError, Table as Tables};
use roaring::RoaringBitmap;

use super::disk::FileIdentity;
use super::file_record::{decode, encode, stored_path};
use super::in_place::UNFINISHED;
use super::{ChunkStore, lock, path_bytes, read, write};

/// Where the folders that are missed are kept in the metadata.
const MISSED_KEY: &[u8] = b"missed folders";
const MISSED_BYTES_MAX: usize = 16 << 20;
/// Records that are rewritten in one batch.
const BATCH_FILES: usize = 1024;

/// A known file that a walk did not see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unseen {
    /// Where it was.
    pub path: PathBuf,
    /// The photo that it was.
    pub photo: PhotoId,
    /// Which file it was.
    pub identity: FileIdentity,
}

impl ChunkStore {
    /// The known files at or below `root` whose numbers are not in `seen`, in the order of their paths: after a walk through
    /// `root`, those that are not there any more. Costs a read for each file that was not seen, and none when all were.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn unseen(&self, root: &Path, seen: &RoaringBitmap) -> Result<Vec<Unseen>, StorageError> {
        let mut unseen = Vec::new();
        for number in self.file_numbers() - seen {
            let record = self.load(number)?.filter(|record| record.path.starts_with(root));
            unseen.extend(record.map(|record| Unseen {
                path: record.path,
                photo: record.photo,
                identity: record.identity,
            }));
        }
        unseen.sort_unstable();
        Ok(unseen)
    }

    /// Which of `photos` one of the files `numbers` is. Costs a read for each of these.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn photos_among(
        &self,
        numbers: &RoaringBitmap,
        photos: &BTreeSet<PhotoId>,
    ) -> Result<BTreeSet<PhotoId>, StorageError> {
        let mut found = BTreeSet::new();
        for number in numbers {
            found.extend(self.load(number)?.map(|record| record.photo).filter(|photo| photos.contains(photo)));
            if found.len() == photos.len() {
                break;
            }
        }
        Ok(found)
    }

    /// The folder `from` is called `to` from now on: its files are known by their new paths, as they were. Of a path that is
    /// known at `to` already, what is known there counts, and what was known of the other is forgotten. Returns the chunks that
    /// are no longer held because of that.
    ///
    /// # Errors
    /// When the metadata cannot be read or written; then some have moved, and the rest can be moved later.
    pub fn move_files(&self, from: &Path, to: &Path) -> Result<Vec<ChunkId>, StorageError> {
        let mut hidden = Vec::new();
        let numbers: Vec<u32> = self.file_numbers().iter().collect();
        for numbers in numbers.chunks(BATCH_FILES) {
            let mut files = write(&self.files);
            let (mut batch, mut moved) = (Batch::new(), Vec::new());
            for number in numbers {
                let Some(value) = self.metadata().get(Tables::File, &number.to_be_bytes())? else { continue };
                let Some((mut record, state)) = decode(&value) else { continue };
                let Ok(inside) = record.path.strip_prefix(from) else { continue };
                let before = self.path_key(&record.path);
                record.path = to.join(inside);
                let is_known = files.table.find(self.path_key(&record.path)).next().is_some();
                if is_known {
                    batch.remove(Tables::File, number.to_be_bytes());
                } else {
                    batch.put(Tables::File, number.to_be_bytes(), encode(&record, state)?);
                }
                moved.push((*number, before, record, (!is_known).then_some(state)));
            }
            if moved.is_empty() {
                continue;
            }
            self.metadata().commit(batch)?;
            for (number, before, record, state) in moved {
                let old = files.table.find(before).find(|old| old.owner & !UNFINISHED == number);
                old.into_iter().for_each(|old| _ = files.table.remove(old));
                lock(&self.records).remove(number);
                match state {
                    Some(state) => files.table.insert(self.new_file_row(&record, number, state)),
                    None => hidden.extend(self.hide_cuts(number, &record.cuts)),
                }
            }
        }
        Ok(self.no_longer_held(hidden))
    }

    /// The folders that are missed, and since when by the clock on the wall (since the Unix epoch).
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn missed(&self) -> Result<BTreeMap<PathBuf, Duration>, StorageError> {
        let Some(value) = self.metadata().get(Tables::Local, MISSED_KEY)? else { return Ok(BTreeMap::new()) };
        // A value that cannot be read is as good as absent: they are missed from now on.
        let missed: Vec<(Vec<u8>, u64)> = codec::decode(&value, MISSED_BYTES_MAX).unwrap_or_default();
        let folder = |(path, since): (Vec<u8>, u64)| Some((stored_path(&path)?, Duration::from_millis(since)));
        Ok(missed.into_iter().filter_map(folder).collect())
    }

    /// Remembers the folders that are missed.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn remember_missed(&self, missed: &BTreeMap<PathBuf, Duration>) -> Result<(), StorageError> {
        let missed: Vec<(Vec<u8>, u64)> =
            missed.iter().map(|(path, since)| (path_bytes(path).to_vec(), since.as_millis() as u64)).collect();
        let mut batch = Batch::new();
        batch.put(Tables::Local, MISSED_KEY, codec::encode(&missed));
        self.metadata().commit(batch)
    }

    fn file_numbers(&self) -> RoaringBitmap {
        read(&self.files).table.iter().map(|row| row.owner & !UNFINISHED).collect()
    }
}
