//! The runtime's end of the network: commands that never block.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_protocol::{
    id::{ChunkId, DeviceId},
    replica::{Answer, ChunkWanted, LinkId, RequestId},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    ChunkSink, ChunkSource, LinkEnd, NetworkConfig, NetworkEvent, PairError, PairingId, StartError,
    command::{Command, FetchCommand, ServeCommand},
    driver,
    shared::Shared,
};

/// Starts networks.
pub struct Network;

impl Network {
    /// Starts the network on the current tokio runtime: binds the configured addresses and drives them until every
    /// handle is dropped or [`NetworkHandle::shutdown`] is called.
    ///
    /// Events wait in a bounded queue; a runtime that stops reading them stops the links from reading.
    ///
    /// # Errors
    /// When an address is malformed or cannot be bound.
    pub fn start(
        config: NetworkConfig,
        source: ChunkSource,
        sink: ChunkSink,
    ) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), StartError> {
        let (shared, events) = driver::start(config, source, sink)?;
        let stop = Arc::new(StopOnDrop { shared: shared.clone() });
        Ok((NetworkHandle { shared, _stop: stop }, events))
    }
}

/// Commands to the network. Cheap to clone; no method blocks. A command for a link that has ended does nothing.
#[derive(Clone)]
pub struct NetworkHandle {
    pub(super) shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

struct StopOnDrop {
    shared: Arc<Shared>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.shared.command(Command::Shutdown);
    }
}

impl NetworkHandle {
    /// Connects to `peer` at `addresses` and at those already known of it; TCP is tried first, then QUIC, then relays.
    /// Ends in `Connected` or `DialFailed`; nothing happens when a link to it stands.
    pub fn dial(&self, peer: DeviceId, addresses: Vec<String>) {
        self.shared.command(Command::Dial { peer, addresses });
    }

    /// Connects to whoever answers at `address`.
    pub fn dial_address(&self, address: String) {
        self.shared.command(Command::DialAddress { address });
    }

    /// Sends one framed control message. A peer that lets 16 MiB pile up is disconnected.
    pub fn send(&self, link: LinkId, frame: impl Into<Bytes>) {
        if let Some(found) = self.shared.link(link)
            && !found.control.push(frame.into())
        {
            found.end(LinkEnd::TooSlow);
        }
    }

    /// Lifts the limits of a stranger: the peer has proven that it is a member.
    pub fn admit(&self, link: LinkId) {
        if let Some(found) = self.shared.link(link) {
            found.admit();
            self.shared.command(Command::Admitted { link });
        }
    }

    /// Closes a link, after sending what is queued.
    pub fn disconnect(&self, link: LinkId) {
        if let Some(found) = self.shared.link(link) {
            found.end(LinkEnd::Closed);
        }
    }

    /// Publishes a message to the members. Dropped when nobody listens: gossip is only ever a shortcut.
    pub fn gossip(&self, message: Bytes) {
        self.shared.command(Command::Gossip { message });
    }

    /// Requests chunks. Each is answered by one `Fetched`, the request by one `FetchEnded`, unless the link ends first.
    pub fn fetch(&self, link: LinkId, request: RequestId, urgent: bool, chunks: Vec<ChunkWanted>) {
        if let Some(found) = self.shared.link(link) {
            found.fetch(FetchCommand::Fetch { request, urgent, chunks });
        }
    }

    /// Gives a request up: what has arrived of it is still stored and reported, the rest dropped; then `FetchEnded`.
    pub fn cancel_fetch(&self, link: LinkId, request: RequestId) {
        if let Some(found) = self.shared.link(link) {
            found.fetch(FetchCommand::Cancel { request });
        }
    }

    /// Answers a `FetchRequested`, chunk by chunk in the order asked for.
    pub fn serve(&self, link: LinkId, request: RequestId, answers: Vec<(ChunkId, Answer)>) {
        if let Some(found) = self.shared.link(link) {
            found.serve(ServeCommand { request, answers });
        }
    }

    /// Asks `peer`, at `addresses`, to admit this device: sends `request`, returns its answer.
    ///
    /// # Errors
    /// When the peer cannot be reached, refuses, or does not answer in time.
    pub async fn pair(&self, peer: DeviceId, addresses: Vec<String>, request: Vec<u8>) -> Result<Bytes, PairError> {
        let (answer, answered) = oneshot::channel();
        self.shared.command(Command::Pair { peer, addresses, request: request.into(), answer });
        answered.await.unwrap_or(Err(PairError::Stopped))
    }

    /// Answers a `PairRequested`; `None` refuses without a word.
    pub fn answer_pairing(&self, pairing: PairingId, answer: Option<Bytes>) {
        self.shared.pairings.answer(pairing, answer);
    }

    /// Tells where a peer was last seen, so that a dial without addresses can find it.
    pub fn remember(&self, peer: DeviceId, addresses: Vec<String>) {
        self.shared.command(Command::Remember { peer, addresses });
    }

    /// Gives the certificates that prove this device's membership to relays, its own first.
    pub fn prove_with(&self, chain: Vec<Vec<u8>>) {
        self.shared.command(Command::ProveWith { chain });
    }

    /// Closes all links and stops.
    pub fn shutdown(&self) {
        self.shared.command(Command::Shutdown);
    }
}
