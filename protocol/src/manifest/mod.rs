//! What a photo consists of: the facts that a person sees and the chunks that its bytes are in.
//!
//! A manifest is a pure function of the file's content and of the library's secrets: it knows no file name, no
//! modification time and no clock, so two devices that import the same photo make the same manifest.
//!
//! It is sealed as a chunk like any other. Of a file of tens of gigabytes the list of chunks continues in further
//! chunks, which the first one names.

mod content;
mod facts;

pub use content::{Content, ContentBuilder, ManifestChunk};
pub use facts::{
    CaptureSource, CaptureTime, Dimensions, FACT_TEXT_CHARS_MAX, Facts, Location, Orientation, UNREADABLE_CHARS_MAX,
};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::id::{ChunkId, PhotoId};
use crate::limits::{CHUNK_BYTES_MAX, THUMBNAIL_BYTES_MAX};
use crate::media_type::MediaType;
use crate::sealing::{ChunkSealer, OpenError, PhotoKey, SealedChunk};
use crate::secrets::LibrarySecrets;

/// Thumbnails of a photo.
pub const THUMBNAILS_MAX: usize = 4;
/// Chunks of a file: several terabytes of it.
pub const CHUNKS_MAX: usize = CHUNKS_PER_PART_MAX * FURTHER_PARTS_MAX;
/// Chunks of a photo: those of its file, its manifest and its thumbnails.
pub const RUN_CHUNKS_MAX: usize = CHUNKS_MAX + 1 + FURTHER_PARTS_MAX + THUMBNAILS_MAX;

/// Entries of a chunk list that stand in one manifest chunk, 40 bytes each at most.
const CHUNKS_PER_PART_MAX: usize = 64 << 10;
const FURTHER_PARTS_MAX: usize = 64;
const FORMAT: u8 = 1;

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

/// Everything needed to show a photo and to put its file together again.
///
/// The photo's run of positions is: the manifest's own chunk, further manifest chunks if there are any, the thumbnails,
/// then the content's chunks in file order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The file's bytes.
    pub content: Content,
    /// What kind of file it is.
    pub media: MediaType,
    /// What the photo says about itself.
    pub facts: Facts,
    /// Smaller pictures of it; may be none.
    pub thumbnails: Vec<Thumbnail>,
}

/// The first manifest chunk: the manifest with the first part of the chunk list, and where the rest is.
#[derive(Serialize, Deserialize)]
struct Root {
    manifest: Manifest,
    further: Vec<ChunkId>,
}

/// What a manifest says of a photo beside the list of its chunks: all of it stands in the first manifest chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// BLAKE3 of the whole file.
    pub content_hash: [u8; 32],
    /// Bytes of the file.
    pub length: u64,
    /// What kind of file it is.
    pub media: MediaType,
    /// What is known about it.
    pub facts: Facts,
    /// Smaller pictures of it.
    pub thumbnails: Vec<Thumbnail>,
}

impl ManifestHead {
    /// Opens the first chunk of a manifest.
    ///
    /// # Errors
    /// When it cannot be opened, or a member made it up wrongly.
    pub fn open(sealer: &ChunkSealer, id: &ChunkId, sealed: &[u8]) -> Result<Self, ManifestRefused> {
        let Root { manifest, .. } = unformatted(&sealer.open(id, sealed)?)?;
        manifest.check_thumbnails()?;
        let Manifest { content, media, facts, thumbnails } = manifest;
        Ok(Self { content_hash: content.hash, length: content.length, media, facts: facts.normalized(), thumbnails })
    }

    /// The photo.
    #[must_use]
    pub fn photo(&self, secrets: &LibrarySecrets) -> PhotoId {
        secrets.photo_id(&self.content_hash)
    }

    /// The key that seals what the catalog says about the photo.
    #[must_use]
    pub fn photo_key(&self, secrets: &LibrarySecrets) -> PhotoKey {
        PhotoKey::derive(secrets, &self.content_hash)
    }
}

/// A file of more chunks than a manifest can list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file is too large: it has {chunks} chunks where {CHUNKS_MAX} are possible")]
pub struct TooManyChunks {
    chunks: usize,
}

