//! The key of one photo: it comes from the content's own hash and stands nowhere but in the manifest, so that
//! erasing content and manifest makes noise of every fact that the catalog's history still holds.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::OpenError;
use crate::secrets::LibrarySecrets;
use crate::xchacha::{self, NONCE_BYTES, TAG_BYTES};

/// Bytes that sealing adds to a fact.
pub const PHOTO_SEAL_OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

/// Seals the facts about one photo: `nonce 24 ‖ ciphertext ‖ tag 16`. Two devices that import the same photo
/// derive the same key.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct PhotoKey([u8; 32]);

impl PhotoKey {
    /// The key of the photo whose whole content has this plain BLAKE3 hash.
    #[must_use]
    pub fn derive(secrets: &LibrarySecrets, content_hash: &[u8; 32]) -> Self {
        let secret = secrets.derive("holdfast 1 photo key");
        Self(*blake3::keyed_hash(&secret, content_hash).as_bytes())
    }

    /// Seals `plaintext` for `context`, which says what it is: a caption opens as a caption only.
    #[must_use]
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(context, plaintext);
        let mut out = Vec::with_capacity(plaintext.len() + PHOTO_SEAL_OVERHEAD);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        xchacha::seal_tail(&self.0, &nonce, context, &mut out, NONCE_BYTES);
        out
    }

    /// Opens what was sealed for `context`.
    ///
    /// # Errors
    /// When it was sealed with another key or for another context, or was changed.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let length = OpenError::Length { length: sealed.len() };
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(length)?;
        if ciphertext.len() < TAG_BYTES {
            return Err(length);
        }
        let mut plaintext = ciphertext.to_vec();
        xchacha::open_vec(&self.0, nonce, context, &mut plaintext).map_err(|_| OpenError::NotAuthentic)?;
        let expected = self.nonce(context, &plaintext);
        if bool::from(expected.ct_eq(nonce)) { Ok(plaintext) } else { Err(OpenError::NotAuthentic) }
    }

    fn nonce(&self, context: &[u8], plaintext: &[u8]) -> [u8; NONCE_BYTES] {
        let key = zeroize::Zeroizing::new(blake3::derive_key("holdfast 1 photo fact nonce", &self.0));
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&(context.len() as u64).to_le_bytes()).update(context).update(plaintext);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
        nonce
    }
}

impl PartialEq for PhotoKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PhotoKey {}

impl std::fmt::Debug for PhotoKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PhotoKey(secret)")
    }
}
