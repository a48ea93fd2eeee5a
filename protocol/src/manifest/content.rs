//! The chunks of a file, made in one pass over its bytes.

use serde::{Deserialize, Serialize};

use crate::cutting::{CUTTER_VERSION, CutKind};
use crate::id::ChunkId;
use crate::sealing::ChunkSealer;

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

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// BLAKE3 of the whole file; the photo's id and key derive from it.
    pub hash: [u8; 32],
    /// Bytes of the file.
    pub length: u64,
    /// Equal for two files of this library that have the same picture behind different metadata.
    pub picture_hash: [u8; 32],
    /// The rules by which the file was cut: the maker's [`CUTTER_VERSION`].
    pub cutter: u16,
    /// The pieces.
    pub chunks: Vec<ManifestChunk>,
}

/// Seals the pieces of a file one after the other and keeps account of them.
#[derive(Debug)]
pub struct ContentBuilder {
    sealer: ChunkSealer,
    whole: blake3::Hasher,
    /// Over the hashes of the picture's pieces rather than their bytes: it says as much, and the bytes are hashed already.
    picture: blake3::Hasher,
    length: u64,
    chunks: Vec<ManifestChunk>,
}

impl ContentBuilder {
    /// A file of which nothing was read yet.
    #[must_use]
    pub fn new(sealer: &ChunkSealer) -> Self {
        Self {
            sealer: sealer.clone(),
            whole: blake3::Hasher::new(),
            picture: sealer.picture_hasher(),
            length: 0,
            chunks: Vec::new(),
        }
    }

    /// Seals the file's next `piece` into `sealed`, which is cleared first.
    pub fn push(&mut self, piece: &[u8], kind: CutKind, sealed: &mut Vec<u8>) -> ChunkId {
        sealed.clear();
        let hash = blake3::hash(piece);
        let chunk = self.sealer.seal_hashed_into(piece, &hash, sealed);
        self.whole.update(piece);
        if kind == CutKind::Picture {
            self.picture.update(hash.as_bytes());
        }
        self.length += piece.len() as u64;
        // A piece is at most a chunk long, which the sealer asserts.
        self.chunks.push(ManifestChunk { chunk, length: piece.len() as u32, kind });
        chunk
    }

    /// The file.
    #[must_use]
    pub fn finish(self) -> Content {
        Content {
            hash: *self.whole.finalize().as_bytes(),
            length: self.length,
            picture_hash: *self.picture.finalize().as_bytes(),
            cutter: CUTTER_VERSION,
            chunks: self.chunks,
        }
    }
}
