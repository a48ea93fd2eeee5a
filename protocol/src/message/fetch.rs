//! Chunk streams: one side asks, the other answers each chunk with a header and, when it sends it, the bytes.
//!
//! A request is `length u32 ‖ body`; a header has a fixed size. Answers come in the order of the request. A chunk's bytes
//! are checked by the asker against the id that it asked for; any length within a chunk's bounds may hash to it, whatever
//! its depositors claim.

use serde::{Deserialize, Serialize};

use super::{MessageRefused, at_most};
use crate::codec;
use crate::id::{ChunkId, DeviceId};
use crate::limits::{CHUNKS_PER_REQUEST_MAX, SEALED_CHUNK_BYTES_MAX};

/// Bytes of an encoded request's body at most.
pub const FETCH_REQUEST_BYTES_MAX: usize = 16 + CHUNKS_PER_REQUEST_MAX * 32;
/// Bytes of an encoded chunk header, always.
pub const CHUNK_HEADER_BYTES: usize = 8 + 32 + 1 + 4 + 32;

/// Asks for chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// The asker's number for it.
    pub request: u64,
    /// Whether to send even what others have already got from the listener.
    pub urgent: bool,
    /// The chunks in the order in which they are wanted, at most [`CHUNKS_PER_REQUEST_MAX`].
    pub chunks: Vec<ChunkId>,
}

impl FetchRequest {
    /// The request with its length before it.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let body = codec::encode(self);
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend((body.len() as u32).to_le_bytes());
        frame.extend(body);
        frame
    }

    /// Checks a request's claimed length; the body is read only then.
    ///
    /// # Errors
    /// When it is over the limit.
    pub fn body_length(prefix: [u8; 4]) -> Result<usize, MessageRefused> {
        let length = u32::from_le_bytes(prefix) as usize;
        at_most(length, FETCH_REQUEST_BYTES_MAX)?;
        Ok(length)
    }

    /// Decodes a request's body.
    ///
    /// # Errors
    /// When it is malformed, empty or asks for too many chunks.
    pub fn decode(body: &[u8]) -> Result<Self, MessageRefused> {
        let request: Self = codec::decode(body, FETCH_REQUEST_BYTES_MAX)?;
        at_most(request.chunks.len(), CHUNKS_PER_REQUEST_MAX)?;
        if request.chunks.is_empty() { Err(MessageRefused::Malformed) } else { Ok(request) }
    }
}

/// Why a peer did not send a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// It does not hold it.
    NotHeld,
    /// This peer has got it from the speaker already: ask there first.
    Elsewhere(DeviceId),
    /// It cannot read it just now.
    Busy,
}

/// What follows a chunk header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchStatus {
    /// The chunk's bytes, this many.
    Sent {
        /// Sealed bytes that follow.
        length: u32,
    },
    /// Nothing.
    Declined(Declined),
}

/// The answer for one chunk. Layout: `request u64 ‖ chunk 32 ‖ status u8 ‖ length u32 ‖ device 32`; what a status does not
/// use is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The asker's number of the request.
    pub request: u64,
    /// Which chunk.
    pub chunk: ChunkId,
    /// What follows.
    pub status: FetchStatus,
}

impl ChunkHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let (status, length, device) = match self.status {
            FetchStatus::Sent { length } => (0, length, [0; 32]),
            FetchStatus::Declined(Declined::NotHeld) => (1, 0, [0; 32]),
            FetchStatus::Declined(Declined::Elsewhere(device)) => (2, 0, *device.as_bytes()),
            FetchStatus::Declined(Declined::Busy) => (3, 0, [0; 32]),
        };
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.request.to_le_bytes());
        bytes[8..40].copy_from_slice(self.chunk.as_bytes());
        bytes[40] = status;
        bytes[41..45].copy_from_slice(&length.to_le_bytes());
        bytes[45..].copy_from_slice(&device);
        bytes
    }

    /// Decodes a header; the length it announces is within a chunk's bounds.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Result<Self, MessageRefused> {
        let (request, rest) = bytes.split_first_chunk::<8>().ok_or(MessageRefused::Malformed)?;
        let (chunk, rest) = rest.split_first_chunk::<32>().ok_or(MessageRefused::Malformed)?;
        let (&[status], rest) = rest.split_first_chunk::<1>().ok_or(MessageRefused::Malformed)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(MessageRefused::Malformed)?;
        let (device, _) = rest.split_first_chunk::<32>().ok_or(MessageRefused::Malformed)?;
        let status = match (status, u32::from_le_bytes(*length), device) {
            (0, length, [0, ..]) if length > 0 => {
                at_most(length as usize, SEALED_CHUNK_BYTES_MAX)?;
                FetchStatus::Sent { length }
            }
            (1, 0, _) => FetchStatus::Declined(Declined::NotHeld),
            (2, 0, device) => FetchStatus::Declined(Declined::Elsewhere(DeviceId::from_bytes(*device))),
            (3, 0, _) => FetchStatus::Declined(Declined::Busy),
            _ => return Err(MessageRefused::Malformed),
        };
        let header = Self { request: u64::from_le_bytes(*request), chunk: ChunkId::from_bytes(*chunk), status };
        if header.encode() == *bytes { Ok(header) } else { Err(MessageRefused::Malformed) }
    }
}
