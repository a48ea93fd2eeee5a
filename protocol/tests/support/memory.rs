//! Metadata in memory that loses at a crash what was not flushed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use holdfast_protocol::metadata::{Batch, Entry, Metadata, StorageError, Table};

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default, Clone)]
struct State {
    current: Tables,
    durable: Tables,
    unflushed: Vec<Batch>,
}

/// A handle: clones share the tables, as the handles of a real store do.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory(Rc<RefCell<State>>);

fn apply(tables: &mut Tables, batch: &Batch) {
    for (table, key, value) in batch.changes() {
        match value {
            Some(value) => drop(tables.insert((*table, key.clone()), value.clone())),
            None => drop(tables.remove(&(*table, key.clone()))),
        }
    }
}

impl Memory {
    /// How many batches a flush that begins now covers.
    pub(crate) fn begin_flush(&self) -> usize {
        self.0.borrow().unflushed.len()
    }

    pub(crate) fn complete_flush(&self, batches: usize) {
        let state = &mut *self.0.borrow_mut();
        let batches = batches.min(state.unflushed.len());
        for batch in state.unflushed.drain(..batches) {
            apply(&mut state.durable, &batch);
        }
    }

    pub(crate) fn crash(&self) {
        let state = &mut *self.0.borrow_mut();
        state.current = state.durable.clone();
        state.unflushed.clear();
    }

    /// A copy that shares nothing: a backup of the durable state.
    pub(crate) fn backup(&self) -> Self {
        let durable = self.0.borrow().durable.clone();
        Self(Rc::new(RefCell::new(State { current: durable.clone(), durable, unflushed: Vec::new() })))
    }
}

impl Metadata for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.borrow().current.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError> {
        let state = self.0.borrow();
        let start = prefix.max(from).to_vec();
        let entries =
            state.current.range((table, start)..).take_while(|((of, key), _)| *of == table && key.starts_with(prefix));
        Ok(entries.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        let state = &mut *self.0.borrow_mut();
        apply(&mut state.current, &batch);
        state.unflushed.push(batch);
        Ok(())
    }
}
