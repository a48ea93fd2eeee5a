use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use holdfast_library::FilePath;
use holdfast_protocol::cutting::cuts;
use holdfast_protocol::id::LibraryId;
use holdfast_protocol::manifest::{ContentBuilder, Facts};
use holdfast_protocol::media_type::MediaType;
use holdfast_protocol::secrets::LibrarySecrets;

use super::*;

const DATE_NS: i64 = 1_600_000_000_123_456_789;

#[derive(Debug, thiserror::Error)]
#[error("not here")]
struct NotHere;

struct Library {
    sealer: ChunkSealer,
    chunks: BTreeMap<ChunkId, Vec<u8>>,
}

impl Library {
    fn new() -> Self {
        let secrets = LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32]);
        Self { sealer: ChunkSealer::new(&secrets), chunks: BTreeMap::new() }
    }

    fn import(&mut self, file: &[u8]) -> ChunkId {
        let (mut builder, mut sealed, mut position) = (ContentBuilder::new(&self.sealer), Vec::new(), 0);
        for cut in cuts(file) {
            let id = builder.push(&file[position..position + cut.length], cut.kind, &mut sealed);
            self.chunks.insert(id, sealed.clone());
            position += cut.length;
        }
        let (media, facts) = (MediaType::Jpeg, Facts::default());
        let manifest = Manifest { content: builder.finish(), media, facts, thumbnails: vec![] };
        let sealed = manifest.seal(&self.sealer).unwrap();
        let first = sealed[0].id;
        self.chunks.extend(sealed.into_iter().map(|chunk| (chunk.id, chunk.bytes)));
        first
    }

    fn export(
        &self,
        to: &Path,
        manifest: &ChunkId,
        path: impl Into<FilePath>,
    ) -> Result<Exported, ExportError<NotHere>> {
        let name = FileName {
            folder: "Pictures".into(),
            path: path.into(),
            mtime_ns: DATE_NS,
            size: 0,
            mode: Some(0o640),
            created_ns: None,
        };
        Export::new(to, self.sealer.clone()).unwrap().photo(manifest, &name, |chunk, buffer| {
            buffer.clear();
            buffer.extend_from_slice(self.chunks.get(chunk).ok_or(NotHere)?);
            Ok(())
        })
    }
}

