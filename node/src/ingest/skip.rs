//! What is passed over in a folder, and why: everything that lies there is taken in or counted here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use holdfast_protocol::media_type::MediaType;
use serde::{Deserialize, Serialize};

/// Things that are passed over whose names are kept; of more, the number.
const NAMED_MAX: usize = 10_000;
/// Less than this holds neither a picture nor a video.
const MEDIA_BYTES_MIN: usize = 16;

/// Folders and files that systems, network drives and photo programs keep for themselves.
const SYSTEM: [&str; 14] = [
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@Recycle",
    "@Recently-Snapshot",
    "@tmp",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "Thumbs.db",
    "desktop.ini",
    "ehthumbs.db",
    "Network Trash Folder",
    "Temporary Items",
];
/// What names of folders end in that hold a program's previews.
const PREVIEWS: [&str; 2] = [".lrdata", ".cocatalogdb"];
/// What programs call files that they have not finished, and rename when they have.
const UNFINISHED: [&str; 13] = [
    ".part",
    ".partial",
    ".crdownload",
    ".download",
    ".opdownload",
    ".filepart",
    ".tmp",
    ".temp",
    ".swp",
    ".swx",
    "~",
    "_exiftool_tmp",
    ".!ut",
];
/// What other programs write beside a picture about it.
const SIDECARS: [&str; 6] = [".xmp", ".aae", ".pp3", ".dop", ".cos", ".on1"];

/// Why something in a watched folder is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// Its name begins with a dot.
    Hidden,
    /// A system, a network drive or a photo program keeps it for itself.
    System,
    /// A program has not finished it yet: its name says so.
    Unfinished,
    /// Another program's notes about a picture.
    Sidecar,
    /// A link to something that is not in a watched folder, or is passed over there.
    Link,
    /// A link to something that is taken in itself.
    LinkInside,
    /// Neither a file nor a folder.
    Special,
    /// Neither a photo nor a video, and it does not pretend to be one.
    NotMedia,
    /// It has the name of a photo or video, and no bytes.
    Empty,
    /// It has the name of a photo or video, and holds none.
    NoPicture,
    /// This user may not read it, or the disk cannot.
    Unreadable,
    /// The node's own home, or an export.
    Own,
}

impl SkipReason {
    /// The reason in a few words, to be put behind a number of things.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::System => "kept by the system or a program for itself",
            Self::Unfinished => "not finished yet by another program",
            Self::Sidecar => "notes of other programs about a picture",
            Self::Link => "links that lead out of the watched folders",
            Self::LinkInside => "links to what is taken in anyway",
            Self::Special => "neither file nor folder",
            Self::NotMedia => "neither photo nor video",
            Self::Empty => "empty",
            Self::NoPicture => "named like a photo or video and none inside",
            Self::Unreadable => "not readable",
            Self::Own => "Holdfast's own",
        }
    }

    /// Whether somebody may believe that it is taken in.
    #[must_use]
    pub const fn is_surprising(self) -> bool {
        matches!(self, Self::Link | Self::Empty | Self::NoPicture | Self::Unreadable)
    }
}

/// Why a file or folder is passed over for its name alone.
pub(super) fn by_name(name: &OsStr) -> Option<SkipReason> {
    let bytes = name.as_encoded_bytes();
    let ends_in_one_of = |ends: &[&str]| ends.iter().any(|end| ends_in(bytes, end));
    if bytes.starts_with(b".") {
        Some(SkipReason::Hidden)
    } else if SYSTEM.iter().any(|system| bytes.eq_ignore_ascii_case(system.as_bytes())) || ends_in_one_of(&PREVIEWS) {
        Some(SkipReason::System)
    } else if ends_in_one_of(&UNFINISHED) || bytes.starts_with(b"~syncthing~") {
        Some(SkipReason::Unfinished)
    } else if ends_in_one_of(&SIDECARS) {
        Some(SkipReason::Sidecar)
    } else {
        None
    }
}

fn ends_in(name: &[u8], end: &str) -> bool {
    name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
}

/// What kind of photo or video a file is whose first bytes are `head`, or why it is none.
pub(super) fn by_content(path: &Path, head: &[u8]) -> Result<MediaType, SkipReason> {
    let extension = path.extension().and_then(OsStr::to_str);
    // `.ts` is more often a program's source than a recording.
    let named = extension.filter(|extension| !extension.eq_ignore_ascii_case("ts")).and_then(MediaType::from_extension);
    match (named, MediaType::sniff(head, extension)) {
        (None, None) => Err(SkipReason::NotMedia),
        (Some(_), _) if head.is_empty() => Err(SkipReason::Empty),
        (Some(_), None) => Err(SkipReason::NoPicture),
        (_, Some(_)) if head.len() < MEDIA_BYTES_MIN || is_blank(head) || is_text(head) => Err(SkipReason::NoPicture),
        (_, Some(media)) => Ok(media),
    }
}

