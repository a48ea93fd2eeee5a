//! What a replica asks of its driver, in order.

use std::time::Duration;

use bytes::Bytes;

use super::input::{LinkId, RequestId, TaskId};
use crate::envelope::SignedEnvelope;
use crate::id::{AuthorId, ChunkId, DeviceId};
use crate::inventory::HoldingChanges;
use crate::metadata::StorageError;

/// Something for the driver (or the library above) to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write a whole frame, header included, to the link's control stream.
    Send {
        /// Where to.
        link: LinkId,
        /// The frame.
        frame: Bytes,
    },
    /// Close a connection once what was sent before has been flushed; [`Input::Disconnected`](super::Input) follows.
    Disconnect {
        /// Which.
        link: LinkId,
        /// Why.
        reason: DisconnectReason,
    },
    /// The peer on this link proved its membership: it may take part in gossip and be relayed for.
    Admitted {
        /// The link.
        link: LinkId,
        /// Who is at its other end.
        peer: DeviceId,
    },
    /// Try to connect; answered by `Connected` or `DialFailed`.
    Dial {
        /// Whom.
        peer: DeviceId,
    },
    /// Remember where a peer may be reached, before it is dialled: another member saw it there.
    AddressesLearned {
        /// Whom.
        peer: DeviceId,
        /// Where.
        addresses: Vec<String>,
    },
    /// Publish on the library's gossip topic.
    Gossip(Bytes),
    /// Ask the peer of this link for chunks, check each (length, hash), store it durably, and report each as `Fetched`,
    /// in the end `FetchEnded`.
    Fetch {
        /// Where from.
        link: LinkId,
        /// The request.
        request: RequestId,
        /// Whether the peer should send even what others have already got from it.
        urgent: bool,
        /// What to fetch, in the order in which it is wanted.
        chunks: Vec<ChunkWanted>,
    },
    /// Stop a request: answer `FetchEnded` soon. Chunks that have arrived whole may still be reported as stored.
    CancelFetch {
        /// Where from.
        link: LinkId,
        /// The request.
        request: RequestId,
    },
    /// Answer a peer's request, in this order, with the request's number; report what is sent as `Served`. The driver hands
    /// in no more than [`REQUESTS_PER_PEER_MAX`](crate::limits::REQUESTS_PER_PEER_MAX) requests of a link before it has
    /// sent all answers of one: the others wait in the stream.
    Serve {
        /// Where to.
        link: LinkId,
        /// The peer's request.
        request: RequestId,
        /// The answer for each chunk asked for.
        answers: Vec<(ChunkId, Answer)>,
    },
    /// Flush the metadata, then answer `Synced`. When the flush fails, no answer comes: the store is poisoned.
    Sync(TaskId),
    /// A new envelope of any author, each author's in order, this device's own included.
    Accepted(SignedEnvelope),
    /// Others deposited chunks that this device does not count as held. Those that its store has all the same, since it knew
    /// the deposit before it was restored from a backup, or is importing the same photo: hand them in as `ChunksStored`.
    Deposited(Vec<ChunkId>),
    /// What a peer (or this device) holds according to its own statement changed.
    HoldingsChanged {
        /// Whose holdings.
        peer: DeviceId,
        /// What changed.
        changes: Vec<HoldingChanges>,
    },
    /// Something that a person or a log may want to know.
    Event(Event),
}

/// A chunk to fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkWanted {
    /// Which.
    pub chunk: ChunkId,
    /// The sealed length that its depositor claims: for planning alone. The hash decides, not a third party's word.
    pub length: u32,
}

/// How one chunk of a peer's request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Read and send it. If it cannot be read after all: say `NotHeld` and report `ChunksLost`.
    Send,
    /// This node does not hold it.
    NotHeld,
    /// Another connected peer has got it from this node already: ask there first.
    Elsewhere(DeviceId),
}

