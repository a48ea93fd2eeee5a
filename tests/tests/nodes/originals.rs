//! Real photos, RAW files and videos, and malformed ones: those in the folder that `HOLDFAST_TEST_PHOTOS` names.

use std::fs;
use std::path::Path;

use holdfast_tests::folder::Contents;

use crate::replication::{assert_exports, pair};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            fs::File::options().write(true).open(&to).unwrap().set_modified(modified).unwrap();
        }
    }
}

#[test]
fn real_and_malformed_photos_are_kept_as_they_are() {
    let Some(samples) = std::env::var_os("HOLDFAST_TEST_PHOTOS") else {
        println!("skipped: HOLDFAST_TEST_PHOTOS names no folder of sample photos");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    copy(Path::new(&samples), &pictures);
    let (home, office) = pair(directory.path(), &pictures);
    home.wait_until_scanned();
    let status = home.wait_until("everything to be safe", |status| {
        status.importing.files == 0 && status.photos > 0 && status.safe == status.photos
    });
    assert_eq!(status.problems, []);
    office.wait_until_safe(status.photos);
    let names = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    let malformed = pictures.join("malformed");
    let mut unreadable = 0;
    for name in malformed.is_dir().then(|| names(&malformed)).into_iter().flatten() {
        let detail = office.show(&format!("malformed/{}", name.to_str().unwrap()));
        println!("{}: {:?}", name.display(), detail.unreadable);
        unreadable += usize::from(detail.unreadable.is_some());
    }
    assert!(unreadable > 0 || !malformed.is_dir(), "no malformed file was found unreadable");
    // What is neither a photo nor a video is none of the library's business.
    let export = directory.path().join("export");
    assert_eq!(office.export(&export).problems, []);
    let exported = Contents::of(&export.join("Pictures"));
    for ignored in Contents::of(&pictures).missing_in(&exported) {
        println!("not imported: {}", ignored.display());
        fs::remove_file(pictures.join(ignored)).unwrap();
    }
    assert_exports(&office, &pictures, &directory.path().join("again"));
}
