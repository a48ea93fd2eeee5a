//! Which bytes of a file are metadata and which are picture, learnt while the file passes by.

use std::collections::VecDeque;

use super::{CutKind, Following, iso_media::IsoMedia, jpeg::Jpeg, png::Png};

/// Changes between metadata and picture that are followed in one file; what comes after is one section of picture.
/// Without this bound a hostile file could make a chunk of every few bytes.
pub const SECTIONS_MAX: usize = 16;

/// Bytes that tell what a file or a part of its container is.
pub(super) const HEADER_BYTES: usize = 16;

/// TIFF and the RAW formats made of it begin with their directories, as a rule.
const TIFF_METADATA_BYTES: u64 = 64 << 10;

/// A part of a container: first `metadata` bytes of the one kind, then `picture` bytes of the other, then the next header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) metadata: u64,
    pub(super) picture: u64,
}

impl Part {
    pub(super) const fn metadata(bytes: u64) -> Self {
        Self { metadata: bytes, picture: 0 }
    }

    pub(super) const fn picture(bytes: u64) -> Self {
        Self { metadata: 0, picture: bytes }
    }

    /// Everything from here on is picture: the image itself, or a container that cannot be followed further.
    pub(super) const REST: Self = Self::picture(u64::MAX);
}

#[derive(Debug, Clone)]
enum Container {
    Undetermined,
    Jpeg(Jpeg),
    Png(Png),
    IsoMedia(IsoMedia),
    Plain,
}

impl Container {
    fn of(head: &[u8]) -> Self {
        if head.starts_with(b"\xff\xd8\xff") {
            Self::Jpeg(Jpeg)
        } else if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            Self::Png(Png::default())
        } else if IsoMedia::begins(head) {
            Self::IsoMedia(IsoMedia)
        } else {
            Self::Plain
        }
    }

    /// The part that begins with `header`: [`HEADER_BYTES`] of it, or fewer at the end of the file.
    fn part(&mut self, header: &[u8]) -> Part {
        match self {
            Self::Undetermined => {
                *self = Self::of(header);
                match self {
                    Self::Plain if is_tiff(header) => Part { metadata: TIFF_METADATA_BYTES, picture: u64::MAX },
                    Self::Plain => Part::REST,
                    container => container.part(header),
                }
            }
            Self::Jpeg(jpeg) => jpeg.part(header),
            Self::Png(png) => png.part(header),
            Self::IsoMedia(iso_media) => iso_media.part(header),
            Self::Plain => Part::REST,
        }
    }
}

fn is_tiff(head: &[u8]) -> bool {
    [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+", b"IIU\0", b"IIRO", b"IIRS", b"MMOR"]
        .iter()
        .any(|magic| head.starts_with(magic))
}

/// The bytes of one kind around a position, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: CutKind,
    /// Offset in the file up to which the bytes certainly are of this kind.
    pub(super) end: u64,
    /// Whether the section really ends there.
    pub(super) ends: bool,
}

/// The sections of one file.
#[derive(Debug, Clone)]
pub(super) struct Sections {
    container: Container,
    /// Offset of the next part's header: everything before it is known.
    next: u64,
    /// The kind of the bytes just before `next`.
    latest: Option<CutKind>,
    /// Where sections begin, in order; those that are passed are dropped.
    starts: VecDeque<(u64, CutKind)>,
    begun: usize,
}

impl Default for Sections {
    fn default() -> Self {
        Self { container: Container::Undetermined, next: 0, latest: None, starts: VecDeque::new(), begun: 0 }
    }
}

impl Sections {
    /// The section at `position`, where `window` begins.
    pub(super) fn at(&mut self, position: u64, window: &[u8], following: Following) -> Section {
        self.read(position, window, following);
        while self.starts.get(1).is_some_and(|(start, _)| *start <= position) {
            self.starts.pop_front();
        }
        match (self.starts.front(), self.starts.get(1)) {
            (Some((_, kind)), Some((end, _))) => Section { kind: *kind, end: *end, ends: true },
            (Some((_, kind)), None) => Section { kind: *kind, end: self.next, ends: false },
            // The file's first header has not been seen whole.
            (None, _) => Section { kind: CutKind::Picture, end: position, ends: false },
        }
    }

    /// Reads every header that `window` shows whole.
    fn read(&mut self, position: u64, window: &[u8], following: Following) {
        while let Some(header) = usize::try_from(self.next - position)
            .ok()
            .and_then(|offset| window.get(offset..))
            .filter(|header| header.len() >= HEADER_BYTES || (following == Following::Nothing && !header.is_empty()))
        {
            let part = if self.begun < SECTIONS_MAX { self.container.part(header) } else { Part::REST };
            for (kind, bytes) in [(CutKind::Metadata, part.metadata), (CutKind::Picture, part.picture)] {
                if bytes == 0 {
                    continue;
                }
                if self.latest != Some(kind) {
                    self.starts.push_back((self.next, kind));
                    self.latest = Some(kind);
                    self.begun += 1;
                }
                self.next = self.next.saturating_add(bytes);
            }
        }
    }
}
