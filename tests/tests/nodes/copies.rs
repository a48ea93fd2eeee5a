//! Homes that are copied, so that two nodes are one device.

use std::fs;
use std::path::Path;

use holdfast_tests::node::Node;
use holdfast_tests::photos::{Photo, write_library, write_settled};

use crate::replication::pair;

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, is_directory) = entry.map(|entry| (entry.path(), entry.file_type().unwrap().is_dir())).unwrap();
        let to = to.join(entry.file_name().unwrap());
        if is_directory {
            copy(&entry, &to);
        } else if entry.is_file() {
            fs::copy(&entry, &to).unwrap();
        }
    }
}

/// Each writes on where the copy was made, and neither hears of the other before it has.
#[test]
fn what_a_device_and_its_copy_imported_comes_to_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let [pictures, phone] = ["Pictures", "Phone"].map(|name| directory.path().join(name));
    write_library(&pictures, 6).unwrap();
    fs::create_dir(&phone).unwrap();
    let picture = |seed: u64| phone.join(format!("{seed}.jpg"));
    let write = |seed: u64| write_settled(&picture(seed), &Photo::new(seed).jpeg(), seed).unwrap();
    write(100);
    let (mut home, mut office) = pair(directory.path(), &pictures);
    office.wait_until_safe(6);
    office.stop();
    office.up(&[&phone], &[]);
    home.wait_until_safe(7);
    office.stop();
    let mut twin = Node::new(directory.path(), "twin");
    copy(office.home(), twin.home());

    office.up(&[], &[]);
    write(101);
    home.wait_until_safe(8);
    office.stop();
    home.stop();
    // The twin has a folder of its own: the same until then.
    fs::remove_file(picture(101)).unwrap();
    write(102);
    twin.up(&[], &[]);
    twin.wait_until_held(8);

    home.up(&[], &[]);
    twin.wait_until_safe(9);
    home.wait_until_safe(9);
    twin.stop();
    office.up(&[], &[]);
    office.wait_until_safe(9);
    home.wait_until_safe(9);
    assert_eq!(office.export(&directory.path().join("export")).written, 9);
    let problems = home.status().problems;
    assert!(problems.iter().any(|problem| problem.what.contains("went on twice")), "{problems:?}");
    office.stop();
    home.stop();
}
