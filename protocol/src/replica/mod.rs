//! The replica: one pure state machine for everything two nodes do together.

use crate::deposit::DepositedChunk;
use crate::envelope::{Kind, SignedEnvelope};
use crate::id::{AuthorId, ChunkId, DeviceId, LibraryId, PlaceId};
use crate::inventory::Holdings;
use crate::keys::{AuthorKey, DeviceKey};
use crate::message::LogPoint;
use crate::metadata::{Metadata, StorageError};
use crate::position::{Position, Run};
use crate::secrets::EpochId;
use crate::time::{Now, Timestamp};

mod effect;
mod input;
mod view;

pub use effect::{Answer, BodyRefusal, ChunkWanted, DisconnectReason, Effect, Event, Misbehaviour};
pub use input::{FetchOutcome, Input, LinkId, RequestId, TaskId};
pub use view::{PeerView, Transfers};

/// Who this replica is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The library.
    pub library: LibraryId,
    /// This device.
    pub device: DeviceKey,
    /// What this device's log is signed with.
    pub author: AuthorKey,
    /// Encoded device certificates: this device's, its issuer's, and so on until one by the root.
    pub chain: Vec<Vec<u8>>,
    /// Where this device stands.
    pub place: Option<PlaceId>,
    /// From the operating system, new at each opening: nonces of generations, jitter, random choices.
    pub seed: [u8; 32],
}

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This device's author was retired or frozen.
    #[error(
        "this device's log can't go on because peers hold another version of it; Holdfast continues it under a new key"
    )]
    Retired,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// See the head of the module.
#[derive(Debug)]
pub struct Replica<M: Metadata> {
    metadata: M,
}

#[allow(clippy::todo, unused_variables, missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]
impl<M: Metadata> Replica<M> {
    /// `holdings`: whether the store durably holds a chunk. Effects: the first `Sync`, events.
    pub fn open(
        config: Config,
        metadata: M,
        holdings: &dyn Fn(&ChunkId) -> bool,
    ) -> Result<(Self, Vec<Effect>), StorageError> {
        todo!()
    }
    /// Takes one input; returns what to do, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, StorageError> {
        todo!()
    }
    /// When to hand in the next `Tick`, unless another input comes first.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        todo!()
    }
    /// Appends one envelope to this device's log. `Effect::Accepted` for it is among the effects.
    pub fn append(
        &mut self,
        now: Now,
        kind: Kind,
        epoch: EpochId,
        min_reader: u16,
        body: Vec<u8>,
    ) -> Result<(u64, Vec<Effect>), AppendError> {
        todo!()
    }
    /// Deposits chunks that are durable in the store, as one run.
    pub fn deposit(
        &mut self,
        now: Now,
        epoch: EpochId,
        chunks: &[DepositedChunk],
    ) -> Result<(Run, Vec<Effect>), AppendError> {
        todo!()
    }
    /// Continues under another author, after `Event::RestoredFromBackup`.
    pub fn adopt_author(&mut self, author: AuthorKey) {
        todo!()
    }
    /// Up to `limit` stored envelopes of `author`, from number `from`.
    pub fn read_log(&self, author: &AuthorId, from: u64, limit: usize) -> Result<Vec<SignedEnvelope>, StorageError> {
        todo!()
    }
    /// Every log and how far it is known here, durable or not.
    pub fn vector(&self) -> Vec<LogPoint> {
        todo!()
    }
    /// The author that this device writes as.
    pub fn author(&self) -> AuthorId {
        todo!()
    }
    /// The chunk at `position` and its sealed length.
    pub fn chunk_at(&self, position: &Position) -> Option<DepositedChunk> {
        todo!()
    }
    /// A position of `chunk`, the first that was learned.
    pub fn position_of(&self, chunk: &ChunkId) -> Option<Position> {
        todo!()
    }
    /// Whether `chunk` is deposited and durable here.
    pub fn holds(&self, chunk: &ChunkId) -> bool {
        todo!()
    }
    /// What `peer` (or this device) holds according to its newest complete inventory.
    pub fn holdings(&self, peer: &DeviceId) -> Option<&Holdings> {
        todo!()
    }
    /// Every device with an inventory known here, this one included.
    pub fn holders(&self) -> Vec<DeviceId> {
        todo!()
    }
    /// Every other member.
    pub fn peers(&self) -> Vec<PeerView> {
        todo!()
    }
    /// What is missing and on its way.
    pub fn transfers(&self) -> Transfers {
        todo!()
    }
    /// The storage below, for the library above.
    pub const fn metadata(&self) -> &M {
        &self.metadata
    }
    /// The storage below, for the library above: it commits its own tables through it.
    pub const fn metadata_mut(&mut self) -> &mut M {
        &mut self.metadata
    }
}
