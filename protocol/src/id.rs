//! The names of things: 32-byte identifiers, each a type of its own.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

/// Text that is not the 64 hexadecimal digits of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected 64 hexadecimal digits, got {length} characters")]
pub struct InvalidId {
    length: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the 32 bytes of an identifier.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hexadecimal digits, enough for a person to tell two apart.
            #[must_use]
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { length: text.chars().count() };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| invalid())?;
                Ok(Self(bytes.try_into().map_err(|_| invalid())?))
            }
        }
    };
}

id! {
    /// A library: the Ed25519 public key of its root, so that every certificate can be verified with the id alone.
    LibraryId
}
id! {
    /// A device: the Ed25519 public key that it signs with and that its transport identity is made of.
    DeviceId
}
id! {
    /// The writer of one log: an Ed25519 public key certified by the device it belongs to. A device that was
    /// restored from a backup retires its author and continues under a new one.
    AuthorId
}
id! {
    /// A chunk: the BLAKE3 hash of its sealed bytes.
    ChunkId
}
id! {
    /// A photo: a keyed BLAKE3 hash of its whole content, the same on every device of a library and on no other.
    PhotoId
}
id! {
    /// An envelope: the BLAKE3 hash of its signed bytes, signature included.
    EnvelopeHash
}
id! {
    /// A place (failure domain): a keyed hash of its label, so that keepers can tell places apart and not read them.
    PlaceId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_malformed_text_is_refused() {
        let id = ChunkId::from_bytes([0xa7; 32]);
        assert_eq!(id.to_string().parse::<ChunkId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<ChunkId>(), Ok(id));
        for bad in ["", "a7", &"a7".repeat(33), &"zz".repeat(32)] {
            assert!(bad.parse::<ChunkId>().is_err(), "{bad}");
        }
    }
}
