//! Metadata on a virtual disk: it loses at a crash what was not flushed, and fails when the disk does.
//!
//! Invariant: after a crash a prefix of the committed batches is left, each whole, with at least every batch that was
//! committed before a completed flush began.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::metadata::{Batch, Entry, Metadata, StorageError, Table};
use holdfast_store::disk::{Disk as _, storage_error};
use holdfast_store::simulated::SimulatedDisk;

/// Space below which nothing is written any more, as the real database does.
const FREE_BYTES_MIN: u64 = 32 << 20;

type Value = Arc<[u8]>;
type Key = (Table, Vec<u8>);

#[derive(Debug, Default, Clone)]
struct State {
    tables: BTreeMap<Key, Value>,
    /// For every batch that is not durable, what its keys were before it, in the order of its changes.
    unflushed: Vec<Vec<(Key, Option<Value>)>>,
    /// Batches that were ever made durable: what a flush covers is counted from the start.
    flushed: u64,
    is_poisoned: bool,
}

/// A handle: clones share the tables, as the handles of the real store do.
#[derive(Clone)]
pub struct VirtualMetadata {
    state: Arc<Mutex<State>>,
    disk: SimulatedDisk,
    /// Handles of earlier boots are dead.
    boot: u64,
}

/// How far a flush reaches: everything committed before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPoint(u64);

impl VirtualMetadata {
    /// Empty tables on `disk`.
    #[must_use]
    pub fn new(disk: SimulatedDisk) -> Self {
        Self { state: Arc::default(), boot: disk.boot(), disk }
    }

    /// A flush begins.
    #[must_use]
    pub fn begin_flush(&self) -> FlushPoint {
        let state = self.state();
        FlushPoint(state.flushed + state.unflushed.len() as u64)
    }

    /// The flush that began at `point` ends.
    ///
    /// # Errors
    /// When the disk fails; then nothing is written any more until the tables are opened again.
    pub fn complete_flush(&self, point: FlushPoint) -> Result<(), StorageError> {
        let mut state = self.state();
        if state.is_poisoned {
            return Err(StorageError::Poisoned);
        }
        if state.flushed < point.0
            && let Err(error) = self.disk.sync_elsewhere()
        {
            state.is_poisoned = true;
            return Err(storage_error(&error));
        }
        state.settle(point.0);
        Ok(())
    }

    /// How many batches a crash may take.
    #[must_use]
    pub fn unflushed(&self) -> u64 {
        self.state().unflushed.len() as u64
    }

    /// The process has died; of what was not flushed, the oldest `surviving` batches happen to be on the disk. All
    /// handles but this one are dead.
    pub fn crash(&mut self, surviving: u64) {
        self.boot = self.disk.boot();
        let mut state = self.state();
        state.is_poisoned = false;
        let until = state.flushed + surviving;
        state.settle(until);
        state.undo();
    }

    /// What a crash of this moment that takes everything unflushed would leave, on `disk`.
    #[must_use]
    pub fn after_crash(&self, disk: SimulatedDisk) -> Self {
        let mut state = self.state().clone();
        state.is_poisoned = false;
        state.undo();
        Self { state: Arc::new(Mutex::new(state)), boot: disk.boot(), disk }
    }

