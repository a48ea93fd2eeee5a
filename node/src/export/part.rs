//! A file in the making, hidden until it is whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A hidden file, which no other export writes to at the same time; removed when it is dropped unpublished.
pub(super) struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// A new one in `folder`. Nobody may use it who may not use a file of this `mode`.
    pub(super) fn new(folder: &Path, mode: u32) -> io::Result<Self> {
        let path = folder.join(hidden_name("part")?);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode | 0o600).open(&path)?;
        Ok(Self { path, file })
    }

    pub(super) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, unless another file has that.
    pub(super) fn publish(&self, path: &Path) -> io::Result<()> {
        rename_new(&self.path, path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Once it is published there is none of that name; what cannot be removed no export takes for anything.
        _ = fs::remove_file(&self.path);
    }
}

/// Renames a file, and replaces none.
#[cfg(target_os = "linux")]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;

    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_free(from, to),
        renamed => Ok(renamed?),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    rename_free(from, to)
}

/// Renames a file where there is no other: at once with a second name, where file systems have those, and else where there was
/// none a moment before.
fn rename_free(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => return fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => {}
    }
    match to.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// A name that nothing else has, and that no walk takes for a photo.
pub(super) fn hidden_name(kind: &str) -> io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!(".holdfast-{:016x}.{kind}", u64::from_le_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_replaced_where_renaming_cannot_see_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("part"), "new").unwrap();
        fs::write(path("taken"), "old").unwrap();
        assert_eq!(rename_free(&path("part"), &path("taken")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        rename_free(&path("part"), &path("free")).unwrap();
        assert_eq!((fs::read_to_string(path("taken")).unwrap(), path("part").exists()), ("old".to_owned(), false));
        assert_eq!(fs::read_to_string(path("free")).unwrap(), "new");
    }
}
