//! Files that only their owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The largest secret.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Why a secret was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system refused.
    #[error("cannot use {}: {error}", path.display())]
    Failed {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others can read it.
    #[error("{} can be read by other users (mode {mode:03o}); run `chmod 600` on it, and if others use this machine \
        remove this device from the library", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is far larger than a secret can be.
    #[error("{} is {bytes} bytes long, which is no secret of Holdfast; restore it from a backup", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
}

impl SecretError {
    /// Whether the file does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Failed { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |error| SecretError::Failed { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong { path: path.to_owned(), bytes: metadata.len() });
    }
    // Room for the whole file, so that growing the buffer leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    (&mut file).take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    replace(path, bytes).map_err(|error| SecretError::Failed { path: path.to_owned(), error })
}

/// Replaces a file whole and durably; only its owner can read it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // What an earlier attempt left behind may have other permissions.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}
