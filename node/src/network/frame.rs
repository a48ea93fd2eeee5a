//! Frames: `length (u32, little endian) ‖ tag (u8) ‖ body`. No body is read, and no memory taken for it, before its
//! length was checked against the limit of its tag and of its sender.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt};
use holdfast_protocol::limits::BULK_FRAME_BYTES_MAX;
use tokio::time::timeout;

use super::Misbehaviour;

/// Bytes before a body.
pub(super) const HEADER_BYTES: usize = 5;
/// Time for the rest of a frame once it began.
pub(super) const FRAME_DEADLINE: Duration = Duration::from_secs(30);

/// A frame as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// Why no frame came.
#[derive(Debug)]
pub(super) enum FrameEnd {
    /// The stream ended between two frames.
    Closed,
    /// The stream broke; no fault of the peer's that could be told apart from one of the path's.
    Lost,
    /// The peer is at fault.
    Misbehaved(Misbehaviour),
}

/// Reads the next frame of at most `limit` bytes; waits for its beginning for ever and for its end until the deadline.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: impl FnOnce() -> usize,
) -> Result<Frame, FrameEnd> {
    let mut header = [0; HEADER_BYTES];
    if stream.read(&mut header[..1]).await.map_err(|_| FrameEnd::Lost)? == 0 {
        return Err(FrameEnd::Closed);
    }
    let rest = async {
        stream.read_exact(&mut header[1..]).await.map_err(cut_off)?;
        let (tag, length) = parse(&header, limit())?;
        let mut body = BytesMut::zeroed(length);
        stream.read_exact(&mut body).await.map_err(cut_off)?;
        Ok(Frame { tag, body: body.freeze() })
    };
    timeout(FRAME_DEADLINE, rest).await.unwrap_or(Err(FrameEnd::Misbehaved(Misbehaviour::Stalled)))
}

fn parse(header: &[u8; HEADER_BYTES], limit: usize) -> Result<(u8, usize), FrameEnd> {
    let [a, b, c, d, tag] = *header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let limit = limit.min(BULK_FRAME_BYTES_MAX);
    if length > limit {
        let (length, limit) = (length as u64, limit as u64);
        return Err(FrameEnd::Misbehaved(Misbehaviour::Oversize { length, limit }));
    }
    Ok((tag, length))
}

fn cut_off(error: io::Error) -> FrameEnd {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameEnd::Misbehaved(Misbehaviour::Truncated),
        _ => FrameEnd::Lost,
    }
}
