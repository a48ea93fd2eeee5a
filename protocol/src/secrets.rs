//! What the members of a library know and nobody else does.
//!
//! Two kinds of secrets. The **chunk secret** never changes: nonces, photo ids, photo keys and place ids come from
//! it, so that equal bytes seal equally on every device for as long as the library lives. **Epoch keys** encrypt and
//! can be renewed ([`LibrarySecrets::renew`]): what is written after that, a device that was removed before cannot open.
//! Nothing renews them yet when a device is removed.
//!
//! Invariants:
//! - an [`EpochId`] commits to its key, so two devices never mean different keys by one id;
//! - epochs are only ever added, and the current one is the greatest id, the same on every device that knows the
//!   same epochs, whatever order they came in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec;
use crate::id::{LibraryId, PhotoId, PlaceId};
use crate::keys::{ExchangeKey, ExchangePublic};
use crate::xchacha::{self, NONCE_BYTES, TAG_BYTES};

/// Epochs that a library can have at most: removals of devices, over all time.
pub const EPOCHS_MAX: usize = 1024;
/// The greatest counter of an epoch; a member that claims a greater one is refused.
pub const EPOCH_COUNTER_MAX: u32 = 1 << 20;
/// Bytes of sealed secrets at most.
pub const SEALED_SECRETS_BYTES_MAX: usize = 64 << 10;

const FORMAT: u8 = 1;

/// Names an epoch: ordered by counter, then by a fingerprint of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpochId {
    /// One more than the greatest counter its maker knew.
    pub counter: u32,
    /// The first bytes of a hash of the key: it tells apart epochs that two devices began at once.
    pub nonce: [u8; 8],
}

impl EpochId {
    /// Bytes of an epoch id where it stands in a sealed chunk.
    pub const BYTES: usize = 12;

    /// Counter (little endian) and fingerprint.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.counter.to_le_bytes());
        bytes[4..].copy_from_slice(&self.nonce);
        bytes
    }

    /// The id that [`EpochId::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, nonce @ ..] = bytes;
        Self { counter: u32::from_le_bytes([a, b, c, d]), nonce }
    }
}

/// Encrypts what is written during one epoch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct EpochKey([u8; 32]);

impl EpochKey {
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one use, made from the epoch's.
    pub(crate) fn derived(context: &'static str, epoch: &Self) -> Self {
        Self(blake3::derive_key(context, &epoch.0))
    }

    fn id(&self, counter: u32) -> EpochId {
        let hash = blake3::derive_key("holdfast 1 epoch fingerprint", &self.0);
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&hash[..8]);
        EpochId { counter, nonce }
    }
}

/// All secrets of one library.
#[derive(Clone, PartialEq, Eq)]
pub struct LibrarySecrets {
    library: LibraryId,
    chunk_secret: Zeroizing<[u8; 32]>,
    epochs: BTreeMap<EpochId, EpochKey>,
}

/// The stored and sealed form.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Stored {
    format: u8,
    #[zeroize(skip)]
    library: LibraryId,
    chunk_secret: [u8; 32],
    epochs: Vec<(u32, EpochKey)>,
}

/// Why secrets were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsRefused {
    /// Not made by sealing, cut short, or of an unknown format.
    #[error("these secrets are damaged or were made by a newer version; update Holdfast or ask for them again")]
    Malformed,
    /// Sealed for someone else, or changed.
    #[error("these secrets were sealed for another device or were changed on the way; pair again")]
    NotForThisKey,
    /// Of another library, or contradicting what this device knows of the library.
    #[error("these secrets belong to another library")]
    OtherLibrary,
    /// More epochs than a library can have.
    #[error("these secrets name more key epochs than a library can have; they are ignored")]
    TooManyEpochs,
}

impl LibrarySecrets {
    /// New secrets, with a first epoch, from 32 random bytes.
    #[must_use]
    pub fn generate(library: LibraryId, seed: &[u8; 32]) -> Self {
        let key = EpochKey(blake3::derive_key("holdfast 1 first epoch key", seed));
        Self {
            library,
            chunk_secret: Zeroizing::new(blake3::derive_key("holdfast 1 chunk secret", seed)),
            epochs: BTreeMap::from([(key.id(0), key)]),
        }
    }

    /// The library these are the secrets of.
    #[must_use]
    pub const fn library(&self) -> LibraryId {
        self.library
    }

    /// The epoch to seal with: the greatest.
    ///
    /// # Panics
    /// Never: there is no way to make secrets without an epoch.
    #[must_use]
    #[expect(clippy::expect_used, reason = "every constructor ensures an epoch")]
    pub fn current_epoch(&self) -> EpochId {
        *self.epochs.last_key_value().expect("secrets have an epoch").0
    }

