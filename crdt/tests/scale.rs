//! How long a large library takes to open, and how much memory; how long a change takes to get past the guard.
//!
//! `cargo test --release -p holdfast-crdt --test scale -- --ignored --nocapture --test-threads 1`
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod device;

use std::time::{Duration, Instant};

use device::{MONTH, author};
use holdfast_crdt::{Catalog, DocumentId};
use holdfast_protocol::id::PhotoId;

const PHOTOS: u64 = 1_000_000;
const MONTHS: u64 = 240;
const BATCH: u64 = 100;
const RECORD_BYTES: usize = 160;

/// A photo and its sealed record: bytes that do not compress.
fn photo(number: u64) -> (PhotoId, [u8; RECORD_BYTES]) {
    let mut bytes = [0; 32 + RECORD_BYTES];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    let mut record = [0; RECORD_BYTES];
    record.copy_from_slice(&bytes[32..]);
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[..32]);
    (PhotoId::from_bytes(id), record)
}

fn month(number: u64) -> DocumentId {
    DocumentId::Month { year: 2000 + (number / 12) as i16, month: (number % 12) as u8 + 1 }
}

fn import(catalog: &mut Catalog, document: DocumentId, numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    let mut changes = Vec::new();
    for start in numbers.clone().step_by(BATCH as usize) {
        let change = catalog.edit(document, |edit| {
            for number in start..(start + BATCH).min(numbers.end) {
                let (id, record) = photo(number);
                edit.put_photo(id, &record);
            }
        });
        changes.push(change.unwrap().unwrap().change);
    }
    changes
}

/// The process's own bytes in memory, now and at most, where the system tells.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (line("VmRSS:").unwrap_or(0) / 1024, line("VmHWM:").unwrap_or(0) / 1024)
}

/// Time this thread has spent on a processor, so that a busy machine does not spoil the figures; wall time where the
/// system does not tell.
#[derive(Clone, Copy)]
struct Stopwatch(Option<u64>, Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Self::busy(), Instant::now())
    }

    fn elapsed(self) -> Duration {
        match (self.0, Self::busy()) {
            (Some(before), Some(now)) => Duration::from_nanos(now - before),
            _ => self.1.elapsed(),
        }
    }

    fn busy() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
    }
}

fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[test]
#[ignore = "a measurement, in release"]
fn a_million_photos_open_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let started = Stopwatch::start();
    let mut raw = 0;
    let mut disk = 0;
    for number in 0..MONTHS {
        let mut catalog = Catalog::new(author(1), 1);
        catalog.open(month(number), None).unwrap();
        let first = number * PHOTOS / MONTHS;
        let changes = import(&mut catalog, month(number), first..(number + 1) * PHOTOS / MONTHS);
        raw += changes.iter().map(Vec::len).sum::<usize>();
        let saved = catalog.save(month(number)).unwrap();
        disk += saved.len();
        std::fs::write(folder.path().join(number.to_string()), saved).unwrap();
    }
    println!("import {PHOTOS} photos: {:?}, {} MB raw, {} MB saved", started.elapsed(), raw >> 20, disk >> 20);

    reset_peak();
    println!("before opening: {:?} MB now/peak", memory());
    let started = Stopwatch::start();
    let mut catalog = Catalog::new(author(2), 12);
    let mut photos = 0;
    for number in 0..MONTHS {
        let saved = std::fs::read(folder.path().join(number.to_string())).unwrap();
        catalog.open(month(number), Some(&saved)).unwrap();
        photos += catalog.photos(month(number)).count() as u64;
        while catalog.evict().is_some() {}
    }
    let (elapsed, (_, peak)) = (started.elapsed(), memory());
    println!("open streamed and read: {elapsed:?}, peak {peak} MB");
    assert_eq!(photos, PHOTOS);
    assert!(elapsed <= Duration::from_secs(5), "{elapsed:?}");
    assert!(peak <= 300, "{peak} MB");
    drop(catalog);

    reset_peak();
    let started = Stopwatch::start();
    let mut catalog = Catalog::new(author(2), 1000);
    for number in 0..MONTHS {
        let saved = std::fs::read(folder.path().join(number.to_string())).unwrap();
        catalog.open(month(number), Some(&saved)).unwrap();
    }
    println!("open all at once: {:?}, {:?} MB now/peak", started.elapsed(), memory());
}

