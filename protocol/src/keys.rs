//! The keys that a library is made of.
//!
//! A [`RootKey`] comes from the recovery phrase and is the library: its public half is the [`LibraryId`]. A
//! [`DeviceKey`] is a machine, and its transport identity. An [`AuthorKey`] writes one log. An [`ExchangeKey`]
//! receives sealed secrets. None of them prints itself, all are wiped when dropped, and all randomness is handed in.
//!
//! Every signature covers `"holdfast/1/<purpose>\0"` and then the message, so that no message can pass for one of
//! another purpose.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::id::{AuthorId, DeviceId, LibraryId};
use crate::recovery::RecoveryPhrase;
use crate::verified;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a signature is about; see the head of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An envelope of a log, by its author.
    Envelope,
    /// A device's certificate, by the root or by an owner's device.
    DeviceCertificate,
    /// An author's certificate, by its device.
    AuthorCertificate,
    /// An author's consent to write in a device's name.
    AuthorConsent,
    /// The head of an inventory, by its device.
    InventoryHead,
}

impl Purpose {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Envelope => b"holdfast/1/envelope\0",
            Self::DeviceCertificate => b"holdfast/1/device certificate\0",
            Self::AuthorCertificate => b"holdfast/1/author certificate\0",
            Self::AuthorConsent => b"holdfast/1/author consent\0",
            Self::InventoryHead => b"holdfast/1/inventory head\0",
        }
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.prefix(), message].concat()
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// Wraps the 64 bytes of a signature; nothing is verified.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SIGNATURE_BYTES]) -> Self {
        let mut halves = ([0; 32], [0; 32]);
        halves.0.copy_from_slice(&bytes[..32]);
        halves.1.copy_from_slice(&bytes[32..]);
        Self(halves.0, halves.1)
    }

    /// The 64 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// A signature that is not one of this key over this message for this purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct SignatureInvalid;

/// Verifies strictly: weak keys and non-canonical signatures are refused, so that every node answers alike.
///
/// `public` is the 32 bytes of a [`LibraryId`], [`DeviceId`] or [`AuthorId`].
///
/// # Errors
/// When the signature is not one of `public` over `message` for `purpose`.
pub fn verify(
    public: &[u8; 32],
    purpose: Purpose,
    message: &[u8],
    signature: &Signature,
) -> Result<(), SignatureInvalid> {
    let message = purpose.message(message);
    let is_valid = verified::recall(public, &message, signature, || {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
        VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify_strict(&message, &signature).is_ok())
    });
    is_valid.then_some(()).ok_or(SignatureInvalid)
}

macro_rules! signing_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// The key of `seed`: 32 bytes that nobody else knows.
            #[must_use]
            pub fn from_seed(seed: &[u8; 32]) -> Self {
                Self(SigningKey::from_bytes(seed))
            }

            /// The seed, to be stored where only this user can read it.
            #[must_use]
            pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
                Zeroizing::new(self.0.to_bytes())
            }

            /// Signs `message` for `purpose`.
            #[must_use]
            pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
                Signature::from_bytes(&self.0.sign(&purpose.message(message)).to_bytes())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

signing_key! {
    /// The root of a library. It certifies the first device, and later any, and is not kept on disk.
    RootKey
}

signing_key! {
    /// A device's identity. It signs certificates and inventories and is the transport identity.
    DeviceKey
}

signing_key! {
    /// What one log is signed with. A device restored from a backup makes a new one.
    AuthorKey
}

impl RootKey {
    /// The root that `phrase` stands for.
    #[must_use]
    pub fn from_phrase(phrase: &RecoveryPhrase) -> Self {
        let entropy = phrase.entropy();
        Self::from_seed(&Zeroizing::new(blake3::derive_key("holdfast 1 root key", entropy.as_slice())))
    }

    /// The library that this is the root of.
    #[must_use]
    pub fn library_id(&self) -> LibraryId {
        LibraryId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// What the library's secrets are sealed to, so that the phrase alone opens them.
    #[must_use]
    pub fn exchange(&self) -> ExchangeKey {
        ExchangeKey::derive("holdfast 1 root exchange key", self.0.as_bytes())
    }
}

impl DeviceKey {
    /// The device's id: the public half of this key.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        DeviceId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// What secrets for this device are sealed to.
    #[must_use]
    pub fn exchange(&self) -> ExchangeKey {
        ExchangeKey::derive("holdfast 1 device exchange key", self.0.as_bytes())
    }
}

impl AuthorKey {
    /// The author's id: the public half of this key.
    #[must_use]
    pub fn author_id(&self) -> AuthorId {
        AuthorId::from_bytes(self.0.verifying_key().to_bytes())
    }
}

/// The X25519 key that opens what was sealed to its [`ExchangePublic`].
#[derive(Clone)]
pub struct ExchangeKey(StaticSecret);

impl ExchangeKey {
    pub(crate) fn derive(context: &'static str, secret: &[u8]) -> Self {
        Self(StaticSecret::from(blake3::derive_key(context, secret)))
    }

