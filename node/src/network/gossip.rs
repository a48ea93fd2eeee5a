//! Gossip among members.
//!
//! gossipsub talks to every peer that is connected. [`Behaviour`] shows it admitted links only: a connection carries a
//! closed [`Gate`] until its link is admitted, so a stranger neither learns the topic nor reads or sends a message.
//!
//! Invariant: `open` holds exactly the connections that gossipsub has been told of.

#![allow(clippy::disallowed_methods, reason = "a driver: peers' allowances fill with real time")]

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use holdfast_protocol::limits::GOSSIP_BYTES_MAX;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, ValidationMode},
    identity::Keypair,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        derive_prelude::Either,
        handler::{ConnectionEvent, FullyNegotiatedInbound, ListenUpgradeError},
    },
};

/// gossipsub's own bytes around a message: signature, key, topic, ids.
const ENVELOPE_BYTES: usize = 1024;
/// Messages that one peer may relay or send at once, and for each second that passes.
const BURST_MESSAGES: f64 = 256.0;
const MESSAGES_PER_SECOND: f64 = 32.0;

type Inner = gossipsub::Behaviour;
type InnerHandler = THandler<Inner>;

/// gossipsub behind a gate.
pub(super) struct Behaviour {
    inner: Inner,
    topic: IdentTopic,
    allowances: BTreeMap<PeerId, Allowance>,
    open: BTreeMap<ConnectionId, PeerId>,
    known: BTreeMap<ConnectionId, ConnectedPoint>,
    events: VecDeque<ToSwarm<gossipsub::Event, GateCommand>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Gossip signed by `keypair` on the topic of a library.
    pub(super) fn new(keypair: &Keypair, topic: &[u8; 32]) -> Result<Self, String> {
        let config = gossipsub::ConfigBuilder::default()
            .protocol_id_prefix("/holdfast/1/gossip")
            .max_transmit_size(GOSSIP_BYTES_MAX + ENVELOPE_BYTES)
            .validation_mode(ValidationMode::Strict)
            .validate_messages()
            .heartbeat_interval(Duration::from_secs(1))
            .max_publish_messages(64)
            .max_control_messages_sent(64)
            .connection_handler_queue_len(256)
            .build()
            .map_err(|error| error.to_string())?;
        let authenticity = MessageAuthenticity::Signed(keypair.clone());
        let mut inner = Inner::new(authenticity, config).map_err(ToOwned::to_owned)?;
        let topic = IdentTopic::new(format!("holdfast/1/{}", data_encoding::HEXLOWER.encode(topic)));
        inner.subscribe(&topic).map_err(|error| error.to_string())?;
        Ok(Self {
            inner,
            topic,
            allowances: BTreeMap::new(),
            open: BTreeMap::new(),
            known: BTreeMap::new(),
            events: VecDeque::new(),
            waker: None,
        })
    }

    /// Publishes to the members that listen.
    pub(super) fn publish(&mut self, message: Vec<u8>) -> Result<(), String> {
        if message.len() > GOSSIP_BYTES_MAX {
            return Err(format!("a message of {} bytes, at most {GOSSIP_BYTES_MAX} are allowed", message.len()));
        }
        self.inner.publish(self.topic.clone(), message).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Decides on a message: passed on when an admitted member sent it within its allowance, dropped otherwise. Members
    /// vouch for what they relay, so that a message reaches those who do not know its author yet.
    pub(super) fn judge(&mut self, message: &MessageId, relay: &PeerId, admitted: bool) -> bool {
        let allowance = self.allowances.entry(*relay).or_insert_with(Allowance::new);
        let (verdict, accepted) = match (admitted, allowance.take(Instant::now())) {
            (true, true) => (MessageAcceptance::Accept, true),
            (true, false) => (MessageAcceptance::Ignore, false),
            (false, _) => (MessageAcceptance::Reject, false),
        };
        self.inner.report_message_validation_result(message, relay, verdict);
        accepted
    }

    /// Lets a connection take part.
    pub(super) fn admit(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(endpoint) = self.known.get(&connection) else { return };
        if self.open.contains_key(&connection) {
            return;
        }
        let handler = match endpoint {
            ConnectedPoint::Dialer { address, role_override, port_use } => {
                self.inner.handle_established_outbound_connection(connection, peer, address, *role_override, *port_use)
            }
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                self.inner.handle_established_inbound_connection(connection, peer, local_addr, send_back_addr)
            }
        };
        let Ok(handler) = handler else { return };
        let other_established = self.open.values().filter(|open| **open == peer).count();
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint,
            failed_addresses: &[],
            other_established,
        }));
        self.open.insert(connection, peer);
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: GateCommand::Open(Box::new(handler)),
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Gate;
    type ToSwarm = gossipsub::Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Gate { inner: None })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Gate { inner: None })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.known.insert(established.connection_id, established.endpoint.clone());
            }
            FromSwarm::ConnectionClosed(mut closed) => {
                self.known.remove(&closed.connection_id);
                if self.open.remove(&closed.connection_id).is_some() {
                    closed.remaining_established = self.open.values().filter(|peer| **peer == closed.peer_id).count();
                    if closed.remaining_established == 0 {
                        self.allowances.remove(&closed.peer_id);
                    }
                    self.inner.on_swarm_event(FromSwarm::ConnectionClosed(closed));
                }
            }
            FromSwarm::AddressChange(change) => {
                self.known.insert(change.connection_id, change.new.clone());
                if self.open.contains_key(&change.connection_id) {
                    self.inner.on_swarm_event(event);
                }
            }
            FromSwarm::DialFailure(_) | FromSwarm::ListenFailure(_) => {}
            _ => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        if self.open.contains_key(&connection) {
            self.inner.on_connection_handler_event(peer, connection, event);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(context.waker().clone());
        self.inner.poll(context).map(|event| event.map_in(GateCommand::Inner))
    }
}

