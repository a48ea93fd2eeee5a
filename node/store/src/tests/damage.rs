//! Disks that fill up, fail, are read-only, or were damaged by hand.

use super::*;
use crate::simulated::Failing;
use crate::{ReadError, ScrubCursor};

fn flip(machine: &Machine, segment: u32, at: usize) {
    machine.disk.tamper(&machine.segment(segment), |bytes| bytes[at] ^= 1);
}

#[test]
fn a_flipped_byte_is_never_served_and_can_be_replaced() {
    let machine = Machine::new(1);
    let store = machine.open();
    put(&store, 0..8);
    let at = machine.find(0, &chunk(3).1).unwrap();
    flip(&machine, 0, at + 17);
    let (id, sealed) = chunk(3);
    assert!(matches!(store.read(&id), Err(ReadError::Damaged { .. })));
    assert!(matches!(store.read(&id), Err(ReadError::NotHeld { .. })), "the location is forgotten");
    assert_eq!(store.stats().segment_chunks, 7);
    store.put(id, &sealed).unwrap();
    assert_served(&store, 0..8);
    drop(store);
    assert_served(&machine.open(), 0..8);
}

#[test]
fn a_scrub_finds_every_rotten_chunk() {
    let machine = Machine::new(2);
    let store = machine.open();
    put(&store, 0..40);
    let rotten = [0, 7, 39];
    for number in rotten {
        let sealed = chunk(number).1;
        let (segment, at) = (0..9).find_map(|segment| Some((segment, machine.find(segment, &sealed)?))).unwrap();
        flip(&machine, segment, at);
    }
    let (mut lost, mut next, mut steps) = (Vec::new(), Some(ScrubCursor::default()), 0);
    while let Some(cursor) = next {
        let scrub = store.scrub(cursor, 5_000).unwrap();
        lost.extend(scrub.lost);
        next = scrub.next;
        steps += 1;
    }
    assert!(steps > 5, "in small steps: {steps}");
    assert_eq!(lost, rotten.map(|number| chunk(number).0));
    assert_served(&store, (0..40).filter(|number| !rotten.contains(number)));
}

#[test]
fn the_scrub_that_never_ends_goes_on_after_a_restart() {
    let machine = Machine::new(4);
    let store = machine.open();
    put(&store, 0..40);
    let whole = store.scrub(ScrubCursor::default(), u64::MAX).unwrap().checked_bytes;
    drop(store);
    let (mut checked, mut steps) = (0, 0);
    for round in 1..=2 {
        loop {
            let scrub = machine.open().scrub_on(5_000).unwrap();
            (checked, steps) = (checked + scrub.checked_bytes, steps + 1);
            if scrub.next.is_none() {
                break;
            }
        }
        assert_eq!(checked, round * whole, "every byte once, and then again from the beginning");
    }
    assert!(steps > 10, "in small steps: {steps}");
}

#[test]
fn a_scrub_mends_headers_so_that_nothing_is_lost_with_the_index() {
    let machine = Machine::new(2);
    let store = machine.open();
    put(&store, 0..8);
    let at = machine.find(0, &chunk(3).1).unwrap();
    flip(&machine, 0, at - 30);
    let path = machine.segment(0);
    assert_eq!(store.chunk_at(&path, at as u64 - 30).unwrap(), Some(chunk(3).0));
    assert_eq!(store.scrub(ScrubCursor::default(), u64::MAX).unwrap().lost, []);
    drop(store);
    machine.metadata.clear(Table::Segment);
    assert_served(&machine.open(), 0..8);
}

#[test]
fn a_cut_segment_loses_what_was_cut_off_and_says_so() {
    let machine = Machine::new(3);
    let store = machine.open();
    put(&store, 0..8);
    drop(store);
    let at = machine.find(0, &chunk(6).1).unwrap();
    machine.disk.tamper(&machine.segment(0), |bytes| bytes.truncate(at + 10));
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!(recovery.lost.len(), 2);
    assert!([6, 7].iter().all(|number| recovery.lost.contains(&chunk(*number).0)));
    assert_served(&store, 0..6);
    put(&store, 6..12);
    drop(store);
    let (store, recovery) = machine.try_open().unwrap();
    assert!(recovery.lost.is_empty(), "lost chunks are reported once");
    assert_served(&store, 0..12);
}

