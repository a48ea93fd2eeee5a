//! Reading frames. No body is read, and no memory taken for it, before its length was checked.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::{LinkEnd, Misbehaviour};

/// What a slow path has to carry within [`PIECE_DEADLINE`]: 1 KB/s while something is on its way.
pub(super) const PIECE_BYTES: usize = 64 << 10;
const PIECE_DEADLINE: Duration = Duration::from_secs(60);

/// Why no frame came.
#[derive(Debug)]
pub(super) enum FrameEnd {
    /// The stream ended between two frames.
    Closed,
    /// The stream broke, ended within a frame, or brought nothing for long: a path that breaks and a device that is switched
    /// off look the same, and are nobody's fault.
    Lost,
    /// The peer sent what no honest one sends.
    Misbehaved(Misbehaviour),
}

/// Reads the next frame with a header of `N` bytes, which `parse` checks and turns into what it says and the length of
/// the body. Waits for its beginning for ever, and for its rest as long as it comes.
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
    read_exact(stream, &mut header[1..]).await?;
    let (head, length) = parse(&header).map_err(FrameEnd::Misbehaved)?;
    let mut body = BytesMut::zeroed(length);
    read_exact(stream, &mut body).await?;
    Ok((head, body.freeze()))
}

/// Reads a body of at most `limit` bytes behind its length (`u32`, little endian): what is said once on a stream.
pub(super) async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, limit: usize) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = BytesMut::zeroed(length);
    stream.read_exact(&mut body).await?;
    Ok(body.freeze())
}

/// Fills `buffer`, however long it takes, as long as something comes.
pub(super) async fn read_exact<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut [u8]) -> Result<(), FrameEnd> {
    for piece in buffer.chunks_mut(PIECE_BYTES) {
        match timeout(PIECE_DEADLINE, stream.read_exact(piece)).await {
            Ok(read) => read.map_err(|_| FrameEnd::Lost)?,
            Err(_) => return Err(FrameEnd::Lost),
        }
    }
    Ok(())
}

/// Writes `bytes`, however long it takes, as long as the peer takes something.
pub(super) async fn write_all<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), LinkEnd> {
    for piece in bytes.chunks(PIECE_BYTES) {
        match timeout(PIECE_DEADLINE, stream.write_all(piece)).await {
            Ok(written) => written.map_err(|_| LinkEnd::Lost)?,
            Err(_) => return Err(LinkEnd::TooSlow),
        }
    }
    Ok(())
}

/// Sends on what was written.
pub(super) async fn flush<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), LinkEnd> {
    match timeout(PIECE_DEADLINE, stream.flush()).await {
        Ok(flushed) => flushed.map_err(|_| LinkEnd::Lost),
        Err(_) => Err(LinkEnd::TooSlow),
    }
}
