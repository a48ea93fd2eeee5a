//! A file under examination.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use holdfast_protocol::media_type::MediaType;

/// A still that is larger is not taken into memory; nothing is read from it but its head.
const STILL_BYTES_MAX: u64 = 192 << 20;
/// Bytes of a TIFF-based file that are looked at first: its directories usually lie in front.
const TIFF_HEAD_BYTES: u64 = 1 << 20;

/// An open file and what of it is in memory.
pub(super) struct Source {
    file: File,
    pub(super) length: u64,
    pub(super) media: MediaType,
    whole: Option<Vec<u8>>,
}

impl Source {
    pub(super) fn open(path: &Path, media: MediaType) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a file"));
        }
        Ok(Self { file, length: metadata.len(), media, whole: None })
    }

    /// The whole file, read once; nothing when it is too large to be a still.
    pub(super) fn whole(&mut self) -> io::Result<Option<&[u8]>> {
        if self.whole.is_none() && self.length <= STILL_BYTES_MAX {
            self.whole = Some(self.range(0, self.length)?);
        }
        Ok(self.whole.as_deref())
    }

    /// The beginning of a TIFF-based file.
    pub(super) fn head(&mut self) -> io::Result<Vec<u8>> {
        self.range(0, TIFF_HEAD_BYTES)
    }

    /// Whether `head` is all there is.
    pub(super) fn is_all_head(&self) -> bool {
        self.length <= TIFF_HEAD_BYTES
    }

    /// At most `length` bytes from `offset`, fewer where the file ends.
    pub(super) fn range(&mut self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(offset))?;
        let available = self.length.saturating_sub(offset).min(length);
        let mut bytes = Vec::with_capacity(usize::try_from(available).unwrap_or(0));
        (&self.file).take(available).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The file from its start, buffered.
    pub(super) fn reader(&mut self) -> io::Result<BufReader<&File>> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::with_capacity(64 << 10, &self.file))
    }
}
