//! Disks that are full, read-only or not connected, files that may not be read: each is said in words, everything else
//! goes on, nothing is lost, and what was the matter can be mended while the node runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use holdfast_tests::folder::Contents;
use holdfast_tests::node::Node;
use holdfast_tests::photos::{Photo, write_library, write_settled};
use holdfast_tests::surroundings::{
    connect, disconnect, give_away, has_own_mounts, mount_disk, remount, without_privileges,
};

use crate::replication::assert_exports;

/// Writes `photos` photos of about 4 MB each.
fn write_large(pictures: &Path, photos: u64) {
    fs::create_dir_all(pictures).unwrap();
    for seed in 0..photos {
        let photo = Photo::of_bytes(seed, 4_000_000).jpeg();
        write_settled(&pictures.join(format!("IMG_{seed:04}.jpg")), &photo, seed).unwrap();
    }
}

/// What is free on the disk of `directory`.
fn free_bytes(directory: &Path) -> usize {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(directory).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().parse().unwrap()
}

/// Waits until a problem of `node` says `what`, with a next step that says `next`.
fn assert_told(node: &Node, what: &str, next: &str) {
    node.wait_until(&format!("a problem that says `{what}`"), |status| {
        let says = |text: &Option<String>, part: &str| text.as_ref().is_some_and(|text| text.contains(part));
        status.problems.iter().any(|problem| problem.what.contains(what) && says(&problem.next, next))
    });
}

#[test]
fn a_full_disk_stops_nothing_but_the_import() {
    if !has_own_mounts("trouble::a_full_disk_stops_nothing_but_the_import") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_large(&pictures, 24);
    let mut home = Node::new(directory.path(), "home");
    mount_disk(home.home(), 120);
    home.up(&[&pictures], &["--copy"]);
    assert_told(&home, "disk is full", "free some space");
    home.wait_until("what found room to be listed", |status| status.photos > 0 && status.importing.files == 0);
    // What is in is in, also after a restart on the full disk.
    let before = home.photos().len();
    println!("{before} of 24 photos found room");
    assert!((1..24).contains(&before));
    assert_eq!(home.export(&directory.path().join("first")).problems, []);
    home.kill();
    home.up(&[], &[]);
    assert_told(&home, "disk is full", "free some space");
    assert!(home.photos().len() >= before);

    // Others take what is left: nothing is taken in any more, and everything that is here is shown.
    let rest = home.home().join("rest");
    fs::write(&rest, vec![7; free_bytes(home.home()).saturating_sub(40 << 20)]).unwrap();
    let listed = home.photos();
    assert_eq!(home.export(&directory.path().join("second")).problems, []);
    let invite = || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        home.run(&["invite"])
    };
    // It looks at the disk now and then.
    let refused = std::iter::repeat_with(invite).take(100).find(|answer| answer.exit != Some(0)).unwrap();
    assert_eq!(refused.exit, Some(1), "{refused:?}");
    assert!(refused.errors.contains("disk is full") && refused.errors.contains("free some space"), "{refused:?}");
    assert_eq!(home.photos(), listed);
    fs::remove_file(&rest).unwrap();

    remount(home.home(), "size=256m");
    home.wait_until_held(24);
    home.wait_until("the problem to be settled", |status| status.problems.is_empty());
    assert_exports(&home, &pictures, &directory.path().join("export"));
    home.stop();
}

#[test]
fn a_device_whose_disk_is_full_goes_on_when_there_is_room() {
    if !has_own_mounts("trouble::a_device_whose_disk_is_full_goes_on_when_there_is_room") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_large(&pictures, 12);
    let (mut home, mut office) = (Node::new(directory.path(), "home"), Node::new(directory.path(), "office"));
    mount_disk(office.home(), 100);
    home.up(&[&pictures], &[]);
    home.wait_until_held(12);
    office.join(&home.invite(), &["--place", "office"]);
    assert_told(&office, "disk is full", "free some space");
    let status = office.status();
    println!("{} of 12 photos found room", status.held_here);
    assert!(status.held_here < 12);
    // The other device is not troubled, and counts nothing that is not there.
    let counted = home.status();
    assert!(counted.safe < 12 && counted.problems.is_empty(), "{counted:?}");

    remount(office.home(), "size=256m");
    office.wait_until_safe(12);
    home.wait_until_safe(12);
    office.wait_until("the problem to be settled", |status| status.problems.is_empty());
    assert_exports(&office, &pictures, &directory.path().join("export"));
    office.stop();
    home.stop();
}

