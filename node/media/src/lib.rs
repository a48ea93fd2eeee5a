//! What a photo's bytes say and show: facts, and a small picture of it.
//!
//! The bytes come from cameras, phones, downloads and attackers, and the decoders that read them are large. So they run
//! in worker processes with bounded memory and time ([`MediaPool`] starts them, [`worker::run`] is their whole
//! program); the node itself only sees bounded frames. A file that kills its worker costs one worker, not the node.
//!
//! Facts and thumbnails are pure functions of the file's bytes: two devices that import the same photo make the same
//! manifest. Only a worker that runs out of memory or time breaks this; then the facts say so.

#![allow(clippy::disallowed_methods, reason = "a driver: it waits for processes")]

mod facts;
mod frame;
mod isobmff;
mod jpeg_eighth;
mod jpeg_header;
mod pixels;
mod pool;
mod source;
mod still_exif;
mod thumbnail;
mod tiff;
mod track;
pub mod worker;

use std::path::Path;

use holdfast_protocol::manifest::{Dimensions, Facts};
use holdfast_protocol::media_type::MediaType;
pub use pool::{ExamineError, MediaPool, PendingExamination, PoolConfig, WorkerCommand};
use serde::{Deserialize, Serialize};
pub use thumbnail::THUMBNAIL_SIDE;

/// What a file says and shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// What it says; `unreadable` names what could not be read, the other facts hold what could.
    pub facts: Facts,
    /// A small picture of it: none for videos, for formats without a decoder and for pictures too broken to show.
    pub thumbnail: Option<ThumbnailImage>,
}

/// A thumbnail's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailImage {
    /// The file's bytes, at most [`holdfast_protocol::limits::THUMBNAIL_BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// Its size in pixels; orientation is already applied.
    pub dimensions: Dimensions,
    /// Its format.
    pub media: MediaType,
}

/// Examines a file in this very process, without bounds on time and memory: for tests, benchmarks and the worker.
///
/// # Errors
/// Fails only when the file can't be opened or read; what is wrong with its content is in the facts.
pub fn examine_here(path: &Path, media: MediaType) -> std::io::Result<Examination> {
    let mut source = source::Source::open(path, media)?;
    let facts = facts::read_facts(&mut source)?;
    thumbnail::complete(&mut source, facts)
}
