//! The disk as the store sees it, so that the same code runs on a real one and on one that fails on purpose.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_protocol::metadata::StorageError;

/// What tells two states of a file apart without reading it.
///
/// The change time is the system's own: no program sets it, so an edit that puts the old modification time back is seen.
/// The inode is no part of it: a file that takes another's place has a change time of its own, and exFAT, SMB and most
/// file systems in user space number their files anew with every mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Its length in bytes.
    pub size: u64,
    /// Its modification time in nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// When its bytes, name or permissions changed, in nanoseconds since the Unix epoch; 0 where systems do not say.
    pub ctime_ns: i64,
}

impl FileStat {
    /// What `metadata` says about a file.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
            Self {
                size: metadata.len(),
                mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
                ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            }
        }
        #[cfg(not(unix))]
        {
            let mtime_ns = metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
                .and_then(|since| i64::try_from(since.as_nanos()).ok())
                .unwrap_or(0);
            Self { size: metadata.len(), mtime_ns, ctime_ns: 0 }
        }
    }
}

/// Which file it is for the system, for as long as its disk stays connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIdentity {
    /// The number of the volume where its identifier is known, else of the device.
    pub device: u64,
    /// The file's number in it; both are 0 where systems do not say.
    pub inode: u64,
}

impl FileIdentity {
    /// Which file or folder `metadata` is of.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Self { device: metadata.dev(), inode: metadata.ino() }
        }
        #[cfg(not(unix))]
        {
            _ = metadata;
            Self::default()
        }
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    Write,
    /// Reading and writing; the file must not exist.
    Create,
}

/// A directory tree. Paths are whatever the implementation takes for one.
pub trait Disk: Send + Sync {
    /// Opens or creates the file at `path`.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// The files and folders in `directory`, in any order; empty when there is no such directory.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates `directory` and what leads to it, where they are missing.
    ///
    /// # Errors
    /// What the system says.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;

    /// Renames a file over whatever is at `to`.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in `directory` durable.
    ///
    /// # Errors
    /// What the system says; what was done since the last success is then in doubt.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Bytes that may still be written below `directory`.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
}

/// An open file. Offsets are bytes from its start; there is no cursor, so one handle serves many threads.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file or when interrupted.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `parts`, one behind the other, growing the file where needed.
    ///
    /// # Errors
    /// What the system says; any part of the bytes may then have been written.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// What the system says; everything written since the last success is then in doubt.
    fn sync(&self) -> io::Result<()>;

    /// Gives the space of a range back; it reads as zeros. Where the system cannot, nothing happens.
    ///
    /// # Errors
    /// What the system says.
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Cuts the file off, or extends it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// The file's size and dates.
    ///
    /// # Errors
    /// What the system says.
    fn stat(&self) -> io::Result<FileStat>;

    /// Fills `buffer`, or fails with [`io::ErrorKind::UnexpectedEof`].
    ///
    /// # Errors
    /// What the system says.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The consequence of a system error, told apart by what the person or the node can do about it.
#[must_use]
pub fn storage_error(error: &io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => StorageError::Full,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StorageError::ReadOnly { detail: error.to_string() }
        }
        _ => StorageError::Failed { detail: error.to_string() },
    }
}
