//! Ingest on real folders, a real store and real threads.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Instant, SystemTime};

use holdfast_disk::{SledMetadata, SystemDisk};
use holdfast_library::FilePath;
use holdfast_protocol::id::{ChunkId, LibraryId, PhotoId};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_store::StoreConfig;
use holdfast_store::disk::Disk;
use holdfast_store::simulated::SimulatedDisk;

use super::*;
use crate::export::Export;

/// A folder of photos and a store, and what a library would remember of them.
struct Home {
    directory: tempfile::TempDir,
    store: Arc<ChunkStore>,
    metadata: SledMetadata,
    keep: Keep,
}

/// A running ingest.
struct Running {
    ingest: Ingest,
    events: mpsc::Receiver<ImportEvent>,
}

impl Home {
    fn new() -> Self {
        Self::on(Arc::new(SystemDisk))
    }

    fn on(disk: Arc<dyn Disk>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metadata = SledMetadata::open(&directory.path().join("metadata")).unwrap();
        let store = open_store(directory.path(), &metadata, disk);
        let home = Self { directory, store, metadata, keep: Keep::InPlace };
        fs::create_dir(home.folder()).unwrap();
        home
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("Pictures")
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn start(&self, configure: impl FnOnce(&mut IngestConfig)) -> Running {
        let mut config = IngestConfig::new(vec![WatchedFolder { path: self.folder(), keep: self.keep, label: None }]);
        config.watching = Watching::OnRequest;
        config.quiet = Duration::ZERO;
        configure(&mut config);
        let (ingest, events) = Ingest::start(config, self.store.clone(), secrets(), None).unwrap();
        Running { ingest, events }
    }

    /// One walk from the start of ingest to its end, with everything acknowledged.
    fn walk(&self) -> Walk {
        let mut running = self.start(|_| {});
        let walk = running.walk();
        running.acknowledge(&walk);
        drop(running);
        walk
    }

    /// Whether the photo's file comes out of the store as it went in.
    fn gives_back(&self, photo: &ImportedPhoto, file: &[u8]) -> bool {
        let out = tempfile::tempdir().unwrap();
        let mut export = Export::new(out.path(), ChunkSealer::new(&secrets())).unwrap();
        let written = export.photo(&photo.chunks[0].0, &photo.name, |id, buffer| self.store.read_into(id, buffer));
        written.is_ok() && fs::read(out.path().join("Pictures").join(photo.name.path.to_string())).unwrap() == file
    }
}

fn open_store(directory: &Path, metadata: &SledMetadata, disk: Arc<dyn Disk>) -> Arc<ChunkStore> {
    let config = StoreConfig { directory: directory.join("store"), fingerprint_key: [3; 32] };
    let sealer = ChunkSealer::new(&secrets());
    Arc::new(ChunkStore::open(config, disk, Box::new(metadata.clone()), Some(sealer)).unwrap().0)
}

fn secrets() -> LibrarySecrets {
    LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32])
}

/// What a walk reported.
#[derive(Default)]
struct Walk {
    imported: Vec<ImportedPhoto>,
    removed: Vec<RemovedName>,
    lost: Vec<ChunkId>,
    problems: Vec<ImportProblem>,
    moved: Vec<(PathBuf, PathBuf)>,
    moves_finished: usize,
    left: Vec<PathBuf>,
    summary: ScanSummary,
}

fn text(path: &FilePath) -> &str {
    str::from_utf8(path.as_bytes()).unwrap()
}

impl Walk {
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.imported.iter().map(|photo| text(&photo.name.path)).collect();
        names.sort_unstable();
        names
    }

    fn by_name(&self) -> BTreeMap<&str, &ImportedPhoto> {
        self.imported.iter().map(|photo| (text(&photo.name.path), photo)).collect()
    }
}