#[test]
#[ignore = "a measurement, in release"]
fn a_batch_gets_past_the_guard() {
    let mut writer = Catalog::new(author(1), 1);
    writer.open(MONTH, None).unwrap();
    let changes = import(&mut writer, MONTH, 0..8000);
    let batch: Vec<_> = changes.iter().map(|change| (author(1), change.as_slice())).collect();
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let mut reader = Catalog::new(author(2), 1);
        reader.open(MONTH, None).unwrap();
        let started = Stopwatch::start();
        let applied = reader.apply(MONTH, &batch).unwrap();
        best = best.min(started.elapsed() / changes.len() as u32);
        assert_eq!(applied.patches.len(), 8000);
    }
    println!("80 changes of {BATCH} photos in one call: {best:?} a change");
    assert!(best <= Duration::from_micros(600), "{best:?}");
}

#[test]
#[ignore = "a measurement, in release"]
fn changes_get_past_the_guard() {
    let mut writer = Catalog::new(author(1), 1);
    writer.open(MONTH, None).unwrap();
    let started = Stopwatch::start();
    let changes = import(&mut writer, MONTH, 0..8000);
    println!("{} edits of {BATCH} photos: {:?} each", changes.len(), started.elapsed() / changes.len() as u32);

    let mut reader = Catalog::new(author(2), 1);
    reader.open(MONTH, None).unwrap();
    let started = Stopwatch::start();
    for change in &changes {
        let applied = reader.apply(MONTH, &[(author(1), change)]).unwrap();
        assert_eq!(applied.applied, 1);
    }
    println!("one by one, to 8000 photos: {:?} a change", started.elapsed() / changes.len() as u32);

    let (old, new) = changes.split_at(40);
    let mut reader = Catalog::new(author(2), 1);
    reader.open(MONTH, None).unwrap();
    let batch: Vec<_> = old.iter().map(|change| (author(1), change.as_slice())).collect();
    reader.apply(MONTH, &batch).unwrap();
    let started = Stopwatch::start();
    for change in &new[..20] {
        assert_eq!(reader.apply(MONTH, &[(author(1), change)]).unwrap().applied, 1);
    }
    println!("one by one, on top of 4000 photos: {:?} a change", started.elapsed() / 20);
    let batch: Vec<_> = new.iter().map(|change| (author(1), change.as_slice())).collect();
    reader.apply(MONTH, &batch).unwrap();

    let mut singles = Vec::new();
    let started = Stopwatch::start();
    for number in 0..8000 {
        let favourite = writer.edit(MONTH, |edit| edit.set_favourite(photo(number).0, true)).unwrap().unwrap();
        singles.push(favourite.change);
    }
    println!("8000 single edits: {:?} each", started.elapsed() / 8000);
    let batch: Vec<_> = singles.iter().map(|change| (author(1), change.as_slice())).collect();
    let started = Stopwatch::start();
    let applied = reader.apply(MONTH, &batch).unwrap();
    println!("8000 single changes in one call: {:?}", started.elapsed());
    assert_eq!(applied.applied, 8000);
    let started = Stopwatch::start();
    for _ in 0..100 {
        assert!(reader.photo(MONTH, &photo(17).0).is_some());
    }
    println!("reading one photo: {:?}", started.elapsed() / 100);
    let started = Stopwatch::start();
    let saved = reader.save(MONTH).unwrap();
    println!("saving: {:?}, {} KB", started.elapsed(), saved.len() >> 10);
}
