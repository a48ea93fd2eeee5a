//! Deposits: the clear body that gives chunks their positions, and is what authorises a keeper to store them.
//!
//! Layout: `format u8 = 1 ‖ first u32 ‖ count u16 ‖ runs u16 ‖ count × (chunk id 32 ‖ sealed length u32) ‖ runs × (place u16 ‖
//! class u16)`, little-endian; the places of runs ascend. A deposit that does not begin where its author's last one ended, or cannot be decoded, gives no positions at all: every
//! replica judges it by the author's chain alone, and so every replica judges alike.

use crate::id::ChunkId;
use crate::limits::{DEPOSIT_ENTRIES_MAX, SEALED_CHUNK_BYTES_MAX};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 9;
const ENTRY_BYTES: usize = 36;
const START_BYTES: usize = 4;

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

/// By which rules the chunks of a run are kept, in the clear: so that whoever holds no key places, counts and releases whole
/// photos. What a number above 0 stands for, the library's members say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunClass(pub u16);

impl RunClass {
    /// A photo that the library's own rules hold for.
    pub const PHOTO: Self = Self(0);
    /// What an envelope names, as long as that counts; no photo.
    pub const LOG: Self = Self(u16::MAX);
}

/// Where a run begins: it ends where the next one does, which may be in the author's next deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunStart {
    /// The place of its first chunk among the deposit's.
    pub at: u16,
    /// By which rules it is kept.
    pub class: RunClass,
}

/// Chunks in consecutive positions from `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// The position of the first chunk.
    pub first: u32,
    /// The chunks, at most [`DEPOSIT_ENTRIES_MAX`].
    pub chunks: Vec<DepositedChunk>,
    /// The runs that begin in it, ascending. Chunks before the first one belong to a run of the author's last deposit.
    pub runs: Vec<RunStart>,
}

/// A run that is to be deposited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// By which rules it is kept.
    pub class: RunClass,
    /// Its chunks, at least one.
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
    /// The deposits that give the chunks of `runs` consecutive positions from `first`.
    pub(crate) fn of_runs(first: u32, runs: &[NewRun]) -> Vec<Self> {
        let mut deposits: Vec<Self> = Vec::new();
        let mut next = first;
        for run in runs {
            for (offset, chunk) in run.chunks.iter().enumerate() {
                let deposit = match deposits.last_mut() {
                    Some(last) if last.chunks.len() < DEPOSIT_ENTRIES_MAX => last,
                    _ => deposits.push_mut(Self { first: next, chunks: Vec::new(), runs: Vec::new() }),
                };
                if offset == 0 {
                    // Below DEPOSIT_ENTRIES_MAX.
                    deposit.runs.push(RunStart { at: deposit.chunks.len() as u16, class: run.class });
                }
                deposit.chunks.push(*chunk);
                next += 1;
            }
        }
        deposits
    }

    /// The body of an envelope of kind Deposit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!((1..=DEPOSIT_ENTRIES_MAX).contains(&self.chunks.len()));
        let lists = self.chunks.len() * ENTRY_BYTES + self.runs.len() * START_BYTES;
        let mut body = Vec::with_capacity(HEADER_BYTES + lists);
        body.push(FORMAT);
        body.extend(self.first.to_le_bytes());
        body.extend((self.chunks.len() as u16).to_le_bytes());
        body.extend((self.runs.len() as u16).to_le_bytes());
        for entry in &self.chunks {
            body.extend(entry.chunk.as_bytes());
            body.extend(entry.length.to_le_bytes());
        }
        for run in &self.runs {
            body.extend(run.at.to_le_bytes());
            body.extend(run.class.0.to_le_bytes());
        }
        body
    }

    /// Decodes the body of an envelope of kind Deposit.
    ///
    /// # Errors
    /// When it is malformed or over a limit.
    pub fn decode(body: &[u8]) -> Result<Self, DepositRefused> {
        let (header, lists) = body.split_first_chunk::<HEADER_BYTES>().ok_or(DepositRefused::Malformed)?;
        let [format, first @ .., count_low, count_high, runs_low, runs_high] = *header;
        if format != FORMAT {
            return Err(DepositRefused::UnknownFormat(format));
        }
        let first = u32::from_le_bytes(first);
        let count = usize::from(u16::from_le_bytes([count_low, count_high]));
        let run_count = usize::from(u16::from_le_bytes([runs_low, runs_high]));
        if count == 0 || count > DEPOSIT_ENTRIES_MAX || lists.len() != count * ENTRY_BYTES + run_count * START_BYTES {
            return Err(DepositRefused::Malformed);
        }
        if first.checked_add(count as u32).is_none_or(|end| end > POSITIONS_PER_AUTHOR_MAX) {
            return Err(DepositRefused::TooMany);
        }
        let (entries, starts) = lists.split_at(count * ENTRY_BYTES);
        let chunks = entries.as_chunks::<ENTRY_BYTES>().0.iter().map(decode_entry).collect::<Result<_, _>>()?;
        let runs: Vec<RunStart> = starts.as_chunks::<START_BYTES>().0.iter().map(decode_start).collect();
        let is_ascending = runs.is_sorted_by(|one, next| one.at < next.at);
        let is_inside = runs.last().is_none_or(|last| usize::from(last.at) < count);
        // Nothing comes before an author's first run.
        let begins = first > 0 || runs.first().is_some_and(|run| run.at == 0);
        if !is_ascending || !is_inside || !begins {
            return Err(DepositRefused::Malformed);
        }
        Ok(Self { first, chunks, runs })
    }
}