#[test]
fn a_read_only_home_is_refused_and_a_read_only_store_served() {
    if !has_own_mounts("trouble::a_read_only_home_is_refused_and_a_read_only_store_served") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 5).unwrap();
    let mut home = Node::new(directory.path(), "home");
    mount_disk(home.home(), 256);
    home.up(&[&pictures], &["--copy"]);
    home.wait_until_held(5);
    home.stop();
    remount(home.home(), "ro");
    let answer = home.run(&["up", "--no-mdns"]);
    assert_eq!(answer.exit, Some(1), "{answer:?}");
    assert!(answer.errors.contains("ead-only") && answer.errors.contains("writable"), "{answer:?}");

    // Only the chunks: everything is there to be seen, and what is new waits.
    remount(home.home(), "rw");
    let store = home.home().join("store");
    connect(&store, &store);
    remount(&store, "bind,ro");
    write_settled(&pictures.join("later.jpg"), &Photo::new(50).jpeg(), 50).unwrap();
    home.up(&[], &[]);
    assert_told(&home, "read-only", "writable");
    assert_eq!(home.photos().len(), 5);
    assert_eq!(home.export(&directory.path().join("first")).problems, []);
    home.stop();
    disconnect(&store);
    home.up(&[], &[]);
    home.wait_until_held(6);
    assert_exports(&home, &pictures, &directory.path().join("export"));
    home.stop();
}

#[test]
fn what_may_not_be_read_is_named_and_the_rest_imported() {
    let Some(wrapper) = without_privileges("trouble::what_may_not_be_read_is_named_and_the_rest_imported") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 6).unwrap();
    let (file, folder) = (pictures.join("secret.jpg"), pictures.join("private"));
    fs::create_dir(&folder).unwrap();
    write_settled(&file, &Photo::new(90).jpeg(), 90).unwrap();
    write_settled(&folder.join("inside.jpg"), &Photo::new(91).jpeg(), 91).unwrap();
    give_away(directory.path());
    let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    permit(&file, 0o000);
    permit(&folder, 0o000);
    let mut home = Node::new(directory.path(), "home").wrapped(wrapper);
    home.up(&[&pictures], &[]);
    assert_told(&home, "secret.jpg", "allow this user to read it");
    assert_told(&home, "private", "allow this user to read it");
    home.wait_until_held(6);
    home.stop();

    // Known files that cannot be looked at any more are not gone.
    permit(&file, 0o644);
    permit(&folder, 0o755);
    home.up(&[], &[]);
    home.wait_until_held(8);
    home.wait_until("no problem to be left", |status| status.problems.is_empty());
    home.stop();
    permit(&folder, 0o000);
    home.up(&[], &[]);
    assert_told(&home, "private", "allow this user to read it");
    home.wait_until_scanned();
    assert_eq!(home.status().photos, 8);
    assert_eq!(home.show("inside.jpg").paths, ["Pictures/private/inside.jpg"]);
    permit(&folder, 0o755);
    home.stop();
}

#[test]
fn an_unmounted_folder_comes_back_as_it_was() {
    if !has_own_mounts("trouble::an_unmounted_folder_comes_back_as_it_was") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (disk, pictures) = (directory.path().join("disk"), directory.path().join("Pictures"));
    write_library(&disk, 6).unwrap();
    fs::create_dir(&pictures).unwrap();
    connect(&disk, &pictures);
    let originals = Contents::of(&pictures);
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &[]);
    home.wait_until_held(6);
    home.wait_until_scanned();
    home.stop();

    disconnect(&pictures);
    home.up(&[], &[]);
    assert_told(&home, "is empty but held 6 photos", "connect it");
    assert_eq!((home.status().photos, home.photos().len()), (6, 6));
    // Other photos on the same disk in the meantime, which is connected while the node runs.
    write_settled(&disk.join("later.jpg"), &Photo::new(50).jpeg(), 50).unwrap();
    connect(&disk, &pictures);
    home.wait_until_held(7);
    home.wait_until("the problem to be settled", |status| status.problems.is_empty());
    let export = directory.path().join("export");
    assert_exports(&home, &pictures, &export);
    Contents::of(&export.join("Pictures")).assert_contains(&originals);
    home.stop();
}
