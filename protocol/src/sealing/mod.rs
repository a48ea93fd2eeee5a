//! Sealing: what keeps bytes readable to members only.
//!
//! Three things are sealed, each under keys of its own: chunks ([`ChunkSealer`]), bodies of envelopes
//! ([`BodySealer`]) and small facts about a photo ([`PhotoKey`]). All three are XChaCha20-Poly1305 with a nonce that
//! is a keyed hash of what is sealed: equal input gives equal bytes inside a library, a nonce never meets two
//! plaintexts under one key, and no randomness is needed. After opening, the keyed hash is compared, so that every
//! plaintext has exactly one sealed form under a key.

mod body;
mod chunk;
mod keys;
mod photo;
#[cfg(test)]
mod tests;

pub use body::BodySealer;
pub use chunk::{ChunkSealer, SEAL_OVERHEAD, SealedChunk, chunk_id, sealed_epoch, sealed_length};
pub use photo::{PHOTO_SEAL_OVERHEAD, PhotoKey};

use crate::secrets::EpochId;

/// Why sealed bytes were not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Shorter or longer than anything sealed can be.
    #[error("{length} bytes cannot be sealed data; they will be fetched again")]
    Length {
        /// Bytes that came.
        length: usize,
    },
    /// Sealed in a form that this version does not know.
    #[error("sealed in format {format}, which this version cannot read; update Holdfast")]
    NewerFormat {
        /// The format number found.
        format: u8,
    },
    /// Sealed with a key that this device has not received.
    #[error("sealed with a key of epoch {}, which this device has not received; it comes with the next sync", .epoch.counter)]
    UnknownEpoch {
        /// The epoch named by the bytes.
        epoch: EpochId,
    },
    /// The bytes are not those that the id names.
    #[error("the bytes do not match their id; they will be fetched from another peer")]
    WrongId,
    /// The bytes were not made with the key, or were changed.
    #[error("the bytes were changed or were sealed for something else; they will be fetched from another peer")]
    NotAuthentic,
}
