//! Photos become safe on other devices.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use holdfast_tests::folder::Contents;
use holdfast_tests::node::Node;
use holdfast_tests::photos::{Photo, write_library, write_settled};

use crate::changes::walk;

/// Exports everything that `node` holds and compares it with `pictures`.
pub(crate) fn assert_exports(node: &Node, pictures: &Path, to: &Path) {
    let outcome = node.export(to);
    assert_eq!(outcome.problems, []);
    let name = pictures.file_name().expect("the folder has a name");
    Contents::of(pictures).assert_equal(&Contents::of(&to.join(name)));
}

/// A founder that watches `pictures`, and a second device in another place.
pub(crate) fn pair(directory: &Path, pictures: &Path) -> (Node, Node) {
    let (mut home, mut office) = (Node::new(directory, "home"), Node::new(directory, "office"));
    home.up(&[pictures], &[]);
    office.join(&home.invite(), &["--place", "office"]);
    (home, office)
}

#[test]
fn two_nodes_from_nothing_to_safe() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 40).unwrap();
    let (mut home, mut office) = pair(directory.path(), &pictures);
    let status = home.wait_until_safe(40);
    assert_eq!((status.target.copies, status.target.places), (2, 2));
    assert_eq!(status.bytes, Contents::of(&pictures).bytes());
    assert_eq!((status.peers_known, status.peers_connected), (1, 1));
    assert_eq!(status.problems, []);
    office.wait_until_safe(40);
    assert!(home.photos().iter().all(|photo| photo.safe && photo.copies == 2 && photo.places == 2));
    assert_eq!(home.run(&["status"]).exit, Some(0));
    assert_exports(&office, &pictures, &directory.path().join("export"));
    let again = office.export(&directory.path().join("export"));
    assert_eq!((again.written, again.unchanged), (0, 40));

    // The second run imports nothing and finds everything as it was.
    home.stop();
    office.stop();
    home.up(&[], &[]);
    let alone = home.status();
    assert_eq!((alone.safe, alone.peers_connected), (40, 0), "what the other device holds is known before it is there");
    office.up(&[], &[]);
    home.wait_until_safe(40);
    office.wait_until_safe(40);
    let scans = home.events("folder-scanned");
    assert!(scans.iter().all(|scan| scan["files"] == 40 && scan["new"] == 0), "{scans:?}");
}

/// Whatever bytes a name is made of, and whoever may read the file.
#[test]
fn names_and_permissions_come_back_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    fs::create_dir(&pictures).unwrap();
    let names: [&[u8]; 8] = [
        b"caf\xe9.jpg",
        b"caf\xe8.jpg",
        b"a\nb.jpg",
        b"10:30 Uhr?.jpg",
        b"IMG_0001.jpg ",
        b"-rf.jpg",
        "K\u{f6}ln.jpg".as_bytes(),
        "Ko\u{308}ln.jpg".as_bytes(),
    ];
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (seed, name) in (0..).zip(names) {
        let path = pictures.join(OsStr::from_bytes(name));
        write_settled(&path, &Photo::new(seed).jpeg(), seed).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(if seed % 2 == 0 { 0o440 } else { 0o664 })).unwrap();
    }
    let (home, office) = pair(directory.path(), &pictures);
    home.wait_until_safe(names.len() as u64);
    office.wait_until_safe(names.len() as u64);
    let listed: BTreeSet<_> = office.photos().into_iter().map(|photo| photo.name).collect();
    assert_eq!(listed.len(), names.len(), "{listed:?}");
    assert_eq!(office.show(r"caf\xE9").paths, [r"Pictures/caf\xE9.jpg"]);
    let export = directory.path().join("export");
    assert_exports(&office, &pictures, &export);
    for name in names.map(OsStr::from_bytes) {
        assert_eq!(mode(&export.join("Pictures").join(name)), mode(&pictures.join(name)), "{name:?}");
    }
    // What was copied about without its date gets it back.
    fs::File::open(export.join("Pictures/-rf.jpg")).unwrap().set_modified(SystemTime::now()).unwrap();
    let again = office.export(&export);
    assert_eq!((again.written, again.unchanged, again.repaired, again.undated), (0, names.len() as u64, 1, 0));
    assert_exports(&office, &pictures, &export);
}

