//! The metadata in sled. Nothing else names it.
//!
//! All tables share one tree, a key's first byte naming its table, because a batch is atomic within one tree only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_protocol::metadata::{Batch, Entry, Metadata, StorageError, Table};

use super::disk::storage_error;

/// Pages kept in memory. What is read often is in tables of its own, so little is enough.
const CACHE_BYTES: u64 = 8 << 20;
/// How long a commit may wait before it is written down unasked.
const FLUSH_EVERY_MS: u64 = 500;
/// Space below which nothing is written any more: sled does not survive a full disk in the middle of a write.
const FREE_BYTES_MIN: u64 = 32 << 20;

/// Metadata in an embedded database. Clones share it.
#[derive(Clone)]
pub struct SledMetadata {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    database: sled::Db,
    poisoned: AtomicBool,
}

impl SledMetadata {
    /// Opens the database in the folder `path`, making it when missing.
    ///
    /// # Errors
    /// When it is damaged, or its folder cannot be written.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .mode(sled::Mode::LowSpace)
            .print_profile_on_drop(false);
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(failure(error, path)),
            Err(_) => return Err(damaged(path)),
        };
        Ok(Self { shared: Arc::new(Shared { path: path.to_owned(), database, poisoned: AtomicBool::new(false) }) })
    }

    /// Makes every batch durable that was committed before this call.
    ///
    /// # Errors
    /// When the disk fails; then nothing is written any more until the database is opened again.
    pub fn flush(&self) -> Result<(), StorageError> {
        if self.shared.poisoned.load(Ordering::Acquire) {
            return Err(StorageError::Poisoned);
        }
        self.writing(|database| database.flush().map(drop))
    }

    /// Bytes of the database's files.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.reading(sled::Db::size_on_disk)
    }

    fn reading<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StorageError> {
        // sled asserts where it meets pages that make no sense.
        match catch_unwind(AssertUnwindSafe(|| work(&self.shared.database))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failure(error, &self.shared.path)),
            Err(_) => Err(damaged(&self.shared.path)),
        }
    }

    fn writing<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StorageError> {
        self.reading(work).inspect_err(|_| self.shared.poisoned.store(true, Ordering::Release))
    }
}

impl Metadata for SledMetadata {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let key = full_key(table, key);
        self.reading(|database| Ok(database.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError> {
        let prefix = full_key(table, prefix);
        let start = full_key(table, from).max(prefix.clone());
        self.reading(|database| {
            let entries = database.range(start..).take(limit);
            let mut found = Vec::new();
            for entry in entries {
                let (key, value) = entry?;
                if !key.starts_with(&prefix) {
                    break;
                }
                found.push((key[1..].to_vec(), value.to_vec()));
            }
            Ok(found)
        })
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        if self.shared.poisoned.load(Ordering::Acquire) {
            return Err(StorageError::Poisoned);
        }
        let status = rustix::fs::statvfs(&self.shared.path).map_err(|error| storage_error(&error.into()))?;
        if status.f_bavail.saturating_mul(status.f_frsize) < FREE_BYTES_MIN {
            return Err(StorageError::Full);
        }
        let mut changes = sled::Batch::default();
        for (table, key, value) in batch.changes() {
            match value {
                Some(value) => changes.insert(full_key(*table, key), value.as_slice()),
                None => changes.remove(full_key(*table, key)),
            }
        }
        self.writing(|database| database.apply_batch(changes))
    }
}

/// The number of a table on disk; never given to another one.
const fn table_byte(table: Table) -> u8 {
    match table {
        Table::Local => 1,
        Table::Log => 2,
        Table::Author => 3,
        Table::Inventory => 4,
        Table::Peer => 5,
        Table::Catalog => 6,
        Table::Segment => 7,
        Table::File => 8,
        Table::Invitation => 9,
    }
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(1 + key.len());
    full.push(table_byte(table));
    full.extend_from_slice(key);
    full
}

fn failure(error: sled::Error, path: &Path) -> StorageError {
    match error {
        sled::Error::Io(error) => storage_error(&error),
        sled::Error::Corruption { .. } => damaged(path),
        other => StorageError::Failed { detail: other.to_string() },
    }
}

fn damaged(path: &Path) -> StorageError {
    StorageError::Damaged { what: format!("the database in {}", path.display()) }
}
