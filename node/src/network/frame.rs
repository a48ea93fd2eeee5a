//! Reading frames. No body is read, and no memory taken for it, before its length was checked.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::Misbehaviour;

/// Time for the rest of a frame once it began.
pub(super) const FRAME_DEADLINE: Duration = Duration::from_secs(30);

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

/// Reads the next frame with a header of `N` bytes, which `parse` checks and turns into what it says and the length of
/// the body. Waits for its beginning for ever and for its end until the deadline.
pub(super) async fn read<S, H, const N: usize>(
    stream: &mut S,
    parse: impl FnOnce(&[u8; N]) -> Result<(H, usize), Misbehaviour>,
) -> Result<(H, Bytes), FrameEnd>
where
    S: AsyncRead + Unpin,
{
    let mut header = [0; N];
    if stream.read(&mut header[..1]).await.map_err(|_| FrameEnd::Lost)? == 0 {
        return Err(FrameEnd::Closed);
    }
    let rest = async {
        stream.read_exact(&mut header[1..]).await.map_err(cut_off)?;
        let (head, length) = parse(&header).map_err(FrameEnd::Misbehaved)?;
        let mut body = BytesMut::zeroed(length);
        stream.read_exact(&mut body).await.map_err(cut_off)?;
        Ok((head, body.freeze()))
    };
    timeout(FRAME_DEADLINE, rest).await.unwrap_or(Err(FrameEnd::Misbehaved(Misbehaviour::Stalled)))
}

fn cut_off(error: io::Error) -> FrameEnd {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameEnd::Misbehaved(Misbehaviour::Truncated),
        _ => FrameEnd::Lost,
    }
}