    /// The tables as they are in `backup`, all durable. Every earlier handle is dead.
    pub fn restore(&mut self, backup: &Self) {
        self.boot = self.disk.boot();
        let tables = backup.state().tables.clone();
        *self.state() = State { tables, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the disk says to a commit.
    fn write(&self) -> Result<(), StorageError> {
        let fail = |error: std::io::Error| storage_error(&error);
        if self.disk.free_bytes(std::path::Path::new("/")).map_err(fail)? < FREE_BYTES_MIN {
            return Err(StorageError::Full);
        }
        self.disk.append_elsewhere().map_err(fail)
    }
}

impl State {
    fn settle(&mut self, until: u64) {
        let batches = usize::try_from(until.saturating_sub(self.flushed)).unwrap_or(usize::MAX);
        self.flushed += self.unflushed.drain(..batches.min(self.unflushed.len())).count() as u64;
    }

    fn undo(&mut self) {
        for (key, before) in
            std::mem::take(&mut self.unflushed).into_iter().rev().flat_map(|batch| batch.into_iter().rev())
        {
            self.set(key, before);
        }
    }

    fn set(&mut self, key: (Table, Vec<u8>), value: Option<Value>) -> Option<Value> {
        match value {
            Some(value) => self.tables.insert(key, value),
            None => self.tables.remove(&key),
        }
    }
}

impl Metadata for VirtualMetadata {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.state().tables.get(&(table, key.to_vec())).map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError> {
        let state = self.state();
        let start = prefix.max(from).to_vec();
        let entries =
            state.tables.range((table, start)..).take_while(|((of, key), _)| *of == table && key.starts_with(prefix));
        Ok(entries.take(limit).map(|((_, key), value)| (key.clone(), value.to_vec())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        if self.state().is_poisoned {
            return Err(StorageError::Poisoned);
        }
        if self.boot != self.disk.boot() {
            return Err(StorageError::Failed { detail: "the process that opened these tables has died".into() });
        }
        let written = self.write();
        let mut state = self.state();
        if let Err(error) = written {
            // A database whose write failed is in doubt; one that was refused for want of space is not.
            state.is_poisoned |= !matches!(error, StorageError::Full | StorageError::ReadOnly { .. });
            return Err(error);
        }
        let mut before = Vec::with_capacity(batch.changes().len());
        for (table, key, value) in batch.changes() {
            let key: (Table, Vec<u8>) = (*table, key.clone());
            let old = state.set(key.clone(), value.as_ref().map(|value| Arc::from(value.as_slice())));
            before.push((key, old));
        }
        state.unflushed.push(before);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(metadata: &mut VirtualMetadata, key: u8, value: u8) {
        let mut batch = Batch::new();
        batch.put(Table::Local, vec![key], vec![value]);
        metadata.commit(batch).unwrap();
    }

    fn entries(metadata: &VirtualMetadata) -> Vec<(u8, u8)> {
        let all = metadata.scan(Table::Local, &[], &[], 100).unwrap();
        all.into_iter().map(|(key, value)| (key[0], value[0])).collect()
    }

    #[test]
    fn a_crash_takes_what_no_flush_covers_from_the_end() {
        let disk = SimulatedDisk::new(1);
        let mut metadata = VirtualMetadata::new(disk.clone());
        put(&mut metadata, 1, 1);
        let first = metadata.begin_flush();
        put(&mut metadata, 1, 2);
        put(&mut metadata, 2, 2);
        put(&mut metadata, 3, 3);
        put(&mut metadata, 1, 4);
        let _ = metadata.begin_flush();
        metadata.complete_flush(first).unwrap();
        assert_eq!(entries(&metadata.after_crash(disk.copy())), [(1, 1)]);
        assert_eq!(metadata.unflushed(), 4);
        let mut dead = metadata.clone();
        disk.restart();
        metadata.crash(2);
        assert_eq!(entries(&metadata), [(1, 2), (2, 2)], "a prefix is left");
        put(&mut metadata, 9, 9);
        metadata.complete_flush(first).unwrap();
        metadata.crash(0);
        assert_eq!(entries(&metadata), [(1, 2), (2, 2)], "flushes that are done cover nothing later");
        assert!(dead.commit(Batch::new()).is_err(), "the dead write nothing");
    }

    #[test]
    fn a_disk_that_fails_or_is_full_is_noticed() {
        let disk = SimulatedDisk::new(1);
        let mut metadata = VirtualMetadata::new(disk.clone());
        disk.set_capacity(1 << 20);
        assert_eq!(metadata.commit(Batch::new()), Err(StorageError::Full));
        disk.set_capacity(1 << 40);
        put(&mut metadata, 1, 1);
        disk.set_failing_syncs(true);
        assert!(metadata.complete_flush(metadata.begin_flush()).is_err());
        disk.set_failing_syncs(false);
        assert_eq!(metadata.complete_flush(metadata.begin_flush()), Err(StorageError::Poisoned));
        assert_eq!(metadata.commit(Batch::new()), Err(StorageError::Poisoned));
        metadata.crash(0);
        assert_eq!(entries(&metadata), []);
        put(&mut metadata, 1, 1);
    }
}