fn files_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = walkdir::WalkDir::new(directory)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn originals_come_back_with_their_bytes_and_dates_and_once_only() {
    let (mut library, directory) = (Library::new(), tempfile::tempdir().unwrap());
    let file: Vec<u8> = (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let manifest = library.import(&file);
    let Exported::Written { path, bytes, kept } = library.export(directory.path(), &manifest, "2021/a.jpg").unwrap()
    else {
        panic!("it was not there before");
    };
    assert_eq!((fs::read(&path).unwrap() == file, bytes, kept), (true, 3_000_000, Kept::AsTheyWere));
    assert_eq!(path, directory.path().join("Pictures/2021/a.jpg"));
    let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let date = SystemTime::UNIX_EPOCH + Duration::from_nanos(DATE_NS.unsigned_abs());
    assert_eq!((modified(&path), path.metadata().unwrap().permissions().mode() & 0o777), (date, 0o640));
    let again = || library.export(directory.path(), &manifest, "2021/a.jpg").unwrap();
    assert_eq!(again(), Exported::AlreadyThere { path: path.clone(), kept: Kept::AsTheyWere });
    // Copied without its date since.
    File::open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
    assert_eq!(again(), Exported::AlreadyThere { path: path.clone(), kept: Kept::Repaired });
    assert_eq!(modified(&path), date);
    let other = library.import(b"another photo of the same name");
    library.export(directory.path(), &other, "2021/a.jpg").unwrap();
    library.export(directory.path(), &other, "2021/a.jpg").unwrap();
    assert_eq!(files_in(directory.path()), ["a (2).jpg", "a.jpg"]);
}

#[test]
fn an_empty_file_comes_back_too() {
    let (mut library, directory) = (Library::new(), tempfile::tempdir().unwrap());
    let manifest = library.import(b"");
    library.export(directory.path(), &manifest, "empty.jpg").unwrap();
    assert_eq!(fs::read(directory.path().join("Pictures/empty.jpg")).unwrap(), b"");
}

#[test]
fn names_come_back_byte_for_byte_and_none_takes_anothers_place() {
    let (mut library, directory) = (Library::new(), tempfile::tempdir().unwrap());
    let names: [&[u8]; 7] = [
        b"caf\xe9.jpg",
        b"caf\xe8.jpg",
        b"a\nb.jpg",
        b"10:30?.jpg",
        b"c.jpg ",
        "\u{e9}.jpg".as_bytes(),
        b"e\xcc\x81.jpg",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let manifest = library.import(&[number as u8; 9]);
        library.export(directory.path(), &manifest, name.to_vec()).unwrap();
    }
    let mut found = fs::read_dir(directory.path().join("Pictures")).unwrap();
    let content = |name: &[u8]| fs::read(directory.path().join("Pictures").join(OsStr::from_bytes(name))).unwrap();
    assert!(names.iter().enumerate().all(|(number, name)| content(name) == [number as u8; 9]));
    assert!(found.all(|entry| names.contains(&entry.unwrap().file_name().as_bytes())));
}

#[test]
fn a_file_that_appears_meanwhile_keeps_its_name() {
    let (mut library, directory) = (Library::new(), tempfile::tempdir().unwrap());
    let manifest = library.import(&[7; 10_000]);
    let theirs = directory.path().join("Pictures/a.jpg");
    let name = FileName {
        folder: "Pictures".into(),
        path: "a.jpg".into(),
        mtime_ns: 0,
        size: 0,
        mode: None,
        created_ns: None,
    };
    let read = |chunk: &ChunkId, buffer: &mut Vec<u8>| {
        if *chunk != manifest {
            fs::write(&theirs, b"theirs").unwrap();
        }
        buffer.clone_from(&library.chunks[chunk]);
        Ok::<_, NotHere>(())
    };
    Export::new(directory.path(), library.sealer.clone()).unwrap().photo(&manifest, &name, read).unwrap();
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    assert_eq!(files_in(directory.path()), ["a (2).jpg", "a.jpg"]);
}

#[test]
fn nothing_is_left_of_an_export_that_fails() {
    let (mut library, directory) = (Library::new(), tempfile::tempdir().unwrap());
    let manifest = library.import(&[7; 10_000]);
    let chunk = *library.chunks.keys().find(|id| **id != manifest).unwrap();
    let bytes = library.chunks.remove(&chunk).unwrap();
    assert!(matches!(library.export(directory.path(), &manifest, "a.jpg"), Err(ExportError::Chunk { .. })));
    let damaged = [&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat();
    library.chunks.insert(chunk, damaged);
    assert!(matches!(library.export(directory.path(), &manifest, "a.jpg"), Err(ExportError::Sealed { .. })));
    library.chunks.remove(&manifest);
    assert!(matches!(library.export(directory.path(), &manifest, "a.jpg"), Err(ExportError::Chunk { .. })));
    assert!(files_in(directory.path()).is_empty());
}

#[test]
fn two_exports_into_one_folder_do_not_meet() {
    let (mut library, directory) = (Library::new(), tempfile::tempdir().unwrap());
    let manifest = library.import(&[7; 10_000]);
    let name = FileName {
        folder: "Pictures".into(),
        path: "a.jpg".into(),
        mtime_ns: 0,
        size: 0,
        mode: None,
        created_ns: None,
    };
    let read = |chunk: &ChunkId, buffer: &mut Vec<u8>| {
        // While this export writes its part, another begins and ends.
        if *chunk != manifest {
            library.export(directory.path(), &manifest, "b.jpg").unwrap();
        }
        buffer.clone_from(&library.chunks[chunk]);
        Ok::<_, NotHere>(())
    };
    Export::new(directory.path(), library.sealer.clone()).unwrap().photo(&manifest, &name, read).unwrap();
    assert_eq!(fs::read(directory.path().join("Pictures/a.jpg")).unwrap(), [7; 10_000]);
    assert_eq!(fs::read(directory.path().join("Pictures/b.jpg")).unwrap(), [7; 10_000]);
    assert_eq!(files_in(directory.path()), ["a.jpg", "b.jpg"]);
}

#[test]
fn no_link_leads_out_of_the_directory() {
    let mut library = Library::new();
    let manifest = library.import(&[7; 1000]);
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(directory.path().join("Pictures")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), directory.path().join("Pictures/2021")).unwrap();
    let refused = library.export(directory.path(), &manifest, "2021/07/a.jpg");
    assert!(matches!(refused, Err(ExportError::NoFolder { path }) if path.ends_with("Pictures/2021")));
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);
    assert!(library.export(directory.path(), &manifest, "2022/a.jpg").is_ok());
    // A person may well name the directory by a link.
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    assert!(library.export(&link, &manifest, "2023/a.jpg").is_ok());
}
