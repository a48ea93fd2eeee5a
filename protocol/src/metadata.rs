//! The one narrow door to durable metadata.
//!
//! Everything but chunk bytes is kept behind [`Metadata`]: the real one is an embedded key-value store, the
//! simulated one a disk that loses what was not synced. Values are few and large (a deposit of 4096 chunks is one
//! value), because embedded trees pay for each key.

/// A family of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single values: this device's membership, its generation and incarnation, what it has carried on.
    Local,
    /// `author ‖ seq (u64, big endian)` → the envelope's signed bytes.
    Log,
    /// Per-author facts about a log: the proof that it forked.
    Author,
    /// Inventories of other peers.
    Inventory,
    /// What is known about peers: addresses, when they were last heard.
    Peer,
    /// Cached catalog documents and their photo tables; rebuildable from the log.
    Catalog,
    /// The chunk store's segments: `segment ‖ start` → the chunks that a stretch of the segment holds.
    Segment,
    /// Watched files and where their chunks lie in place: one value a file.
    File,
    /// Invitations given out and not yet used.
    Invitation,
}

impl Table {
    /// Every table, in the order in which they are declared.
    pub const ALL: [Self; 9] = [
        Self::Local,
        Self::Log,
        Self::Author,
        Self::Inventory,
        Self::Peer,
        Self::Catalog,
        Self::Segment,
        Self::File,
        Self::Invitation,
    ];

    /// The table's name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Log => "log",
            Self::Author => "author",
            Self::Inventory => "inventory",
            Self::Peer => "peer",
            Self::Catalog => "catalog",
            Self::Segment => "segment",
            Self::File => "file",
            Self::Invitation => "invitation",
        }
    }
}

/// A table, a key in it, and its new value; `None` removes the key.
pub type Change = (Table, Vec<u8>, Option<Vec<u8>>);

/// Changes that become visible together and durable together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    /// A batch without changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.changes.push((table, key.into(), Some(value.into())));
    }

    /// Removes `key`, if it is there.
    pub fn remove(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.changes.push((table, key.into(), None));
    }

    /// Adds the changes of `other` behind these.
    pub fn append(&mut self, mut other: Self) {
        self.changes.append(&mut other.changes);
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in the order in which they were made.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// Why storage failed. After a failed flush nothing is acknowledged until the store is opened again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No space is left.
    #[error("the disk is full; free at least 100 MB and start Holdfast again")]
    Full,
    /// The store may not be written to.
    #[error("the store is read-only: {detail}; make its folder writable for this user and restart")]
    ReadOnly {
        /// What the system said.
        detail: String,
    },
    /// A value or file does not have the form it was written in.
    #[error("{what} is damaged; it will be rebuilt or fetched from another peer")]
    Damaged {
        /// Which value or file.
        what: String,
    },
    /// An earlier flush failed, so what was written since is in doubt.
    #[error("an earlier write to disk failed, so nothing more is acknowledged; check the disk and restart Holdfast")]
    Poisoned,
    /// Anything else the system said.
    #[error("the disk failed: {detail}; check it and restart Holdfast")]
    Failed {
        /// What the system said.
        detail: String,
    },
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Ordered tables of bytes with atomic batches.
///
/// A committed batch is visible at once to `get` and `scan`; it is durable once a flush that began after it has
/// completed (the driver flushes on request, see `Effect::Sync`). After a crash, a prefix of the committed batches
/// survives that holds at least every durable one, each batch whole.
pub trait Metadata {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Up to `limit` entries whose keys start with `prefix` and are at least `from`, in key order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError>;

    /// Applies all changes of `batch`, or none.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing of the batch is visible.
    fn commit(&mut self, batch: Batch) -> Result<(), StorageError>;
}
