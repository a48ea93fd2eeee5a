//! Chunks that lie in files outside the store.

use std::collections::BTreeSet;

use holdfast_protocol::id::PhotoId;
use roaring::RoaringBitmap;

use super::*;
use crate::disk::{Access, Disk};
use crate::simulated::Failing;
use crate::{FileIdentity, FileRecord, InPlaceCut, Known, ReadError, ScrubCursor};

/// Writes a file of `content` and returns its record, cut into pieces of 1000 bytes.
fn file(machine: &Machine, path: &str, content: &[u8]) -> FileRecord {
    let path = Path::new(path);
    machine.disk.tamper(path, |bytes| *bytes = content.to_vec());
    let stat = machine.disk.open(path, Access::Read).unwrap().stat().unwrap();
    let sealer = sealer();
    let cuts = content.chunks(1000).zip(0..).map(|(piece, at)| InPlaceCut {
        chunk: sealer.seal(piece).id,
        offset: at * 1000,
        length: piece.len() as u32,
        epoch: sealer.epoch(),
    });
    FileRecord {
        identity: FileIdentity::default(),
        path: path.to_owned(),
        stat,
        photo: PhotoId::from_bytes([1; 32]),
        replaces: Vec::new(),
        content_hash: *blake3::hash(content).as_bytes(),
        cuts: cuts.collect(),
    }
}

fn content(seed: u8) -> Vec<u8> {
    let mut content = vec![0; 5500];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
    content
}

#[track_caller]
fn assert_resealed(store: &ChunkStore, record: &FileRecord, content: &[u8]) {
    for (cut, piece) in record.cuts.iter().zip(content.chunks(1000)) {
        assert!(store.contains(&cut.chunk));
        let sealed = store.read(&cut.chunk).unwrap();
        assert_eq!(store.length(&cut.chunk), Some(sealed.len() as u32));
        assert_eq!(sealer().open(&cut.chunk, &sealed).unwrap(), piece);
    }
}

#[test]
fn chunks_are_sealed_again_from_the_original() {
    let machine = Machine::new(1);
    let store = machine.open();
    let record = file(&machine, "/photos/a.jpg", &content(1));
    assert_eq!(store.look_up(&record.path, &record.stat), Known::No);
    assert_eq!(store.adopt_files(std::slice::from_ref(&record)).unwrap(), []);
    assert!(matches!(store.look_up(&record.path, &record.stat), Known::Unfinished(_)));
    store.finish_files(&[&record.path]).unwrap();
    for store in [store, machine.open()] {
        assert!(matches!(store.look_up(&record.path, &record.stat), Known::Unchanged(_)));
        let touched = crate::FileStat { mtime_ns: -5, ..record.stat };
        assert!(matches!(store.look_up(&record.path, &touched), Known::Changed(_)));
        assert_eq!(store.file(&record.path).unwrap().as_ref(), Some(&record));
        assert_resealed(&store, &record, &content(1));
        let stats = store.stats();
        assert_eq!((stats.files, stats.in_place_chunks, stats.in_place_bytes), (1, 6, 5500 + 6 * 53));
    }
}

#[test]
fn a_changed_original_is_never_served() {
    let machine = Machine::new(2);
    let store = machine.open();
    let record = file(&machine, "/photos/a.jpg", &content(1));
    store.adopt_files(std::slice::from_ref(&record)).unwrap();
    machine.disk.tamper(&record.path, |bytes| bytes[10] ^= 1);
    assert!(matches!(store.read(&record.cuts[0].chunk), Err(ReadError::Changed { path }) if path == record.path));
    assert!(!store.contains(&record.cuts[0].chunk));
    assert!(store.contains(&record.cuts[1].chunk), "until it is read or the file is looked at again");

    // A change that left size and dates alone is caught by the hash.
    let lie = FileRecord { stat: machine.disk.open(&record.path, Access::Read).unwrap().stat().unwrap(), ..record };
    store.adopt_files(std::slice::from_ref(&lie)).unwrap();
    assert!(matches!(store.read(&lie.cuts[0].chunk), Err(ReadError::Changed { .. })));
    assert!(store.read(&lie.cuts[1].chunk).is_ok());
}

#[test]
fn a_missing_original_keeps_its_holdings_until_it_is_forgotten() {
    let machine = Machine::new(3);
    let store = machine.open();
    let [a, b] = ["/photos/a.jpg", "/photos/b.jpg"].map(|path| file(&machine, path, &content(1)));
    let c = file(&machine, "/photos/c.jpg", &content(2));
    store.adopt_files(&[a.clone(), c.clone()]).unwrap();
    machine.disk.destroy(&a.path);
    assert!(matches!(store.read(&a.cuts[0].chunk), Err(ReadError::Missing { .. })));
    assert!(store.contains(&a.cuts[0].chunk), "its disk may only be unmounted");

    store.adopt_files(std::slice::from_ref(&b)).unwrap();
    assert_resealed(&store, &a, &content(1));
    assert_eq!(store.forget_files(&[&a.path]).unwrap(), [], "the other copy holds the same chunks");
    assert_resealed(&store, &b, &content(1));
    let mut lost: Vec<ChunkId> = c.cuts.iter().map(|cut| cut.chunk).collect();
    lost.sort_unstable();
    assert_eq!(store.forget_files(&[&c.path]).unwrap(), lost);
    assert_eq!(store.forget_files(&[&c.path]).unwrap(), [], "once");
    drop(store);
    let store = machine.open();
    assert_eq!(store.look_up(&c.path, &c.stat), Known::No);
    assert_eq!(store.stats().files, 1);
}

