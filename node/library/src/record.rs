//! What the catalog keeps for a photo: where its chunks are, in the open; everything else sealed under its own key.

use serde::{Deserialize, Serialize};

use holdfast_crdt::NameId;
use holdfast_protocol::codec;
use holdfast_protocol::id::{DeviceId, PhotoId};
use holdfast_protocol::manifest::RUN_CHUNKS_MAX;
use holdfast_protocol::position::Run;
use holdfast_protocol::sealing::PhotoKey;
use holdfast_protocol::secrets::LibrarySecrets;

use super::import::FileName;
use super::path::FilePath;

const FORMAT: u8 = 1;
const RECORD_BYTES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 4096;
const NAME_CONTEXT: &[u8] = b"name";
/// What a sealed name has room for beside what is the same for all: the ends of longer ones are kept.
const FOLDER_BYTES_MAX: usize = 1024;
const PATH_BYTES_MAX: usize = 2560;

/// The record of a photo in the catalog. It names no fact: those stand in the manifest, the first chunk of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PhotoRecord {
    format: u8,
    /// The positions of the photo's chunks.
    pub(super) run: Run,
    /// Bytes of the original.
    pub(super) bytes: u64,
}

impl PhotoRecord {
    pub(super) const fn new(run: Run, bytes: u64) -> Self {
        Self { format: FORMAT, run, bytes }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// `None` for bytes that are no record of this version, or a run that cannot be.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let record: Self = codec::decode(bytes, RECORD_BYTES_MAX).ok()?;
        let run = record.run;
        let possible =
            run.count > 0 && run.count as usize <= RUN_CHUNKS_MAX && run.start.checked_add(run.count).is_some();
        (record.format == FORMAT && possible).then_some(record)
    }
}

/// A name as it is sealed: whose folder it is in, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedFile {
    pub(super) device: DeviceId,
    pub(super) name: FileName,
}

/// The key of a name: the same for the same file of the same device, and no name to those without the library's
/// secrets.
pub(super) fn name_id(secrets: &LibrarySecrets, photo: &PhotoId, file: &NamedFile) -> NameId {
    let place = codec::encode(&("name", photo, &file.device, &file.name.folder, &file.name.path));
    let keyed = secrets.photo_id(blake3::hash(&place).as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&keyed.as_bytes()[..16]);
    NameId::from_bytes(id)
}

/// A name that is too long for the catalog is sealed with the last folders of its path.
pub(super) fn seal_name(key: &PhotoKey, file: &NamedFile) -> Vec<u8> {
    let FileName { folder, path, .. } = &file.name;
    let folder = FilePath::from(folder.as_str()).end(FOLDER_BYTES_MAX).to_string();
    let name = FileName { folder, path: path.end(PATH_BYTES_MAX), ..file.name };
    key.seal(NAME_CONTEXT, &codec::encode(&NamedFile { name, ..*file }))
}

/// `None` for what was not sealed as a name under this key.
pub(super) fn open_name(key: &PhotoKey, sealed: &[u8]) -> Option<NamedFile> {
    codec::decode(&key.open(NAME_CONTEXT, sealed).ok()?, NAME_BYTES_MAX).ok()
}

#[cfg(test)]
mod tests {
    use holdfast_crdt::limits::VALUE_BYTES_MAX;
    use holdfast_protocol::id::{AuthorId, LibraryId};

    use super::*;

    #[test]
    fn records_round_trip_and_impossible_runs_are_refused() {
        let author = AuthorId::from_bytes([3; 32]);
        let record = PhotoRecord::new(Run { author, start: 7, count: 4 }, 123_456);
        assert_eq!(PhotoRecord::decode(&record.encode()), Some(record));
        for (start, count) in [(0, 0), (u32::MAX, 2), (0, u32::MAX)] {
            assert_eq!(PhotoRecord::decode(&PhotoRecord::new(Run { author, start, count }, 1).encode()), None);
        }
        assert_eq!(PhotoRecord::decode(&[9; 300]), None);
        assert_eq!(PhotoRecord::decode(&[]), None);
    }

    #[test]
    fn names_of_any_length_are_sealed_within_what_the_catalog_takes_and_stay_apart() {
        let secrets = LibrarySecrets::generate(LibraryId::from_bytes([4; 32]), &[5; 32]);
        let (photo, key) = (PhotoId::from_bytes([1; 32]), PhotoKey::derive(&secrets, &[7; 32]));
        let named = |folder: &str, path: &str| NamedFile {
            device: DeviceId::from_bytes([2; 32]),
            name: FileName {
                folder: folder.into(),
                path: path.into(),
                mtime_ns: i64::MIN,
                size: u64::MAX,
                mode: Some(u16::MAX),
                created_ns: Some(i64::MIN),
            },
        };
        let sealed = |file: &NamedFile| {
            let sealed = seal_name(&key, file);
            // Behind it stands when the file went.
            assert!(1 + size_of::<u64>() + sealed.len() <= VALUE_BYTES_MAX);
            open_name(&key, &sealed).unwrap()
        };
        let usual = named("Pictures", "2021/07/Ätna.jpg");
        assert_eq!(sealed(&usual), usual);
        let (deep, broken) = ("a folder/".repeat(450), "\u{fffd}".repeat(5000));
        let long = sealed(&named(&deep, &format!("{deep}IMG_0001.jpg"))).name;
        assert!(long.folder.starts_with("…/a folder/") && long.path.to_string().starts_with("…/a folder/"));
        assert!(long.path.to_string().ends_with("/a folder/IMG_0001.jpg"));
        assert!(sealed(&named(&broken, &broken)).name.path.to_string().ends_with('\u{fffd}'));
        // They look alike, and are two names.
        let [one, other] = ["b", "c"].map(|folder| named("Pictures", &format!("{folder}/{deep}IMG_0001.jpg")));
        assert_eq!(sealed(&one), sealed(&other));
        assert_ne!(name_id(&secrets, &photo, &one), name_id(&secrets, &photo, &other));
    }
}
