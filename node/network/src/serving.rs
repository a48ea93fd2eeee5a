//! Serving as a relay for the members of one's own libraries.
//!
//! Members listen at it once they have proven what they are; anybody may connect through to a member who listens, for
//! that is how a new device pairs, and the member itself decides who stays. Nobody else's traffic is passed on.
//!
//! Invariant: who is not admitted holds no place: the connection of one that asked for it is closed at once.

use std::{
    num::NonZeroU32,
    task::{Context, Poll},
    time::Duration,
};

use indexmap::IndexSet;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

/// Members that are remembered.
const MEMBERS_MAX: usize = 1024;
/// Places, and circuits at one time.
const PLACES_MAX: usize = 256;
const PLACES_PER_MEMBER_MAX: usize = 2;
const CIRCUITS_MAX: usize = 256;
const CIRCUITS_PER_PEER_MAX: usize = 16;
/// A circuit carries photos: it ends when its peers have found a better way, not when it has worked for a while.
const CIRCUIT_DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const CIRCUIT_BYTES_MAX: u64 = 1 << 42;
/// Circuits that one peer, and one address, may begin in a minute.
const CIRCUITS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
const CIRCUITS_PER_MINUTE_AND_ADDRESS: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
const MINUTE: Duration = Duration::from_secs(60);

/// A relay behind a gate.
pub(super) struct Behaviour {
    relay: relay::Behaviour,
    members: IndexSet<PeerId>,
}

impl Behaviour {
    pub(super) fn new(local: PeerId) -> Self {
        let config = relay::Config {
            max_reservations: PLACES_MAX,
            max_reservations_per_peer: PLACES_PER_MEMBER_MAX,
            max_circuits: CIRCUITS_MAX,
            max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
            max_circuit_duration: CIRCUIT_DURATION_MAX,
            max_circuit_bytes: CIRCUIT_BYTES_MAX,
            circuit_src_rate_limiters: Vec::new(),
            ..relay::Config::default()
        };
        let config = config
            .circuit_src_per_peer(CIRCUITS_PER_MINUTE, MINUTE)
            .circuit_src_per_ip(CIRCUITS_PER_MINUTE_AND_ADDRESS, MINUTE);
        let mut relay = relay::Behaviour::new(local, config);
        relay.set_status(Some(relay::Status::Enable));
        Self { relay, members: IndexSet::new() }
    }

    /// Lets `peer` listen here; whether that is new.
    pub(super) fn admit(&mut self, peer: PeerId) -> bool {
        if self.members.len() >= MEMBERS_MAX && !self.members.contains(&peer) {
            self.members.shift_remove_index(0);
        }
        self.members.insert(peer)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.relay.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.relay.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.relay.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.relay.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.relay.poll(context) {
            Poll::Ready(ToSwarm::GenerateEvent(relay::Event::ReservationReqAccepted { src_peer_id, .. }))
                if !self.members.contains(&src_peer_id) =>
            {
                tracing::debug!(peer = %src_peer_id, "a stranger wants a place at this relay");
                Poll::Ready(ToSwarm::CloseConnection { peer_id: src_peer_id, connection: CloseConnection::All })
            }
            happened => happened,
        }
    }
}
