//! Streams of a known connection.
//!
//! Unlike libp2p-stream, which picks any connection of a peer and dials by itself, a stream here belongs to one
//! connection, so that a link is one connection and ends with it. Inbound streams of one connection are bounded. The bytes of
//! all of them are counted, so that a slow connection is not taken for a dead one.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use futures::{AsyncRead, AsyncWrite};
use holdfast_protocol::limits::STREAMS_PER_CONNECTION_MAX;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{
        Endpoint, UpgradeInfo,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Control frames, one stream for each direction.
pub(super) const CONTROL: StreamProtocol = StreamProtocol::new("/holdfast/1/control");
/// Chunk requests one way, chunks the other.
pub(super) const CHUNKS: StreamProtocol = StreamProtocol::new("/holdfast/1/chunks");
/// One join request, one answer.
pub(super) const PAIR: StreamProtocol = StreamProtocol::new("/holdfast/1/pair");
/// A proof of membership for a relay, one answer.
pub(super) const RELAY: StreamProtocol = StreamProtocol::new("/holdfast/1/relay");

/// Streams that wait to be negotiated or handed over, for each connection.
const WAITING_MAX: usize = 8;

/// How many bytes the streams of a connection have carried, both ways.
#[derive(Debug, Clone, Default)]
pub(super) struct Moved(Arc<AtomicU64>);

impl Moved {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Stream {
    stream: libp2p::Stream,
    moved: Moved,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.moved.add(read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.moved.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        self.moved.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// A stream that no peer could open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer did not accept a {protocol} stream")]
pub(super) struct OpenRefused {
    protocol: StreamProtocol,
}

/// An inbound stream, counted against its connection's limit while it lives.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) connection: ConnectionId,
    pub(super) peer: PeerId,
    pub(super) protocol: StreamProtocol,
    pub(super) stream: Stream,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A request to open a stream.
#[derive(Debug)]
pub(super) struct Open {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Stream, OpenRefused>>,
}

/// What becomes of a connection that nothing else uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    /// It stays: links are closed by decision, never for being idle.
    Stays,
    /// It ends.
    Ends,
}

/// Opens streams, and accepts those of some protocols.
pub(super) struct Behaviour {
    accepted: Protocols,
    idle: Idle,
    events: VecDeque<ToSwarm<Inbound, Open>>,
    waker: Option<Waker>,
    moved: BTreeMap<ConnectionId, Moved>,
}

impl Behaviour {
    pub(super) fn accepting(protocols: Vec<StreamProtocol>, idle: Idle) -> Self {
        Self { accepted: Protocols(protocols), idle, events: VecDeque::new(), waker: None, moved: BTreeMap::new() }
    }

    /// Opens a stream on `connection`; the reply is dropped when the connection is gone.
    pub(super) fn open(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
        reply: oneshot::Sender<Result<Stream, OpenRefused>>,
    ) {
        let event = Open { protocol, reply };
        self.push(ToSwarm::NotifyHandler { peer_id: peer, handler: NotifyHandler::One(connection), event });
    }

    /// What a connection that stands has carried.
    pub(super) fn moved(&self, connection: ConnectionId) -> Moved {
        self.moved.get(&connection).cloned().unwrap_or_default()
    }

    fn handler(&mut self, connection: ConnectionId) -> Handler {
        Handler::new(self.accepted.clone(), self.idle, self.moved.entry(connection).or_default().clone())
    }

    fn push(&mut self, event: ToSwarm<Inbound, Open>) {
        self.events.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(connection))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let over = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            // Another behaviour did not want the connection.
            FromSwarm::DialFailure(failed) => failed.connection_id,
            FromSwarm::ListenFailure(failed) => failed.connection_id,
            _ => return,
        };
        self.moved.remove(&over);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        (protocol, stream, permit): THandlerOutEvent<Self>,
    ) {
        self.push(ToSwarm::GenerateEvent(Inbound { connection, peer, protocol, stream, permit }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The streams of one connection.
pub(super) struct Handler {
    protocols: Protocols,
    idle: Idle,
    opening: VecDeque<Open>,
    accepted: VecDeque<(StreamProtocol, Stream, OwnedSemaphorePermit)>,
    inbound: Arc<Semaphore>,
    moved: Moved,
}

impl Handler {
    fn new(protocols: Protocols, idle: Idle, moved: Moved) -> Self {
        Self {
            protocols,
            idle,
            moved,
            opening: VecDeque::new(),
            accepted: VecDeque::new(),
            inbound: Arc::new(Semaphore::new(STREAMS_PER_CONNECTION_MAX)),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream, OwnedSemaphorePermit);
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(self.protocols.clone(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.idle == Idle::Stays
    }

    fn on_behaviour_event(&mut self, open: Open) {
        if self.opening.len() < WAITING_MAX {
            self.opening.push_back(open);
        } else {
            let _ = open.reply.send(Err(OpenRefused { protocol: open.protocol }));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, Open, Self::ToBehaviour>> {
        if let Some(accepted) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(accepted));
        }
        if let Some(open) = self.opening.pop_front() {
            let upgrade = Protocols(vec![open.protocol.clone()]);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(upgrade, open),
            });
        }
        // The connection polls again after each of the events that fill the queues.
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), Open>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream), ..
            }) => {
                // A stream beyond the limit is reset by dropping it.
                if self.accepted.len() < WAITING_MAX
                    && let Ok(permit) = self.inbound.clone().try_acquire_owned()
                {
                    let stream = Stream { stream, moved: self.moved.clone() };
                    self.accepted.push_back((protocol, stream, permit));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: (_, stream), info }) => {
                let _ = info.reply.send(Ok(Stream { stream, moved: self.moved.clone() }));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                let _ = info.reply.send(Err(OpenRefused { protocol: info.protocol }));
            }
            _ => {}
        }
    }
}

/// The protocols that a stream may be negotiated for.
#[derive(Debug, Clone)]
pub(super) struct Protocols(Vec<StreamProtocol>);

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for Protocols {
    type Output = (StreamProtocol, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<libp2p::Stream> for Protocols {
    type Output = (StreamProtocol, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
