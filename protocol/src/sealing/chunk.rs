//! Sealed chunks.
//!
//! `format u8 ‖ epoch counter u32 LE ‖ epoch fingerprint 8 ‖ nonce 24 ‖ ciphertext ‖ tag 16`; associated data is
//! the library id and the first 13 bytes. The chunk's id is the BLAKE3 hash of all of it, so that anyone can verify
//! a chunk and only members can read one.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::OpenError;
use super::keys::{EpochKeys, Keys};
use crate::id::ChunkId;
use crate::limits::{CHUNK_BYTES_MAX, SEALED_CHUNK_BYTES_MAX};
use crate::secrets::{EpochId, EpochKey, LibrarySecrets};
use crate::xchacha::{self, NONCE_BYTES, TAG_BYTES};

/// Bytes that sealing adds to a chunk.
pub const SEAL_OVERHEAD: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + EpochId::BYTES;
const AAD_BYTES: usize = 32 + HEADER_BYTES;

/// The id of a sealed chunk: its BLAKE3 hash.
#[must_use]
pub fn chunk_id(sealed: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(sealed).as_bytes())
}

/// Bytes of the sealed chunk of `plain` bytes.
#[must_use]
pub const fn sealed_length(plain: usize) -> usize {
    plain + SEAL_OVERHEAD
}

/// The epoch that a sealed chunk names; `None` when the bytes are no sealed chunk.
#[must_use]
pub fn sealed_epoch(sealed: &[u8]) -> Option<EpochId> {
    let (format, rest) = sealed.split_first()?;
    let epoch = rest.first_chunk::<{ EpochId::BYTES }>()?;
    (*format == FORMAT && sealed.len() >= SEAL_OVERHEAD).then(|| EpochId::from_bytes(*epoch))
}

/// A chunk as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedChunk {
    /// The hash of `bytes`.
    pub id: ChunkId,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
}

/// Seals and opens the chunks of one library. Cloning is cheap and shares the keys; after a new epoch a new sealer
/// is made from the secrets.
#[derive(Clone)]
pub struct ChunkSealer(Arc<ChunkKeys>);

struct ChunkKeys {
    sealing: Keys,
    /// The same through all epochs, so that the same picture is known again.
    picture: Zeroizing<[u8; 32]>,
}

impl ChunkSealer {
    /// A sealer with all epochs of `secrets`; it seals with the current one.
    #[must_use]
    pub fn new(secrets: &LibrarySecrets) -> Self {
        let sealing = Keys::derive(secrets, "holdfast 1 chunk key", "holdfast 1 chunk nonce");
        Self(Arc::new(ChunkKeys { sealing, picture: secrets.derive("holdfast 1 picture hash") }))
    }

    /// The epoch that chunks are sealed with.
    #[must_use]
    pub fn epoch(&self) -> EpochId {
        self.0.sealing.current
    }

    /// Seals `plaintext`, at most [`CHUNK_BYTES_MAX`] of it.
    ///
    /// # Panics
    /// When the plaintext is longer than a chunk can be.
    #[must_use]
    pub fn seal(&self, plaintext: &[u8]) -> SealedChunk {
        let mut bytes = Vec::new();
        let id = self.seal_into(plaintext, &mut bytes);
        SealedChunk { id, bytes }
    }

    /// Appends the sealed chunk of `plaintext` to `out` and returns its id. Nothing else is copied or allocated
    /// when `out` has room for [`sealed_length`] bytes.
    ///
    /// # Panics
    /// When the plaintext is longer than a chunk can be.
    pub fn seal_into(&self, plaintext: &[u8], out: &mut Vec<u8>) -> ChunkId {
        self.seal_hashed_into(plaintext, &blake3::hash(plaintext), out)
    }

    /// Like [`ChunkSealer::seal_into`], when the plaintext's hash is known.
    pub(crate) fn seal_hashed_into(&self, plaintext: &[u8], hash: &blake3::Hash, out: &mut Vec<u8>) -> ChunkId {
        let keys = &self.0.sealing;
        self.seal_with(&keys.epochs[&keys.current], keys.current, plaintext, hash, out)
    }

