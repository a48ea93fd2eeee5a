//! Dialling: the addresses of a peer, route by route, and join requests that wait for a connection.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_protocol::id::DeviceId;
use libp2p::{
    PeerId,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{Driver, PairAnswer};
use crate::network::{DialFailure, NetworkEvent, PairError, addresses, links::Link, pairing, streams};

/// A join request that waits for a connection.
pub(super) struct Pair {
    pub(super) peer: PeerId,
    pub(super) request: Bytes,
    pub(super) answer: PairAnswer,
}

impl Driver {
    /// Dials all known addresses of `peer`, one route after the other.
    pub(super) async fn dial(&mut self, peer: PeerId) {
        if self.standing.contains_key(&peer) || self.dials.contains_key(&peer) {
            return;
        }
        self.dials.insert(peer, self.book.stages(&peer).into());
        self.dial_next(peer, "no address of it is known".to_owned()).await;
    }

    pub(super) async fn dial_next(&mut self, peer: PeerId, mut reason: String) {
        while let Some(stages) = self.dials.get_mut(&peer) {
            let Some(addresses) = stages.pop_front() else {
                self.dials.remove(&peer);
                self.pairs_failed(&peer, &reason);
                self.dial_failed(addresses::device_id(&peer), reason).await;
                return;
            };
            let dial = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).build();
            match self.swarm.dial(dial) {
                Ok(()) => return,
                Err(error) => reason = explain(&error),
            }
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
        self.shared.tell(NetworkEvent::DialFailed { peer, reason }).await;
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
