//! What ingest tells the library.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::manifest::TooManyChunks;
use holdfast_protocol::metadata::StorageError;

use super::absence::MissedFolder;
use super::skip::SkipReason;
pub use holdfast_library::{FileName, ImportId, ImportedPhoto, RemovedName};

/// What happened in the watched folders.
///
/// Events about one file come in the order in which things happened to it.
#[derive(Debug)]
pub enum ImportEvent {
    /// A file's bytes are durable here as chunks. Deposit and catalogue them, then call [`super::Ingest::catalogued`];
    /// until then a restart finds the file again.
    Imported(Box<ImportedPhoto>),
    /// A file vanished from its folder: deleted, or moved after its new name was reported. The photo itself stays, only
    /// this name of it goes. Answer with [`super::Ingest::catalogued`] too.
    NameRemoved(Box<RemovedName>),
    /// Chunks that were held in place are held no more, because their file changed or went.
    ChunksLost(Vec<ChunkId>),
    /// Something needs a person's attention; everything else goes on.
    Problem(ImportProblem),
    /// Every watched folder was walked through and everything found was handed out.
    ScanFinished(ScanSummary),
    /// A watched folder is not where it was, and its very files are in another one that has become watched: it was moved.
    FolderMoved {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
    },
    /// The store knows the files of a folder that is somewhere else by their new paths.
    MoveFinished {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
    },
    /// A folder is watched no longer, and what it held is kept in the store.
    FolderLeft {
        /// The folder.
        path: PathBuf,
    },
}

/// Why something was not imported, in words for the person who can change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportProblem {
    /// A watched folder is not there. Nothing in it counts as deleted.
    #[error("{} is not there; connect its disk or create it, and Holdfast continues by itself", folder.display())]
    FolderMissing {
        /// The watched folder.
        folder: PathBuf,
    },
    /// A watched folder is empty although it held photos: most likely its disk is not mounted. Nothing counts as deleted.
    #[error("{} is empty but held {photos} photos; if its disk is not connected, connect it; nothing was removed", folder.display())]
    FolderEmptied {
        /// The watched folder.
        folder: PathBuf,
        /// Files that were known in it.
        photos: usize,
    },
    /// A folder inside is not there, or another disk lies in its place. Nothing in it counts as deleted yet.
    #[error(
        "{} is not there, with {files} photos in it; if its disk is not connected, connect it; if you deleted or moved it, \
         say so with `holdfast folders forget`, else its photos count as deleted here after a day",
        path.display()
    )]
    SubfolderMissed {
        /// The folder.
        path: PathBuf,
        /// Files that were known in it.
        files: u64,
    },
    /// A folder is to be watched no longer, and what this device holds in its files cannot be copied.
    #[error(
        "{} is not let go of yet, as photos are held nowhere else on this device: {detail}; if the disk is lost, say so with \
         `holdfast folders forget`",
        folder.display()
    )]
    FolderNotLeft {
        /// The folder.
        folder: PathBuf,
        /// What cannot be read, and why.
        detail: String,
    },
    /// Links lead to what is not taken in.
    #[error(
        "{links} links in {} are not followed, such as {}; watch the folders that they lead to, to take in what is there",
        folder.display(), example.display()
    )]
    LinksNotFollowed {
        /// The watched folder.
        folder: PathBuf,
        /// How many.
        links: u64,
        /// One of them.
        example: PathBuf,
    },
    /// Files have the name of a picture or a video, and hold none.
    #[error(
        "{files} files in {} are named like photos and hold none, such as {}; look at them: `holdfast folders --skipped` \
         lists them",
        folder.display(), example.display()
    )]
    NoPictures {
        /// The watched folder.
        folder: PathBuf,
        /// How many.
        files: u64,
        /// One of them.
        example: PathBuf,
    },
    /// A folder inside could not be listed.
    #[error("cannot look into {}: {detail}; allow this user to read it", path.display())]
    FolderUnreadable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// A file could not be read.
    #[error("cannot read {}: {detail}; allow this user to read it, or check the disk", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// A file kept changing while it was read. It is tried again later.
    #[error("{} keeps changing; it is imported once it has been left alone for a while", path.display())]
    FileChanging {
        /// The file.
        path: PathBuf,
    },
    /// The program that looks into files could not be run, so nothing is known about the photo yet.
    #[error("{} was not imported: {detail}", path.display())]
    NotExamined {
        /// The file.
        path: PathBuf,
        /// What went wrong and what helps.
        detail: String,
    },
    /// The file has more bytes than Holdfast can keep.
    #[error("{} was not imported: {error}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it is.
        #[source]
        error: TooManyChunks,
    },
    /// The store takes no more bytes; the next walk tries again.
    #[error("new photos are not imported: {0}")]
    Storage(#[source] StorageError),
    /// Changes are not noticed at once, only by the periodic walk.
    #[error("changes in {} are only noticed every {interval_minutes} minutes: {detail}", folder.display())]
    NotWatched {
        /// The watched folder.
        folder: PathBuf,
        /// Minutes between walks.
        interval_minutes: u64,
        /// What the system said, and what would help.
        detail: String,
    },
}

impl ImportProblem {
    /// Whether one file was not imported, rather than that something is wrong with a whole folder or the store.
    #[must_use]
    pub const fn is_about_a_file(&self) -> bool {
        matches!(
            self,
            Self::FileUnreadable { .. } | Self::FileChanging { .. } | Self::NotExamined { .. } | Self::TooLarge { .. }
        )
    }
}

/// What one walk through the watched folders found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Photos and videos in the folders.
    pub files: u64,
    /// Those that were already catalogued and had not changed.
    pub unchanged: u64,
    /// Those that were imported.
    pub imported: u64,
    /// Those that could not be imported.
    pub failed: u64,
    /// Names that vanished.
    pub removed: u64,
    /// Files that hold neither photo nor video.
    pub ignored: u64,
}

/// What is known of one watched folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderFiles {
    /// Photos and videos of it that were taken in, as far as it was walked through since the start.
    pub files: u64,
    /// Those that were taken in since everything was walked through last.
    pub new: u64,
    /// How many things were passed over, and why.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// Folders in it that are missed.
    pub missed: Vec<MissedFolder>,
    /// Whether it was not there itself, or showed nothing although files of it are known, when it was looked at last.
    pub is_missing: bool,
}

/// How far ingest is; a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IngestProgress {
    /// Whether a walk or imports are under way.
    pub busy: bool,
    /// Files waiting to be read, as far as the walk has come.
    pub files_waiting: u64,
    /// Their bytes.
    pub bytes_waiting: u64,
    /// Files imported since the start.
    pub files_imported: u64,
    /// Their bytes.
    pub bytes_imported: u64,
}
