//! Originals, byte for byte, back in folders.
//!
//! Invariants:
//! - A file appears under its name only when all its bytes are there, hash to what was imported and are on the disk.
//! - Nothing that is there already is overwritten: equal files are left alone, which makes an export resumable, and
//!   other ones keep their name while the export takes `name (2).jpg`.
//!   It does not matter whether the file system tells `a.jpg` from `A.jpg`, or composed characters from decomposed ones.
//! - Names come from members of the library and may be hostile: they never lead out of the directory.
//! - A name is written as it was, byte for byte; only what the file system refuses is replaced.

#![allow(clippy::disallowed_methods, reason = "a driver: it writes files with their dates")]

mod attributes;
mod name;
mod part;
mod probe;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use holdfast_library::FileName;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::manifest::{Content, Manifest, ManifestRefused};
use holdfast_protocol::sealing::{ChunkSealer, OpenError};

pub use attributes::Kept;
pub(crate) use name::parts;

use attributes::Attributes;
use part::Part;
use probe::NameRules;

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
        /// Whether it has its date and mode.
        kept: Kept,
    },
    /// The same file was there already.
    AlreadyThere {
        /// Where it is.
        path: PathBuf,
        /// Whether it has its date and mode.
        kept: Kept,
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
    /// A link or a file lies where a folder is to be.
    #[error("nothing was written to {}: it is no folder but a link or a file; export to an empty folder", path.display())]
    NoFolder {
        /// What lies there.
        path: PathBuf,
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
    rules: NameRules,
    sealer: ChunkSealer,
    sealed: Vec<u8>,
    /// The folder that was found to lie in the directory last.
    checked: PathBuf,
}

impl Export {
    /// An export into `directory`, which is made when missing; finds out which names can be written there.
    ///
    /// # Errors
    /// When the directory cannot be made, or nothing can be written there.
    pub fn new(directory: &Path, sealer: ChunkSealer) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let rules = NameRules::of(directory)?;
        Ok(Self { directory: directory.to_owned(), rules, sealer, sealed: Vec::new(), checked: directory.to_owned() })
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
        let (wanted, attributes) = (self.directory.join(name::relative(name, &self.rules)), Attributes::of(name));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ExportError::Write { path, error }
        };
        let parent = wanted.parent().map_or_else(|| self.directory.clone(), Path::to_owned);
        self.check(&parent)?;
        let mut written = None;
        for _ in 0..NAMESAKES_MAX {
            let path = match self.target(&wanted, &content, name)? {
                Target::Free(path) => path,
                Target::Same(path) => {
                    let kept = attributes.repair(&path).map_err(failed(&path))?;
                    return Ok(Exported::AlreadyThere { path, kept });
                }
            };
            let part = match written.take() {
                Some(part) => part,
                None => {
                    fs::create_dir_all(&parent).map_err(failed(&parent))?;
                    self.write(&parent, &content, name, &mut read)?
                }
            };
            match part.publish(&path) {
                Ok(()) => {
                    let kept = attributes.repair(&path).map_err(failed(&path))?;
                    return Ok(Exported::Written { path, bytes: content.length, kept });
                }
                // Somebody else's file has the name since.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => written = Some(part),
                Err(error) => return Err(failed(&path)(error)),
            }
        }
        Err(ExportError::Namesakes { name: name.path.to_string() })
    }

    /// Whether a folder below the directory, as far as it is there, can be written to without leaving the directory.
    fn check<E: std::error::Error + 'static>(&mut self, folder: &Path) -> Result<(), ExportError<E>> {
        if self.checked == folder {
            return Ok(());
        }
        for ancestor in folder.ancestors().take_while(|ancestor| *ancestor != self.directory) {
            if ancestor.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
                return Err(ExportError::NoFolder { path: ancestor.to_owned() });
            }
        }
        folder.clone_into(&mut self.checked);
        Ok(())
    }

    fn manifest<E: std::error::Error + 'static>(
        &mut self,
        manifest: &ChunkId,
        name: &FileName,
        read: &mut impl FnMut(&ChunkId, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Manifest, ExportError<E>> {
        let mut failure = None;
        let refused = |error| ExportError::Manifest { name: name.path.to_string(), error };
        read(manifest, &mut self.sealed).map_err(|error| ExportError::Chunk { name: name.path.to_string(), error })?;
        let opened = self.sealer.open(manifest, &self.sealed).map_err(|error| refused(error.into()))?;
        let parsed = Manifest::parse(&opened, |chunk| {
            if let Err(error) = read(chunk, &mut self.sealed) {
                failure = Some(error);
                return Err(ManifestRefused::Incomplete { chunk: *chunk });
            }
            Ok(self.sealer.open(chunk, &self.sealed)?)
        });
        match failure {
            Some(error) => Err(ExportError::Chunk { name: name.path.to_string(), error }),
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
            let path = name::numbered(wanted, number, &self.rules);
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
        Err(ExportError::Namesakes { name: name.path.to_string() })
    }

    /// Writes all bytes of a file, durably, under a name that nobody sees.
    fn write<E: std::error::Error + 'static>(
        &mut self,
        folder: &Path,
        content: &Content,
        name: &FileName,
        read: &mut impl FnMut(&ChunkId, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Part, ExportError<E>> {
        let attributes = Attributes::of(name);
        let mut part = Part::new(folder, attributes.mode_at_first())
            .map_err(|error| ExportError::Write { path: folder.to_owned(), error })?;
        let path = part.path().to_owned();
        let failed = |error| ExportError::Write { path: path.clone(), error };
        let mut hasher = blake3::Hasher::new();
        for piece in &content.chunks {
            read(&piece.chunk, &mut self.sealed)
                .map_err(|error| ExportError::Chunk { name: name.path.to_string(), error })?;
            let bytes = self
                .sealer
                .open(&piece.chunk, &self.sealed)
                .map_err(|error| ExportError::Sealed { name: name.path.to_string(), error })?;
            hasher.update(&bytes);
            part.file().write_all(&bytes).map_err(failed)?;
        }
        if *hasher.finalize().as_bytes() != content.hash {
            return Err(ExportError::Damaged { name: name.path.to_string() });
        }
        // What cannot be kept is found out once the file has its name.
        _ = attributes.give(part.file());
        part.file().sync_all().map_err(failed)?;
        Ok(part)
    }
}

enum Target {
    Free(PathBuf),
    Same(PathBuf),
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

#[cfg(test)]
mod tests;
