//! The store on a disk that crashes, fills up and is tampered with.

mod crash;
mod damage;
mod originals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use holdfast_protocol::id::{ChunkId, LibraryId};
use holdfast_protocol::metadata::{Batch, Entry, Metadata, StorageError, Table};
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;

use super::simulated::SimulatedDisk;
use super::{ChunkStore, Recovery, StoreConfig, recovery, segment};

/// Small, so that a few chunks fill several.
const SEGMENT_BYTES: u64 = 20_000;

/// A machine with a disk and a database, on which a store is opened again and again.
struct Machine {
    disk: SimulatedDisk,
    metadata: JournaledMetadata,
}

impl Machine {
    fn new(seed: u64) -> Self {
        Self { disk: SimulatedDisk::new(seed), metadata: JournaledMetadata::default() }
    }

    fn try_open(&self) -> Result<(ChunkStore, Recovery), StorageError> {
        let config = StoreConfig { directory: PathBuf::from("/segments"), fingerprint_key: [7; 32] };
        let disk = Arc::new(self.disk.clone());
        recovery::open(config, SEGMENT_BYTES, disk, Box::new(self.metadata.clone()), Some(sealer()))
    }

    fn open(&self) -> ChunkStore {
        self.try_open().unwrap().0
    }

    fn segment(&self, number: u32) -> PathBuf {
        segment::path(Path::new("/segments"), number)
    }

    /// Where `bytes` begin in a segment.
    fn find(&self, number: u32, bytes: &[u8]) -> Option<usize> {
        let mut at = None;
        self.disk.tamper(&self.segment(number), |all| at = all.windows(bytes.len()).position(|window| window == bytes));
        at
    }
}

fn sealer() -> ChunkSealer {
    ChunkSealer::new(&LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32]))
}

/// A chunk of a few hundred to a few thousand bytes.
fn chunk(number: u32) -> (ChunkId, Vec<u8>) {
    let mut sealed = vec![0; 300 + (number as usize * 677) % 3000];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut sealed);
    (ChunkId::from_bytes(*blake3::hash(&sealed).as_bytes()), sealed)
}

fn put(store: &ChunkStore, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let (id, sealed) = chunk(number);
        store.append(id, &sealed).unwrap();
    }
    store.commit().unwrap();
}

#[track_caller]
fn assert_served(store: &ChunkStore, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let (id, sealed) = chunk(number);
        assert!(store.contains(&id), "chunk {number}");
        assert_eq!(store.length(&id), Some(sealed.len() as u32));
        assert_eq!(store.read(&id).unwrap(), sealed, "chunk {number}");
    }
}

/// Metadata that keeps every commit, so that a crash can keep any prefix of them.
#[derive(Clone, Default)]
struct JournaledMetadata(Arc<Mutex<Journal>>);

#[derive(Default)]
struct Journal {
    commits: Vec<Batch>,
    entries: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    /// Commits that fail from now on.
    full: bool,
}

impl JournaledMetadata {
    fn commits(&self) -> usize {
        self.0.lock().unwrap().commits.len()
    }

    /// A crash that lost all commits but the first `count`.
    fn truncate(&self, count: usize) {
        let mut journal = self.0.lock().unwrap();
        let mut commits = std::mem::take(&mut journal.commits);
        commits.truncate(count);
        *journal = Journal::default();
        commits.into_iter().for_each(|batch| journal.apply(batch));
    }

    /// Loses a whole table.
    fn clear(&self, table: Table) {
        self.0.lock().unwrap().entries.retain(|(of, _), _| *of != table);
    }

    fn tamper(&self, table: Table, change: impl Fn(&mut Vec<u8>)) {
        let mut journal = self.0.lock().unwrap();
        journal.entries.iter_mut().filter(|((of, _), _)| *of == table).for_each(|(_, value)| change(value));
    }

    fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }
}