impl Running {
    fn next(&mut self) -> ImportEvent {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.events.try_recv() {
                Ok(event) => return event,
                Err(mpsc::error::TryRecvError::Empty) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("no event within a minute: {error}"),
            }
        }
    }

    /// Everything up to the end of the walk that is under way.
    fn walk(&mut self) -> Walk {
        let mut walk = Walk::default();
        loop {
            match self.next() {
                ImportEvent::Imported(photo) => walk.imported.push(*photo),
                ImportEvent::NameRemoved(removed) => walk.removed.push(*removed),
                ImportEvent::ChunksLost(chunks) => walk.lost.extend(chunks),
                ImportEvent::Problem(problem) => walk.problems.push(problem),
                ImportEvent::FolderMoved { from, to } => walk.moved.push((from, to)),
                ImportEvent::MoveFinished { .. } => walk.moves_finished += 1,
                ImportEvent::FolderLeft { path } => walk.left.push(path),
                ImportEvent::ScanFinished(summary) => return Walk { summary, ..walk },
            }
        }
    }

    fn rescan(&mut self) -> Walk {
        self.ingest.rescan();
        self.walk()
    }

    fn acknowledge(&self, walk: &Walk) {
        let imported = walk.imported.iter().map(|photo| photo.import);
        self.ingest.catalogued(imported.chain(walk.removed.iter().map(|removed| removed.import)).collect());
    }

    /// The next event about a photo, whatever else happens.
    fn next_photo(&mut self) -> ImportEvent {
        loop {
            let event = self.next();
            if matches!(event, ImportEvent::Imported(_) | ImportEvent::NameRemoved(_)) {
                return event;
            }
        }
    }
}

fn jpeg(description: &str, picture_bytes: usize) -> Vec<u8> {
    let mut picture = vec![0; picture_bytes];
    blake3::Hasher::new().update(b"picture").finalize_xof().fill(&mut picture);
    picture.iter_mut().for_each(|byte| *byte &= 0x7f); // no markers
    let length = u16::try_from(description.len() + 2).unwrap().to_be_bytes();
    [&b"\xff\xd8\xff\xe1"[..], &length, description.as_bytes(), b"\xff\xda\0\x02", &picture, b"\xff\xd9"].concat()
}

/// Makes a file look as if it was written long ago.
fn age(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
}

#[test]
fn photos_are_imported_once_and_come_back_byte_for_byte() {
    for keep in [Keep::InPlace, Keep::Copy] {
        let home = Home { keep, ..Home::new() };
        let files = BTreeMap::from([
            ("2021/07/a.jpg", jpeg("a", 3_000_000)),
            ("2021/07/copy of a.jpg", jpeg("a", 3_000_000)),
            ("b.JPG", jpeg("b", 100)),
            ("movie.mp4", [b"\0\0\0\x10ftypisom\0\0\0\0\0\x4c\x4b\x48mdat", &[7; 5_000_000][..]].concat()),
            ("renamed to.txt", jpeg("a JPEG whatever its name", 10)),
            ("broken.nef", vec![0xfe; 100]),
        ]);
        for (name, bytes) in &files {
            home.write(name, bytes);
        }
        home.write("notes.txt", b"no photo");
        home.write("empty.jpg", b"");
        let example = home.write("a page.jpg", b"<!DOCTYPE html><html>please sign in</html>");
        home.write("half.jpg.part", &jpeg("half", 10));
        home.write(".hidden/c.jpg", &jpeg("hidden", 10));
        home.write("@eaDir/c.jpg", &jpeg("a NAS's own thumbnail", 10));
        let walk = home.walk();
        assert_eq!(walk.names(), files.keys().copied().collect::<Vec<_>>());
        let expected = ScanSummary { files: 6, imported: 6, ignored: 3, ..ScanSummary::default() };
        let folder = home.folder().canonicalize().unwrap();
        let told = ImportProblem::NoPictures { folder, files: 2, example: example.canonicalize().unwrap() };
        assert_eq!((walk.summary, walk.problems), (expected, vec![told]));
        let photos = Walk { imported: walk.imported, ..Walk::default() };
        let photos = photos.by_name();
        for (name, bytes) in &files {
            let photo = photos[name];
            assert!(photo.chunks.iter().all(|(chunk, length)| home.store.length(chunk) == Some(*length)), "{name}");
            assert!(home.gives_back(photo, bytes), "{name}");
            assert_eq!(photo.photo, secrets().photo_id(blake3::hash(bytes).as_bytes()));
        }
        assert_eq!(photos["2021/07/a.jpg"].photo, photos["2021/07/copy of a.jpg"].photo);
        assert_eq!(photos["2021/07/a.jpg"].chunks, photos["2021/07/copy of a.jpg"].chunks);
        let again = home.walk();
        assert_eq!((again.imported.len(), again.summary.unchanged, again.summary.files), (0, 6, 6));
    }
}

