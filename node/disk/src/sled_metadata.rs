//! The metadata in sled. Nothing else names it.
//!
//! All tables share one tree, a key's first byte naming its table, because a batch is atomic within one tree only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_protocol::metadata::{Batch, Entry, Metadata, StorageError, Table};
use holdfast_store::disk::storage_error;

/// Pages kept in memory. What is read often is in tables of its own, so little is enough. It is a goal more than a
/// bound: sled evicts from each of its 256 shards only after 64 look-ups there.
const CACHE_BYTES: u64 = 2 << 20;
/// A scan looks up what it passes once for so many bytes.
const LOOK_UP_EVERY_BYTES: usize = 256;
/// How long a commit may wait before it is written down unasked.
const FLUSH_EVERY_MS: u64 = 500;
/// Space below which nothing is written any more: sled does not survive a full disk in the middle of a write.
const FREE_BYTES_MIN: u64 = 32 << 20;
/// How often, and after how long, a database is tried again that is still locked.
const LOCKED_ATTEMPTS: u32 = 100;
const LOCKED_DELAY: Duration = Duration::from_millis(50);

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
        let database = open(path)?;
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
                // sled drops pages from memory only after many look-ups, and walking along does not count as one:
                // without these, one for every few bytes, a scan of everything would keep everything.
                for _ in 0..value.len().div_ceil(LOOK_UP_EVERY_BYTES).min(limit - 1) {
                    database.contains_key(&key)?;
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

#[expect(clippy::disallowed_methods, reason = "opening is done by a driver, before anything runs")]
fn open(path: &Path) -> Result<sled::Db, StorageError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .mode(sled::Mode::LowSpace)
        .print_profile_on_drop(false);
    for _ in 0..LOCKED_ATTEMPTS {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(database)) => return Ok(database),
            // A database that this process closed just now: a thread of sled's own lets go of it a moment later.
            Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCKED_DELAY);
            }
            Ok(Err(error)) => return Err(failure(error, path)),
            Err(_) => return Err(damaged(path)),
        }
    }
    Err(StorageError::Failed { detail: format!("another process uses {}", path.display()) })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn put(metadata: &mut SledMetadata, table: Table, key: &[u8], value: &[u8]) {
        let mut batch = Batch::new();
        batch.put(table, key, value);
        metadata.commit(batch).unwrap();
    }

    #[test]
    fn tables_are_apart_and_scans_are_in_order() {
        let home = tempfile::tempdir().unwrap();
        let mut metadata = SledMetadata::open(home.path()).unwrap();
        for table in Table::ALL {
            for key in [b"aa", b"ab", b"b\xff"] {
                put(&mut metadata, table, key, table.name().as_bytes());
            }
        }
        for table in Table::ALL {
            let keys = |prefix: &[u8], from: &[u8], limit| {
                let entries = metadata.scan(table, prefix, from, limit).unwrap();
                assert!(entries.iter().all(|(_, value)| value == table.name().as_bytes()));
                entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
            };
            assert_eq!(keys(b"", b"", 9), [&b"aa"[..], b"ab", b"b\xff"]);
            assert_eq!(keys(b"a", b"", 9), [&b"aa"[..], b"ab"]);
            assert_eq!(keys(b"a", b"ab", 9), [&b"ab"[..]]);
            assert_eq!(keys(b"", b"aa\0", 1), [&b"ab"[..]]);
            assert_eq!(keys(b"b\xff", b"", 9), [&b"b\xff"[..]]);
            assert!(keys(b"c", b"", 9).is_empty());
        }
    }

    #[test]
    fn clones_share_the_database_and_it_is_there_after_reopening() {
        let home = tempfile::tempdir().unwrap();
        let mut metadata = SledMetadata::open(home.path()).unwrap();
        let mut batch = Batch::new();
        batch.put(Table::Log, "first", vec![1; 100_000]);
        batch.put(Table::Local, "removed", "x");
        batch.remove(Table::Local, "removed");
        metadata.commit(batch).unwrap();
        metadata.flush().unwrap();
        let clone = metadata.clone();
        put(&mut metadata, Table::Log, b"second", b"2");
        assert_eq!(clone.get(Table::Log, b"second").unwrap(), Some(b"2".to_vec()));
        drop((metadata, clone));
        let metadata = SledMetadata::open(home.path()).unwrap();
        assert_eq!(metadata.get(Table::Log, b"first").unwrap(), Some(vec![1; 100_000]));
        assert_eq!(metadata.get(Table::Log, b"second").unwrap(), Some(b"2".to_vec()));
        assert_eq!(metadata.get(Table::Local, b"removed").unwrap(), None);
    }

    #[test]
    fn damaged_files_are_an_error_or_lose_the_end_but_never_a_panic() {
        let home = tempfile::tempdir().unwrap();
        let original = home.path().join("original");
        let mut metadata = SledMetadata::open(&original).unwrap();
        for number in 0..500u32 {
            put(&mut metadata, Table::Log, &number.to_be_bytes(), &[number as u8; 500]);
        }
        metadata.flush().unwrap();
        drop(metadata);
        let database = std::fs::read(original.join("db")).unwrap();
        for seed in 0..12usize {
            let damaged = home.path().join(seed.to_string());
            std::fs::create_dir(&damaged).unwrap();
            std::fs::copy(original.join("conf"), damaged.join("conf")).unwrap();
            let mut bytes = database.clone();
            if seed % 2 == 0 {
                bytes.truncate(bytes.len() * seed / 12);
            } else {
                let at = bytes.len() * seed / 12;
                bytes[at..at + 200].fill(0xa5);
            }
            std::fs::write(damaged.join("db"), bytes).unwrap();
            if let Ok(metadata) = SledMetadata::open(&damaged) {
                for number in 0..500u32 {
                    if let Ok(Some(value)) = metadata.get(Table::Log, &number.to_be_bytes()) {
                        assert_eq!(value, [number as u8; 500], "wrong bytes are never read");
                    }
                }
            }
        }
    }
}