impl Journal {
    fn apply(&mut self, batch: Batch) {
        for (table, key, value) in batch.changes() {
            match value {
                Some(value) => self.entries.insert((*table, key.clone()), value.clone()),
                None => self.entries.remove(&(*table, key.clone())),
            };
        }
        self.commits.push(batch);
    }
}

impl Metadata for JournaledMetadata {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.lock().unwrap().entries.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError> {
        let journal = self.0.lock().unwrap();
        let start = (table, from.max(prefix).to_vec());
        let entries =
            journal.entries.range(start..).take_while(|((of, key), _)| *of == table && key.starts_with(prefix));
        Ok(entries.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        let mut journal = self.0.lock().unwrap();
        if journal.full {
            return Err(StorageError::Full);
        }
        journal.apply(batch);
        Ok(())
    }
}

#[test]
fn what_was_put_is_served_once_committed() {
    let machine = Machine::new(1);
    let store = machine.open();
    let (id, sealed) = chunk(0);
    store.append(id, &sealed).unwrap();
    assert!(!store.contains(&id), "not durable yet");
    store.commit().unwrap();
    put(&store, 0..40);
    assert_served(&store, 0..40);
    let stats = store.stats();
    assert_eq!(stats.segment_chunks, 40, "a chunk is kept once");
    assert!(machine.disk.paths().len() > 2, "several segments");
    drop(store);

    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!(recovery, Recovery::default());
    assert_eq!(store.stats(), stats);
    assert_served(&store, 0..40);
    put(&store, 40..60);
    drop(store);
    assert_served(&machine.open(), 0..60);
}

#[test]
fn threads_that_commit_at_once_share_the_work() {
    let machine = Machine::new(2);
    let store = machine.open();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in thread * 50..(thread + 1) * 50 {
                    put(store, number..number + 1);
                    assert_served(store, [number]);
                }
            });
        }
    });
    drop(store);
    assert_served(&machine.open(), 0..200);
}

#[test]
fn what_was_removed_is_gone_from_the_disk_and_stays_gone_without_its_index() {
    let machine = Machine::new(3);
    let store = machine.open();
    put(&store, 0..10);
    let removed: Vec<ChunkId> = (2..5).map(|number| chunk(number).0).collect();
    let freed = store.remove(&removed).unwrap();
    assert_eq!(freed, (2..5).map(|number| chunk(number).1.len() as u64).sum::<u64>());
    assert!(removed.iter().all(|id| !store.contains(id) && store.read(id).is_err()));
    assert_eq!(machine.find(0, &chunk(3).1[..64]), None);
    assert_served(&store, (0..2).chain(5..10));
    drop(store);

    machine.metadata.clear(Table::Segment);
    let store = machine.open();
    assert!(removed.iter().all(|id| !store.contains(id)));
    assert_served(&store, (0..2).chain(5..10));
    put(&store, 2..5);
    drop(store);
    assert_served(&machine.open(), 0..10);
}

#[test]
fn compaction_gives_the_space_of_sparse_segments_back() {
    let machine = Machine::new(4);
    let store = machine.open();
    put(&store, 0..100);
    let files = machine.disk.paths().len();
    let removed: Vec<ChunkId> = (0..100).filter(|number| number % 4 != 0).map(|number| chunk(number).0).collect();
    store.remove(&removed).unwrap();
    let sparse = store.stats().sparse_bytes;
    let mut freed = 0;
    loop {
        match store.compact().unwrap() {
            0 => break,
            bytes => freed += bytes,
        }
    }
    assert!(freed > sparse / 2 && store.stats().sparse_bytes < sparse / 2, "{freed} of {sparse}");
    assert!(machine.disk.paths().len() < files);
    let kept = || (0..100).filter(|number| number % 4 == 0);
    assert_served(&store, kept());
    drop(store);
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!(recovery, Recovery::default());
    assert_served(&store, kept());
    assert_eq!(store.stats().segment_chunks, 25);
}
