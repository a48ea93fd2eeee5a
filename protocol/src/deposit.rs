//! Deposits: the clear body that gives chunks their positions, and is what authorises a keeper to store them.
//!
//! Layout: `format u8 = 1 ‖ first u32 ‖ count u16 ‖ count × (chunk id 32 ‖ sealed length u32)`, little-endian. A deposit
//! that does not begin where its author's last one ended, or cannot be decoded, gives no positions at all: every
//! replica judges it by the author's chain alone, and so every replica judges alike.

use crate::id::ChunkId;
use crate::limits::{DEPOSIT_ENTRIES_MAX, SEALED_CHUNK_BYTES_MAX};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 7;
const ENTRY_BYTES: usize = 36;

/// Chunks that one author may ever deposit: about 16 TiB of photos, and at most 2 MiB of bitmap per peer.
pub const POSITIONS_PER_AUTHOR_MAX: u32 = 1 << 24;

/// A chunk as a deposit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DepositedChunk {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Its sealed length in bytes.
    pub length: u32,
}

/// Chunks in consecutive positions from `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The position of the first chunk.
    pub first: u32,
    /// The chunks, at most [`DEPOSIT_ENTRIES_MAX`].
    pub chunks: Vec<DepositedChunk>,
}

/// Why a deposit's body gives no positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DepositRefused {
    /// A format that this version does not know.
    #[error("format {0} is not known here; update Holdfast")]
    UnknownFormat(u8),
    /// The length does not fit the number of entries, or there are too few or too many.
    #[error("malformed")]
    Malformed,
    /// An entry's length is zero or above what a chunk may have.
    #[error("a chunk of {0} bytes")]
    ChunkLength(u32),
    /// It begins elsewhere than where the author's last one ended.
    #[error("begins at position {first} where {expected} is next")]
    NotNext {
        /// Where it begins.
        first: u32,
        /// Where it would have to begin.
        expected: u32,
    },
    /// The author has used up its positions.
    #[error("more than {POSITIONS_PER_AUTHOR_MAX} chunks of one author")]
    TooMany,
}

impl Deposit {
    /// The body of an envelope of kind Deposit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!((1..=DEPOSIT_ENTRIES_MAX).contains(&self.chunks.len()));
        let mut body = Vec::with_capacity(HEADER_BYTES + self.chunks.len() * ENTRY_BYTES);
        body.push(FORMAT);
        body.extend(self.first.to_le_bytes());
        body.extend((self.chunks.len() as u16).to_le_bytes());
        for entry in &self.chunks {
            body.extend(entry.chunk.as_bytes());
            body.extend(entry.length.to_le_bytes());
        }
        body
    }

    /// Decodes the body of an envelope of kind Deposit.
    ///
    /// # Errors
    /// When it is malformed or over a limit.
    pub fn decode(body: &[u8]) -> Result<Self, DepositRefused> {
        let (header, entries) = body.split_first_chunk::<HEADER_BYTES>().ok_or(DepositRefused::Malformed)?;
        let [format, first @ .., count_low, count_high] = *header;
        if format != FORMAT {
            return Err(DepositRefused::UnknownFormat(format));
        }
        let first = u32::from_le_bytes(first);
        let count = usize::from(u16::from_le_bytes([count_low, count_high]));
        if count == 0 || count > DEPOSIT_ENTRIES_MAX || entries.len() != count * ENTRY_BYTES {
            return Err(DepositRefused::Malformed);
        }
        if first.checked_add(count as u32).is_none_or(|end| end > POSITIONS_PER_AUTHOR_MAX) {
            return Err(DepositRefused::TooMany);
        }
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        let chunks = entries.iter().map(decode_entry).collect::<Result<_, _>>()?;
        Ok(Self { first, chunks })
    }
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> Result<DepositedChunk, DepositRefused> {
    let mut id = [0; 32];
    id.copy_from_slice(&entry[..32]);
    let length = u32::from_le_bytes([entry[32], entry[33], entry[34], entry[35]]);
    if length == 0 || length as usize > SEALED_CHUNK_BYTES_MAX {
        return Err(DepositRefused::ChunkLength(length));
    }
    Ok(DepositedChunk { chunk: ChunkId::from_bytes(id), length })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks() -> impl Strategy<Value = Vec<DepositedChunk>> {
        let chunk = (any::<[u8; 32]>(), 1..=SEALED_CHUNK_BYTES_MAX as u32)
            .prop_map(|(id, length)| DepositedChunk { chunk: ChunkId::from_bytes(id), length });
        proptest::collection::vec(chunk, 1..40)
    }

    proptest! {
        #[test]
        fn round_trips(first in 0..POSITIONS_PER_AUTHOR_MAX - 40, chunks in chunks()) {
            let deposit = Deposit { first, chunks };
            prop_assert_eq!(Deposit::decode(&deposit.encode()), Ok(deposit));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(deposit) = Deposit::decode(&bytes) {
                prop_assert_eq!(deposit.encode(), bytes);
            }
        }

        #[test]
        fn cut_or_extended_bodies_are_refused(chunks in chunks(), cut in 0usize..2000, extra in 1usize..50) {
            let mut body = Deposit { first: 0, chunks }.encode();
            prop_assert!(Deposit::decode(&body[..cut % body.len()]).is_err());
            body.resize(body.len() + extra, 0);
            prop_assert!(Deposit::decode(&body).is_err());
        }
    }

    #[test]
    fn limits_are_refused() {
        let entry = |length| DepositedChunk { chunk: ChunkId::from_bytes([1; 32]), length };
        let decode = |first, length| Deposit::decode(&Deposit { first, chunks: vec![entry(length)] }.encode());
        assert_eq!(decode(0, 0), Err(DepositRefused::ChunkLength(0)));
        let over = SEALED_CHUNK_BYTES_MAX as u32 + 1;
        assert_eq!(decode(0, over), Err(DepositRefused::ChunkLength(over)));
        assert_eq!(decode(u32::MAX, 1), Err(DepositRefused::TooMany));
        assert_eq!(decode(POSITIONS_PER_AUTHOR_MAX, 1), Err(DepositRefused::TooMany));
        assert!(decode(POSITIONS_PER_AUTHOR_MAX - 1, 1).is_ok());
        let mut newer = Deposit { first: 0, chunks: vec![entry(1)] }.encode();
        newer[0] = 2;
        assert_eq!(Deposit::decode(&newer), Err(DepositRefused::UnknownFormat(2)));
    }
}
