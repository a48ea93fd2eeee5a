//! Frames of the control stream: `length u32 ‖ tag u8 ‖ body`, little-endian, length counting the body alone.

use crate::limits::{BULK_FRAME_BYTES_MAX, CONTROL_FRAME_BYTES_MAX, HELLO_BYTES_MAX};

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 5;

/// The tags of frames.
pub mod tag {
    #![allow(missing_docs, reason = "each is the tag of the message of its name")]
    pub const HELLO: u8 = 1;
    pub const PROVE: u8 = 2;
    pub const BYE: u8 = 3;
    pub const VECTOR: u8 = 4;
    pub const WANT_ENVELOPES: u8 = 5;
    pub const ENVELOPES: u8 = 6;
    pub const FORK: u8 = 7;
    pub const HEADS: u8 = 8;
    pub const WANT_INVENTORY: u8 = 9;
    pub const INVENTORY: u8 = 10;
    pub const HAVE: u8 = 11;
    pub const ADDRESSES: u8 = 12;
}

/// Bytes that the body of a frame with `tag` may have.
#[must_use]
pub const fn body_bytes_max(tag: u8) -> usize {
    match tag {
        tag::HELLO | tag::PROVE | tag::BYE => HELLO_BYTES_MAX,
        tag::ENVELOPES | tag::FORK | tag::INVENTORY => BULK_FRAME_BYTES_MAX,
        _ => CONTROL_FRAME_BYTES_MAX,
    }
}

/// The head of a frame, its length checked against its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which message.
    pub tag: u8,
    /// Bytes of the body that follows.
    pub length: usize,
}

/// Why a frame is not read: the link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameRefused {
    /// Longer than its tag allows.
    #[error("a frame with tag {tag} and {length} bytes is longer than the {limit} allowed")]
    TooLong {
        /// Which message.
        tag: u8,
        /// Bytes claimed.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not what a peer may say before it has proved its membership.
    #[error("a frame with tag {tag} before the peer introduced itself")]
    OutOfTurn {
        /// Which message.
        tag: u8,
    },
}

impl FrameHeader {
    /// Parses the header of a frame.
    ///
    /// # Errors
    /// When the body would be longer than its tag allows.
    pub fn parse(header: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameRefused> {
        let [length @ .., tag] = *header;
        let (length, limit) = (u32::from_le_bytes(length) as usize, body_bytes_max(tag));
        if length > limit {
            return Err(FrameRefused::TooLong { tag, length, limit });
        }
        Ok(Self { tag, length })
    }
}

/// Lets a stranger's first frames in one by one: Hello, then Prove, then anything; Bye at any time. The driver keeps one
/// for each link and asks it about every header, so that nobody unproven makes it read more than 4 KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gate {
    /// Nothing came yet.
    #[default]
    ExpectHello,
    /// Hello came.
    ExpectProve,
    /// Both came; whether the proof is good is the replica's to say.
    Open,
}

impl Gate {
    /// Parses the next frame's header and moves on.
    ///
    /// # Errors
    /// When it is too long, or not what may come now.
    pub fn admit(&mut self, header: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, FrameRefused> {
        let frame = FrameHeader::parse(header)?;
        *self = match (*self, frame.tag) {
            (state, tag::BYE) => state,
            (Self::ExpectHello, tag::HELLO) => Self::ExpectProve,
            (Self::ExpectProve, tag::PROVE) | (Self::Open, _) => Self::Open,
            (_, tag) => return Err(FrameRefused::OutOfTurn { tag }),
        };
        Ok(frame)
    }
}