/// Messages that one peer may still send: a bucket that time fills.
struct Allowance {
    messages: f64,
    since: Instant,
}

impl Allowance {
    fn new() -> Self {
        Self { messages: BURST_MESSAGES, since: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.since).as_secs_f64() * MESSAGES_PER_SECOND;
        self.messages = (self.messages + earned).min(BURST_MESSAGES);
        self.since = now;
        let allowed = self.messages >= 1.0;
        if allowed {
            self.messages -= 1.0;
        }
        allowed
    }
}

/// What the behaviour tells a gate.
pub(super) enum GateCommand {
    /// The link was admitted: this handler takes over.
    Open(Box<InnerHandler>),
    /// For that handler.
    Inner(THandlerInEvent<Inner>),
}

impl fmt::Debug for GateCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// gossipsub's handler once the link was admitted, nothing before.
pub(super) struct Gate {
    inner: Option<InnerHandler>,
}

type InnerInbound = <InnerHandler as ConnectionHandler>::InboundProtocol;
type InnerOutbound = <InnerHandler as ConnectionHandler>::OutboundProtocol;
type InnerInboundInfo = <InnerHandler as ConnectionHandler>::InboundOpenInfo;
type InnerOutboundInfo = <InnerHandler as ConnectionHandler>::OutboundOpenInfo;

impl ConnectionHandler for Gate {
    type FromBehaviour = GateCommand;
    type ToBehaviour = <InnerHandler as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = Either<InnerInbound, DeniedUpgrade>;
    type OutboundProtocol = InnerOutbound;
    type InboundOpenInfo = Option<InnerInboundInfo>;
    type OutboundOpenInfo = InnerOutboundInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => inner.listen_protocol().map_upgrade(Either::Left).map_info(Some),
            None => SubstreamProtocol::new(Either::Right(DeniedUpgrade), None),
        }
    }

    fn on_behaviour_event(&mut self, event: GateCommand) {
        match (event, &mut self.inner) {
            (GateCommand::Open(handler), inner) => *inner = Some(*handler),
            (GateCommand::Inner(event), Some(inner)) => inner.on_behaviour_event(event),
            (GateCommand::Inner(_), None) => {}
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.as_ref().is_some_and(ConnectionHandler::connection_keep_alive)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<InnerOutbound, InnerOutboundInfo, Self::ToBehaviour>> {
        self.inner.as_mut().map_or(Poll::Pending, |inner| inner.poll(context))
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.as_mut().map_or(Poll::Ready(None), |inner| inner.poll_close(context))
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let Some(inner) = &mut self.inner else { return };
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(negotiated) => {
                // A stream that was negotiated while the gate was closed cannot exist: nothing was offered.
                let (futures::future::Either::Left(protocol), Some(info)) = (negotiated.protocol, negotiated.info)
                else {
                    return;
                };
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(failed) => {
                let Some(info) = failed.info else { return };
                let Either::Left(error) = failed.error;
                ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error })
            }
            ConnectionEvent::FullyNegotiatedOutbound(negotiated) => {
                ConnectionEvent::FullyNegotiatedOutbound(negotiated)
            }
            ConnectionEvent::DialUpgradeError(failed) => ConnectionEvent::DialUpgradeError(failed),
            ConnectionEvent::AddressChange(change) => ConnectionEvent::AddressChange(change),
            ConnectionEvent::LocalProtocolsChange(change) => ConnectionEvent::LocalProtocolsChange(change),
            ConnectionEvent::RemoteProtocolsChange(change) => ConnectionEvent::RemoteProtocolsChange(change),
            _ => return,
        };
        inner.on_connection_event(event);
    }
}
