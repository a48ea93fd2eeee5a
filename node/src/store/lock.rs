//! One process to a home.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use holdfast_protocol::metadata::StorageError;

use super::disk::storage_error;

/// Why a home could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works on it.
    #[error(
        "{} is in use by another holdfast process{}; talk to that one with `holdfast status`, stop it, or choose another home with --home",
        path.display(), process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, when it said so.
        process: Option<u32>,
    },
    /// The lock file could not be made.
    #[error("{}: {error}", path.display())]
    Storage {
        /// The lock file.
        path: PathBuf,
        /// Why.
        error: StorageError,
    },
}

/// The right to work on one home, held until dropped. The system takes it back when the process dies, however it dies.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl StoreLock {
    /// Takes the lock file at `path`, which is made when missing.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be made.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let storage =
            |error: std::io::Error| LockError::Storage { path: path.to_owned(), error: storage_error(&error) };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(storage)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let process = file.take(16).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::InUse { path: path.to_owned(), process });
            }
            Err(TryLockError::Error(error)) => return Err(storage(error)),
        }
        // Only a courtesy to whoever comes second; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let first = StoreLock::acquire(&path).unwrap();
        let refused = StoreLock::acquire(&path).unwrap_err();
        assert!(matches!(&refused, LockError::InUse { process, .. } if *process == Some(std::process::id())));
        assert!(refused.to_string().contains("--home"), "{refused}");
        drop(first);
        StoreLock::acquire(&path).unwrap();
    }

    #[test]
    fn a_home_that_cannot_be_written_is_reported() {
        let refused = StoreLock::acquire(Path::new("/proc/holdfast/lock")).unwrap_err();
        assert!(matches!(refused, LockError::Storage { .. }), "{refused}");
    }
}