    /// Hashes pictures by what is the same for as long as the library lives.
    pub(crate) fn picture_hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0.picture)
    }

    /// Seals as it was done in `epoch`, to give again a chunk that was not kept; `None` when the epoch is unknown.
    ///
    /// # Panics
    /// When the plaintext is longer than a chunk can be.
    #[must_use]
    pub fn reseal(&self, plaintext: &[u8], epoch: EpochId) -> Option<SealedChunk> {
        let mut bytes = Vec::new();
        let id = self.reseal_into(plaintext, epoch, &mut bytes)?;
        Some(SealedChunk { id, bytes })
    }

    /// Like [`ChunkSealer::reseal`], appending to `out` as [`ChunkSealer::seal_into`] does.
    ///
    /// # Panics
    /// When the plaintext is longer than a chunk can be.
    pub fn reseal_into(&self, plaintext: &[u8], epoch: EpochId, out: &mut Vec<u8>) -> Option<ChunkId> {
        let keys = self.0.sealing.epochs.get(&epoch)?;
        Some(self.seal_with(keys, epoch, plaintext, &blake3::hash(plaintext), out))
    }

    fn seal_with(
        &self,
        keys: &EpochKeys,
        epoch: EpochId,
        plaintext: &[u8],
        hash: &blake3::Hash,
        out: &mut Vec<u8>,
    ) -> ChunkId {
        assert!(plaintext.len() <= CHUNK_BYTES_MAX, "a chunk of {} bytes is too long to seal", plaintext.len());
        let start = out.len();
        out.reserve(sealed_length(plaintext.len()));
        out.push(FORMAT);
        out.extend_from_slice(&epoch.to_bytes());
        let aad = self.associated_data(&out[start..]);
        let nonce = nonce_of(&keys.nonce, hash);
        out.extend_from_slice(&nonce);
        let from = out.len();
        out.extend_from_slice(plaintext);
        xchacha::seal_tail(keys.cipher.as_bytes(), &nonce, &aad, out, from);
        chunk_id(&out[start..])
    }

    /// The plaintext of a sealed chunk.
    ///
    /// # Errors
    /// When the bytes are not those that `id` names, or cannot be opened.
    pub fn open(&self, id: &ChunkId, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let length = OpenError::Length { length: sealed.len() };
        if sealed.len() > SEALED_CHUNK_BYTES_MAX || sealed.len() < SEAL_OVERHEAD {
            return Err(length);
        }
        if chunk_id(sealed) != *id {
            return Err(OpenError::WrongId);
        }
        let (header, rest) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(length)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(length)?;
        let [format, epoch @ ..] = *header;
        if format != FORMAT {
            return Err(OpenError::NewerFormat { format });
        }
        let epoch = EpochId::from_bytes(epoch);
        let keys = self.0.sealing.epochs.get(&epoch).ok_or(OpenError::UnknownEpoch { epoch })?;
        let mut plaintext = ciphertext.to_vec();
        xchacha::open_vec(keys.cipher.as_bytes(), nonce, &self.associated_data(header), &mut plaintext)
            .map_err(|_| OpenError::NotAuthentic)?;
        let expected = nonce_of(&keys.nonce, &blake3::hash(&plaintext));
        if bool::from(expected.ct_eq(nonce)) { Ok(plaintext) } else { Err(OpenError::NotAuthentic) }
    }

    fn associated_data(&self, header: &[u8]) -> [u8; AAD_BYTES] {
        let mut aad = [0; AAD_BYTES];
        aad[..32].copy_from_slice(self.0.sealing.library.as_bytes());
        aad[32..].copy_from_slice(header);
        aad
    }
}

/// Made of the plaintext's hash rather than of the plaintext: whoever knows that hash has not to read it again.
fn nonce_of(key: &EpochKey, plaintext: &blake3::Hash) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&blake3::keyed_hash(key.as_bytes(), plaintext.as_bytes()).as_bytes()[..NONCE_BYTES]);
    nonce
}

impl std::fmt::Debug for ChunkSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkSealer({})", self.0.sealing.library.short())
    }
}
