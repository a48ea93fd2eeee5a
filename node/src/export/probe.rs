//! What names a directory's file system takes: found out by trying, since one that is mounted over a network or by a driver
//! of its own does not say.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use holdfast_library::from_character;
use unicode_normalization::UnicodeNormalization as _;

/// Bytes of a name that every file system of today takes, and the most that any does.
const NAME_BYTES: std::ops::RangeInclusive<u64> = 64..=255;
/// Beyond ASCII: of two, three and four bytes.
const NON_ASCII: &str = "äあ😀";
/// What stands for a character that is refused.
const SUBSTITUTE: u8 = b'_';

/// The names that a file system takes.
#[derive(Debug, Clone)]
pub(super) struct NameRules {
    /// The ASCII characters that it refuses.
    refused: Vec<u8>,
    /// Whether it takes other characters.
    non_ascii: Taken,
    /// Whether it takes bytes that are no characters.
    bytes: Taken,
    /// Whether it keeps dots and spaces at the end of a name.
    ends: Taken,
    /// Bytes of a name.
    bytes_max: usize,
}

/// Whether names of a kind are taken as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    No,
}

impl NameRules {
    /// Finds out what the file system of `directory` takes; leaves nothing behind.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let probe = Probe::new(directory)?;
        let suspects: Vec<u8> = (1..=0x1f).chain(*b"\\:*?\"<>|\x7f").collect();
        let all = [b"a", &suspects[..], b"b"].concat();
        let refused = match probe.takes(&all) {
            Taken::Yes => Vec::new(),
            Taken::No => {
                suspects.into_iter().filter(|suspect| probe.takes(&[b'a', *suspect, b'b']) == Taken::No).collect()
            }
        };
        let bytes_max = rustix::fs::statvfs(directory)?.f_namemax;
        Ok(Self {
            refused,
            non_ascii: probe.takes(NON_ASCII.as_bytes()),
            bytes: probe.takes(b"a\xe9b"),
            ends: if probe.takes(b"a.") == Taken::Yes { probe.takes(b"b ") } else { Taken::No },
            bytes_max: bytes_max.clamp(*NAME_BYTES.start(), *NAME_BYTES.end()) as usize,
        })
    }

    /// One part of a path as the file system takes it.
    pub(super) fn part(&self, part: &[u8]) -> Vec<u8> {
        let mut taken = Vec::with_capacity(part.len());
        for chunk in part.utf8_chunks() {
            for character in chunk.valid().chars() {
                if self.takes(character) {
                    taken.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                } else {
                    taken.push(SUBSTITUTE);
                }
            }
            match self.bytes {
                Taken::Yes => taken.extend_from_slice(chunk.invalid()),
                Taken::No => taken.extend(chunk.invalid().iter().map(|_| SUBSTITUTE)),
            }
        }
        if self.ends == Taken::No {
            let kept = taken.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
            taken[kept..].fill(SUBSTITUTE);
        }
        self.cut(taken)
    }

    /// A name that is too long keeps its end, which says what kind of file it is.
    pub(super) fn cut(&self, name: Vec<u8>) -> Vec<u8> {
        match name.len().checked_sub(self.bytes_max) {
            None | Some(0) => name,
            Some(excess) => from_character(&name[excess..]).to_vec(),
        }
    }

    fn takes(&self, character: char) -> bool {
        match u8::try_from(character) {
            Ok(0 | b'/') => false,
            Ok(byte) if byte.is_ascii() => !self.refused.contains(&byte),
            _ => self.non_ascii == Taken::Yes,
        }
    }
}

/// A hidden folder that names are tried in.
struct Probe(PathBuf);

impl Probe {
    fn new(directory: &Path) -> io::Result<Self> {
        let folder = directory.join(super::part::hidden_name("probe")?);
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    /// Whether a file of this name can be made, and is then called so: some file systems drop what they do not keep.
    fn takes(&self, name: &[u8]) -> Taken {
        let path = self.0.join(OsStr::from_bytes(name));
        if File::create_new(&path).is_err() {
            return Taken::No;
        }
        let entries = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let is_kept = entries.into_iter().any(|entry| is_same(entry.file_name().as_bytes(), name));
        // What is not removed now goes with the folder.
        _ = fs::remove_file(&path);
        if is_kept { Taken::Yes } else { Taken::No }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "a folder that names were tried in is left");
        }
    }
}

/// Whether two names are the same to a reader: file systems may compose or decompose characters.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    match (str::from_utf8(one), str::from_utf8(other)) {
        (Ok(one), Ok(other)) => one.nfc().eq(other.nfc()),
        _ => one == other,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file system that takes every name that Unix can have.
    pub(in super::super) fn everything_taken() -> NameRules {
        NameRules { refused: vec![], non_ascii: Taken::Yes, bytes: Taken::Yes, ends: Taken::Yes, bytes_max: 255 }
    }

    /// One like those of memory cards.
    pub(in super::super) fn strict() -> NameRules {
        let refused = (1..=0x1f).chain(*b"\\:*?\"<>|").collect();
        NameRules { refused, non_ascii: Taken::Yes, bytes: Taken::No, ends: Taken::No, bytes_max: 255 }
    }

    pub(in super::super) fn rules() -> impl Strategy<Value = NameRules> {
        let taken = || any::<u8>().prop_map(|byte| if byte % 2 == 0 { Taken::Yes } else { Taken::No });
        let refused = prop::collection::vec(1..0x7f_u8, 0..20);
        (refused, taken(), taken(), taken(), 64..=255_usize).prop_map(|(refused, non_ascii, bytes, ends, bytes_max)| {
            NameRules { refused, non_ascii, bytes, ends, bytes_max }
        })
    }

    #[test]
    fn a_directory_tells_what_it_takes_and_nothing_is_left_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let rules = NameRules::of(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        for name in ["10:30 Uhr?.jpg", "Ätna 😀.jpg", "b.jpg ", "a\nb\\c"] {
            let taken = rules.part(name.as_bytes());
            let path = directory.path().join(OsStr::from_bytes(&taken));
            File::create_new(&path).unwrap();
            let listed = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().file_name();
            assert!(is_same(listed.as_bytes(), &taken), "{listed:?}");
            fs::remove_file(path).unwrap();
        }
        assert!(NameRules::of(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn composed_and_decomposed_characters_are_the_same_to_a_reader() {
        assert!(is_same("ä".as_bytes(), "a\u{308}".as_bytes()) && is_same(b"\xe9", b"\xe9"));
        assert!(!is_same(b"a", b"a.") && !is_same(b"\xe9", "é".as_bytes()));
    }
}
