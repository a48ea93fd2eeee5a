//! Sealed bodies of envelopes: `format u8 ‖ nonce 24 ‖ ciphertext ‖ tag 16`, bound to the library and to the place
//! in the log, so that no body can be moved to another envelope. The epoch stands in the envelope's header.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::OpenError;
use super::keys::Keys;
use crate::id::AuthorId;
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::secrets::{EpochId, EpochKey, LibrarySecrets};
use crate::xchacha::{self, NONCE_BYTES, TAG_BYTES};

const FORMAT: u8 = 1;
const OVERHEAD: usize = 1 + NONCE_BYTES + TAG_BYTES;

/// Seals and opens the bodies of one library's envelopes. Cloning is cheap and shares the keys.
#[derive(Clone)]
pub struct BodySealer(Arc<Keys>);

impl BodySealer {
    /// Bytes that sealing adds to a body.
    pub const OVERHEAD: usize = OVERHEAD;

    /// A sealer with all epochs of `secrets`; it seals with the current one.
    #[must_use]
    pub fn new(secrets: &LibrarySecrets) -> Self {
        Self(Arc::new(Keys::derive(secrets, "holdfast 1 envelope body key", "holdfast 1 envelope body nonce")))
    }

    /// The epoch that bodies are sealed with: the envelope's `epoch`.
    #[must_use]
    pub fn epoch(&self) -> EpochId {
        self.0.current
    }

    /// Seals the body of envelope `seq` of `author` with the key of [`BodySealer::epoch`].
    #[must_use]
    pub fn seal(&self, author: &AuthorId, seq: u64, plaintext: &[u8]) -> Vec<u8> {
        let keys = &self.0.epochs[&self.0.current];
        let nonce = nonce_of(&keys.nonce, author, seq, plaintext);
        let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD);
        out.push(FORMAT);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        xchacha::seal_tail(
            keys.cipher.as_bytes(),
            &nonce,
            &self.associated_data(author, seq),
            &mut out,
            1 + NONCE_BYTES,
        );
        out
    }

    /// Opens the body of envelope `seq` of `author`, sealed in `epoch`.
    ///
    /// # Errors
    /// When the epoch's key is unknown, or the body was not sealed for this envelope.
    pub fn open(&self, epoch: EpochId, author: &AuthorId, seq: u64, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let length = OpenError::Length { length: sealed.len() };
        if sealed.len() > ENVELOPE_BYTES_MAX || sealed.len() < OVERHEAD {
            return Err(length);
        }
        let (format, rest) = sealed.split_first().ok_or(length)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(length)?;
        if *format != FORMAT {
            return Err(OpenError::NewerFormat { format: *format });
        }
        let keys = self.0.epochs.get(&epoch).ok_or(OpenError::UnknownEpoch { epoch })?;
        let mut plaintext = ciphertext.to_vec();
        xchacha::open_vec(keys.cipher.as_bytes(), nonce, &self.associated_data(author, seq), &mut plaintext)
            .map_err(|_| OpenError::NotAuthentic)?;
        let expected = nonce_of(&keys.nonce, author, seq, &plaintext);
        if bool::from(expected.ct_eq(nonce)) { Ok(plaintext) } else { Err(OpenError::NotAuthentic) }
    }

    fn associated_data(&self, author: &AuthorId, seq: u64) -> [u8; 72] {
        let mut aad = [0; 72];
        aad[..32].copy_from_slice(self.0.library.as_bytes());
        aad[32..64].copy_from_slice(author.as_bytes());
        aad[64..].copy_from_slice(&seq.to_le_bytes());
        aad
    }
}

fn nonce_of(key: &EpochKey, author: &AuthorId, seq: u64, plaintext: &[u8]) -> [u8; NONCE_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(author.as_bytes()).update(&seq.to_le_bytes()).update(plaintext);
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
    nonce
}

impl std::fmt::Debug for BodySealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BodySealer({})", self.0.library.short())
    }
}