#[test]
fn what_was_not_catalogued_is_found_again_after_a_restart() {
    let home = Home::new();
    home.write("a.jpg", &jpeg("a", 1000));
    home.write("b.jpg", &jpeg("b", 1000));
    let mut running = home.start(|_| {});
    let first = running.walk();
    let (acknowledged, other) = (first.imported[0].import, first.imported[1].name.path.clone());
    running.ingest.catalogued(vec![acknowledged]);
    assert_eq!(running.rescan().imported.len(), 0, "not handed out twice while its acknowledgement is awaited");
    drop(running);
    home.metadata.flush().unwrap();
    let second = home.walk();
    assert_eq!(second.names(), [text(&other)]);
    assert!(home.walk().imported.is_empty());
}

#[test]
fn an_edited_file_is_a_new_photo_that_replaces_the_old_one_and_costs_little() {
    let home = Home::new();
    let path = home.write("a.jpg", &jpeg("2021", 6_000_000));
    let before = home.walk().imported.remove(0);
    let stored = home.store.stats().segment_bytes;
    let edited = jpeg("2021, in Rome with a much longer description", 6_000_000);
    fs::write(&path, &edited).unwrap();
    let mut walk = home.walk();
    let after = walk.imported.remove(0);
    assert_eq!(after.replaces, [before.photo]);
    assert_ne!(after.photo, before.photo);
    assert!(home.gives_back(&after, &edited));
    assert_eq!(after.chunks[2..], before.chunks[2..], "the picture's chunks are the same");
    assert!(walk.lost.is_empty(), "and none of them was lost");
    assert!(home.store.stats().segment_bytes - stored < 4096);
    fs::write(&path, jpeg("quite another picture", 100_000)).unwrap();
    let walk = home.walk();
    assert_eq!(walk.imported[0].replaces, [after.photo]);
    assert!(walk.lost.contains(&after.chunks.last().unwrap().0), "the old picture's chunks are gone with its file");
}

#[test]
fn what_an_edit_replaces_is_known_until_it_is_acknowledged() {
    let home = Home::new();
    home.write("a.jpg", &jpeg("first", 900_000));
    let first = home.walk().imported[0].photo;
    // Edited twice, and each time the power is cut before the library has it durably.
    let mut before = vec![first];
    for description in ["second", "third"] {
        home.write("a.jpg", &jpeg(description, 900_000));
        let edited = home.start(|_| {}).walk();
        assert_eq!(edited.imported[0].replaces, before);
        let again = home.start(|_| {}).walk();
        assert_eq!(again.imported[0].replaces, before, "it is found again with what it replaces");
        before.push(edited.imported[0].photo);
    }
    // Gone before it was acknowledged: no version keeps the name.
    fs::remove_file(home.folder().join("a.jpg")).unwrap();
    home.write("b.jpg", &jpeg("other", 900_000));
    let walk = home.walk();
    assert_eq!(walk.removed.iter().map(|removed| removed.photo).collect::<Vec<_>>(), before);
    assert_eq!(home.walk().removed.len(), 0);
}

