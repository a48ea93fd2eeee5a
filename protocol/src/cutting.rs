//! Where a file is cut into chunks.

use serde::{Deserialize, Serialize};

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