#[test]
fn an_edited_file_replaces_its_record_and_reports_what_is_gone() {
    let machine = Machine::new(4);
    let store = machine.open();
    let old = file(&machine, "/photos/a.jpg", &content(1));
    store.adopt_files(std::slice::from_ref(&old)).unwrap();
    let mut edited = content(1);
    edited[2500] ^= 1;
    let new = file(&machine, "/photos/a.jpg", &edited);
    assert_eq!(store.adopt_files(std::slice::from_ref(&new)).unwrap(), [old.cuts[2].chunk]);
    assert_resealed(&store, &new, &edited);
    assert_eq!(store.stats().files, 1);
    drop(store);
    assert_resealed(&machine.open(), &new, &edited);
}

#[test]
fn files_that_a_walk_did_not_see_are_named() {
    let machine = Machine::new(6);
    let store = machine.open();
    let records = ["/a/1", "/a/2", "/b/3", "/b/4"].map(|path| file(&machine, path, path.as_bytes()));
    store.adopt_files(&records).unwrap();
    let seen: RoaringBitmap = [&records[0], &records[2]]
        .iter()
        .filter_map(|record| match store.look_up(&record.path, &record.stat) {
            Known::Unfinished(number) => Some(number.get()),
            _ => None,
        })
        .collect();
    let unseen = |root: &str| {
        let unseen = store.unseen(Path::new(root), &seen).unwrap();
        unseen.into_iter().map(|file| file.path).collect::<Vec<_>>()
    };
    assert_eq!(unseen("/b"), [Path::new("/b/4")]);
    assert_eq!(unseen("/"), [Path::new("/a/2"), Path::new("/b/4")]);
}

#[test]
fn a_chunk_in_a_segment_outlives_its_original() {
    let machine = Machine::new(7);
    let store = machine.open();
    let record = file(&machine, "/photos/a.jpg", &content(1));
    store.adopt_files(std::slice::from_ref(&record)).unwrap();
    let sealed = store.read(&record.cuts[0].chunk).unwrap();
    store.put(record.cuts[0].chunk, &sealed).unwrap();
    assert_eq!(store.stats().segment_chunks, 1, "a copy in a segment is made even if an original holds the chunk");
    machine.disk.tamper(&record.path, |bytes| bytes.fill(0));
    assert_eq!(store.read(&record.cuts[0].chunk).unwrap(), sealed);
    let lost = store.forget_files(&[&record.path]).unwrap();
    assert!(lost.len() == 5 && !lost.contains(&record.cuts[0].chunk));
}

#[test]
fn a_removed_chunk_is_no_longer_taken_from_its_original() {
    let machine = Machine::new(8);
    let store = machine.open();
    let record = file(&machine, "/photos/a.jpg", &content(1));
    store.adopt_files(std::slice::from_ref(&record)).unwrap();
    assert_eq!(store.remove(&[record.cuts[1].chunk]).unwrap(), 0);
    for store in [store, machine.open()] {
        assert!(matches!(store.read(&record.cuts[1].chunk), Err(ReadError::NotHeld { .. })));
        for at in [0, 2, 3, 4, 5] {
            assert!(store.read(&record.cuts[at].chunk).is_ok(), "cut {at}");
        }
        assert!(matches!(store.look_up(&record.path, &record.stat), Known::Unfinished(_)), "the file is still known");
    }
}

#[test]
fn a_scrub_names_originals_that_changed_or_are_gone() {
    let machine = Machine::new(9);
    let store = machine.open();
    let records = [1, 2, 3].map(|seed| file(&machine, &format!("/photos/{seed}.jpg"), &content(seed)));
    store.adopt_files(&records).unwrap();
    put(&store, 0..5);
    machine.disk.tamper(&records[0].path, |bytes| bytes.push(0));
    machine.disk.destroy(&records[2].path);
    let scrub = store.scrub(ScrubCursor::default(), u64::MAX).unwrap();
    assert_eq!(scrub.changed, [records[0].path.clone()]);
    assert_eq!(scrub.missing, [records[2].path.clone()]);
    assert_eq!(scrub.lost.len(), 6);
    assert_eq!(scrub.next, None);
}

