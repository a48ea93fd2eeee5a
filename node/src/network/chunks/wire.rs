//! The bytes of a chunk stream.
//!
//! Request: a frame of [`TAG_FETCH`] with `request (u64) ‖ flags (u8) ‖ chunk ids`. Answer, for each chunk asked for in
//! the order asked: `request (u64) ‖ status (u8) ‖ length (u32) ‖ chunk id`, then as many bytes as `length` says.
//! Numbers are little endian.

use holdfast_protocol::{
    id::ChunkId,
    limits::{CHUNKS_PER_REQUEST_MAX, SEALED_CHUNK_BYTES_MAX},
};

use crate::network::{Answer, Misbehaviour};

/// The tag of a fetch request.
pub(super) const TAG_FETCH: u8 = 1;
/// A fetch request's body at most.
pub(super) const REQUEST_BYTES_MAX: usize = REQUEST_HEAD_BYTES + 32 * CHUNKS_PER_REQUEST_MAX;
const REQUEST_HEAD_BYTES: usize = 9;
const FLAG_URGENT: u8 = 1;

/// A request for chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FetchRequest {
    pub(super) request: u64,
    pub(super) urgent: bool,
    pub(super) chunks: Vec<ChunkId>,
}

impl FetchRequest {
    /// The request as a frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let length = REQUEST_HEAD_BYTES + 32 * self.chunks.len();
        let mut frame = Vec::with_capacity(5 + length);
        frame.extend_from_slice(&(length as u32).to_le_bytes());
        frame.push(TAG_FETCH);
        frame.extend_from_slice(&self.request.to_le_bytes());
        frame.push(if self.urgent { FLAG_URGENT } else { 0 });
        for chunk in &self.chunks {
            frame.extend_from_slice(chunk.as_bytes());
        }
        frame
    }

    /// Parses a frame; unknown flags are ignored.
    pub(super) fn decode(tag: u8, body: &[u8]) -> Result<Self, Misbehaviour> {
        let (head, ids) = body.split_at_checked(REQUEST_HEAD_BYTES).ok_or(Misbehaviour::Malformed)?;
        let (ids, rest) = ids.as_chunks::<32>();
        if tag != TAG_FETCH || !rest.is_empty() || ids.is_empty() || ids.len() > CHUNKS_PER_REQUEST_MAX {
            return Err(Misbehaviour::Malformed);
        }
        let (request, flags) = head.split_first_chunk::<8>().ok_or(Misbehaviour::Malformed)?;
        Ok(Self {
            request: u64::from_le_bytes(*request),
            urgent: flags.first().is_some_and(|flags| flags & FLAG_URGENT != 0),
            chunks: ids.iter().map(|id| ChunkId::from_bytes(*id)).collect(),
        })
    }
}

/// Bytes of an answer's head.
pub(super) const HEADER_BYTES: usize = 45;

/// The head of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    pub(super) request: u64,
    pub(super) chunk: ChunkId,
    pub(super) answer: Answer,
    /// Bytes that follow: zero unless the answer is [`Answer::Send`].
    pub(super) length: u32,
}

impl ChunkHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&self.request.to_le_bytes());
        header[8] = match self.answer {
            Answer::Send => 0,
            Answer::NotHeld => 1,
            Answer::Elsewhere => 2,
            Answer::Busy => 3,
        };
        header[9..13].copy_from_slice(&self.length.to_le_bytes());
        header[13..].copy_from_slice(self.chunk.as_bytes());
        header
    }

    pub(super) fn decode(header: &[u8; HEADER_BYTES]) -> Result<Self, Misbehaviour> {
        let [request @ .., _, _, _, _, _] = header.first_chunk::<13>().ok_or(Misbehaviour::Malformed)?;
        let [_, _, _, _, _, _, _, _, status, a, b, c, d, chunk @ ..] = header;
        let answer = match status {
            0 => Answer::Send,
            1 => Answer::NotHeld,
            2 => Answer::Elsewhere,
            3 => Answer::Busy,
            _ => return Err(Misbehaviour::Malformed),
        };
        let length = u32::from_le_bytes([*a, *b, *c, *d]);
        let limit = if answer == Answer::Send { SEALED_CHUNK_BYTES_MAX } else { 0 };
        if length as usize > limit {
            return Err(Misbehaviour::Oversize { length: length.into(), limit: limit as u64 });
        }
        Ok(Self {
            request: u64::from_le_bytes(*request),
            chunk: ChunkId::from_bytes(*chunk),
            answer,
            length,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_round_trip(request: u64, urgent: bool, ids in prop::collection::vec(any::<[u8; 32]>(), 1..=64)) {
            let sent = FetchRequest { request, urgent, chunks: ids.into_iter().map(ChunkId::from_bytes).collect() };
            let frame = sent.encode();
            prop_assert_eq!(FetchRequest::decode(frame[4], &frame[5..]), Ok(sent));
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(body in prop::collection::vec(any::<u8>(), 0..2100), header: [u8; 45]) {
            if let Ok(request) = FetchRequest::decode(TAG_FETCH, &body) {
                prop_assert!(request.chunks.len() <= CHUNKS_PER_REQUEST_MAX);
            }
            if let Ok(parsed) = ChunkHeader::decode(&header) {
                prop_assert_eq!(parsed.encode(), header);
                prop_assert!(parsed.length as usize <= SEALED_CHUNK_BYTES_MAX);
            }
        }
    }
}