#[test]
fn deleted_and_moved_files_lose_their_names_and_then_their_chunks() {
    let home = Home::new();
    let (deleted, moved) = (home.write("deleted.jpg", &jpeg("d", 50_000)), home.write("moved.jpg", &jpeg("m", 60_000)));
    home.write("stays.jpg", &jpeg("s", 70_000));
    let mut running = home.start(|_| {});
    let walk = running.walk();
    running.acknowledge(&walk);
    let photos = walk.by_name();
    fs::remove_file(&deleted).unwrap();
    fs::create_dir(home.folder().join("new")).unwrap();
    fs::rename(&moved, home.folder().join("new/name.jpg")).unwrap();
    let second = running.rescan();
    assert_eq!(second.names(), ["new/name.jpg"]);
    assert_eq!(second.imported[0].photo, photos["moved.jpg"].photo);
    let removed: BTreeMap<&str, PhotoId> =
        second.removed.iter().map(|removed| (text(&removed.name.path), removed.photo)).collect();
    let expected = ["deleted.jpg", "moved.jpg"].map(|name| (name, photos[name].photo));
    assert_eq!(removed, BTreeMap::from(expected));
    running.acknowledge(&second);
    let picture = photos["deleted.jpg"].chunks.last().unwrap().0;
    let third = running.rescan();
    assert_eq!(third.lost, [picture], "a moved file's chunks are still held under its new name");
    assert!(third.removed.is_empty() && !home.store.contains(&picture));
}

#[test]
fn a_missing_or_emptied_folder_removes_nothing() {
    let home = Home::new();
    home.write("a.jpg", &jpeg("a", 1000));
    home.write("b.jpg", &jpeg("b", 1000));
    home.walk();
    let elsewhere = home.directory.path().join("unmounted");
    fs::rename(home.folder(), &elsewhere).unwrap();
    let folder = home.folder();
    let missing = home.walk();
    assert_eq!(missing.problems, [ImportProblem::FolderMissing { folder: folder.clone() }]);
    fs::create_dir(&folder).unwrap();
    let emptied = home.walk();
    let canonical = folder.canonicalize().unwrap();
    assert_eq!(emptied.problems, [ImportProblem::FolderEmptied { folder: canonical, photos: 2 }]);
    assert!(missing.removed.is_empty() && emptied.removed.is_empty());
    fs::remove_dir(&folder).unwrap();
    fs::rename(&elsewhere, &folder).unwrap();
    let back = home.walk();
    assert_eq!((back.summary.unchanged, back.problems.len()), (2, 0));
}

#[test]
fn a_folder_inside_that_is_not_there_is_missed_until_a_person_says_that_it_is_gone() {
    let home = Home::new();
    home.write("here.jpg", &jpeg("here", 1000));
    home.write("nas/2020/a.jpg", &jpeg("a", 1000));
    home.write("nas/2020/b.jpg", &jpeg("b", 1000));
    let mut running = home.start(|_| {});
    let first = running.walk();
    running.acknowledge(&first);
    let nas = home.folder().canonicalize().unwrap().join("nas");
    let elsewhere = home.directory.path().join("unmounted");
    fs::rename(&nas, &elsewhere).unwrap();
    for _ in 0..2 {
        let missed = running.rescan();
        assert_eq!(missed.problems, [ImportProblem::SubfolderMissed { path: nas.clone(), files: 2 }]);
        assert_eq!((missed.removed.len(), missed.lost.len()), (0, 0));
    }
    assert_eq!(running.ingest.folders()[0].missed.len(), 1);
    fs::rename(&elsewhere, &nas).unwrap();
    let back = running.rescan();
    assert_eq!((back.summary.unchanged, back.problems, running.ingest.folders()[0].missed.len()), (3, vec![], 0));
    fs::remove_dir_all(&nas).unwrap();
    running.rescan();
    drop(running);
    // It is remembered over a restart, and a word is enough.
    let mut running = home.start(|_| {});
    assert_eq!(running.walk().problems.len(), 1);
    running.ingest.forget(nas).unwrap();
    assert_eq!(running.walk().removed.len(), 2);
}

