//! Comparing folders of originals: names, bytes and dates.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::WalkDir;

/// What lies in a folder: each file by its path below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<PathBuf, (SystemTime, Vec<u8>)>);

impl Contents {
    /// Reads everything below `folder`.
    ///
    /// # Panics
    /// When something cannot be read.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let files = WalkDir::new(folder).into_iter().map(|entry| entry.expect("the folder can be listed"));
        let files = files.filter(|entry| entry.file_type().is_file());
        let read = files.map(|entry| {
            let modified =
                fs::metadata(entry.path()).and_then(|metadata| metadata.modified()).expect("files have dates");
            let bytes = fs::read(entry.path()).expect("the file can be read");
            let relative = entry.path().strip_prefix(folder).expect("entries lie in their folder");
            (relative.to_owned(), (modified, bytes))
        });
        Self(read.collect())
    }

    /// How many files there are.
    #[must_use]
    pub fn files(&self) -> usize {
        self.0.len()
    }

    /// The bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The files of this folder that `other` does not have.
    #[must_use]
    pub fn missing_in(&self, other: &Self) -> Vec<&Path> {
        self.0.keys().filter(|path| !other.0.contains_key(*path)).map(PathBuf::as_path).collect()
    }

    /// Panics unless every file of `part` is here with the same bytes.
    ///
    /// # Panics
    /// When one is not.
    pub fn assert_contains(&self, part: &Self) {
        for (path, (_, bytes)) in &part.0 {
            assert!(self.0.get(path).is_some_and(|(_, known)| known == bytes), "{} has other bytes", path.display());
        }
    }

    /// Panics unless `other` has the same files with the same bytes and dates; says which differ.
    ///
    /// # Panics
    /// When they differ.
    pub fn assert_equal(&self, other: &Self) {
        let mut differences = Vec::new();
        for (path, (modified, bytes)) in &self.0 {
            match other.0.get(path) {
                None => differences.push(format!("{} is missing", path.display())),
                Some((_, found)) if found != bytes => {
                    differences.push(format!("{}: {} bytes became {}", path.display(), bytes.len(), found.len()));
                }
                Some((found, _)) if found != modified => {
                    differences.push(format!("{}: dated {found:?} instead of {modified:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let extra = other.0.keys().filter(|path| !self.0.contains_key(*path));
        differences.extend(extra.map(|path| format!("{} is too many", path.display())));
        assert!(differences.is_empty(), "the folders differ:\n  {}", differences.join("\n  "));
    }
}