    /// The known epochs in order, the current one last.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = EpochId> + '_ {
        self.epochs.keys().copied()
    }

    pub(crate) const fn epoch_keys(&self) -> &BTreeMap<EpochId, EpochKey> {
        &self.epochs
    }

    /// Begins a new epoch with a key from 32 random bytes, and returns its id. At the end of the counter's range
    /// (a million removals) the new epoch may not be the current one.
    pub fn renew(&mut self, seed: &[u8; 32]) -> EpochId {
        let counter = self.current_epoch().counter.saturating_add(1).min(EPOCH_COUNTER_MAX);
        let key = EpochKey(blake3::derive_key("holdfast 1 epoch key", seed));
        let id = key.id(counter);
        self.epochs.insert(id, key);
        id
    }

    /// Adds the epochs of `other` and returns those that were new.
    ///
    /// # Errors
    /// When `other` is of another library or contradicts these secrets; then nothing is added.
    pub fn absorb(&mut self, other: &Self) -> Result<Vec<EpochId>, SecretsRefused> {
        if self.library != other.library || self.chunk_secret != other.chunk_secret {
            return Err(SecretsRefused::OtherLibrary);
        }
        let new: Vec<EpochId> = other.epochs().filter(|epoch| !self.epochs.contains_key(epoch)).collect();
        if self.epochs.len() + new.len() > EPOCHS_MAX {
            return Err(SecretsRefused::TooManyEpochs);
        }
        self.epochs.extend(other.epochs.iter().map(|(epoch, key)| (*epoch, key.clone())));
        Ok(new)
    }

    /// The bytes to store where only this user can read them.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let stored = Stored {
            format: FORMAT,
            library: self.library,
            chunk_secret: *self.chunk_secret,
            epochs: self.epochs.iter().map(|(id, key)| (id.counter, key.clone())).collect(),
        };
        Zeroizing::new(codec::encode(&stored))
    }

    /// The secrets that [`LibrarySecrets::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such secrets.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretsRefused> {
        let stored: Stored = codec::decode(bytes, SEALED_SECRETS_BYTES_MAX).map_err(|_| SecretsRefused::Malformed)?;
        if stored.epochs.len() > EPOCHS_MAX || stored.epochs.iter().any(|(counter, _)| *counter > EPOCH_COUNTER_MAX) {
            return Err(SecretsRefused::TooManyEpochs);
        }
        if stored.format != FORMAT || stored.epochs.is_empty() {
            return Err(SecretsRefused::Malformed);
        }
        Ok(Self {
            library: stored.library,
            chunk_secret: Zeroizing::new(stored.chunk_secret),
            epochs: stored.epochs.iter().map(|(counter, key)| (key.id(*counter), key.clone())).collect(),
        })
    }

    /// Seals everything for one recipient. `seed` is 32 random bytes; sealing the same secrets for the same
    /// recipient with the same seed gives the same bytes, and anything else shares no key with it.
    #[must_use]
    pub fn seal_to(&self, recipient: &ExchangePublic, seed: &[u8; 32]) -> Vec<u8> {
        let plaintext = self.to_bytes();
        let mut material = Zeroizing::new(Vec::with_capacity(64 + plaintext.len()));
        material.extend_from_slice(seed);
        material.extend_from_slice(recipient.as_bytes());
        material.extend_from_slice(&plaintext);
        let ephemeral = ExchangeKey::derive("holdfast 1 ephemeral exchange key", &material);
        let mut sealed = Vec::with_capacity(33 + plaintext.len() + TAG_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(ephemeral.public().as_bytes());
        sealed.extend_from_slice(&plaintext);
        // A recipient whose key agrees with everyone's can be shown nothing: sealed under a key that nobody keeps.
        let shared = ephemeral
            .agree(recipient)
            .unwrap_or_else(|| Zeroizing::new(blake3::derive_key("holdfast 1 no recipient", &material)));
        let key = box_key(&shared, &ephemeral.public(), recipient);
        xchacha::seal_tail(&key, &[0; NONCE_BYTES], self.library.as_bytes(), &mut sealed, 33);
        sealed
    }

    /// Opens what [`LibrarySecrets::seal_to`] sealed for the public half of `key`, for this `library`.
    ///
    /// # Errors
    /// When it was sealed for another key, is of another library, or was changed.
    pub fn open_with(library: &LibraryId, key: &ExchangeKey, sealed: &[u8]) -> Result<Self, SecretsRefused> {
        if sealed.len() > SEALED_SECRETS_BYTES_MAX + 33 + TAG_BYTES || sealed.first() != Some(&FORMAT) {
            return Err(SecretsRefused::Malformed);
        }
        let (ephemeral, ciphertext) = sealed[1..].split_first_chunk::<32>().ok_or(SecretsRefused::Malformed)?;
        let ephemeral = ExchangePublic::from_bytes(*ephemeral);
        let shared = key.agree(&ephemeral).ok_or(SecretsRefused::NotForThisKey)?;
        let key = box_key(&shared, &ephemeral, &key.public());
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        xchacha::open_vec(&key, &[0; NONCE_BYTES], library.as_bytes(), &mut plaintext)
            .map_err(|_| SecretsRefused::NotForThisKey)?;
        let secrets = Self::from_bytes(&plaintext)?;
        if secrets.library == *library { Ok(secrets) } else { Err(SecretsRefused::OtherLibrary) }
    }

    /// A secret of its own for each use of the chunk secret.
    pub(crate) fn derive(&self, context: &'static str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, self.chunk_secret.as_slice()))
    }

    /// The photo whose whole content has this plain BLAKE3 hash.
    #[must_use]
    pub fn photo_id(&self, content_hash: &[u8; 32]) -> PhotoId {
        let key = self.derive("holdfast 1 photo id");
        PhotoId::from_bytes(*blake3::keyed_hash(&key, content_hash).as_bytes())
    }

    /// The place that people call `label`: letter case and surrounding white space make no difference.
    #[must_use]
    pub fn place_id(&self, label: &str) -> PlaceId {
        let key = self.derive("holdfast 1 place id");
        PlaceId::from_bytes(*blake3::keyed_hash(&key, label.trim().to_lowercase().as_bytes()).as_bytes())
    }
}