#[test]
fn a_renamed_folder_is_not_missed() {
    let home = Home::new();
    home.write("2023/a.jpg", &jpeg("a", 1000));
    home.write("here.jpg", &jpeg("here", 1000));
    home.walk();
    fs::rename(home.folder().join("2023"), home.folder().join("Rome")).unwrap();
    let walk = home.walk();
    assert_eq!((walk.names(), walk.removed.len(), walk.problems.len()), (vec!["Rome/a.jpg"], 1, 0));
}

#[test]
fn a_folder_that_is_renamed_while_it_is_watched_has_one_name() {
    let home = Home::new();
    home.write("2023/a.jpg", &jpeg("a", 1000));
    let mut running = home.start(|config| config.watching = Watching::Always);
    let first = running.walk();
    running.acknowledge(&first);
    fs::rename(home.folder().join("2023"), home.folder().join("Rome")).unwrap();
    let ImportEvent::Imported(photo) = running.next_photo() else { panic!("it has a new name") };
    running.ingest.catalogued(vec![photo.import]);
    let ImportEvent::NameRemoved(removed) = running.next_photo() else { panic!("and no longer its old one") };
    assert_eq!((text(&photo.name.path), text(&removed.name.path)), ("Rome/a.jpg", "2023/a.jpg"));
}

#[test]
fn an_edit_that_puts_the_old_date_back_is_noticed() {
    let home = Home::new();
    let path = home.write("a.jpg", &jpeg("2021:07:28", 1000));
    age(&path);
    let before = home.walk().imported.remove(0);
    fs::write(&path, jpeg("2021:07:29", 1000)).unwrap();
    age(&path);
    assert_eq!(home.walk().imported[0].replaces, [before.photo]);
}

#[test]
fn a_file_whose_end_is_missing_waits_for_it_until_it_is_old() {
    let home = Home::new();
    let whole = jpeg("whole", 100_000);
    let path = home.write("a.jpg", &whole[..50_000]);
    assert!(home.walk().imported.is_empty());
    age(&path);
    let half = home.walk().imported.remove(0);
    assert!(home.gives_back(&half, &whole[..50_000]), "what nobody completes is kept as it is");
    fs::write(&path, &whole).unwrap();
    assert_eq!(home.walk().imported[0].replaces, [half.photo]);
}

#[test]
fn half_a_file_that_is_renamed_when_it_is_whole_is_replaced() {
    let home = Home::new();
    let whole = jpeg("whole", 100_000);
    let before = home.write("a.jpg", &whole[..50_000]);
    age(&before);
    let mut running = home.start(|config| config.watching = Watching::Always);
    let first = running.walk();
    running.acknowledge(&first);
    fs::write(&before, &whole).unwrap();
    fs::rename(&before, home.folder().join("b.jpg")).unwrap();
    let ImportEvent::Imported(photo) = running.next_photo() else { panic!("the whole photo is new") };
    assert_eq!((text(&photo.name.path), &photo.replaces[..]), ("b.jpg", &[first.imported[0].photo][..]));
    assert_eq!(photo.renamed_from.map(|name| name.path), Some("a.jpg".into()));
}

#[test]
fn what_a_folder_held_is_copied_before_it_is_left() {
    let home = Home::new();
    let path = home.write("a.jpg", &jpeg("a", 100_000));
    let photo = home.walk().imported.remove(0);
    let mut running = home.start(|config| {
        config.leaving = std::mem::take(&mut config.folders);
        config.leaving[0].path = home.folder().canonicalize().unwrap();
    });
    let walk = leave(&mut running);
    assert_eq!((walk.removed.len(), walk.removed[0].name.folder.as_str(), walk.lost), (1, "Pictures", vec![]));
    fs::remove_file(path).unwrap();
    assert!(photo.chunks.iter().all(|(chunk, _)| home.store.read(chunk).is_ok()));
}

