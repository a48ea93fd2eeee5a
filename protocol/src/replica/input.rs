//! What happens to a replica: one variant per thing a driver can report.

use bytes::Bytes;

use crate::id::{ChunkId, DeviceId};
use crate::message::{Declined, FetchRequest};
use crate::metadata::StorageError;

/// One connection to a peer, numbered by the driver and never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One fetch request, numbered by the asking replica; unique per asker and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One request to the driver that is answered by an input carrying the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Something that happened, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A connection stands; the transport has verified that `peer` holds its device key.
    Connected {
        /// The new connection.
        link: LinkId,
        /// Who is at its other end.
        peer: DeviceId,
        /// Whether this side dialled.
        outbound: bool,
    },
    /// A connection is gone, whoever closed it. Also reported after [`Effect::Disconnect`](super::Effect::Disconnect).
    Disconnected {
        /// The connection.
        link: LinkId,
    },
    /// A control frame arrived whole; its length was within the tag's limit.
    Received {
        /// Where from.
        link: LinkId,
        /// The frame's tag.
        tag: u8,
        /// The frame's body.
        body: Bytes,
    },
    /// A gossiped message arrived, whose origin the transport has verified.
    Gossiped {
        /// Who first published it.
        from: DeviceId,
        /// The message: an encoded [`Announcement`](crate::message::Announcement).
        body: Bytes,
    },
    /// A peer opened or used a chunk stream and asks for chunks; answered by [`Effect::Serve`](super::Effect::Serve).
    FetchRequested {
        /// Where from.
        link: LinkId,
        /// What it asks for.
        request: FetchRequest,
    },
    /// A chunk was written to a peer's stream.
    Served {
        /// Where to.
        link: LinkId,
        /// The peer's request.
        request: RequestId,
        /// The chunk.
        chunk: ChunkId,
        /// Sealed bytes sent.
        bytes: u32,
    },
    /// Bytes of a chunk of ours are coming in: a transfer that is slow is not one that stands still. Told each second at
    /// most.
    Arriving {
        /// Where from.
        link: LinkId,
    },
    /// One chunk of a request of ours is settled.
    Fetched {
        /// Where from.
        link: LinkId,
        /// Our request.
        request: RequestId,
        /// The chunk.
        chunk: ChunkId,
        /// How it ended.
        outcome: FetchOutcome,
    },
    /// A request of ours is over; chunks that were not settled are wanted again.
    FetchEnded {
        /// Where from.
        link: LinkId,
        /// Our request.
        request: RequestId,
    },
    /// Chunks came into the store by other means (an import, a repair) and are durable.
    ChunksStored(Vec<ChunkId>),
    /// Chunks are no longer readable here (a file changed in place, rot was found).
    ChunksLost(Vec<ChunkId>),
    /// The store has room again: fetching that it refused goes on at once.
    RoomMade,
    /// The flush asked for by [`Effect::Sync`](super::Effect::Sync) succeeded.
    Synced(TaskId),
    /// A peer could not be reached.
    DialFailed {
        /// Who.
        peer: DeviceId,
    },
    /// A peer has been seen nearby or an address of it was learned: a good moment to dial.
    PeerSeen {
        /// Who.
        peer: DeviceId,
        /// Where, in the transport's text form; empty when nothing new is known of that.
        addresses: Vec<String>,
    },
    /// This machine has other addresses than before: who could not be reached may be reached now.
    NetworkChanged,
    /// This device is about to stop.
    Stopping,
    /// The deadline that [`Replica::next_deadline`](super::Replica::next_deadline) named has come.
    Tick,
}

/// How the fetch of one chunk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchOutcome {
    /// Its bytes have the right hash and are durable here.
    Stored,
    /// The peer answered without sending it.
    Declined(Declined),
    /// The peer sent bytes with another hash.
    Corrupt,
    /// Our own store could not take it.
    StorageFailed(StorageError),
}