impl fmt::Debug for LibrarySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LibrarySecrets({}, {} epochs)", self.library.short(), self.epochs.len())
    }
}

/// The key of one sealing: used once, since the ephemeral key is, and bound to both public keys.
fn box_key(shared: &[u8; 32], ephemeral: &ExchangePublic, recipient: &ExchangePublic) -> Zeroizing<[u8; 32]> {
    let material = Zeroizing::new([*shared, *ephemeral.as_bytes(), *recipient.as_bytes()].concat());
    Zeroizing::new(blake3::derive_key("holdfast 1 sealed secrets", &material))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::{DeviceKey, RootKey};

    fn library() -> LibraryId {
        RootKey::from_seed(&[9; 32]).library_id()
    }

    fn secrets() -> LibrarySecrets {
        LibrarySecrets::generate(library(), &[1; 32])
    }

    fn recipient() -> ExchangeKey {
        DeviceKey::from_seed(&[2; 32]).exchange()
    }

    proptest! {
        #[test]
        fn sealed_secrets_open_for_their_recipient_only(seed: [u8; 32], device: [u8; 32], renewals in 0_usize..5) {
            let mut secrets = secrets();
            for renewal in 0..renewals {
                secrets.renew(&[u8::try_from(renewal).unwrap(); 32]);
            }
            let key = DeviceKey::from_seed(&device).exchange();
            let sealed = secrets.seal_to(&key.public(), &seed);
            prop_assert!(sealed.len() <= SEALED_SECRETS_BYTES_MAX);
            prop_assert_eq!(LibrarySecrets::open_with(&library(), &key, &sealed), Ok(secrets));
            let stranger = LibrarySecrets::open_with(&library(), &recipient(), &sealed);
            prop_assert_eq!(stranger, Err(SecretsRefused::NotForThisKey));
        }

        #[test]
        fn changed_sealed_secrets_are_refused(at: proptest::sample::Index, bit in 0_u8..8) {
            let mut sealed = secrets().seal_to(&recipient().public(), &[3; 32]);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            // The top bit of an X25519 public key is ignored by definition, but the key is bound to its bytes.
            prop_assert!(LibrarySecrets::open_with(&library(), &recipient(), &sealed).is_err());
        }

        #[test]
        fn random_bytes_are_no_secrets(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(LibrarySecrets::open_with(&library(), &recipient(), &bytes).is_err());
            let mut formatted = bytes;
            formatted.insert(0, FORMAT);
            prop_assert!(LibrarySecrets::open_with(&library(), &recipient(), &formatted).is_err());
        }

        #[test]
        fn epochs_merge_alike_in_every_order(ours in proptest::collection::vec(any::<[u8; 32]>(), 0..5), theirs in proptest::collection::vec(any::<[u8; 32]>(), 0..5)) {
            let renewed = |seeds: &[[u8; 32]]| {
                let mut secrets = secrets();
                seeds.iter().for_each(|seed| { secrets.renew(seed); });
                secrets
            };
            let (mut one, mut two) = (renewed(&ours), renewed(&theirs));
            let before = two.clone();
            two.absorb(&one).unwrap();
            one.absorb(&before).unwrap();
            prop_assert_eq!(&one, &two);
            prop_assert_eq!(one.current_epoch(), two.current_epoch());
            prop_assert_eq!(one.current_epoch().counter as usize, ours.len().max(theirs.len()));
            prop_assert_eq!(one.absorb(&two), Ok(vec![]));
            prop_assert_eq!(LibrarySecrets::from_bytes(&one.to_bytes()), Ok(two));
        }
    }

    #[test]
    fn secrets_of_another_library_are_refused() {
        let other = LibrarySecrets::generate(RootKey::from_seed(&[8; 32]).library_id(), &[1; 32]);
        let sealed = other.seal_to(&recipient().public(), &[3; 32]);
        let refused = LibrarySecrets::open_with(&library(), &recipient(), &sealed);
        assert_eq!(refused, Err(SecretsRefused::NotForThisKey));
        assert_eq!(secrets().absorb(&other), Err(SecretsRefused::OtherLibrary));
        // Same library, other chunk secret: someone made secrets up.
        let invented = LibrarySecrets::generate(library(), &[7; 32]);
        let mut ours = secrets();
        assert_eq!(ours.absorb(&invented), Err(SecretsRefused::OtherLibrary));
        assert_eq!(ours, secrets());
    }

    #[test]
    fn a_claimed_counter_cannot_end_the_epochs() {
        let stored = Stored {
            format: FORMAT,
            library: library(),
            chunk_secret: [0; 32],
            epochs: vec![(u32::MAX, EpochKey([1; 32]))],
        };
        assert_eq!(LibrarySecrets::from_bytes(&codec::encode(&stored)), Err(SecretsRefused::TooManyEpochs));
    }

    #[test]
    fn more_epochs_than_a_library_can_have_are_refused() {
        let mut many = secrets();
        for counter in 1..EPOCHS_MAX {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(counter as u64).to_le_bytes());
            many.renew(&seed);
        }
        assert_eq!(LibrarySecrets::from_bytes(&many.to_bytes()).as_ref(), Ok(&many));
        assert!(many.seal_to(&recipient().public(), &[3; 32]).len() <= SEALED_SECRETS_BYTES_MAX);
        let mut one_more = secrets();
        one_more.renew(&[0xee; 32]);
        assert_eq!(many.absorb(&one_more), Err(SecretsRefused::TooManyEpochs));
    }

    #[test]
    fn secrets_without_an_epoch_are_refused() {
        let stored = Stored { format: FORMAT, library: library(), chunk_secret: [0; 32], epochs: vec![] };
        assert_eq!(LibrarySecrets::from_bytes(&codec::encode(&stored)), Err(SecretsRefused::Malformed));
        let newer =
            Stored { format: 2, library: library(), chunk_secret: [0; 32], epochs: vec![(0, EpochKey([1; 32]))] };
        assert_eq!(LibrarySecrets::from_bytes(&codec::encode(&newer)), Err(SecretsRefused::Malformed));
    }

    #[test]
    fn nothing_can_be_sealed_to_a_key_that_agrees_with_everyone() {
        let sealed = secrets().seal_to(&ExchangePublic::from_bytes([0; 32]), &[3; 32]);
        assert!(LibrarySecrets::open_with(&library(), &recipient(), &sealed).is_err());
    }

    #[test]
    fn the_same_seed_for_another_recipient_shares_nothing() {
        let one = secrets().seal_to(&recipient().public(), &[3; 32]);
        let two = secrets().seal_to(&DeviceKey::from_seed(&[4; 32]).exchange().public(), &[3; 32]);
        assert_ne!(one[1..33], two[1..33]);
    }

    #[test]
    fn places_are_the_same_however_they_are_typed() {
        let secrets = secrets();
        assert_eq!(secrets.place_id("Office"), secrets.place_id("  oFFICE\n"));
        assert_ne!(secrets.place_id("office"), secrets.place_id("home"));
        let elsewhere = LibrarySecrets::generate(library(), &[7; 32]);
        assert_ne!(secrets.place_id("office"), elsewhere.place_id("office"));
        assert_ne!(secrets.photo_id(&[5; 32]), elsewhere.photo_id(&[5; 32]));
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", secrets()), format!("LibrarySecrets({}, 1 epochs)", library().short()));
    }
}