#[test]
fn a_folder_that_was_moved_is_known_by_its_files_and_they_are_not_read_again() {
    let home = Home::new();
    home.write("2021/a.jpg", &jpeg("a", 100_000));
    let photo = home.walk().imported.remove(0);
    let (from, to) =
        (home.folder().canonicalize().unwrap(), home.directory.path().canonicalize().unwrap().join("Photos"));
    fs::rename(&from, &to).unwrap();
    let both = |config: &mut IngestConfig| {
        config.folders.push(WatchedFolder { path: to.clone(), keep: Keep::InPlace, label: None });
    };
    let mut running = home.start(both);
    let told = running.walk();
    assert_eq!((told.moved, told.imported.len()), (vec![(from.clone(), to.clone())], 0));
    let mut config = IngestConfig::new(vec![WatchedFolder { path: to.clone(), keep: Keep::InPlace, label: None }]);
    config.watching = Watching::OnRequest;
    config.moves.push((from, to));
    running.ingest.restart(config.clone()).unwrap();
    let walk = running.walk();
    assert_eq!((walk.moves_finished, walk.imported.len(), walk.removed.len(), walk.summary.unchanged), (1, 0, 0, 1));
    // Told so once more after a crash, it is as it was.
    running.ingest.restart(config).unwrap();
    assert_eq!(running.walk().summary, walk.summary);
    assert!(photo.chunks.iter().all(|(chunk, _)| home.store.read(chunk).is_ok()));
}

/// Lets the folder of `home` go, and acknowledges everything, until it is left or something is told.
fn leave(running: &mut Running) -> Walk {
    let mut walk = Walk::default();
    while walk.left.is_empty() && walk.problems.is_empty() {
        match running.next() {
            ImportEvent::NameRemoved(removed) => {
                running.ingest.catalogued(vec![removed.import]);
                walk.removed.push(*removed);
            }
            ImportEvent::Problem(problem) => walk.problems.push(problem),
            ImportEvent::ChunksLost(lost) => walk.lost.extend(lost),
            ImportEvent::FolderLeft { path } => walk.left.push(path),
            _ => {}
        }
    }
    walk
}

#[test]
fn what_cannot_be_copied_is_not_let_go_of_before_a_person_says_so() {
    let home = Home::new();
    home.write("a.jpg", &jpeg("a", 100_000));
    home.write("b.jpg", &jpeg("b", 90_000));
    home.walk();
    let folder = home.folder().canonicalize().unwrap();
    fs::rename(&folder, home.directory.path().join("unplugged")).unwrap();
    let mut running = home.start(|config| {
        config.leaving = std::mem::take(&mut config.folders);
        config.leaving[0].path.clone_from(&folder);
    });
    let kept = leave(&mut running);
    assert!(matches!(&kept.problems[..], [ImportProblem::FolderNotLeft { folder: of, .. }] if *of == folder));
    assert_eq!((kept.removed.len(), kept.left.len(), home.store.stats().files), (0, 0, 2));
    running.ingest.forget(folder.clone()).unwrap();
    let left = leave(&mut running);
    assert_eq!((left.removed.len(), left.lost.len(), left.left), (2, 2, vec![folder]));
}

#[test]
fn names_come_back_when_a_folder_is_watched_again_at_once() {
    let home = Home::new();
    home.write("a.jpg", &jpeg("a", 1000));
    home.walk();
    let mut running = home.start(|config| {
        config.leaving = std::mem::take(&mut config.folders);
        config.leaving[0].path = home.folder().canonicalize().unwrap();
    });
    // The library hears that it is gone, and has not said that it did.
    let ImportEvent::NameRemoved(removed) = running.next_photo() else { panic!("the folder is left") };
    let path = home.folder().canonicalize().unwrap();
    let mut config = IngestConfig::new(vec![WatchedFolder { path, keep: Keep::InPlace, label: None }]);
    config.watching = Watching::OnRequest;
    config.quiet = Duration::ZERO;
    running.ingest.restart(config).unwrap();
    running.ingest.catalogued(vec![removed.import]);
    let walk = running.walk();
    assert_eq!((walk.names(), walk.removed.len()), (vec!["a.jpg"], 0));
    assert_eq!(walk.imported[0].photo, removed.photo);
}

