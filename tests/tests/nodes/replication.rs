//! Photos become safe on other devices.

use std::path::Path;

use holdfast_tests::folder::Contents;
use holdfast_tests::node::Node;
use holdfast_tests::photos::write_library;

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
    office.up(&[], &[]);
    home.wait_until_safe(40);
    office.wait_until_safe(40);
    let scans = home.run(&["events"]).lines.into_iter().filter(|event| event["event"] == "folder-scanned");
    let scans: Vec<_> = scans.collect();
    assert!(scans.iter().all(|scan| scan["files"] == 40 && scan["new"] == 0), "{scans:?}");
}