#[test]
fn a_missing_segment_loses_its_chunks_and_says_so() {
    let machine = Machine::new(4);
    let store = machine.open();
    put(&store, 0..40);
    drop(store);
    machine.disk.destroy(&machine.segment(1));
    let (store, recovery) = machine.try_open().unwrap();
    assert!(!recovery.lost.is_empty());
    let lost: Vec<u32> = (0..40).filter(|number| recovery.lost.contains(&chunk(*number).0)).collect();
    assert_eq!(lost.len(), recovery.lost.len());
    assert_served(&store, (0..40).filter(|number| !lost.contains(number)));
    put(&store, 0..40);
    assert_served(&store, 0..40);
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let machine = Machine::new(5);
    let store = machine.open();
    put(&store, 0..60);
    let stats = store.stats();
    drop(store);
    machine.metadata.clear(Table::Segment);
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!((recovery.found, recovery.damaged_bytes), (60, 0));
    assert_eq!(recovery.rebuilt_segments as usize, machine.disk.paths().len() - 1, "all but the last were not read");
    assert_eq!(store.stats(), stats);
    assert_served(&store, 0..60);
    drop(store);
    assert_eq!(machine.try_open().unwrap().1, Recovery::default(), "and is there again");
}

#[test]
fn a_damaged_index_is_rebuilt() {
    let machine = Machine::new(6);
    put(&machine.open(), 0..60);
    machine.metadata.tamper(Table::Segment, |value| value[0] = 200);
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!(recovery.found, 60);
    assert_served(&store, 0..60);
}

#[test]
fn without_an_index_a_damaged_header_costs_one_chunk() {
    let machine = Machine::new(7);
    put(&machine.open(), 0..8);
    let at = machine.find(0, &chunk(3).1).unwrap();
    flip(&machine, 0, at - 40);
    assert_served(&machine.open(), 0..8);
    machine.metadata.clear(Table::Segment);
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!(recovery.found, 7);
    assert!(recovery.damaged_bytes as usize >= chunk(3).1.len());
    assert!(!store.contains(&chunk(3).0));
    assert_served(&store, (0..8).filter(|number| *number != 3));
    put(&store, 3..4);
    drop(store);
    assert_served(&machine.open(), 0..8);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let machine = Machine::new(8);
    let store = machine.open();
    put(&store, 0..5);
    let (id, sealed) = chunk(5);
    machine.disk.set_capacity(1000);
    assert_eq!(store.put(id, &sealed), Err(StorageError::Full));
    assert_served(&store, 0..5);
    machine.disk.set_capacity(1 << 40);
    put(&store, 5..10);
    assert_served(&store, 0..10);
    drop(store);
    assert_served(&machine.open(), 0..10);
}

#[test]
fn metadata_without_space_refuses_and_goes_on_when_there_is_space() {
    let machine = Machine::new(9);
    let store = machine.open();
    put(&store, 0..5);
    machine.metadata.set_full(true);
    let (id, sealed) = chunk(5);
    assert_eq!(store.put(id, &sealed), Err(StorageError::Full));
    assert!(!store.contains(&id));
    machine.metadata.set_full(false);
    put(&store, 6..9);
    assert_served(&store, 0..9);
    drop(store);
    assert_served(&machine.open(), 0..9);
}

#[test]
fn a_failed_sync_ends_acknowledging_until_the_store_is_opened_again() {
    let machine = Machine::new(10);
    let store = machine.open();
    put(&store, 0..5);
    machine.disk.set_failing_syncs(true);
    let (id, sealed) = chunk(5);
    assert!(matches!(store.put(id, &sealed), Err(StorageError::Failed { .. })));
    machine.disk.set_failing_syncs(false);
    assert_eq!(store.put(id, &sealed), Err(StorageError::Poisoned));
    assert_eq!(store.commit(), Err(StorageError::Poisoned));
    assert_served(&store, 0..5);
    drop(store);
    machine.disk.power_loss();
    let store = machine.open();
    put(&store, 5..9);
    assert_served(&store, 0..9);
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_before_it_counts() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        let store = machine.open();
        put(&store, 0..5);
        machine.disk.set_failing_syncs(true);
        let (id, sealed) = chunk(5);
        store.put(id, &sealed).unwrap_err();
        machine.disk.set_failing_syncs(false);
        drop(store);
        // Only the process is gone: the system still shows what it did not write.
        machine.disk.restart();
        let store = machine.open();
        assert_served(&store, 0..6);
        drop(store);
        machine.disk.power_loss();
        assert_served(&machine.open(), 0..6);
    }
}