#[test]
fn the_next_card_in_a_reader_is_another_one() {
    let home = Home::new();
    home.write("DCIM/a.jpg", &jpeg("a", 1000));
    let mut running = home.start(|_| {});
    let first = running.walk();
    running.acknowledge(&first);
    // Taken in from a volume of another number.
    let path = home.folder().canonicalize().unwrap().join("DCIM/a.jpg");
    let mut record = home.store.file(&path).unwrap().unwrap();
    record.identity.device += 1;
    home.store.adopt_files(&[record]).unwrap();
    home.store.finish_files(&[&path]).unwrap();
    fs::rename(&path, home.directory.path().join("card.jpg")).unwrap();
    home.write("DCIM/b.jpg", &jpeg("b", 1000));
    for _ in 0..2 {
        let walk = running.rescan();
        running.acknowledge(&walk);
        assert_eq!(
            (walk.removed.len(), walk.problems.len()),
            (0, 1),
            "its own photos are no reason to take it for the other"
        );
    }
}

#[test]
fn half_a_file_that_is_renamed_while_it_is_completed_is_replaced() {
    let home = Home::new();
    let whole = jpeg("whole", 100_000);
    let before = home.write("a.jpg", &whole[..50_000]);
    age(&before);
    let mut running = home.start(|config| {
        config.watching = Watching::Always;
        config.quiet = Duration::from_secs(1);
    });
    let first = running.walk();
    running.acknowledge(&first);
    let after = home.folder().join("b.jpg");
    fs::rename(&before, &after).unwrap();
    fs::write(&after, &whole).unwrap();
    let ImportEvent::Imported(photo) = running.next_photo() else { panic!("the whole photo is new") };
    assert_eq!((text(&photo.name.path), &photo.replaces[..]), ("b.jpg", &[first.imported[0].photo][..]));
    running.ingest.catalogued(vec![photo.import]);
    let ImportEvent::NameRemoved(removed) = running.next_photo() else { panic!("and the half has no file any more") };
    assert_eq!(text(&removed.name.path), "a.jpg");
}

#[test]
fn a_file_that_grows_is_never_half_kept() {
    let home = Home::new();
    let path = home.folder().join("growing.jpg");
    let whole = jpeg("growing", 4_000_000);
    let mut running = home.start(|config| {
        config.watching = Watching::Always;
        config.quiet = Duration::from_millis(400);
    });
    let mut file = File::create(&path).unwrap();
    for part in whole.chunks(400_000) {
        file.write_all(part).unwrap();
        thread::sleep(Duration::from_millis(60));
    }
    drop(file);
    let ImportEvent::Imported(photo) = running.next_photo() else { panic!("the photo is new") };
    assert!(home.gives_back(&photo, &whole));
}

#[test]
fn changes_are_noticed_while_watching() {
    let home = Home::new();
    home.write("old.jpg", &jpeg("old", 1000));
    let mut running = home.start(|config| config.watching = Watching::Always);
    let first = running.walk();
    running.acknowledge(&first);
    let deeper = home.write("2024/05/new.jpg", &jpeg("new", 1000));
    let ImportEvent::Imported(new) = running.next_photo() else { panic!("the photo is new") };
    assert_eq!(text(&new.name.path), "2024/05/new.jpg");
    running.ingest.catalogued(vec![new.import]);
    fs::remove_file(deeper).unwrap();
    let ImportEvent::NameRemoved(removed) = running.next_photo() else { panic!("the photo is gone") };
    assert_eq!((removed.photo, text(&removed.name.path)), (new.photo, "2024/05/new.jpg"));
}

#[test]
fn a_full_disk_is_reported_once_and_the_rest_is_imported_when_there_is_room() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let home = Home { keep: Keep::Copy, ..Home::on(disk.clone()) };
    for number in 0..20 {
        home.write(&format!("{number}.jpg"), &jpeg(&number.to_string(), 300_000));
    }
    disk.set_capacity(1 << 20);
    let mut running = home.start(|_| {});
    let ImportEvent::Problem(problem) = running.next() else { panic!("a full disk is a problem") };
    assert!(matches!(problem, ImportProblem::Storage(StorageError::Full)), "{problem}");
    disk.set_capacity(1 << 40);
    thread::sleep(Duration::from_millis(100));
    let walk = running.rescan();
    assert_eq!((walk.imported.len(), walk.problems), (20, vec![]));
}

