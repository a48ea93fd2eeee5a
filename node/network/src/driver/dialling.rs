//! Dialling: the addresses of a peer, route by route, and join requests that wait for a connection.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use holdfast_protocol::id::DeviceId;
use libp2p::{
    Multiaddr, PeerId,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::Driver;
use crate::{DialFailure, NetworkEvent, PairError, addresses, command::PairAnswer, links::Link, pairing, streams};

/// Ticks that a route has for itself before the next one is tried beside it.
const ROUTE_TICKS: u32 = 2;

/// A peer that is being dialled.
pub(super) struct Dial {
    /// Addresses that are still to be tried, route by route.
    stages: VecDeque<Vec<Multiaddr>>,
    under_way: BTreeSet<ConnectionId>,
    /// Ticks since the last route was tried.
    waited: u32,
    /// Why none has answered.
    reason: String,
}

/// A join request that waits for a connection.
pub(super) struct Pair {
    pub(super) peer: PeerId,
    pub(super) request: Bytes,
    pub(super) answer: PairAnswer,
}

impl Driver {
    /// Dials all known addresses of `peer`, one route after the other.
    pub(super) async fn dial(&mut self, peer: PeerId) {
        if !self.standing.contains_key(&peer) {
            self.begin_dial(peer, self.stages(&peer)).await;
        }
    }

    /// Dials all known addresses of `peer` at once: a join request is small, and a person waits for its answer.
    pub(super) async fn dial_to_pair(&mut self, peer: PeerId) {
        self.begin_dial(peer, vec![self.stages(&peer).concat()]).await;
    }

    /// Where `peer` may be reached, route by route: at last through any relay that is known here.
    fn stages(&self, peer: &PeerId) -> Vec<Vec<Multiaddr>> {
        let mut stages = self.book.stages(peer, None);
        stages.push(self.relays.circuits(peer));
        stages
    }

    /// Dials a peer to which a connection stands, for a better one or one that lives. Nobody waits for the outcome.
    pub(super) async fn dial_beside(&mut self, peer: PeerId, stages: Vec<Vec<Multiaddr>>) {
        if self.standing.contains_key(&peer) && !stages.is_empty() {
            self.begin_dial(peer, stages).await;
        }
    }

    async fn begin_dial(&mut self, peer: PeerId, stages: Vec<Vec<Multiaddr>>) {
        if self.dials.contains_key(&peer) {
            return;
        }
        let reason = "no address of it is known".to_owned();
        self.dials.insert(peer, Dial { stages: stages.into(), under_way: BTreeSet::new(), waited: 0, reason });
        self.dial_next(peer).await;
    }

    /// Tries the next route of a peer, beside those that have not failed yet.
    async fn dial_next(&mut self, peer: PeerId) {
        while let Some(dial) = self.dials.get_mut(&peer) {
            let Some(addresses) = dial.stages.pop_front() else {
                if dial.under_way.is_empty() {
                    self.dial_is_over(peer).await;
                }
                return;
            };
            if addresses.is_empty() {
                continue;
            }
            self.relays.pass(&addresses);
            let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).build();
            let connection = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => {
                    dial.waited = 0;
                    dial.under_way.insert(connection);
                    return;
                }
                Err(error) => dial.reason = explain(&error),
            }
        }
    }

    async fn dial_is_over(&mut self, peer: PeerId) {
        let Some(Dial { reason, .. }) = self.dials.remove(&peer) else { return };
        self.pairs_failed(&peer, &reason);
        if !self.standing.contains_key(&peer) {
            self.dial_failed(addresses::device_id(&peer), reason).await;
        }
    }

    /// A route of a peer has failed.
    pub(super) async fn route_failed(&mut self, peer: PeerId, connection: ConnectionId, error: &DialError) {
        let Some(dial) = self.dials.get_mut(&peer).filter(|dial| dial.under_way.contains(&connection)) else { return };
        dial.under_way.remove(&connection);
        dial.reason = explain(error);
        if dial.under_way.is_empty() {
            self.dial_next(peer).await;
        }
    }

    /// A tick later: routes that do not answer have had their time alone.
    pub(super) async fn dial_further(&mut self) {
        let mut slow = Vec::new();
        for (peer, dial) in &mut self.dials {
            dial.waited += 1;
            if dial.waited >= ROUTE_TICKS && !dial.stages.is_empty() {
                slow.push(*peer);
            }
        }
        for peer in slow {
            self.dial_next(peer).await;
        }
    }

    /// Begins all dials again, since this machine has other addresses: what was sent from the old ones is never answered.
    pub(super) async fn dial_anew(&mut self) {
        for peer in self.dials.keys().copied().collect::<Vec<_>>() {
            let stages = self.stages(&peer);
            if let Some(dial) = self.dials.get_mut(&peer) {
                dial.stages = stages.into();
            }
            self.dial_next(peer).await;
        }
    }

    pub(super) async fn dial_address(&mut self, text: &str) {
        let address = match addresses::parse(text) {
            Ok(address) => address,
            Err(detail) => return self.dial_failed(None, format!("{text:?} is not an address: {detail}")).await,
        };
        if let Some(peer) = addresses::peer_of(&address) {
            self.book.remember(peer, [address]);
            return self.dial(peer).await;
        }
        let dial = DialOpts::unknown_peer_id().address(address).build();
        let connection = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => {
                self.unknown_dials.insert(connection);
            }
            Err(error) => self.dial_failed(None, format!("{text}: {}", explain(&error))).await,
        }
    }

    pub(super) async fn dial_failed(&mut self, peer: Option<DeviceId>, reason: String) {
        self.shared.events.tell(NetworkEvent::DialFailed { peer, reason }).await;
    }

    fn pairs_failed(&mut self, peer: &PeerId, reason: &str) {
        for pair in self.pairs.extract_if(.., |pair| pair.peer == *peer) {
            let _ = pair.answer.send(Err(PairError::Unreachable { detail: reason.to_owned() }));
        }
    }

    /// Sends the join requests that wait for this connection.
    pub(super) fn pair_on(&mut self, link: &Arc<Link>) {
        for Pair { request, answer, .. } in self.pairs.extract_if(.., |pair| pair.peer == link.peer_id) {
            let link = link.clone();
            tokio::spawn(async move {
                let answered = match link.open(streams::PAIR).await {
                    Some(stream) => pairing::request(stream, &request).await,
                    None => Err(PairError::Refused),
                };
                let _ = answer.send(answered);
            });
        }
    }
}

/// What a failed dial means, for people.
pub(super) fn explain(error: &DialError) -> String {
    let each = failures(error).into_iter().map(|DialFailure { address, reason }| match address {
        Some(address) => format!("{address}: {reason}"),
        None => reason,
    });
    // Behind a semicolon messages say what to do next.
    each.collect::<Vec<_>>().join(", ")
}

/// What a failed dial means, address by address.
pub(super) fn failures(error: &DialError) -> Vec<DialFailure> {
    let reason = match error {
        DialError::Transport(failures) => {
            let each = failures.iter().map(|(address, error)| DialFailure {
                address: Some(addresses::without_peer(address.clone()).to_string()),
                reason: innermost(error),
            });
            return each.collect();
        }
        DialError::LocalPeerId { .. } => "the address is this device's own".to_owned(),
        DialError::WrongPeerId { .. } => "another device answers at its address".to_owned(),
        DialError::Denied { .. } => "too many connections".to_owned(),
        error => error.to_string(),
    };
    vec![DialFailure { address: None, reason }]
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