/// Why a replica closes a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// The peer is of another library, or of none.
    #[error("the peer does not belong to this library")]
    WrongLibrary,
    /// No protocol version in common.
    #[error("the peer speaks no protocol version known here; update the older of the two")]
    IncompatibleVersion,
    /// Its certificates do not lead to the library's root.
    #[error("the peer is not a member of this library")]
    NotAMember,
    /// It was removed.
    #[error("the peer was removed from this library")]
    Removed,
    /// Another connection to the same peer is kept.
    #[error("another connection to the same peer is kept")]
    Duplicate,
    /// It sent what no honest peer sends.
    #[error("the peer broke the protocol: {0}")]
    Misbehaved(Misbehaviour),
    /// It did not introduce itself in time.
    #[error("the peer did not introduce itself in time")]
    HandshakeTimeout,
    /// This device stops.
    #[error("this device stops")]
    Stopping,
    /// The peer closed the session and said why.
    #[error("the peer said goodbye: {0}")]
    Farewell(crate::message::Farewell),
}

/// What a peer did that no honest peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// A frame that cannot be decoded.
    #[error("a malformed frame with tag {tag}")]
    MalformedFrame {
        /// The frame's tag.
        tag: u8,
    },
    /// A frame that has no place at this point of the session.
    #[error("a frame with tag {tag} out of turn")]
    OutOfTurn {
        /// The frame's tag.
        tag: u8,
    },
    /// An envelope that does not verify or does not fit its chain.
    #[error("an envelope that does not verify")]
    BadEnvelope,
    /// An inventory head that is not signed by the peer it speaks for.
    #[error("an inventory that does not verify")]
    BadInventory,
    /// Chunks with wrong bytes, again and again.
    #[error("chunks with wrong bytes")]
    CorruptChunks,
}

/// News.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer is connected and proved its membership.
    PeerConnected {
        /// Who.
        peer: DeviceId,
    },
    /// The last connection to a peer is gone.
    PeerDisconnected {
        /// Who.
        peer: DeviceId,
        /// Why, when one of the two devices decided it.
        reason: Option<DisconnectReason>,
    },
    /// Someone was turned away.
    PeerRefused {
        /// Who, as verified by the transport.
        peer: DeviceId,
        /// Why.
        reason: DisconnectReason,
    },
    /// Everything wanted is held: nothing is missing any more.
    CaughtUp,
    /// An author signed two different envelopes with one number: its log is cut there. Nothing that is kept of it is lost,
    /// see [`carried`](crate::carried); a person has to look whether its device was copied.
    ForkProven {
        /// Whose log.
        author: AuthorId,
        /// The first number with two bodies: how many envelopes count.
        seq: u64,
    },
    /// Peers know more of this device's own log than it does itself: it was restored from a backup (or cloned), and must
    /// continue under a new author key, see [`Replica::adopt_author`](super::Replica::adopt_author).
    RestoredFromBackup {
        /// The author that must not be used any more.
        author: AuthorId,
    },
    /// A peer gave nothing of what it was asked for: it is asked again after a rest, or as soon as something comes.
    PeerRests {
        /// Who.
        peer: DeviceId,
        /// For how long.
        rest: Duration,
    },
    /// A peer sent wrong bytes for a chunk; it will be fetched from another one.
    ChunkCorrupt {
        /// Who sent it.
        peer: DeviceId,
        /// Which chunk.
        chunk: ChunkId,
    },
    /// Fetching rests because the store does not take chunks; it is tried again by itself.
    StorageFailed(StorageError),
    /// An envelope needs a newer version of Holdfast: it is kept and passed on, not understood.
    NewerVersionNeeded {
        /// Whose envelope.
        author: AuthorId,
        /// Its number.
        seq: u64,
    },
    /// An accepted envelope's body is not what its kind says; it is kept, passed on and without effect.
    BodyRefused {
        /// Whose envelope.
        author: AuthorId,
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        refusal: BodyRefusal,
    },
}

/// Why a signed body has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefusal {
    /// A deposit's body.
    #[error("deposit without effect: {0}")]
    Deposit(#[from] crate::deposit::DepositRefused),
    /// A release's body.
    #[error("release without effect: {0}")]
    Release(#[from] crate::release::ReleaseRefused),
    /// Envelopes of a forked log that are none.
    #[error("what it carries on of another log is malformed")]
    Carried,
    /// A membership statement.
    #[error("membership statement without effect: {detail}")]
    Membership {
        /// What the registry said.
        detail: String,
    },
}
