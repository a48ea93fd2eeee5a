//! What is kept of a file outside the store, and its bytes in the metadata; `FORMAT.md` has the layout.

use std::path::PathBuf;

use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::limits::CHUNK_BYTES_MAX;
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::secrets::EpochId;

use super::disk::{FileIdentity, FileStat};
use super::path_bytes;

/// A file that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Where it lies, as the caller names it: at most 65,535 bytes.
    pub path: PathBuf,
    /// Its state when it was read.
    pub stat: FileStat,
    /// Which file it was then.
    pub identity: FileIdentity,
    /// The photo it is.
    pub photo: PhotoId,
    /// The photos that it was before, until its import is finished: at most [`REPLACES_MAX`].
    pub replaces: Vec<PhotoId>,
    /// The BLAKE3 hash of its content.
    pub content_hash: [u8; 32],
    /// Its chunks that can be sealed again from it; empty when all of them lie in segments.
    pub cuts: Vec<InPlaceCut>,
}

impl FileRecord {
    /// The photos that a file with this record was before it became `photo`; `None` when there are too many to remember.
    /// An import that was not acknowledged may be in the catalog or not, so what its file was before is replaced as well.
    #[must_use]
    pub fn replaced_by(self, photo: PhotoId) -> Option<Vec<PhotoId>> {
        let mut replaces = self.replaces;
        replaces.push(self.photo);
        replaces.retain(|before| *before != photo);
        (replaces.len() <= REPLACES_MAX).then_some(replaces)
    }
}

/// A chunk that lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InPlaceCut {
    /// The chunk.
    pub chunk: ChunkId,
    /// Where its plaintext begins in the file.
    pub offset: u64,
    /// Bytes of its plaintext.
    pub length: u32,
    /// The epoch it was sealed in.
    pub epoch: EpochId,
}

/// Whether a file's import is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Unfinished = 0,
    Finished = 1,
}

/// Edits of a file that its record remembers until the last one is imported.
pub const REPLACES_MAX: usize = 64;

const FORMAT: u8 = 2;
const HEAD_BYTES: usize = 110;
const CUT_BYTES: usize = 45;
const PHOTO_BYTES: usize = 32;