fn decode_start(start: &[u8; START_BYTES]) -> RunStart {
    let [at_low, at_high, class_low, class_high] = *start;
    RunStart { at: u16::from_le_bytes([at_low, at_high]), class: RunClass(u16::from_le_bytes([class_low, class_high])) }
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

    fn run(chunks: Vec<DepositedChunk>) -> NewRun {
        NewRun { class: RunClass::PHOTO, chunks }
    }

    fn one(first: u32, run: NewRun) -> Deposit {
        let mut deposits = Deposit::of_runs(first, &[run]);
        assert_eq!(deposits.len(), 1);
        deposits.remove(0)
    }

    proptest! {
        #[test]
        fn round_trips(
            first in 0..POSITIONS_PER_AUTHOR_MAX - 400,
            runs in proptest::collection::vec((any::<u16>(), chunks()), 1..10),
        ) {
            let runs: Vec<_> = runs.into_iter().map(|(class, chunks)| NewRun { class: RunClass(class), chunks }).collect();
            for deposit in Deposit::of_runs(first, &runs) {
                prop_assert_eq!(Deposit::decode(&deposit.encode()), Ok(deposit));
            }
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(deposit) = Deposit::decode(&bytes) {
                prop_assert_eq!(deposit.encode(), bytes);
            }
        }

        #[test]
        fn cut_or_extended_bodies_are_refused(chunks in chunks(), cut in 0usize..2000, extra in 1usize..50) {
            let mut body = one(0, run(chunks)).encode();
            prop_assert!(Deposit::decode(&body[..cut % body.len()]).is_err());
            body.resize(body.len() + extra, 0);
            prop_assert!(Deposit::decode(&body).is_err());
        }
    }

    fn entry(length: u32) -> DepositedChunk {
        DepositedChunk { chunk: ChunkId::from_bytes([1; 32]), length }
    }

    #[test]
    fn a_run_goes_on_in_the_next_deposit() {
        let runs = [(1, 2), (7, DEPOSIT_ENTRIES_MAX), (0, 1)]
            .map(|(class, chunks)| NewRun { class: RunClass(class), chunks: vec![entry(9); chunks] });
        let deposits = Deposit::of_runs(5, &runs);
        let shapes: Vec<_> = deposits
            .iter()
            .map(|of| (of.first, of.chunks.len(), of.runs.iter().map(|run| (run.at, run.class.0)).collect::<Vec<_>>()))
            .collect();
        let full = DEPOSIT_ENTRIES_MAX;
        assert_eq!(shapes, [(5, full, vec![(0, 1), (2, 7)]), (5 + full as u32, 3, vec![(2, 0)])]);
    }

    #[test]
    fn runs_that_are_not_in_the_deposit_or_not_in_order_are_refused() {
        let decode = |first, starts: &[u16]| {
            let runs = starts.iter().map(|at| RunStart { at: *at, class: RunClass::LOG }).collect();
            Deposit::decode(&Deposit { first, chunks: vec![entry(1); 3], runs }.encode())
        };
        for (first, starts) in [(0, &[0, 2][..]), (9, &[1]), (9, &[])] {
            assert!(decode(first, starts).is_ok(), "{first} {starts:?}");
        }
        for (first, starts) in [(0, &[1][..]), (0, &[]), (9, &[1, 1]), (9, &[2, 1]), (9, &[3])] {
            assert_eq!(decode(first, starts), Err(DepositRefused::Malformed), "{first} {starts:?}");
        }
    }

    #[test]
    fn limits_are_refused() {
        let decode = |first, length| Deposit::decode(&one(first, run(vec![entry(length)])).encode());
        assert_eq!(decode(0, 0), Err(DepositRefused::ChunkLength(0)));
        let over = SEALED_CHUNK_BYTES_MAX as u32 + 1;
        assert_eq!(decode(0, over), Err(DepositRefused::ChunkLength(over)));
        assert_eq!(decode(u32::MAX - 1, 1), Err(DepositRefused::TooMany));
        assert_eq!(decode(POSITIONS_PER_AUTHOR_MAX, 1), Err(DepositRefused::TooMany));
        assert!(decode(POSITIONS_PER_AUTHOR_MAX - 1, 1).is_ok());
        let mut newer = one(0, run(vec![entry(1)])).encode();
        newer[0] = 2;
        assert_eq!(Deposit::decode(&newer), Err(DepositRefused::UnknownFormat(2)));
    }
}
