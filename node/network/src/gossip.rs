//! Gossip among members.
//!
//! gossipsub talks to every peer that is connected. Here every connection has a [`Gate`], closed until its link is
//! admitted: behind it gossipsub's handler exists and takes the peer's stream, but neither reads nor writes, so that a
//! stranger learns no topic and is not heard. The stream is taken early because the two sides do not admit each other at
//! the same moment, and gossipsub gives a peer up for good that once refused it.
//!
//! Invariant: `open` holds exactly the connections whose establishment gossipsub has been told of.

#![allow(clippy::disallowed_methods, reason = "a driver: peers' allowances fill with real time")]

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use holdfast_protocol::limits::GOSSIP_BYTES_MAX;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, ValidationMode},
    identity::Keypair,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished, handler::ConnectionEvent,
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
            event: GateCommand::Open,
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
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self.inner.handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(Gate { inner, open: false })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self.inner.handle_established_outbound_connection(connection, peer, address, role, port)?;
        Ok(Gate { inner, open: false })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.known.insert(established.connection_id, established.endpoint.clone());
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.known.remove(&closed.connection_id);
                self.open.remove(&closed.connection_id);
                if closed.remaining_established == 0 {
                    self.allowances.remove(&closed.peer_id);
                }
                self.inner.on_swarm_event(event);
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
#[derive(Debug)]
pub(super) enum GateCommand {
    /// The link was admitted.
    Open,
    /// For gossipsub's handler.
    Inner(THandlerInEvent<Inner>),
}

/// gossipsub's handler, still until the link is admitted.
pub(super) struct Gate {
    inner: InnerHandler,
    open: bool,
}

type InnerInbound = <InnerHandler as ConnectionHandler>::InboundProtocol;
type InnerOutbound = <InnerHandler as ConnectionHandler>::OutboundProtocol;
type InnerInboundInfo = <InnerHandler as ConnectionHandler>::InboundOpenInfo;
type InnerOutboundInfo = <InnerHandler as ConnectionHandler>::OutboundOpenInfo;

impl ConnectionHandler for Gate {
    type FromBehaviour = GateCommand;
    type ToBehaviour = <InnerHandler as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = InnerInbound;
    type OutboundProtocol = InnerOutbound;
    type InboundOpenInfo = InnerInboundInfo;
    type OutboundOpenInfo = InnerOutboundInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<InnerInbound, InnerInboundInfo> {
        self.inner.listen_protocol()
    }

    fn on_behaviour_event(&mut self, event: GateCommand) {
        match event {
            GateCommand::Open => self.open = true,
            GateCommand::Inner(event) => self.inner.on_behaviour_event(event),
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.open && self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<InnerOutbound, InnerOutboundInfo, Self::ToBehaviour>> {
        // The connection polls again after the command that opens the gate.
        if self.open { self.inner.poll(context) } else { Poll::Pending }
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(context)
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, InnerInbound, InnerOutbound, InnerInboundInfo, InnerOutboundInfo>,
    ) {
        self.inner.on_connection_event(event);
    }
}
