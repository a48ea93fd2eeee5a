//! The one place that knows how values become bytes.
//!
//! Everything that Holdfast stores or sends as a structure goes through [`encode`] and [`decode`]: little-endian
//! variable-length integers, lengths before sequences, fields in the order of their declaration, and nothing that
//! describes itself. A structure that may change therefore starts with a format number (or stands behind a tagged
//! length), and whatever is signed is signed as bytes and verified as the bytes that came in, never re-encoded.
//!
//! Decoding foreign bytes is bounded: input over the caller's limit is refused before it is looked at, bytes left
//! over are refused, and a length that a peer claims can make the decoder reserve at most [`CLAIM_BYTES_MIN`] or
//! about thirty times the bytes that really came. Sequences of things that take no bytes have no such bound, so no
//! format here contains one.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a claimed length may always reserve, however short the input.
pub const CLAIM_BYTES_MIN: usize = 4 << 10;

/// Why bytes were not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than a value of this kind may have.
    #[error("{length} bytes where at most {limit} are allowed")]
    TooLong {
        /// Bytes that came.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The bytes end inside the value, or a field has no valid form.
    #[error("malformed after all of its {length} bytes were considered")]
    Malformed {
        /// Bytes that came.
        length: usize,
    },
    /// Bytes follow the value.
    #[error("{excess} bytes too many")]
    TrailingBytes {
        /// How many follow.
        excess: usize,
    },
}

/// The bytes of `value`.
///
/// # Panics
/// Never for the structures of this workspace: encoding to memory fails only for sequences of unknown length and
/// for types that refuse to be serialized, and there are none.
#[must_use]
#[expect(clippy::expect_used, reason = "encoding to memory cannot fail for types of known length")]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("values of known length encode to memory")
}

/// The value that `bytes`, all of them, encode.
///
/// # Errors
/// When there are more than `limit` bytes, when they are malformed or when some are left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLong { length: bytes.len(), limit });
    }
    let (value, read) = decode_bounded(bytes).map_err(|_| DecodeError::Malformed { length: bytes.len() })?;
    match bytes.len() - read {
        0 => Ok(value),
        excess => Err(DecodeError::TrailingBytes { excess }),
    }
}

/// Decodes with a bound on what claimed lengths can reserve. The codec's bound is a constant and counts integers
/// at their full width, hence the steps and the factor of eight.
fn decode_bounded<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), bincode::error::DecodeError> {
    macro_rules! within {
        ($($limit:expr),+) => {
            $(if bytes.len().saturating_mul(8) <= $limit {
                let configuration = bincode::config::standard().with_limit::<{ $limit }>();
                return bincode::serde::borrow_decode_from_slice(bytes, configuration);
            })+
        };
    }
    within!(CLAIM_BYTES_MIN, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30);
    Err(bincode::error::DecodeError::LimitExceeded)
}

/// Byte strings in one piece: `#[serde(with = "codec::bytes")]` on a `Vec<u8>` field. The encoding is that of any
/// sequence of bytes; reading and writing it does not go byte by byte.
pub mod bytes {
    use std::fmt;

    use serde::de::Visitor;
    use serde::{Deserializer, Serializer};

    /// Writes the length and the bytes.
    ///
    /// # Errors
    /// When the serializer fails.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads the length, checks that as many bytes are there, and copies them.
    ///
    /// # Errors
    /// When fewer bytes follow than were claimed.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Sample {
        format: u8,
        number: u64,
        signed: i64,
        text: String,
        #[serde(with = "bytes")]
        packed: Vec<u8>,
        optional: Option<u32>,
        ids: Vec<[u8; 32]>,
        map: BTreeMap<u32, bool>,
    }

    fn sample() -> impl Strategy<Value = Sample> {
        let lists = (
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(any::<[u8; 32]>(), 0..8),
            proptest::collection::btree_map(any::<u32>(), any::<bool>(), 0..8),
        );
        (any::<(u8, u64, i64, Option<u32>)>(), ".{0,40}", lists).prop_map(
            |((format, number, signed, optional), text, (packed, ids, map))| Sample {
                format,
                number,
                signed,
                text,
                packed,
                optional,
                ids,
                map,
            },
        )
    }

    proptest! {
        #[test]
        fn values_round_trip(value in sample()) {
            let bytes = encode(&value);
            prop_assert_eq!(decode::<Sample>(&bytes, bytes.len()), Ok(value));
        }

        #[test]
        fn cut_and_extended_values_are_refused(value in sample(), cut: proptest::sample::Index, excess in 1_usize..9) {
            let mut bytes = encode(&value);
            let cut = &bytes[..cut.index(bytes.len())];
            prop_assert_eq!(decode::<Sample>(cut, 1 << 20), Err(DecodeError::Malformed { length: cut.len() }));
            bytes.extend(vec![0; excess]);
            prop_assert_eq!(decode::<Sample>(&bytes, 1 << 20), Err(DecodeError::TrailingBytes { excess }));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode::<Sample>(&bytes, 400);
            let _ = decode::<Vec<Vec<String>>>(&bytes, 400);
        }

        #[test]
        fn packed_bytes_are_encoded_like_a_sequence(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            #[derive(Serialize)]
            struct Packed(#[serde(with = "bytes")] Vec<u8>);
            prop_assert_eq!(encode(&Packed(value.clone())), encode(&value));
        }
    }

    #[test]
    fn longer_input_than_allowed_is_refused_unseen() {
        assert_eq!(decode::<u8>(&[1, 2], 1), Err(DecodeError::TooLong { length: 2, limit: 1 }));
    }

    #[test]
    fn claimed_lengths_reserve_nothing_that_is_not_there() {
        for claimed in [1_u64 << 20, 1 << 40, u64::MAX] {
            let bytes = encode(&claimed);
            assert!(decode::<String>(&bytes, 100).is_err());
            assert!(decode::<Vec<u64>>(&bytes, 100).is_err());
            assert!(decode::<Vec<Vec<String>>>(&bytes, 100).is_err());
            assert!(decode::<BTreeMap<u64, String>>(&bytes, 100).is_err());
            #[derive(Debug, Deserialize)]
            struct Packed(
                #[serde(with = "bytes")]
                #[expect(dead_code, reason = "only decoded")]
                Vec<u8>,
            );
            assert!(decode::<Packed>(&bytes, 100).is_err());
        }
    }

    #[test]
    fn the_codec_bound_never_refuses_what_fits() {
        // Integers count at full width against the codec's own bound, whatever they take on the wire.
        for length in [0, 1, 63, 64, 500, 512, 513, 5_000, 70_000] {
            let value = vec![0_u64; length];
            let bytes = encode(&value);
            assert_eq!(decode::<Vec<u64>>(&bytes, bytes.len()), Ok(value));
        }
    }
}
