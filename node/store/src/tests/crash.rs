//! Crashes at every changing operation, power lost or only the process.

use std::collections::BTreeSet;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::*;

/// What a run was told: the promises that hold after its crash.
#[derive(Default)]
struct Promises {
    held: BTreeSet<u32>,
    removed: BTreeSet<u32>,
    /// Being put when the crash came: held or not, but not claimed in vain.
    putting: BTreeSet<u32>,
    /// Being removed when the crash came.
    removing: BTreeSet<u32>,
}

impl Promises {
    fn check(&self, store: &ChunkStore, at: u64) {
        for number in &self.held {
            let (id, sealed) = chunk(*number);
            assert_eq!(store.read(&id).ok(), Some(sealed), "chunk {number} was acknowledged, crash at {at}");
        }
        for number in &self.removed {
            assert!(store.read(&chunk(*number).0).is_err(), "chunk {number} was removed, crash at {at}");
        }
        for number in &self.putting {
            let (id, sealed) = chunk(*number);
            let claimed = store.contains(&id);
            assert_eq!(store.read(&id).ok(), claimed.then_some(sealed), "chunk {number}, crash at {at}");
        }
        for number in &self.removing {
            let (id, sealed) = chunk(*number);
            assert!(store.read(&id).is_ok_and(|read| read == sealed) || !store.contains(&id));
        }
    }
}

/// Puts, removes and compacts until the disk crashes or everything is done.
fn work(store: &ChunkStore, promises: &mut Promises, numbers: std::ops::Range<u32>) -> Result<(), StorageError> {
    for start in numbers.step_by(12) {
        let batch: Vec<u32> = (start..start + 12).collect();
        promises.putting.extend(&batch);
        for number in &batch {
            let (id, sealed) = chunk(*number);
            store.append(id, &sealed)?;
        }
        store.commit()?;
        batch.iter().for_each(|number| _ = promises.putting.remove(number));
        promises.held.extend(&batch);

        // Most of what is new, and of what is old, which compaction may have moved.
        let old = start.saturating_sub(24)..start;
        let gone = batch.iter().copied().filter(|number| number % 3 != 0).chain(old.filter(|number| number % 2 == 0));
        let gone: Vec<u32> = gone.filter(|number| promises.held.remove(number)).collect();
        promises.removing.extend(&gone);
        store.remove(&gone.iter().map(|number| chunk(*number).0).collect::<Vec<_>>())?;
        gone.iter().for_each(|number| _ = promises.removing.remove(number));
        promises.removed.extend(&gone);
        store.compact()?;
    }
    Ok(())
}

fn crash_everywhere(lose_power: bool) {
    let reference = Machine::new(0);
    work(&reference.open(), &mut Promises::default(), 0..72).unwrap();
    let operations = reference.disk.operations();
    assert!(operations > 100);
    let mut random = ChaCha20Rng::seed_from_u64(99);
    for at in 0..operations {
        let machine = Machine::new(at);
        let mut promises = Promises::default();
        let mut store = machine.open();
        // Once in a while the second life crashes too.
        for crash in [at, u64::from(random.next_u32()) % operations] {
            let first = 1000 * u32::from(crash != at);
            machine.disk.crash_at(machine.disk.operations() + crash);
            let outcome = work(&store, &mut promises, first..first + 72);
            assert_eq!(outcome.is_err(), machine.disk.has_crashed());
            drop(store);
            let commits = machine.metadata.commits();
            if lose_power {
                machine.disk.power_loss();
                // The database lost its latest commits: any number, since nothing here flushes it.
                machine.metadata.truncate(commits - random.next_u32() as usize % (commits + 1));
            } else {
                machine.disk.restart();
                machine.metadata.truncate(commits - random.next_u32() as usize % 3.min(commits + 1));
            }
            store = machine.open();
            promises.check(&store, at);
            // What is claimed after the process died must not need the power to stay on.
            let found: Vec<u32> = promises.putting.iter().copied().filter(|n| store.contains(&chunk(*n).0)).collect();
            drop(store);
            machine.disk.power_loss();
            store = machine.open();
            assert_served(&store, found);
            promises.check(&store, at);
        }
        put(&store, 5000..5010);
        drop(store);
        let store = machine.open();
        assert_served(&store, 5000..5010);
        promises.check(&store, at);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails_at_any_operation() {
    crash_everywhere(true);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_dies_at_any_operation() {
    crash_everywhere(false);
}

#[test]
fn a_torn_tail_is_cut_off_and_what_is_whole_is_found() {
    let machine = Machine::new(5);
    let store = machine.open();
    put(&store, 0..3);
    let commits = machine.metadata.commits();
    put(&store, 3..6);
    drop(store);
    machine.metadata.truncate(commits);
    machine.disk.tamper(&machine.segment(0), |bytes| bytes.truncate(bytes.len() - 100));
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!((recovery.found, recovery.lost.len()), (2, 0));
    assert_served(&store, 0..5);
    assert!(!store.contains(&chunk(5).0));
    put(&store, 5..8);
    drop(store);
    assert_served(&machine.open(), 0..8);
}
