//! Stores that were damaged by hand: healed from a peer or rebuilt, and never served wrong.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use holdfast_tests::folder::Contents;
use holdfast_tests::node::Node;
use holdfast_tests::photos::{Photo, write_settled};

use crate::replication::{assert_exports, pair};

const PHOTOS: u64 = 20;

fn write_photos(pictures: &Path) {
    fs::create_dir(pictures).unwrap();
    for seed in 0..PHOTOS {
        let path = pictures.join(format!("IMG_{seed:04}.jpg"));
        write_settled(&path, &Photo::of_bytes(seed, 300_000).jpeg(), seed).unwrap();
    }
}

/// The largest segment of a node's store.
fn segment(node: &Node) -> PathBuf {
    let entries = fs::read_dir(node.home().join("store")).unwrap().map(|entry| entry.unwrap().path());
    let segments = entries.filter(|path| path.extension().is_some_and(|extension| extension == "segment"));
    segments.max_by_key(|path| fs::metadata(path).unwrap().len()).expect("a store has segments")
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
}

/// Exports twice: nothing wrong comes out the first time, and everything once what was found damaged is healed.
fn assert_heals(node: &Node, originals: &Contents, to: &Path) {
    let exported = |name: &str| {
        let outcome = node.export(&to.join(name));
        (outcome, Contents::of(&to.join(name).join("Pictures")))
    };
    let (first, contents) = exported("first");
    originals.assert_contains(&contents);
    assert_eq!(first.problems.len() + contents.files(), originals.files(), "{first:?}");
    node.wait_for("the damage to be healed", || {
        node.wait_until_safe(PHOTOS);
        let healed = node.export(&to.join("second")).problems.is_empty();
        healed.then_some(())
    });
    originals.assert_equal(&Contents::of(&to.join("second/Pictures")));
}

#[test]
fn damaged_bytes_are_healed_from_the_other_device() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_photos(&pictures);
    let originals = Contents::of(&pictures);
    let (_home, mut office) = pair(directory.path(), &pictures);
    office.wait_until_safe(PHOTOS);

    // A flipped bit in a segment.
    office.stop();
    flip(&segment(&office));
    office.up(&[], &[]);
    assert_heals(&office, &originals, &directory.path().join("flipped"));

    // A segment that was cut.
    office.stop();
    let cut = segment(&office);
    let length = fs::metadata(&cut).unwrap().len();
    File::options().write(true).open(&cut).unwrap().set_len(length / 2).unwrap();
    office.up(&[], &[]);
    assert_heals(&office, &originals, &directory.path().join("cut"));

    // An original that rots where it lies cannot be made here: whoever writes to a file changes it. The simulator does.
}

#[test]
fn a_lost_index_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_photos(&pictures);
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &["--copy"]);
    home.wait_until_held(PHOTOS);
    let before = home.photos();

    home.stop();
    fs::remove_file(home.home().join("index.sqlite")).unwrap();
    home.up(&[], &[]);
    home.wait_for("the same photos", || (home.photos() == before).then_some(()));

    // Not a database at all.
    home.stop();
    fs::write(home.home().join("index.sqlite"), b"nonsense").unwrap();
    home.up(&[], &[]);
    home.wait_for("the same photos", || (home.photos() == before).then_some(()));
    home.wait_until_held(PHOTOS);
    assert_exports(&home, &pictures, &directory.path().join("export"));

    // Without its log a device is none: it says so, and touches nothing.
    home.stop();
    let (metadata, aside) = (home.home().join("metadata"), directory.path().join("aside"));
    fs::rename(&metadata, &aside).unwrap();
    let answer = home.run(&["up", "--no-mdns"]);
    assert_eq!(answer.exit, Some(1), "{answer:?}");
    assert!(answer.errors.contains("holds nothing of this device any more"), "{answer:?}");
    fs::remove_dir_all(&metadata).unwrap();
    fs::rename(&aside, &metadata).unwrap();
    home.up(&[], &[]);
    home.wait_until_held(PHOTOS);
}
