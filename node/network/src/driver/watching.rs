//! Watching connections: which are dead, which may be, and for which there may be a better way.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};

use super::{
    Driver,
    liveness::{Finding, Liveness, TICK},
};
use crate::{
    LinkEnd, NetworkEvent,
    addresses::{self, Route},
    links::{Link, Rank},
    sockets,
    streams::Moved,
};

/// A connection, to a peer or to a relay.
pub(super) struct Watched {
    peer_id: PeerId,
    route: Route,
    /// This machine's address on it.
    local: Option<IpAddr>,
    moved: Moved,
    pub(super) liveness: Liveness,
}

impl Driver {
    pub(super) fn watch(&mut self, peer_id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let remote = endpoint.get_remote_address();
        let watched = Watched {
            peer_id,
            route: addresses::route_of(endpoint),
            local: sockets::source_address(remote),
            moved: self.swarm.behaviour().streams.moved(connection),
            liveness: Liveness::default(),
        };
        self.watched.insert(connection, watched);
    }

    /// Looks at everything that waits for time to pass.
    pub(super) async fn tick(&mut self) {
        self.book.passed(TICK);
        if std::mem::take(&mut self.has_moved) {
            self.shared.events.tell(NetworkEvent::NetworkChanged).await;
            self.dial_anew().await;
        }
        self.dial_further().await;
        for (connection, finding) in self.findings() {
            let Some((peer, route)) = self.watched.get(&connection).map(|watched| (watched.peer_id, watched.route))
            else {
                continue;
            };
            match finding {
                Finding::Alive => {}
                Finding::Dead(silence) => self.give_up(connection, LinkEnd::Silent { seconds: silence.as_secs() }),
                Finding::Doubtful => self.dial_beside(peer, self.book.stages(&peer, Some(route))).await,
                Finding::MayImprove => self.dial_beside(peer, self.book.better(&peer, route)).await,
            }
        }
    }

    fn findings(&mut self) -> Vec<(ConnectionId, Finding)> {
        // What passes through a relay is counted at its ends, and is life of the connection to the relay too.
        let relayed = self.watched.values().filter(|watched| watched.route == Route::Relayed);
        let relayed: u64 = relayed.map(|watched| watched.moved.bytes()).sum();
        let relays = &self.relays;
        let look = |(connection, watched): (&ConnectionId, &mut Watched)| {
            let passed = if relays.contains(&watched.peer_id) { relayed } else { 0 };
            (*connection, watched.liveness.tick(watched.moved.bytes() + passed))
        };
        self.watched.iter_mut().map(look).collect()
    }

    pub(super) fn give_up(&mut self, connection: ConnectionId, end: LinkEnd) {
        match self.connections.get(&connection).and_then(|link| self.shared.link(*link)) {
            Some(link) => link.end(end),
            None => _ = self.swarm.close_connection(connection),
        }
    }

    /// This machine has a new address: whoever could not be reached may be reached from there.
    pub(super) fn address_came(&mut self, address: &Multiaddr) {
        self.has_moved |= addresses::route(address) != Route::Relayed && !addresses::is_loopback(address);
    }

    /// An address of this machine is gone, and what was connected from there with it: nobody has to find that out.
    pub(super) fn address_went(&mut self, address: &Multiaddr) {
        let Some(gone) = addresses::ip(address).filter(|_| addresses::route(address) != Route::Relayed) else { return };
        self.address_came(address);
        let on_it = self.watched.iter().filter(|(_, watched)| watched.local == Some(gone));
        for connection in on_it.map(|(connection, _)| *connection).collect::<Vec<_>>() {
            self.give_up(connection, LinkEnd::AddressGone);
        }
    }

    /// Whether a new connection takes the place of the standing one. Both ends come to the same answer, except on the edge of
    /// a second; then both are dropped, and dialled again.
    pub(super) fn takes_over(&mut self, rank: Rank, standing: &Link) -> bool {
        if rank.replaces(standing.rank) || self.ending.contains_key(&standing.id) {
            return true;
        }
        let Some(Watched { liveness, .. }) = self.watched.get(&standing.connection) else { return true };
        if rank.route() == standing.rank.route() {
            // Not dialled at once: the dialler has lost the older one.
            return liveness.is_settled();
        }
        if liveness.is_suspect() {
            // The peer answers, only not this way: the path may swallow what is large.
            self.book.avoid(standing.peer_id, standing.rank.route());
            return true;
        }
        false
    }
}
