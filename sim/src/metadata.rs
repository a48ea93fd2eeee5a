//! Metadata that loses at a crash what was not flushed.
//!
//! Invariant: after a crash a prefix of the committed batches is left, each whole, with at least every batch that was
//! committed before a completed flush began.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use holdfast_protocol::metadata::{Batch, Entry, Metadata, StorageError, Table};

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
struct State {
    visible: Tables,
    durable: Tables,
    unflushed: Vec<Batch>,
    /// Batches that were ever made durable: what a flush covers is counted from the start.
    flushed: u64,
}

/// A handle: clones share the tables, as the handles of the real store do.
#[derive(Debug, Default, Clone)]
pub struct VirtualMetadata(Rc<RefCell<State>>);

/// How far a flush reaches: everything committed before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushPoint(u64);

impl VirtualMetadata {
    /// A flush begins.
    #[must_use]
    pub fn begin_flush(&self) -> FlushPoint {
        let state = self.0.borrow();
        FlushPoint(state.flushed + state.unflushed.len() as u64)
    }

    /// The flush that began at `point` has succeeded.
    pub fn complete_flush(&self, point: FlushPoint) {
        self.0.borrow_mut().settle(point.0);
    }

    /// How many batches a crash may take.
    #[must_use]
    pub fn unflushed(&self) -> u64 {
        self.0.borrow().unflushed.len() as u64
    }

    /// The machine dies; of what was not flushed, the oldest `surviving` batches happen to be on the disk.
    pub fn crash(&self, surviving: u64) {
        let state = &mut *self.0.borrow_mut();
        state.settle(state.flushed + surviving);
        state.unflushed.clear();
        state.visible = state.durable.clone();
    }

    /// What a crash of this moment that takes everything unflushed would leave, on a disk of its own.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let durable = self.0.borrow().durable.clone();
        Self(Rc::new(RefCell::new(State { visible: durable.clone(), durable, ..State::default() })))
    }
}

impl State {
    fn settle(&mut self, until: u64) {
        let batches = usize::try_from(until.saturating_sub(self.flushed)).unwrap_or(usize::MAX);
        for batch in self.unflushed.drain(..batches.min(self.unflushed.len())) {
            apply(&mut self.durable, &batch);
            self.flushed += 1;
        }
    }
}

fn apply(tables: &mut Tables, batch: &Batch) {
    for (table, key, value) in batch.changes() {
        match value {
            Some(value) => drop(tables.insert((*table, key.clone()), value.clone())),
            None => drop(tables.remove(&(*table, key.clone()))),
        }
    }
}

impl Metadata for VirtualMetadata {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.borrow().visible.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError> {
        let state = self.0.borrow();
        let start = prefix.max(from).to_vec();
        let entries =
            state.visible.range((table, start)..).take_while(|((of, key), _)| *of == table && key.starts_with(prefix));
        Ok(entries.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        let state = &mut *self.0.borrow_mut();
        apply(&mut state.visible, &batch);
        state.unflushed.push(batch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(metadata: &mut VirtualMetadata, key: u8) {
        let mut batch = Batch::new();
        batch.put(Table::Local, vec![key], vec![key]);
        metadata.commit(batch).unwrap();
    }

    fn keys(metadata: &VirtualMetadata) -> Vec<u8> {
        metadata.scan(Table::Local, &[], &[], 100).unwrap().into_iter().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn a_crash_takes_what_no_flush_covers_from_the_end() {
        let mut metadata = VirtualMetadata::default();
        put(&mut metadata, 1);
        let first = metadata.begin_flush();
        for key in 2..6 {
            put(&mut metadata, key);
        }
        let second = metadata.begin_flush();
        metadata.complete_flush(first);
        assert_eq!(keys(&metadata.after_crash()), [1]);
        assert_eq!(metadata.unflushed(), 4);
        metadata.crash(2);
        assert_eq!(keys(&metadata), [1, 2, 3], "a prefix is left");
        put(&mut metadata, 9);
        metadata.complete_flush(first);
        metadata.crash(0);
        assert_eq!(keys(&metadata), [1, 2, 3], "flushes that are done cover nothing later");
        let _ = second;
    }
}
