//! What the tasks of the network are asked to do.

use bytes::Bytes;
use holdfast_protocol::{
    id::{ChunkId, DeviceId},
    replica::{Answer, ChunkWanted, LinkId, RequestId},
};
use libp2p::{PeerId, StreamProtocol, swarm::ConnectionId};
use tokio::sync::oneshot;

use super::{
    PairError, proof,
    streams::{OpenRefused, Stream},
};

/// Commands that wait for the swarm. They are few: bulk goes past it.
pub(super) const COMMANDS_MAX: usize = 4096;

/// What the swarm is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Dial { peer: DeviceId, addresses: Vec<String> },
    DialAddress { address: String },
    Remember { peer: DeviceId, addresses: Vec<String> },
    Admitted { link: LinkId },
    Gossip { message: Bytes },
    Pair { peer: DeviceId, addresses: Vec<String>, request: Bytes, answer: PairAnswer },
    Open { peer: PeerId, connection: ConnectionId, protocol: StreamProtocol, reply: OpenReply },
    End { link: LinkId },
    Ended { link: LinkId },
    AskRelay { relay: PeerId },
    RelayAnswered { relay: PeerId, outcome: proof::Outcome },
    ProveWith { chain: Vec<Vec<u8>> },
    Serve { member: PeerId, proven: Box<proof::Proven> },
    Shutdown,
}

/// Where the answer to a join request goes.
pub(super) type PairAnswer = oneshot::Sender<Result<Bytes, PairError>>;
/// Where an opened stream goes.
pub(super) type OpenReply = oneshot::Sender<Result<Stream, OpenRefused>>;

/// What a link's fetcher is told.
#[derive(Debug)]
pub(super) enum FetchCommand {
    Fetch { request: RequestId, urgent: bool, chunks: Vec<ChunkWanted> },
    Cancel { request: RequestId },
}

/// The answers to a peer's request.
#[derive(Debug)]
pub(super) struct ServeCommand {
    pub(super) request: RequestId,
    pub(super) answers: Vec<(ChunkId, Answer)>,
}
