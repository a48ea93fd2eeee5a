//! What a driver has handed to the library and not seen acknowledged: which files become final when it is.
//!
//! Invariant: a file becomes final only with the acknowledgement of the latest thing that was said of its path; an older
//! one says nothing about the file as it is now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ImportId;

/// What becomes final with an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChange {
    /// The file was taken in.
    Imported(PathBuf),
    /// The file is gone.
    Removed(PathBuf),
}

impl FileChange {
    fn path(&self) -> &Path {
        match self {
            Self::Imported(path) | Self::Removed(path) => path,
        }
    }
}

/// See the head of the module.
#[derive(Debug, Default)]
pub struct Outstanding {
    changes: BTreeMap<ImportId, FileChange>,
    latest: BTreeMap<PathBuf, ImportId>,
    next: u64,
}

/// What an acknowledgement makes final.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Files whose import is finished.
    pub finished: Vec<PathBuf>,
    /// Files to forget.
    pub forgotten: Vec<PathBuf>,
    /// How many of the acknowledged were imports.
    pub imports: usize,
}

impl Outstanding {
    /// Nothing yet; names begin with `first`.
    #[must_use]
    pub fn starting_at(first: ImportId) -> Self {
        Self { next: first.0, ..Self::default() }
    }

    /// The name that the next change gets.
    #[must_use]
    pub const fn next(&self) -> ImportId {
        ImportId(self.next)
    }

    /// A change is handed out; its name.
    pub fn add(&mut self, change: FileChange) -> ImportId {
        let import = ImportId(self.next);
        self.next += 1;
        self.latest.insert(change.path().to_owned(), import);
        self.changes.insert(import, change);
        import
    }

    /// What was said last of the file at `path` and is not acknowledged.
    #[must_use]
    pub fn latest(&self, path: &Path) -> Option<&FileChange> {
        self.changes.get(self.latest.get(path)?)
    }

    /// What the acknowledgement of `imports` makes final. Make it so in the store, then [`Outstanding::remove`] them: no
    /// walk may take for unfinished what is being finished.
    #[must_use]
    pub fn settled(&self, imports: &[ImportId]) -> Settled {
        let mut settled = Settled::default();
        for import in imports {
            let Some(change) = self.changes.get(import) else { continue };
            settled.imports += usize::from(matches!(change, FileChange::Imported(_)));
            if self.latest.get(change.path()) == Some(import) {
                match change {
                    FileChange::Imported(path) => settled.finished.push(path.clone()),
                    FileChange::Removed(path) => settled.forgotten.push(path.clone()),
                }
            }
        }
        settled
    }

    /// These are done.
    pub fn remove(&mut self, imports: &[ImportId]) {
        for import in imports {
            let Some(change) = self.changes.remove(import) else { continue };
            if self.latest.get(change.path()) == Some(import) {
                self.latest.remove(change.path());
            }
        }
    }

    /// Whether nothing is outstanding.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_word_on_a_file_makes_it_final() {
        let path = || PathBuf::from("a");
        let mut outstanding = Outstanding::default();
        let imported = outstanding.add(FileChange::Imported(path()));
        let removed = outstanding.add(FileChange::Removed(path()));
        assert_eq!(outstanding.settled(&[imported]), Settled { imports: 1, ..Settled::default() });
        outstanding.remove(&[imported]);
        assert_eq!(outstanding.latest(Path::new("a")), Some(&FileChange::Removed(path())));
        assert_eq!(outstanding.settled(&[imported, removed]).forgotten, [path()]);
        outstanding.remove(&[removed]);
        assert!(outstanding.is_empty() && outstanding.latest(Path::new("a")).is_none());
    }
}