#[test]
fn an_original_that_the_disk_cannot_read_is_no_copy_until_it_can() {
    let machine = Machine::new(12);
    let store = machine.open();
    let records = [1, 2, 3].map(|seed| file(&machine, &format!("/photos/{seed}.jpg"), &content(seed)));
    store.adopt_files(&records).unwrap();
    let chunk = |file: usize, cut: usize| records[file].cuts[cut].chunk;
    machine.disk.set_failing(Failing { reads: 1, ..Failing::default() });
    assert!(store.read(&chunk(0, 0)).unwrap_err().is_loss());
    assert!(!store.contains(&chunk(0, 0)) && store.contains(&chunk(0, 1)));
    let scrub = store.scrub(ScrubCursor::default(), u64::MAX).unwrap();
    assert_eq!((scrub.lost.len(), scrub.found.len(), scrub.missing.len()), (17, 0, 3), "one was known to be lost");
    assert_eq!((store.stats().in_place_chunks, store.stats().in_place_bytes), (0, 0));

    machine.disk.set_failing(Failing::default());
    // Neither a file that was forgotten nor a chunk that was removed comes back.
    assert_eq!(store.forget_files(&[&records[1].path]).unwrap(), []);
    store.remove(&[chunk(2, 5)]).unwrap();
    let scrub = store.scrub(ScrubCursor::default(), u64::MAX).unwrap();
    assert_eq!((scrub.lost.len(), scrub.found.len(), scrub.missing.len()), (0, 11, 0));
    assert_resealed(&store, &records[0], &content(1));
    assert!(!store.contains(&chunk(1, 0)) && !store.contains(&chunk(2, 5)));
    assert_eq!(store.stats().in_place_chunks, 11);

    machine.disk.set_failing(Failing { reads: 1, ..Failing::default() });
    assert!(store.read(&chunk(0, 0)).is_err());
    machine.disk.set_failing(Failing::default());
    drop(store);
    assert_resealed(&machine.open(), &records[0], &content(1));
}

#[test]
fn damaged_records_are_dropped_and_counted() {
    let machine = Machine::new(10);
    let record = file(&machine, "/photos/a.jpg", &content(1));
    machine.open().adopt_files(std::slice::from_ref(&record)).unwrap();
    machine.metadata.tamper(Table::File, |value| value.truncate(value.len() - 1));
    let (store, recovery) = machine.try_open().unwrap();
    assert_eq!(recovery.damaged_files, 1);
    assert_eq!(store.look_up(&record.path, &record.stat), Known::No);
    assert!(!store.contains(&record.cuts[0].chunk));
    drop(store);
    assert_eq!(machine.try_open().unwrap().1.damaged_files, 0);
}

#[test]
fn without_keys_nothing_is_sealed_again() {
    let machine = Machine::new(11);
    let record = file(&machine, "/photos/a.jpg", &content(1));
    let config = StoreConfig { directory: PathBuf::from("/segments"), fingerprint_key: [7; 32] };
    let disk = Arc::new(machine.disk.clone());
    let (store, _) = ChunkStore::open(config, disk, Box::new(machine.metadata.clone()), None).unwrap();
    store.adopt_files(std::slice::from_ref(&record)).unwrap();
    assert!(matches!(store.read(&record.cuts[0].chunk), Err(ReadError::NoKey { .. })));
    store.set_sealer(sealer());
    assert_resealed(&store, &record, &content(1));
}

#[test]
fn files_of_a_folder_that_moved_are_known_there_and_nowhere_else() {
    let machine = Machine::new(9);
    let store = machine.open();
    let (a, b, other) = (
        file(&machine, "/old/a.jpg", &content(1)),
        file(&machine, "/old/2021/b.jpg", &content(2)),
        file(&machine, "/new/2021/b.jpg", &content(3)),
    );
    store.adopt_files(&[a.clone(), b.clone(), other.clone()]).unwrap();
    machine.disk.rename("/old/a.jpg".as_ref(), "/new/a.jpg".as_ref()).unwrap();
    let lost = store.move_files("/old".as_ref(), "/new".as_ref()).unwrap();
    let of_b: BTreeSet<_> = b.cuts.iter().map(|cut| cut.chunk).collect();
    assert_eq!(lost.into_iter().collect::<BTreeSet<_>>(), of_b, "what is known at the new path counts");
    for store in [store, machine.open()] {
        let moved = FileRecord { path: "/new/a.jpg".into(), ..a.clone() };
        assert_resealed(&store, &moved, &content(1));
        assert_eq!(store.file(&moved.path).unwrap(), Some(moved));
        assert_eq!(store.file(&other.path).unwrap().as_ref(), Some(&other));
        assert_eq!((store.stats().files, store.unseen("/old".as_ref(), &RoaringBitmap::new()).unwrap()), (2, vec![]));
    }
}

#[test]
fn a_file_is_to_be_told_anew_once_the_catalog_hears_that_it_is_gone() {
    let machine = Machine::new(10);
    let store = machine.open();
    let record =
        FileRecord { replaces: vec![PhotoId::from_bytes([7; 32])], ..file(&machine, "/photos/a.jpg", &content(1)) };
    store.adopt_files(std::slice::from_ref(&record)).unwrap();
    store.finish_files(&[&record.path]).unwrap();
    store.reopen_file(&record.path).unwrap();
    store.reopen_file("/photos/unknown.jpg".as_ref()).unwrap();
    for store in [store, machine.open()] {
        assert!(matches!(store.look_up(&record.path, &record.stat), Known::Unfinished(_)));
        assert_eq!(store.file(&record.path).unwrap().unwrap().replaces, [], "what it replaced is replaced");
    }
}
