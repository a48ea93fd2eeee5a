//! Relays that listen for this node, this node as a relay, and where others have seen it.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::sleep,
};

use super::Driver;
use crate::{
    NetworkEvent,
    addresses::{self, Route},
    command::Command,
    proof,
    streams::{self, Stream},
};

/// Addresses that others have seen this node at.
const OBSERVED_MAX: usize = 4;

impl Driver {
    pub(super) fn ask_relay(&mut self, relay: PeerId) {
        if let Some(connection) = self.relays.ask(&mut self.swarm, &relay) {
            self.prove(relay, connection);
        }
    }

    pub(super) fn ask_relay_later(&self, relay: PeerId, wait: Duration) {
        let commands = self.shared.commands.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            let _ = commands.send(Command::AskRelay { relay }).await;
        });
    }

    /// Takes new certificates: relays that knew nothing of this device's may let it in now.
    pub(super) fn prove_with(&mut self, chain: Vec<Vec<u8>>) {
        if self.chain != chain {
            self.chain = chain;
            for relay in self.relays.resting() {
                self.ask_relay(relay);
            }
        }
    }

    pub(super) fn relay_connected(&mut self, relay: PeerId, connection: ConnectionId, endpoint: ConnectedPoint) {
        self.at_relays.insert(connection, (relay, endpoint));
        if self.relays.connected(&relay, connection) {
            self.prove(relay, connection);
        }
    }

    /// Makes a connection to a relay a link: the relay is a member too.
    pub(super) async fn speaks_as_member(&mut self, connection: ConnectionId) {
        if let Some((peer, endpoint)) = self.at_relays.remove(&connection) {
            self.connected(peer, connection, endpoint).await;
        }
    }

    fn prove(&self, relay: PeerId, connection: ConnectionId) {
        let (commands, chain) = (self.shared.commands.clone(), self.chain.clone());
        tokio::spawn(async move {
            let (reply, opened) = oneshot::channel();
            let open = Command::Open { peer: relay, connection, protocol: streams::RELAY, reply };
            let _ = commands.send(open).await;
            let outcome = match opened.await {
                Ok(stream) => proof::show(stream.ok(), chain).await,
                Err(_) => proof::Outcome::Lost,
            };
            let _ = commands.send(Command::RelayAnswered { relay, outcome }).await;
        });
    }

    /// Lets a device listen here that proves to be a member.
    pub(super) fn check_proof(&self, peer: PeerId, stream: Stream, permit: OwnedSemaphorePermit) {
        let (Some(serving), Some(device)) = (self.serving, addresses::device_id(&peer)) else { return };
        let commands = self.shared.commands.clone();
        tokio::spawn(async move {
            if let Some(proven) = proof::check(stream, device, &[serving.library]).await {
                let _ = commands.send(Command::Serve { member: peer, proven: Box::new(proven) }).await;
            }
            drop(permit);
        });
    }

    /// Tells those who reserve a place that they are reached at `address`.
    pub(super) fn serve_at(&mut self, address: Multiaddr) {
        let is_own = addresses::route(&address) != Route::Relayed;
        if is_own && self.serving.is_some_and(|serving| !serving.is_announced) {
            self.swarm.add_external_address(address);
        }
    }

    /// Keeps where others have seen this node, if that is on a public network.
    pub(super) async fn observed(&mut self, address: Multiaddr) {
        if !is_public(&address) || !self.observed.insert(address) {
            return;
        }
        if self.observed.len() > OBSERVED_MAX {
            self.observed.shift_remove_index(0);
        }
        let addresses = self.observed.iter().map(ToString::to_string).collect();
        self.shared.events.tell(NetworkEvent::Observed { addresses }).await;
    }
}

/// Whether an address is one of the public network's, by its number.
fn is_public(address: &Multiaddr) -> bool {
    let is_direct = addresses::route(address) != Route::Relayed;
    is_direct
        && match address.iter().next() {
            Some(Protocol::Ip4(ip)) => {
                !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified())
            }
            Some(Protocol::Ip6(ip)) => {
                !(ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified())
            }
            _ => false,
        }
}
