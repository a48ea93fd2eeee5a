//! What node and worker say to each other over the worker's standard input and output.
//!
//! Each frame is a length (u32, little-endian) and as many bytes. Per request the worker answers twice: first with
//! the facts, so that they survive a picture that kills it, then with the thumbnail.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use holdfast_protocol::codec;
use holdfast_protocol::limits::THUMBNAIL_BYTES_MAX;
use holdfast_protocol::manifest::Facts;
use holdfast_protocol::media_type::MediaType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ThumbnailImage;

/// Bytes of a frame: a thumbnail, or a request whose path is as long as systems allow, and what goes around it.
const FRAME_BYTES_MAX: usize = THUMBNAIL_BYTES_MAX + (4 << 10);

/// The first frame to a worker: its bounds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bounds {
    /// Bytes of address space.
    pub(super) memory_bytes_max: u64,
    /// Milliseconds for one file.
    pub(super) time_ms_max: u64,
}

/// A file to examine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    path: Vec<u8>,
    pub(super) media: MediaType,
}

/// The answers to one request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// What the file says; a `Picture` follows.
    Facts(Facts),
    /// What it shows, and the facts once more if the picture's state changed them. The last answer.
    Picture { thumbnail: Option<ThumbnailImage>, facts: Option<Facts> },
    /// The file could not be read at all: the system's error. The last answer.
    NoFile { kind: FileFault, message: String },
}

/// Why a file could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FileFault {
    /// It is not there any more.
    Gone,
    /// The system refuses.
    NotAllowed,
    /// Anything else.
    Other,
}

impl Request {
    pub(super) fn new(path: &Path, media: MediaType) -> Self {
        #[cfg(unix)]
        let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
        #[cfg(not(unix))]
        let path = path.to_string_lossy().into_owned().into_bytes();
        Self { path, media }
    }

    pub(super) fn path(&self) -> PathBuf {
        #[cfg(unix)]
        return <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&self.path).into();
        #[cfg(not(unix))]
        String::from_utf8_lossy(&self.path).into_owned().into()
    }
}

/// Writes one frame and flushes.
pub(super) fn write(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let body = codec::encode(value);
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&body);
    to.write_all(&frame)?;
    to.flush()
}

/// Reads one frame; `None` at the end of the stream.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if let Err(error) = from.read_exact(&mut length) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let value = codec::decode(&body, FRAME_BYTES_MAX);
    value.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