/// The value in the metadata; `FORMAT.md` has the layout.
pub(super) fn encode(record: &FileRecord, state: State) -> Result<Vec<u8>, StorageError> {
    let path = path_bytes(&record.path);
    let mut epochs: Vec<EpochId> = record.cuts.iter().map(|cut| cut.epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    let counted = (u16::try_from(path.len()), u8::try_from(epochs.len()), u8::try_from(record.replaces.len()));
    let (Ok(path_length), Ok(epoch_count), Ok(replace_count)) = counted else {
        let detail = format!("the record of {} is too large to keep", record.path.display());
        return Err(StorageError::Failed { detail });
    };
    let lists = epochs.len() * EpochId::BYTES + record.replaces.len() * PHOTO_BYTES + record.cuts.len() * CUT_BYTES;
    let mut value = Vec::with_capacity(HEAD_BYTES + path.len() + lists);
    value.extend_from_slice(&[FORMAT, state as u8]);
    value.extend_from_slice(&path_length.to_le_bytes());
    value.extend_from_slice(&record.stat.size.to_le_bytes());
    value.extend_from_slice(&record.stat.mtime_ns.to_le_bytes());
    value.extend_from_slice(&record.stat.ctime_ns.to_le_bytes());
    value.extend_from_slice(&record.identity.device.to_le_bytes());
    value.extend_from_slice(&record.identity.inode.to_le_bytes());
    value.extend_from_slice(record.photo.as_bytes());
    value.extend_from_slice(&record.content_hash);
    value.extend_from_slice(&[epoch_count, replace_count]);
    epochs.iter().for_each(|epoch| value.extend_from_slice(&epoch.to_bytes()));
    record.replaces.iter().for_each(|photo| value.extend_from_slice(photo.as_bytes()));
    value.extend_from_slice(path);
    for cut in &record.cuts {
        value.extend_from_slice(cut.chunk.as_bytes());
        value.extend_from_slice(&cut.offset.to_le_bytes());
        value.extend_from_slice(&cut.length.to_le_bytes());
        value.push(epochs.binary_search(&cut.epoch).map_or(0, |at| at as u8));
    }
    Ok(value)
}

/// The record that [`encode`] wrote; `None` when the value is damaged.
pub(super) fn decode(value: &[u8]) -> Option<(FileRecord, State)> {
    let (head, rest) = value.split_first_chunk::<HEAD_BYTES>()?;
    let word = |at: usize| Some(u64::from_le_bytes(head[at..at + 8].try_into().ok()?));
    let state = match head[..2] {
        [FORMAT, 0] => State::Unfinished,
        [FORMAT, 1] => State::Finished,
        _ => return None,
    };
    let (epochs, rest) = rest.split_at_checked(usize::from(head[108]) * EpochId::BYTES)?;
    let (replaces, rest) = rest.split_at_checked(usize::from(head[109]) * PHOTO_BYTES)?;
    let (path, cuts) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[2], head[3]])))?;
    let epochs: Vec<EpochId> = epochs
        .chunks_exact(EpochId::BYTES)
        .filter_map(|bytes| Some(EpochId::from_bytes(bytes.try_into().ok()?)))
        .collect();
    let photo = |bytes: &[u8]| Some(PhotoId::from_bytes(bytes.try_into().ok()?));
    if cuts.len() % CUT_BYTES != 0 {
        return None;
    }
    let cut = |bytes: &[u8]| {
        let length = u32::from_le_bytes(bytes[40..44].try_into().ok()?);
        (length as usize <= CHUNK_BYTES_MAX).then_some(InPlaceCut {
            chunk: ChunkId::from_bytes(bytes[..32].try_into().ok()?),
            offset: u64::from_le_bytes(bytes[32..40].try_into().ok()?),
            length,
            epoch: *epochs.get(usize::from(bytes[44]))?,
        })
    };
    let record = FileRecord {
        path: stored_path(path)?,
        stat: FileStat { size: word(4)?, mtime_ns: word(12)?.cast_signed(), ctime_ns: word(20)?.cast_signed() },
        identity: FileIdentity { device: word(28)?, inode: word(36)? },
        photo: photo(&head[44..76])?,
        // A file whose import is finished replaces nothing any more.
        replaces: match state {
            State::Unfinished => replaces.chunks_exact(PHOTO_BYTES).map(photo).collect::<Option<_>>()?,
            State::Finished => Vec::new(),
        },
        content_hash: head[76..108].try_into().ok()?,
        cuts: cuts.chunks_exact(CUT_BYTES).map(cut).collect::<Option<_>>()?,
    };
    Some((record, state))
}

#[cfg(unix)]
pub(super) fn stored_path(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
pub(super) fn stored_path(bytes: &[u8]) -> Option<PathBuf> {
    Some(PathBuf::from(std::str::from_utf8(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_round_trip_and_damaged_ones_are_refused(
            path in "[a-zA-Z0-9/ü]{0,80}",
            size: u64,
            mtime_ns: i64,
            replaces in prop::collection::vec(any::<[u8; 32]>(), 0..=REPLACES_MAX),
            cuts in prop::collection::vec((any::<[u8; 32]>(), any::<u64>(), 0..=CHUNK_BYTES_MAX as u32, any::<[u8; 12]>()), 0..20),
        ) {
            let record = FileRecord {
                path: path.into(),
                stat: FileStat { size, mtime_ns, ctime_ns: mtime_ns.wrapping_add(9) },
                identity: FileIdentity { device: 3, inode: 7 },
                photo: PhotoId::from_bytes([1; 32]),
                replaces: replaces.into_iter().map(PhotoId::from_bytes).collect(),
                content_hash: [2; 32],
                cuts: cuts
                    .into_iter()
                    .map(|(chunk, offset, length, epoch)| InPlaceCut {
                        chunk: ChunkId::from_bytes(chunk), offset, length, epoch: EpochId::from_bytes(epoch),
                    })
                    .collect(),
            };
            let value = encode(&record, State::Unfinished).unwrap();
            for end in 0..value.len() {
                let cut = decode(&value[..end]);
                prop_assert!(cut.is_none_or(|(cut, _)| cut != record));
            }
            prop_assert_eq!(decode(&value), Some((record.clone(), State::Unfinished)));
            let finished = encode(&record, State::Finished).unwrap();
            prop_assert_eq!(decode(&finished), Some((FileRecord { replaces: Vec::new(), ..record }, State::Finished)));
        }

        #[test]
        fn no_bytes_make_decoding_panic(value in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&value);
        }
    }
}