/// Why a manifest was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestRefused {
    /// Its chunk cannot be opened.
    #[error("the manifest cannot be opened: {0}")]
    Sealed(#[from] OpenError),
    /// It was written by a newer version.
    #[error("the manifest has format {format}, which this version does not know; update Holdfast")]
    Newer {
        /// The format's number.
        format: u8,
    },
    /// It is no manifest.
    #[error("the manifest is malformed ({0}); whoever imported the photo should import it again")]
    Malformed(#[from] DecodeError),
    /// It contradicts itself or exceeds its bounds.
    #[error("the manifest is wrong: {what}; whoever imported the photo should import it again")]
    Wrong {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A further chunk of it is not here.
    #[error("chunk {} of the manifest is not here yet; it is being fetched", .chunk.short())]
    Incomplete {
        /// The chunk.
        chunk: ChunkId,
    },
}

impl Manifest {
    /// The photo.
    #[must_use]
    pub fn photo(&self, secrets: &LibrarySecrets) -> PhotoId {
        secrets.photo_id(&self.content.hash)
    }

    /// The key that seals what the catalog says about the photo.
    #[must_use]
    pub fn photo_key(&self, secrets: &LibrarySecrets) -> PhotoKey {
        PhotoKey::derive(secrets, &self.content.hash)
    }

    /// Seals the manifest: the first chunk is what the rest hangs on, almost always the only one.
    ///
    /// # Errors
    /// When the file has more than [`CHUNKS_MAX`] chunks.
    pub fn seal(&self, sealer: &ChunkSealer) -> Result<Vec<SealedChunk>, TooManyChunks> {
        let chunks = &self.content.chunks;
        if chunks.len() > CHUNKS_MAX {
            return Err(TooManyChunks { chunks: chunks.len() });
        }
        let (first, rest) = chunks.split_at(chunks.len().min(CHUNKS_PER_PART_MAX));
        let further: Vec<SealedChunk> =
            rest.chunks(CHUNKS_PER_PART_MAX).map(|part| sealer.seal(&formatted(part))).collect();
        let root = Root {
            manifest: Self { content: Content { chunks: first.to_vec(), ..self.content }, ..self.clone() },
            further: further.iter().map(|chunk| chunk.id).collect(),
        };
        let mut sealed = vec![sealer.seal(&formatted(&root))];
        sealed.extend(further);
        Ok(sealed)
    }

    /// Opens the manifest whose first chunk is `id` with the bytes `sealed`; `further` yields the sealed bytes of
    /// another chunk.
    ///
    /// # Errors
    /// When it cannot be opened, when a further chunk is missing, or when a member made it up wrongly.
    pub fn open(
        sealer: &ChunkSealer,
        id: &ChunkId,
        sealed: &[u8],
        mut further: impl FnMut(&ChunkId) -> Option<Vec<u8>>,
    ) -> Result<Self, ManifestRefused> {
        Self::parse(&sealer.open(id, sealed)?, |chunk| {
            let sealed = further(chunk).ok_or(ManifestRefused::Incomplete { chunk: *chunk })?;
            Ok(sealer.open(chunk, &sealed)?)
        })
    }

    /// The manifest that the opened bytes of its first chunk describe; `further` yields the opened bytes of another.
    ///
    /// # Errors
    /// As [`Manifest::open`].
    pub fn parse(
        bytes: &[u8],
        mut further: impl FnMut(&ChunkId) -> Result<Vec<u8>, ManifestRefused>,
    ) -> Result<Self, ManifestRefused> {
        let Root { mut manifest, further: parts } = unformatted(bytes)?;
        if parts.len() > FURTHER_PARTS_MAX {
            return Err(ManifestRefused::Wrong { what: "it continues in too many chunks" });
        }
        for part in &parts {
            let chunks: Vec<ManifestChunk> = unformatted(&further(part)?)?;
            if manifest.content.chunks.len() + chunks.len() > CHUNKS_MAX {
                return Err(ManifestRefused::Wrong { what: "the file has too many chunks" });
            }
            manifest.content.chunks.extend(chunks);
        }
        manifest.check()?;
        manifest.facts = std::mem::take(&mut manifest.facts).normalized();
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestRefused> {
        let wrong = |what| Err(ManifestRefused::Wrong { what });
        if !self.content.chunks.iter().all(|chunk| possible(chunk.length, CHUNK_BYTES_MAX)) {
            return wrong("a chunk has an impossible length");
        }
        if self.content.chunks.iter().map(|chunk| u64::from(chunk.length)).sum::<u64>() != self.content.length {
            return wrong("its chunks do not add up to the file");
        }
        self.check_thumbnails()
    }

    fn check_thumbnails(&self) -> Result<(), ManifestRefused> {
        let wrong = |what| Err(ManifestRefused::Wrong { what });
        if self.thumbnails.len() > THUMBNAILS_MAX {
            return wrong("it has too many thumbnails");
        }
        if !self.thumbnails.iter().all(|thumbnail| possible(thumbnail.length, THUMBNAIL_BYTES_MAX)) {
            return wrong("a thumbnail has an impossible length");
        }
        Ok(())
    }
}

fn possible(length: u32, max: usize) -> bool {
    length > 0 && usize::try_from(length).is_ok_and(|bytes| bytes <= max)
}

fn formatted<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&codec::encode(value));
    bytes
}

fn unformatted<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestRefused> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => Ok(codec::decode(rest, CHUNK_BYTES_MAX)?),
        Some((&format, _)) => Err(ManifestRefused::Newer { format }),
        None => Err(ManifestRefused::Malformed(DecodeError::Malformed { length: 0 })),
    }
}

#[cfg(test)]
mod tests;