#[test]
fn unreadable_files_are_reported_and_the_others_imported() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.write("a.jpg", &jpeg("a", 1000));
    let locked = home.write("locked.jpg", &jpeg("locked", 1000));
    let folder = home.write("locked/b.jpg", &jpeg("b", 1000)).parent().unwrap().to_owned();
    for path in [&locked, &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
    }
    if File::open(&locked).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    let walk = home.walk();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(walk.names(), ["a.jpg"]);
    assert!(walk.problems.iter().any(|problem| matches!(problem, ImportProblem::FileUnreadable { .. })));
    assert!(walk.problems.iter().any(|problem| matches!(problem, ImportProblem::FolderUnreadable { .. })));
}

#[test]
fn links_and_pipes_are_not_followed() {
    let home = Home::new();
    let target = home.directory.path().join("outside.jpg");
    fs::write(&target, jpeg("outside", 10)).unwrap();
    std::os::unix::fs::symlink(&target, home.folder().join("link.jpg")).unwrap();
    std::os::unix::fs::symlink(home.folder(), home.folder().join("loop")).unwrap();
    let pipe = home.folder().join("pipe.jpg");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(home.walk().imported.is_empty());
}

#[test]
fn dates_come_with_names() {
    let home = Home::new();
    let path = home.write("a.jpg", &jpeg("a", 10));
    let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123_456_789);
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let photo = home.walk().imported.remove(0);
    let size = path.metadata().unwrap().len();
    let expected = FileName {
        folder: "Pictures".into(),
        path: "a.jpg".into(),
        mtime_ns: 1_234_567_890_123_456_789,
        size,
        mode: Some(0o640),
        created_ns: photo.name.created_ns,
    };
    assert_eq!(photo.name, expected);
    let created = path.metadata().unwrap().created().ok().map(|created| created.duration_since(SystemTime::UNIX_EPOCH));
    assert_eq!(created.map(|since| since.unwrap().as_nanos() as i64), expected.created_ns);
}

#[test]
fn names_are_kept_byte_for_byte() {
    let home = Home::new();
    for (name, content) in [(&b"caf\xe9.jpg"[..], "e"), (b"caf\xe8.jpg", "f")] {
        fs::write(home.folder().join(OsStr::from_bytes(name)), jpeg(content, 10)).unwrap();
    }
    let mut names: Vec<_> = home.walk().imported.into_iter().map(|photo| photo.name.path).collect();
    names.sort();
    assert_eq!(names, [FilePath::from(b"caf\xe8.jpg".to_vec()), FilePath::from(b"caf\xe9.jpg".to_vec())]);
}

#[test]
fn every_real_photo_is_kept_as_it_is() {
    let Some(photos) = std::env::var_os("HOLDFAST_TEST_PHOTOS").map(PathBuf::from) else {
        println!("skipped: HOLDFAST_TEST_PHOTOS names no folder of real photos");
        return;
    };
    let home = Home::new();
    let mut running = home.start(|config| config.folders[0].path = photos.clone());
    let walk = running.walk();
    assert!(walk.problems.is_empty(), "{:?}", walk.problems);
    assert!(walk.imported.len() >= 10);
    for photo in &walk.imported {
        let chunks: u64 = photo.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
        assert!(chunks >= photo.name.size, "{}", photo.name.path);
    }
    let left_out: Vec<_> = walkdir::WalkDir::new(&photos)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(&photos).unwrap().to_string_lossy().into_owned())
        .filter(|path| !walk.imported.iter().any(|photo| text(&photo.name.path) == *path))
        .collect();
    println!("left out: {left_out:?}");
    assert_eq!(
        left_out.iter().filter(|path| !path.ends_with(".md")).count() as u64,
        walk.summary.ignored.saturating_sub(1)
    );
}
