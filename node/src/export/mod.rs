//! Originals, byte for byte, back in folders.
//!
//! Invariants:
//! - A file appears under its name only when all its bytes are there, hash to what was imported and are on the disk.
//! - Nothing that is there already is overwritten: equal files are left alone, which makes an export resumable, and
//!   other ones keep their name while the export takes `name (2).jpg`.
//! - Names come from members of the library and may be hostile: they never lead out of the directory.

#![allow(clippy::disallowed_methods, reason = "a driver: it writes files with their dates")]

mod name;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::manifest::{Content, Manifest, ManifestRefused};
use holdfast_protocol::sealing::{ChunkSealer, OpenError};

use crate::ingest::FileName;

/// Different files that may claim one name.
const NAMESAKES_MAX: u32 = 10_000;
const READ_BYTES: usize = 1 << 20;

/// What became of a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// It was written.
    Written {
        /// Where it is.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
    },
    /// The same file was there already.
    AlreadyThere {
        /// Where it is.
        path: PathBuf,
    },
}

/// Why a photo was not exported. `E` is what the source of the chunks says.
#[derive(Debug, thiserror::Error)]
pub enum ExportError<E: std::error::Error + 'static> {
    /// A chunk is not to be had.
    #[error("{name} was not exported: {error}")]
    Chunk {
        /// The file's name in the library.
        name: String,
        /// What the source says.
        error: E,
    },
    /// A chunk cannot be opened.
    #[error("{name} was not exported: {error}")]
    Sealed {
        /// The file's name in the library.
        name: String,
        /// Why not.
        error: OpenError,
    },
    /// Its manifest cannot be used.
    #[error("{name} was not exported: {error}")]
    Manifest {
        /// The file's name in the library.
        name: String,
        /// Why not.
        error: ManifestRefused,
    },
    /// Its chunks do not form the file that was imported.
    #[error("{name} was not exported: its bytes are not those that were imported; export it from another device")]
    Damaged {
        /// The file's name in the library.
        name: String,
    },
    /// Too many other files have its name.
    #[error("{name} was not exported: too many other files have its name; export to an empty folder")]
    Namesakes {
        /// The file's name in the library.
        name: String,
    },
    /// The file system refuses.
    #[error("cannot write {}: {error}; make room or choose another folder and export again", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// An export into one directory.
#[derive(Debug)]
pub struct Export {
    directory: PathBuf,
    sealer: ChunkSealer,
    sealed: Vec<u8>,
}

impl Export {
    /// An export into `directory`, which is made when missing.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(directory: &Path, sealer: ChunkSealer) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), sealer, sealed: Vec::new() })
    }

    /// Writes the photo whose first manifest chunk is `manifest` under `name`, below the watched folder's own name.
    /// `read` puts the sealed bytes of a chunk into the buffer.
    ///
    /// # Errors
    /// See [`ExportError`]; then nothing was left behind.
    pub fn photo<E: std::error::Error + 'static>(
        &mut self,
        manifest: &ChunkId,
        name: &FileName,
        mut read: impl FnMut(&ChunkId, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Exported, ExportError<E>> {
        let content = self.manifest(manifest, name, &mut read)?.content;
        let wanted = self.directory.join(name::relative(name));
        let target = match self.target(&wanted, &content, name)? {
            Target::Free(path) => path,
            Target::Same(path) => return Ok(Exported::AlreadyThere { path }),
        };
        let parent = target.parent().unwrap_or(&self.directory);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ExportError::Write { path, error }
        };
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let (part, file) = new_part(parent)?;
        let outcome = self.write((&part, file), &content, name, &mut read);
        let outcome = outcome.and_then(|()| fs::rename(&part, &target).map_err(failed(&target)));
        if let Err(error) = outcome {
            // What cannot be removed is a hidden file that no export takes for anything.
            _ = fs::remove_file(&part);
            return Err(error);
        }
        Ok(Exported::Written { path: target, bytes: content.length })
    }

    fn manifest<E: std::error::Error + 'static>(
        &mut self,
        manifest: &ChunkId,
        name: &FileName,
        read: &mut impl FnMut(&ChunkId, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Manifest, ExportError<E>> {
        let mut failure = None;
        let refused = |error| ExportError::Manifest { name: name.path.clone(), error };
        read(manifest, &mut self.sealed).map_err(|error| ExportError::Chunk { name: name.path.clone(), error })?;
        let opened = self.sealer.open(manifest, &self.sealed).map_err(|error| refused(error.into()))?;
        let parsed = Manifest::parse(&opened, |chunk| {
            if let Err(error) = read(chunk, &mut self.sealed) {
                failure = Some(error);
                return Err(ManifestRefused::Incomplete { chunk: *chunk });
            }
            Ok(self.sealer.open(chunk, &self.sealed)?)
        });
        match failure {
            Some(error) => Err(ExportError::Chunk { name: name.path.clone(), error }),
            None => parsed.map_err(refused),
        }
    }

    /// The first name for the file that is free, or taken by the very same file.
    fn target<E: std::error::Error + 'static>(
        &self,
        wanted: &Path,
        content: &Content,
        name: &FileName,
    ) -> Result<Target, ExportError<E>> {
        for number in 1..=NAMESAKES_MAX {
            let path = name::numbered(wanted, number);
            match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Target::Free(path)),
                Err(error) => return Err(ExportError::Write { path, error }),
                Ok(metadata) if metadata.is_file() && metadata.len() == content.length => {
                    if hash(&path).is_ok_and(|hash| hash == content.hash) {
                        return Ok(Target::Same(path));
                    }
                }
                Ok(_) => {}
            }
        }
        Err(ExportError::Namesakes { name: name.path.clone() })
    }

    fn write<E: std::error::Error + 'static>(
        &mut self,
        (part, mut file): (&Path, File),
        content: &Content,
        name: &FileName,
        read: &mut impl FnMut(&ChunkId, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), ExportError<E>> {
        let failed = |error| ExportError::Write { path: part.to_owned(), error };
        let mut hasher = blake3::Hasher::new();
        for piece in &content.chunks {
            read(&piece.chunk, &mut self.sealed)
                .map_err(|error| ExportError::Chunk { name: name.path.clone(), error })?;
            let bytes = self
                .sealer
                .open(&piece.chunk, &self.sealed)
                .map_err(|error| ExportError::Sealed { name: name.path.clone(), error })?;
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(failed)?;
        }
        if *hasher.finalize().as_bytes() != content.hash {
            return Err(ExportError::Damaged { name: name.path.clone() });
        }
        file.set_modified(system_time(name.mtime_ns)).map_err(failed)?;
        file.sync_all().map_err(failed)
    }
}

enum Target {
    Free(PathBuf),
    Same(PathBuf),
}

/// A new hidden file in `folder`, which no other export writes to at the same time.
fn new_part<E: std::error::Error + 'static>(folder: &Path) -> Result<(PathBuf, File), ExportError<E>> {
    let mut random = [0; 8];
    let failed = |path: &Path, error| ExportError::Write { path: path.to_owned(), error };
    getrandom::fill(&mut random).map_err(|error| failed(folder, io::Error::other(error.to_string())))?;
    let part = folder.join(format!(".holdfast-{:016x}.part", u64::from_le_bytes(random)));
    let file = File::create_new(&part).map_err(|error| failed(&part, error))?;
    Ok((part, file))
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, blake3::Hasher::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(count) => _ = hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn system_time(mtime_ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(mtime_ns.unsigned_abs());
    let moved = if mtime_ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