/// What a copy leaves behind that failed.
fn is_blank(head: &[u8]) -> bool {
    head.iter().all(|byte| *byte == 0)
}

/// A page that asks for a password, a message of an error: no format of pictures is text at its beginning.
fn is_text(head: &[u8]) -> bool {
    let is_printed = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        // The last character may be cut.
        Err(error) => error.error_len().is_none(),
    };
    valid && head.iter().all(is_printed)
}

/// What was passed over in one folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    named: BTreeMap<PathBuf, SkipReason>,
    /// Those that are not named, as there are too many.
    more: BTreeMap<SkipReason, u64>,
}

impl Skipped {
    /// Counts one thing; once, however often it is said.
    pub(super) fn add(&mut self, path: &Path, reason: SkipReason) {
        if self.named.len() < NAMED_MAX || self.named.contains_key(path) {
            self.named.insert(path.to_owned(), reason);
        } else {
            *self.more.entry(reason).or_default() += 1;
        }
    }

    /// It is not passed over any more, or not there.
    pub(super) fn remove(&mut self, path: &Path) {
        self.named.remove(path);
    }

    /// How many things were passed over for each reason.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<SkipReason, u64> {
        let mut counts = self.more.clone();
        self.named.values().for_each(|reason| *counts.entry(*reason).or_default() += 1);
        counts
    }

    /// They by name; at most ten thousand.
    pub fn named(&self) -> impl Iterator<Item = (&Path, SkipReason)> {
        self.named.iter().map(|(path, reason)| (path.as_path(), *reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_keep_for_themselves_is_told_by_its_name() {
        let reason = |name: &str| by_name(OsStr::new(name));
        for name in ["IMG_1.jpg.part", "a.CRDOWNLOAD", "~syncthing~a.jpg.tmp", "a.jpg_exiftool_tmp", "a.jpg~"] {
            assert_eq!(reason(name), Some(SkipReason::Unfinished), "{name}");
        }
        for name in ["@eaDir", "#snapshot", "@recycle", "thumbs.db", "Lightroom Previews.lrdata"] {
            assert_eq!(reason(name), Some(SkipReason::System), "{name}");
        }
        assert_eq!(reason("._IMG_1.jpg"), Some(SkipReason::Hidden));
        assert_eq!(reason("IMG_1.XMP"), Some(SkipReason::Sidecar));
        for name in ["IMG_1.jpg", "Trash", "part", "tmp", "2021.07", "a.part.jpg"] {
            assert_eq!(reason(name), None, "{name}");
        }
    }

    #[test]
    fn files_that_hold_no_picture_are_told_from_those_that_do() {
        let reason = |name: &str, head: &[u8]| by_content(Path::new(name), head).err();
        assert_eq!(reason("empty.jpg", b""), Some(SkipReason::Empty));
        assert_eq!(reason("empty", b""), Some(SkipReason::NotMedia));
        assert_eq!(reason("notes.txt", b"to be bought: film"), Some(SkipReason::NotMedia));
        assert_eq!(reason("code.ts", b"export const a = 1;"), Some(SkipReason::NotMedia));
        for head in [
            &b"<!DOCTYPE html><html>"[..],
            &[0; 4000],
            b"\xff",
            b"%PDF-1.4\n",
            "Zugriff verweigert: bitte anmelden für".as_bytes(),
        ] {
            assert_eq!(reason("a.jpg", head), Some(SkipReason::NoPicture), "{head:?}");
        }
        assert_eq!(reason("a.jpg", &[&b"\xff\xd8\xff\xe1"[..], &[1; 60]].concat()), None);
        assert_eq!(reason("a", &[&b"\xff\xd8\xff\xe1"[..], &[1; 60]].concat()), None);
        assert_eq!(
            reason("a.nef", &[&b"\x01\x02\x03\xfe"[..], &[0xfe; 60]].concat()),
            None,
            "an unknown kind of RAW is kept"
        );
    }

    #[test]
    fn things_are_counted_once_and_by_reason() {
        let mut skipped = Skipped::default();
        for _ in 0..2 {
            skipped.add(Path::new("a"), SkipReason::Hidden);
        }
        skipped.add(Path::new("b"), SkipReason::Hidden);
        skipped.add(Path::new("c"), SkipReason::Empty);
        skipped.remove(Path::new("b"));
        assert_eq!(skipped.counts(), BTreeMap::from([(SkipReason::Hidden, 1), (SkipReason::Empty, 1)]));
        assert_eq!(skipped.named().count(), 2);
    }
}