    /// What others seal to.
    #[must_use]
    pub fn public(&self) -> ExchangePublic {
        ExchangePublic(PublicKey::from(&self.0).to_bytes())
    }

    /// The secret shared with the holder of `public`; `None` when `public` is one of the few values that make
    /// the secret known to everyone.
    pub(crate) fn agree(&self, public: &ExchangePublic) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(public.0));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl fmt::Debug for ExchangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExchangeKey(secret)")
    }
}

/// The public half of an [`ExchangeKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExchangePublic([u8; 32]);

impl ExchangePublic {
    /// Wraps the 32 bytes of a public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn signatures_verify_for_their_purpose_key_and_message_only(seed: [u8; 32], other: [u8; 32], message: Vec<u8>) {
            prop_assume!(seed != other);
            let key = DeviceKey::from_seed(&seed);
            let signature = key.sign(Purpose::InventoryHead, &message);
            let id = key.device_id();
            prop_assert_eq!(verify(id.as_bytes(), Purpose::InventoryHead, &message, &signature), Ok(()));

            let stranger = DeviceKey::from_seed(&other).device_id();
            let mut longer = message.clone();
            longer.push(0);
            let invalid = Err(SignatureInvalid);
            prop_assert_eq!(verify(stranger.as_bytes(), Purpose::InventoryHead, &message, &signature), invalid);
            prop_assert_eq!(verify(id.as_bytes(), Purpose::Envelope, &message, &signature), invalid);
            prop_assert_eq!(verify(id.as_bytes(), Purpose::InventoryHead, &longer, &signature), invalid);
        }

        #[test]
        fn random_signatures_and_keys_are_invalid(public: [u8; 32], a: [u8; 32], b: [u8; 32]) {
            let signature = Signature(a, b);
            prop_assert_eq!(Signature::from_bytes(&signature.to_bytes()), signature);
            prop_assert_eq!(verify(&public, Purpose::Envelope, b"", &signature), Err(SignatureInvalid));
        }

        #[test]
        fn two_exchange_keys_agree(one: [u8; 32], two: [u8; 32]) {
            let (one, two) = (DeviceKey::from_seed(&one).exchange(), RootKey::from_seed(&two).exchange());
            let shared = one.agree(&two.public());
            prop_assert!(shared.is_some());
            prop_assert_eq!(shared, two.agree(&one.public()));
        }
    }

    #[test]
    fn a_weak_key_signs_nothing() {
        // The neutral point: with an all-zero signature, lax verification accepts every message.
        let mut public = [0; 32];
        public[0] = 1;
        let mut signature = [0; SIGNATURE_BYTES];
        signature[0] = 1;
        let signature = Signature::from_bytes(&signature);
        assert_eq!(verify(&public, Purpose::Envelope, b"anything", &signature), Err(SignatureInvalid));
    }

    #[test]
    fn keys_that_agree_with_everyone_are_refused() {
        let key = DeviceKey::from_seed(&[1; 32]).exchange();
        assert_eq!(key.agree(&ExchangePublic::from_bytes([0; 32])), None);
    }

    #[test]
    fn keys_round_trip_and_do_not_print() {
        let key = DeviceKey::from_seed(&[0xab; 32]);
        assert_eq!(DeviceKey::from_seed(&key.to_bytes()).device_id(), key.device_id());
        for shown in
            [format!("{key:?}"), format!("{:?}", key.exchange()), format!("{:?}", AuthorKey::from_seed(&[7; 32]))]
        {
            assert!(shown.ends_with("(secret)"), "{shown}");
        }
    }

    #[test]
    fn keys_of_one_seed_differ_by_use() {
        let (root, device) = (RootKey::from_seed(&[3; 32]), DeviceKey::from_seed(&[3; 32]));
        assert_ne!(root.exchange().public(), device.exchange().public());
    }
}
