//! A folder that changes while it is watched.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::id::PhotoId;
use holdfast_tests::folder::Contents;
use holdfast_tests::node::Node;
use holdfast_tests::photos::{Photo, write, write_library, write_settled};

use crate::replication::{assert_exports, pair};

fn id(node: &Node, name: &str) -> PhotoId {
    node.show(name).photo.id
}

/// Whether `node` itself holds every chunk of a photo.
pub(crate) fn holds(node: &Node, photo: &PhotoId) -> bool {
    let detail = node.show(&photo.to_string());
    detail.holders.iter().any(|holder| holder.this_device && holder.chunks == detail.chunks)
}

#[test]
fn a_folder_changes_under_the_watcher() {
    const PICTURE_BYTES: u32 = 2_000_000;
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 12).unwrap();
    let ferry = Photo::of_bytes(100, PICTURE_BYTES);
    write_settled(&pictures.join("ferry.jpg"), &ferry.jpeg(), 100).unwrap();
    let (home, office) = pair(directory.path(), &pictures);
    home.wait_until_safe(13);
    office.wait_until_safe(13);

    // New, just now: left alone until it has been quiet for a while.
    write(&pictures.join("new.jpg"), &Photo::new(101).jpeg()).unwrap();
    office.wait_until_safe(14);

    // Its caption is edited: the picture is not sent again, and the version before is kept.
    let (before, sent) = (id(&home, "ferry.jpg"), home.status().traffic.sent);
    let edited = Photo { caption: Some("Sydney, from the ferry".to_owned()), ..ferry };
    write_settled(&pictures.join("ferry.jpg"), &edited.jpeg(), 102).unwrap();
    office.wait_for("the edited photo", || office.try_show("ferry.jpg").filter(|detail| detail.photo.id != before));
    office.wait_until_safe(14);
    let resent = home.status().traffic.sent - sent;
    assert!(resent < u64::from(PICTURE_BYTES) / 8, "{resent} bytes were sent for a caption");
    office.wait_for("the version before", || holds(&office, &before).then_some(()));
    assert_exports(&office, &pictures, &directory.path().join("edited"));

    // Renamed and moved: the same photo under its new name, and nothing is sent.
    let (moved, sent) = (id(&home, "new.jpg"), home.status().traffic.sent);
    fs::create_dir(pictures.join("trip")).unwrap();
    fs::rename(pictures.join("new.jpg"), pictures.join("trip/harbour.jpg")).unwrap();
    office.wait_for("the new name", || {
        (office.show(&moved.to_string()).paths == ["Pictures/trip/harbour.jpg"]).then_some(())
    });
    home.wait_until_safe(14);
    assert_eq!(home.status().traffic.sent, sent);

    // Deleted: the photo stays under the name, folder and date that it had, and this device gets back what it lost with the
    // file.
    let (deleted, before) = (id(&home, "IMG_0003.jpg"), Contents::of(&pictures));
    fs::remove_file(pictures.join("2021/04/IMG_0003.jpg")).unwrap();
    for node in [&home, &office] {
        let detail = node.wait_for("the file to be gone", || {
            node.try_show("IMG_0003.jpg").filter(|detail| detail.gone_since_ms.is_some())
        });
        assert_eq!((detail.photo.id, detail.paths.len()), (deleted, 0));
        assert_eq!(detail.last_path.as_deref(), Some("Pictures/2021/04/IMG_0003.jpg"));
        assert!(node.photos().iter().any(|photo| Some(&photo.name) == detail.last_path.as_ref()));
    }
    home.wait_for("the deleted file's bytes", || holds(&home, &deleted).then_some(()));
    home.wait_until_safe(14);
    for node in [&home, &office] {
        let export = directory.path().join("deleted").join(node.home().file_name().unwrap());
        assert_eq!(node.export(&export).problems, []);
        before.assert_equal(&Contents::of(&export.join("Pictures")));
    }
}

pub(crate) fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_growing_file_is_imported_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 2).unwrap();
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &[]);
    home.wait_until_held(2);
    let bytes = Photo::of_bytes(7, 1_000_000).jpeg();
    let mut file = File::create(pictures.join("slow.jpg")).unwrap();
    for part in bytes.chunks(bytes.len() / 12) {
        file.write_all(part).unwrap();
        file.flush().unwrap();
        sleep(Duration::from_millis(300));
        let listed = home.photos();
        assert!(listed.iter().all(|photo| !photo.name.ends_with("slow.jpg")), "imported while it grew: {listed:?}");
    }
    drop(file);
    home.wait_until_held(3);
    assert_eq!(home.show("slow.jpg").photo.bytes, bytes.len() as u64);
    assert_exports(&home, &pictures, &directory.path().join("export"));
}

#[test]
fn an_export_into_a_watched_folder_is_not_imported() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 4).unwrap();
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &[]);
    home.wait_until_held(4);
    for among in [pictures.as_path(), &pictures.join("2021"), directory.path()] {
        let refused = home.run(&["export".into(), among.as_os_str().to_owned()]);
        assert_eq!(refused.exit, Some(2), "{refused:?}");
        assert!(refused.errors.contains("among the photos of the watched folder"), "{refused:?}");
    }
    let restored = pictures.join("Restored");
    let outcome = home.export(&restored);
    assert_eq!((outcome.written, outcome.passed_over_by.as_deref()), (4, Some(pictures.as_path())));
    let assert_names = |node: &Node, seed: u64| {
        write_settled(&pictures.join(format!("{seed}.jpg")), &Photo::new(seed).jpeg(), seed).unwrap();
        node.wait_for("what comes later", || node.try_show(&seed.to_string()));
        let paths: Vec<_> = node.photos().iter().flat_map(|photo| node.show(&photo.id.to_string()).paths).collect();
        assert!(!paths.iter().any(|path| path.contains("Restored")), "{paths:?}");
    };
    assert_names(&home, 200);
    let again = home.export(&restored);
    assert_eq!((again.written, again.unchanged, walk(&restored).len()), (1, 4, 5));
    home.stop();
    home.up(&[], &[]);
    assert_names(&home, 201);
    home.stop();
}

#[test]
fn a_missing_folder_removes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (pictures, elsewhere) = (directory.path().join("Pictures"), directory.path().join("unmounted"));
    write_library(&pictures, 6).unwrap();
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &[]);
    home.wait_until_held(6);
    let names = |node: &Node| node.photos().into_iter().map(|photo| photo.name).collect::<Vec<_>>();
    let before = names(&home);

    fs::rename(&pictures, &elsewhere).unwrap();
    let missed = |node: &Node| {
        let status = node.wait_until("the missing folder to be a problem", |status| !status.problems.is_empty());
        assert!(status.problems[0].what.contains("Pictures is not there"), "{:?}", status.problems);
        assert!(!status.folders[0].present);
        assert_eq!((status.photos, names(node)), (6, before.clone()));
    };
    missed(&home);
    home.stop();
    home.up(&[], &[]);
    missed(&home);

    fs::rename(&elsewhere, &pictures).unwrap();
    write_settled(&pictures.join("later.jpg"), &Photo::new(50).jpeg(), 50).unwrap();
    home.wait_until_held(7);
    let status = home.wait_until("the problem to be settled", |status| status.problems.is_empty());
    assert!(status.folders[0].present);
    assert!(before.iter().all(|name| names(&home).contains(name)));
    assert_exports(&home, &pictures, &directory.path().join("export"));
}
