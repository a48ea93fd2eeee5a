//! What a photo consists of: the facts that a person sees and the chunks that its bytes are in.
//!
//! A manifest is a pure function of the file's content and of the library's secrets: it knows no file name, no
//! modification time and no clock, so two devices that import the same photo make the same manifest.

mod facts;

pub use facts::{
    CaptureSource, CaptureTime, Dimensions, FACT_TEXT_CHARS_MAX, Facts, Location, Orientation, UNREADABLE_CHARS_MAX,
};
use serde::{Deserialize, Serialize};

use crate::cutting::CutKind;
use crate::id::ChunkId;
use crate::media_type::MediaType;

/// A smaller picture of a photo, sealed as a chunk of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbnail {
    /// The chunk that is the thumbnail's file.
    pub chunk: ChunkId,
    /// Plaintext bytes.
    pub length: u32,
    /// Its size in pixels, upright.
    pub dimensions: Dimensions,
    /// Its format.
    pub media: MediaType,
}

/// A piece of the file, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestChunk {
    /// The sealed chunk.
    pub chunk: ChunkId,
    /// Plaintext bytes; never 0.
    pub length: u32,
    /// Which side of the file it belongs to.
    pub kind: CutKind,
}

/// Everything needed to show a photo and to put its file together again.
///
/// The photo's run of positions is: the manifest's own chunk, further manifest chunks if there are any, the thumbnails,
/// then [`Manifest::chunks`] in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// BLAKE3 of the whole file; the photo's id and key derive from it.
    pub content_hash: [u8; 32],
    /// Bytes of the file.
    pub content_length: u64,
    /// Equal for two files of this library that have the same picture data behind different metadata.
    pub picture_hash: [u8; 32],
    /// The rules by which the file was cut: [`crate::cutting::CUTTER_VERSION`] of the maker.
    pub cutter: u16,
    /// What kind of file it is.
    pub media: MediaType,
    /// What the photo says about itself.
    pub facts: Facts,
    /// Smaller pictures of it; may be none.
    pub thumbnails: Vec<Thumbnail>,
    /// The file's bytes.
    pub chunks: Vec<ManifestChunk>,
}