/// What each device tells of the way from nothing to safe: names, sums and folders, and nothing that did not happen.
#[test]
fn events_and_folders_say_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let (pictures, phone) = (directory.path().join("Pictures"), directory.path().join("Phone"));
    write_library(&pictures, 30).unwrap();
    let (mut home, mut office) = (Node::new(directory.path(), "home"), Node::new(directory.path(), "office"));
    fs::create_dir(&phone).unwrap();
    for seed in 100..105 {
        write_settled(&phone.join(format!("{seed}.jpg")), &Photo::new(seed).jpeg(), seed).unwrap();
    }
    home.up(&[&pictures, &phone], &[]);
    home.wait_until_held(35);
    office.join(&home.invite(), &["--place", "office"]);
    office.wait_until_safe(35);
    home.wait_until_safe(35);

    let folders = |node: &Node| node.status().folders.into_iter().map(|folder| folder.files).collect::<Vec<_>>();
    assert_eq!(folders(&home), [30, 5]);
    let scanned = home.events("folder-scanned");
    let scanned: Vec<_> = scanned.iter().map(|scan| (scan["files"].as_u64(), scan["new"].as_u64())).collect();
    assert_eq!(scanned, [(Some(30), Some(30)), (Some(5), Some(5))]);
    let finished = home.events("import-finished");
    assert!(finished.iter().all(|event| event["photos"] != 0), "{finished:?}");
    assert_eq!(finished.iter().filter_map(|event| event["photos"].as_u64()).sum::<u64>(), 35);
    let received = office.wait_for("all photos to be told of", || {
        let received = office.events("received");
        let photos = received.iter().filter_map(|event| event["photos"].as_u64()).sum::<u64>();
        (photos == 35).then_some(received)
    });
    assert!(received.len() <= 5 && received.iter().all(|event| event["name"] == "home"), "{received:?}");
    assert_eq!(office.events("import-finished"), [] as [serde_json::Value; 0]);
    for (node, other) in [(&home, "office"), (&office, "home")] {
        let connected = node.wait_for("the connection to be told of", || node.events("connected").pop());
        assert_eq!(connected["name"], other);
    }

    // Folders follow what happens in them.
    write_settled(&phone.join("later.jpg"), &Photo::new(200).jpeg(), 200).unwrap();
    fs::remove_file(pictures.join(walk(&pictures).pop().unwrap())).unwrap();
    home.wait_for("the folders to be counted", || (folders(&home) == [29, 6]).then_some(()));
    home.stop();
    office.stop();
}

/// Each of two devices that fetch at the same time gets about half from the source and the rest from the other.
#[test]
fn a_source_sends_each_chunk_about_once() {
    const PHOTOS: u64 = 16;
    let directory = tempfile::tempdir().unwrap();
    let (pictures, camera) = (directory.path().join("Pictures"), directory.path().join("camera"));
    for folder in [&pictures, &camera] {
        fs::create_dir(folder).unwrap();
    }
    for seed in 0..PHOTOS {
        let photo = Photo::of_bytes(seed, 4_000_000).jpeg();
        write_settled(&camera.join(format!("IMG_{seed:04}.jpg")), &photo, seed).unwrap();
    }
    let (mut home, mut office) = pair(directory.path(), &pictures);
    let mut cabin = Node::new(directory.path(), "cabin");
    cabin.join(&home.invite(), &["--place", "cabin"]);
    for node in [&home, &office, &cabin] {
        node.wait_until("both others to be connected", |status| status.peers_connected == 2);
    }
    fs::rename(&camera, pictures.join("camera")).unwrap();
    let bytes = Contents::of(&pictures).bytes();
    assert!(bytes >= 60_000_000);
    for node in [&office, &cabin] {
        node.wait_until_held(PHOTOS);
    }
    let traffic = [&home, &office, &cabin].map(|node| node.status().traffic);
    println!("{bytes} bytes; {traffic:?}");
    assert!(traffic[0].sent * 100 <= bytes * 115, "the source sent more than 1.15 × {bytes} bytes: {traffic:?}");
    let received = traffic[1].received + traffic[2].received;
    assert!(received * 100 <= bytes * 205, "some bytes were fetched twice: {traffic:?}");
    home.wait_until_safe(PHOTOS);
    home.wait_until("three copies in three places", |status| {
        [&status.photos_by_copies, &status.photos_by_places].iter().all(|photos| photos[..] == [0, 0, 0, PHOTOS])
    });
    assert_exports(&cabin, &pictures, &directory.path().join("export"));
    for node in [&mut home, &mut office, &mut cabin] {
        node.stop();
    }
}
