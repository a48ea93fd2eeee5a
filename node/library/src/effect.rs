//! What happens to a library, and what it asks of its driver.

use holdfast_crdt::DocumentId;
use holdfast_protocol::id::{AuthorId, ChunkId, DeviceId};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::replica::{self, TaskId};

use super::import::{ImportId, ImportedPhoto, RemovedName};
use crate::index::IndexChange;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// Something for the replica.
    Replica(replica::Input),
    /// A file's bytes are durable as chunks.
    Imported(Box<ImportedPhoto>),
    /// A file went from its folder; the photo stays.
    NameRemoved(Box<RemovedName>),
    /// The sealed bytes asked for by [`Effect::ReadChunk`]; `None` when they cannot be read.
    ChunkRead {
        /// Which request.
        task: TaskId,
        /// The sealed bytes.
        bytes: Option<Vec<u8>>,
    },
    /// The metadata flush asked for by [`Effect::Flush`] succeeded.
    Flushed(TaskId),
    /// The index durably holds all changes up to this version.
    Indexed(u64),
}

/// Something for the driver to do.
#[derive(Debug)]
pub enum Effect {
    /// Something that the replica asks for. Never `Accepted` or `HoldingsChanged`: the library consumes those.
    Replica(replica::Effect),
    /// Read a chunk from the store; answered by [`Input::ChunkRead`].
    ReadChunk {
        /// Names the request.
        task: TaskId,
        /// Which chunk.
        chunk: ChunkId,
    },
    /// Bring the index up to `version` with these changes; answered by [`Input::Indexed`].
    ///
    /// The metadata as it is now is flushed first: otherwise a crash could leave an index that shows what the logs never
    /// said, and nothing would take that out of it.
    Index {
        /// Counts batches of changes; never goes back.
        version: u64,
        /// The changes.
        changes: Vec<IndexChange>,
    },
    /// Flush the metadata; answered by [`Input::Flushed`].
    Flush(TaskId),
    /// These imports are catalogued, durably.
    Catalogued(Vec<ImportId>),
    /// What [`super::Library::edit_photos`] or [`super::Library::name_album`] wrote under this task is durable.
    Edited(TaskId),
    /// News.
    Event(Event),
}

/// News for people and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Photos of another device became known.
    PhotosReceived {
        /// Whose log told of them.
        author: AuthorId,
        /// How many.
        photos: u64,
    },
    /// This device's log could not go on, because peers know another or a later version of it: it continues as another.
    AuthorContinued {
        /// The author that is used no more.
        retired: AuthorId,
        /// The one that is used from now on.
        author: AuthorId,
    },
    /// A device joined, left or moved.
    MembershipChanged {
        /// Which device's statement it was.
        device: DeviceId,
    },
    /// A change of the catalog was refused; its author's further changes of that document are left out.
    ChangeRefused {
        /// Who signed it.
        author: AuthorId,
        /// Where.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// What is cached of the catalog was damaged, and was made again from the logs.
    Rebuilt {
        /// Which document; `None` when it was the whole catalog.
        document: Option<DocumentId>,
    },
    /// A body could not be opened or decoded.
    BodyUnreadable {
        /// Who signed it.
        author: AuthorId,
        /// Its number.
        seq: u64,
        /// Why.
        reason: String,
    },
}

/// Why a library stopped working. Nothing was acknowledged that is not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// This device's log cannot be written.
    #[error(transparent)]
    Append(#[from] replica::AppendError),
    /// The catalog refused what this device itself wrote: a defect of this version.
    #[error("the catalog refused this device's own change: {0}; please report this")]
    Catalog(String),
}
