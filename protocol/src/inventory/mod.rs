//! Inventories: what each peer says about which positions it holds and which it has erased.
//!
//! A [`Head`] is signed by the device it speaks for and may be relayed by anyone. Its root is a hash of the whole
//! content, so that content which came in pieces, from whomever, is checked against the head before it counts. A
//! generation is new each time a replica is opened: (generation, seq) never names two contents, whatever was restored.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::id::{DeviceId, LibraryId, PlaceId};
use crate::keys::{self, DeviceKey, Purpose, SIGNATURE_BYTES, Signature};
use crate::time::WallTime;

mod holdings;
pub mod spans;

pub use holdings::{HOLDINGS_POSITIONS_MAX, HoldingChanges, Holdings};
pub use spans::Span;

/// Bytes of a signed head at most.
pub const HEAD_BYTES_MAX: usize = 320;

const FORMAT: u8 = 1;

/// Which run of a peer an inventory belongs to: later runs have higher generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// Goes up with every run.
    pub counter: u32,
    /// Random, so that two runs of a cloned or restored machine are still two generations.
    pub nonce: u64,
}

/// A peer's statement of what it holds, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose inventory.
    pub peer: DeviceId,
    /// Which run of that peer.
    pub generation: Generation,
    /// Counts this generation's published inventories, from 0.
    pub seq: u64,
    /// [`Holdings::root`] of the content.
    pub root: [u8; 32],
    /// Positions held.
    pub held: u64,
    /// Positions erased.
    pub erased: u64,
    /// Where the peer believes it stands.
    pub place: Option<PlaceId>,
    /// When it was signed, by the peer's clock: for display.
    pub time: WallTime,
}

impl Head {
    /// What orders the inventories of one peer.
    #[must_use]
    pub const fn version(&self) -> (Generation, u64) {
        (self.generation, self.seq)
    }
}

/// A head and its signature, as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    wire: Bytes,
}

/// Why the bytes of a head were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefused {
    /// Too short, too long, of another format or not decodable.
    #[error("the head of an inventory is malformed")]
    Malformed,
    /// Not signed by the peer it speaks for, for this library.
    #[error("the head of an inventory is not signed by the peer it speaks for")]
    Signature,
}

impl SignedHead {
    /// Signs `head` with the key of the device it speaks for.
    #[must_use]
    pub fn sign(head: Head, library: &LibraryId, key: &DeviceKey) -> Self {
        debug_assert_eq!(head.peer, key.device_id());
        let mut wire = codec::encode(&(FORMAT, &head));
        let signature = key.sign(Purpose::InventoryHead, &signed_message(library, &wire));
        wire.extend(signature.to_bytes());
        Self { head, wire: wire.into() }
    }

    /// Parses and verifies a head as it came from anyone.
    ///
    /// # Errors
    /// When it is malformed or the signature is not that of the peer it speaks for.
    pub fn parse(wire: Bytes, library: &LibraryId) -> Result<Self, HeadRefused> {
        let parsed = Self::parse_unverified(wire)?;
        let (message, signature) = split(&parsed.wire).ok_or(HeadRefused::Malformed)?;
        let message = signed_message(library, message);
        keys::verify(parsed.head.peer.as_bytes(), Purpose::InventoryHead, &message, &signature)
            .map_err(|_| HeadRefused::Signature)?;
        Ok(parsed)
    }

    /// Parses a head that was verified before: from this node's own storage, or to look at its version first.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse_unverified(wire: Bytes) -> Result<Self, HeadRefused> {
        let (message, _) = split(&wire).ok_or(HeadRefused::Malformed)?;
        let (format, head): (u8, Head) = codec::decode(message, HEAD_BYTES_MAX).map_err(|_| HeadRefused::Malformed)?;
        if format != FORMAT {
            return Err(HeadRefused::Malformed);
        }
        Ok(Self { head, wire })
    }

    /// What was signed.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The signed bytes with their signature.
    #[must_use]
    pub const fn wire(&self) -> &Bytes {
        &self.wire
    }
}

fn split(wire: &[u8]) -> Option<(&[u8], Signature)> {
    if wire.len() > HEAD_BYTES_MAX {
        return None;
    }
    let (message, signature) = wire.split_last_chunk::<SIGNATURE_BYTES>()?;
    Some((message, Signature::from_bytes(signature)))
}

fn signed_message(library: &LibraryId, head: &[u8]) -> Vec<u8> {
    [library.as_bytes().as_slice(), head].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(key: &DeviceKey) -> Head {
        Head {
            peer: key.device_id(),
            generation: Generation { counter: u32::MAX, nonce: u64::MAX },
            seq: u64::MAX,
            root: [0xff; 32],
            held: u64::MAX,
            erased: u64::MAX,
            place: Some(PlaceId::from_bytes([0xff; 32])),
            time: WallTime(i64::MIN),
        }
    }

    #[test]
    fn heads_round_trip_and_fit() {
        let (library, key) = (LibraryId::from_bytes([1; 32]), DeviceKey::from_seed(&[2; 32]));
        let signed = SignedHead::sign(head(&key), &library, &key);
        assert!(signed.wire().len() <= HEAD_BYTES_MAX, "{}", signed.wire().len());
        assert_eq!(SignedHead::parse(signed.wire().clone(), &library), Ok(signed));
    }

    #[test]
    fn any_changed_byte_and_any_other_library_is_refused() {
        let (library, key) = (LibraryId::from_bytes([1; 32]), DeviceKey::from_seed(&[2; 32]));
        let signed = SignedHead::sign(head(&key), &library, &key);
        for index in 0..signed.wire().len() {
            let mut wire = signed.wire().to_vec();
            wire[index] ^= 1;
            assert!(SignedHead::parse(wire.into(), &library).is_err(), "byte {index}");
            assert!(SignedHead::parse(signed.wire().slice(..index), &library).is_err(), "cut at {index}");
        }
        assert_eq!(
            SignedHead::parse(signed.wire().clone(), &LibraryId::from_bytes([3; 32])),
            Err(HeadRefused::Signature)
        );
    }
}
