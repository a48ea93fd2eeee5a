//! Where a file is cut into chunks.
//!
//! Two rules, one after the other. The container says where metadata ends and picture data begins (JPEG at the scan,
//! ISO base media at `mdat`, PNG at the first `IDAT`, TIFF after its first 64 KiB); inside such a section FastCDC
//! finds cuts that depend only on the bytes around them. A container that is damaged or not known is all picture.
//!
//! Invariants:
//! - The cuts of a file are a pure function of its bytes and of [`CUTTER_VERSION`]: not of how they were buffered.
//! - Cuts cover the file without gaps, none is empty and none exceeds [`CHUNK_BYTES_MAX`].
//! - Hostile bytes cost time linear in their number, at most [`SECTIONS_MAX`] extra cuts, and no panic.

mod fastcdc;
mod iso_media;
mod jpeg;
mod pieces;
mod png;
mod sections;

use serde::{Deserialize, Serialize};

pub use self::pieces::{PIECES_BUFFER_BYTES, Piece, Pieces};
pub use self::sections::SECTIONS_MAX;
use self::{fastcdc::Bounds, sections::Sections};
use crate::limits::CHUNK_BYTES_MAX;

/// Names the rules of this module; other rules get another number.
pub const CUTTER_VERSION: u16 = 1;

/// Which side of a file a cut belongs to. Metadata and picture never share a chunk, so that a changed date, place or
/// rating re-sends kilobytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CutKind {
    /// EXIF, XMP, tables of contents: what editing a photo's description changes. Small chunks.
    Metadata,
    /// Image and sound data, and everything of files whose container is not known.
    Picture,
}

impl CutKind {
    const fn bounds(self) -> &'static Bounds {
        match self {
            Self::Metadata => &METADATA_BOUNDS,
            Self::Picture => &PICTURE_BOUNDS,
        }
    }
}

const PICTURE_BOUNDS: Bounds = Bounds::new(256 << 10, 1 << 20, CHUNK_BYTES_MAX);
/// Most photos' metadata is one chunk; a long table of contents or an embedded preview is several.
const METADATA_BOUNDS: Bounds = Bounds::new(16 << 10, 64 << 10, 256 << 10);

/// One chunk's worth of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes, from where the previous cut ended; never 0.
    pub length: usize,
    /// What they are.
    pub kind: CutKind,
}

/// What follows a window on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// Perhaps more bytes.
    Unknown,
    /// The end of the file.
    Nothing,
}

/// Cuts one file, fed through windows of any size.
#[derive(Debug, Clone, Default)]
pub struct Cutter {
    position: u64,
    sections: Sections,
}

impl Cutter {
    /// A cutter at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next cut of the file, whose bytes from the end of the previous cut on are `window`.
    ///
    /// `None` means that the window must grow first, or at [`Following::Nothing`] that the file is all cut. A window
    /// of [`Cutter::WINDOW_BYTES`] is always enough.
    pub fn next_cut(&mut self, window: &[u8], following: Following) -> Option<Cut> {
        if window.is_empty() {
            return None;
        }
        let section = self.sections.at(self.position, window, following);
        let bounds = section.kind.bounds();
        let longest = bounds.max.min(usize::try_from(section.end - self.position).unwrap_or(usize::MAX));
        let seen = longest.min(window.len());
        let length = match bounds.find(&window[..seen]) {
            Some(length) => length,
            None if seen == bounds.max => seen,
            None if section.ends && seen == longest => seen,
            None if following == Following::Nothing && seen == window.len() => seen,
            None => return None,
        };
        self.position += length as u64;
        Some(Cut { length, kind: section.kind })
    }

    /// A window that is always long enough for a cut.
    pub const WINDOW_BYTES: usize = CHUNK_BYTES_MAX + sections::HEADER_BYTES;
}

/// The cuts of a file that is in memory.
pub fn cuts(file: &[u8]) -> impl Iterator<Item = Cut> {
    let mut cutter = Cutter::new();
    let mut position = 0;
    std::iter::from_fn(move || {
        let cut = cutter.next_cut(&file[position..], Following::Nothing)?;
        position += cut.length;
        Some(cut)
    })
}

#[cfg(test)]
mod tests;