#[test]
fn a_read_only_store_can_be_read() {
    let machine = Machine::new(11);
    put(&machine.open(), 0..30);
    machine.disk.set_read_only(true);
    let store = machine.open();
    assert_served(&store, 0..30);
    let (id, sealed) = chunk(30);
    let refused = store.put(id, &sealed).unwrap_err();
    assert!(matches!(refused, StorageError::ReadOnly { .. }), "{refused}");
    assert!(matches!(store.remove(&[chunk(0).0]), Err(StorageError::ReadOnly { .. })));
    machine.disk.set_read_only(false);
    put(&store, 30..35);
    assert_served(&store, 1..35);
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let machine = Machine::new(12);
    put(&machine.open(), 0..3);
    machine.disk.tamper(&machine.segment(0), |bytes| {
        bytes[8] = 2;
        let check = blake3::hash(&bytes[8..56]);
        bytes[56..64].copy_from_slice(&check.as_bytes()[..8]);
    });
    let refused = machine.try_open().map(drop).unwrap_err();
    assert!(refused.to_string().contains("update"), "{refused}");
}

#[test]
fn no_content_of_a_segment_makes_opening_panic() {
    let machine = Machine::new(13);
    put(&machine.open(), 0..6);
    let original = std::cell::RefCell::new(Vec::new());
    machine.disk.tamper(&machine.segment(0), |bytes| original.replace(bytes.clone()).clear());
    for seed in 0..200u32 {
        machine.disk.tamper(&machine.segment(0), |bytes| {
            bytes.clone_from(&original.borrow());
            let noise = blake3::hash(&seed.to_le_bytes());
            for pair in noise.as_bytes().chunks_exact(2) {
                let at = (pair[0] as usize * bytes.len() / 256) & !63;
                bytes[at + pair[1] as usize % 64] ^= pair[1];
            }
            if seed % 3 == 0 {
                bytes.truncate(bytes.len() - noise.as_bytes()[0] as usize * 11);
            }
        });
        if seed % 2 == 0 {
            machine.metadata.clear(Table::Segment);
        }
        if let Ok((store, _)) = machine.try_open() {
            for number in 0..6 {
                let (id, sealed) = chunk(number);
                assert!(store.read(&id).is_err() || store.read(&id).is_ok_and(|read| read == sealed));
            }
        }
    }
}

#[test]
fn what_a_disk_could_not_read_for_a_while_is_there_again() {
    let machine = Machine::new(31);
    let store = machine.open();
    put(&store, 0..12);
    machine.disk.set_failing(Failing { reads: 1, ..Failing::default() });
    for number in 0..12 {
        assert!(store.read(&chunk(number).0).unwrap_err().is_loss(), "it is to be fetched from elsewhere meanwhile");
    }
    machine.disk.set_failing(Failing::default());
    // One was put again, one was removed; neither comes back as it was.
    put(&store, 3..4);
    store.remove(&[chunk(5).0]).unwrap();
    let scrub = store.scrub(ScrubCursor::default(), u64::MAX).unwrap();
    assert_eq!((scrub.found.len(), scrub.lost.len()), (11, 0));
    assert_served(&store, (0..12).filter(|number| *number != 5));
    assert!(!store.contains(&chunk(5).0));
    drop(store);
    let store = machine.open();
    assert_served(&store, (0..12).filter(|number| *number != 5));
    assert!(!store.contains(&chunk(5).0));
}

#[test]
fn a_rotten_chunk_is_replaced_by_good_bytes_that_come_again() {
    let machine = Machine::new(32);
    let store = machine.open();
    put(&store, 0..4);
    let at = machine.find(0, &chunk(2).1).unwrap();
    flip(&machine, 0, at);
    put(&store, 0..4);
    assert_served(&store, 0..4);
    assert_eq!(store.stats().segment_chunks, 4);
}
