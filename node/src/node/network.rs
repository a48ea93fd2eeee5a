//! Between the network driver and the library: events become inputs, chunks go between sockets and the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_library::Input;
use holdfast_network::{ChunkSink, ChunkSource, DialFailure, NetworkEvent, PairingId, ReadFailure};
use holdfast_protocol::codec;
use holdfast_protocol::id::{ChunkId, DeviceId};
use holdfast_protocol::metadata::{Batch, Metadata, StorageError, Table};
use holdfast_protocol::pairing::{JoinAnswer, JoinRefused, JoinRequest};
use holdfast_protocol::replica::Input as ReplicaInput;
use holdfast_protocol::time::Timestamp;
use holdfast_store::{ChunkStore, ReadError};
use indexmap::IndexSet;

use super::runtime::Runtime;
use super::workers::Losses;
use super::{NodeError, seed};
use crate::api::Happening;

const ADDRESS_PREFIX: &[u8] = b"address/";
/// Addresses that are remembered of one peer.
const ADDRESSES_MAX: usize = 8;
const ADDRESSES_BYTES_MAX: usize = 4 << 10;

/// How long a device that wants to join waits for logs to be compared, before it is told to come again: it waits for an
/// answer a little longer.
const PAIRING_PATIENCE: Duration = Duration::from_secs(25);

/// A device that wants to join and was not answered yet.
pub(super) struct WaitingPairing {
    pairing: PairingId,
    peer: DeviceId,
    request: JoinRequest,
    since: Timestamp,
}

/// Served chunks come from the store.
pub(super) fn source(store: Arc<ChunkStore>, losses: Losses) -> ChunkSource {
    ChunkSource::new(move |chunk: &ChunkId, sealed: &mut Vec<u8>| {
        store.read_into(chunk, sealed).map_err(|error| {
            losses.report(chunk, &error);
            if matches!(error, ReadError::Storage(_)) { ReadFailure::Busy } else { ReadFailure::NotHeld }
        })
    })
}

/// Fetched chunks go to the store's segments.
pub(super) fn sink(store: Arc<ChunkStore>) -> ChunkSink {
    let appending = store.clone();
    ChunkSink::new(move |chunk, sealed| appending.append(*chunk, sealed), move || store.commit())
}

/// Where peers were last seen, kept across restarts.
#[derive(Default)]
pub(super) struct AddressBook {
    addresses: BTreeMap<DeviceId, Vec<String>>,
}

impl AddressBook {
    pub(super) fn load<M: Metadata>(metadata: &M) -> Result<Self, StorageError> {
        let mut addresses = BTreeMap::new();
        for (key, value) in metadata.scan(Table::Peer, ADDRESS_PREFIX, &[], 1024)? {
            let device = key[ADDRESS_PREFIX.len()..].try_into().map(DeviceId::from_bytes);
            // Addresses are a hint: damaged ones are learned again.
            if let (Ok(device), Ok(known)) = (device, codec::decode::<Vec<String>>(&value, ADDRESSES_BYTES_MAX)) {
                addresses.insert(device, places_of(known));
            }
        }
        Ok(Self { addresses })
    }

    pub(super) fn of(&self, peer: &DeviceId) -> Vec<String> {
        self.addresses.get(peer).cloned().unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DeviceId, Vec<String>)> + use<> {
        self.addresses.clone().into_iter()
    }

    /// Remembers addresses, the newest first; `None` when they were known.
    pub(super) fn learn(&mut self, peer: DeviceId, new: Vec<String>) -> Option<Batch> {
        let new = places_of(new);
        let known = self.addresses.entry(peer).or_default();
        if new.iter().all(|address| known.contains(address)) {
            return None;
        }
        known.retain(|address| !new.contains(address));
        known.splice(..0, new);
        known.truncate(ADDRESSES_MAX);
        let mut batch = Batch::new();
        batch.put(Table::Peer, [ADDRESS_PREFIX, peer.as_bytes()].concat(), codec::encode(known));
        Some(batch)
    }
}

/// Each address once: without the peer at its end, which some sources name and others do not.
fn places_of(addresses: Vec<String>) -> Vec<String> {
    let places: IndexSet<String> = addresses.iter().map(|address| holdfast_network::place_of(address)).collect();
    places.into_iter().collect()
}

impl Runtime {
    pub(super) fn take_network(&mut self, event: NetworkEvent) -> Result<(), NodeError> {
        use NetworkEvent as Event;
        let input = match event {
            Event::Listening { addresses } => {
                for address in addresses.iter().filter(|address| !self.listening.contains(address)) {
                    self.news.publish(Happening::Listening { address: address.clone() });
                }
                self.listening = addresses;
                return Ok(());
            }
            Event::Observed { addresses } => {
                self.observed = addresses;
                return Ok(());
            }
            Event::Connected { link, peer, outbound, address, path } => {
                self.connections.connected(self.clock.now().elapsed, link, peer, path);
                if outbound {
                    self.learn_addresses(peer, vec![address])?;
                }
                ReplicaInput::Connected { link, peer, outbound }
            }
            Event::RoundTrip { link, took } => {
                self.connections.answered(link, took);
                return Ok(());
            }
            Event::Disconnected { link, peer, end } => {
                self.connections.ended(link);
                let name = self.name_of(&peer);
                self.news.link_ended(&peer, &name, &end);
                ReplicaInput::Disconnected { link }
            }
            Event::AddressesFailed { peer, failures } => {
                if self.library.replica().registry().is_member(&peer) {
                    self.connections.failed(peer, failures);
                }
                return Ok(());
            }
            Event::DialFailed { peer, reason } => {
                tracing::debug!(?peer, reason, "a peer could not be reached");
                let Some(peer) = peer else { return Ok(()) };
                if self.connections.failures(&peer).is_empty() {
                    self.connections.failed(peer, [DialFailure { address: None, reason }]);
                }
                ReplicaInput::DialFailed { peer }
            }
            Event::NetworkChanged => ReplicaInput::NetworkChanged,
            Event::PeerSeen { peer, addresses } => {
                // Strangers on the local network are none of this library's business.
                if !self.library.replica().registry().is_member(&peer) {
                    return Ok(());
                }
                self.learn_addresses(peer, addresses.clone())?;
                ReplicaInput::PeerSeen { peer, addresses }
            }
            Event::Replica(input) => {
                if let ReplicaInput::Served { link, .. } | ReplicaInput::Fetched { link, .. } = &input {
                    self.connections.moved(self.clock.now().elapsed, *link);
                }
                input
            }
            Event::PairRequested { pairing, peer, body } => return self.pair(pairing, peer, &body),
        };
        self.handle(Input::Replica(input))
    }

    pub(super) fn learn_addresses(&mut self, peer: DeviceId, addresses: Vec<String>) -> Result<(), NodeError> {
        if let Some(batch) = self.addresses.learn(peer, addresses) {
            self.network.remember(peer, self.addresses.of(&peer));
            self.library.keep(batch)?;
        }
        Ok(())
    }

    /// A device wants to join.
    fn pair(&mut self, pairing: PairingId, peer: DeviceId, body: &[u8]) -> Result<(), NodeError> {
        // Who dials is proven by the transport; a request made for another device is nobody's.
        let request = JoinRequest::parse(body).ok().filter(|request| request.device() == peer);
        let Some(request) = request else {
            self.network.answer_pairing(pairing, None);
            return Ok(());
        };
        let since = self.clock.now().elapsed;
        self.pairings.push(WaitingPairing { pairing, peer, request, since });
        self.answer_pairings()
    }

    /// Answers devices that want to join; those that came while logs are compared as soon as that is done. What is answered
    /// with is durable first: an admitted device that is forgotten by a crash would be a stranger with the library's keys.
    pub(super) fn answer_pairings(&mut self) -> Result<(), NodeError> {
        if self.space.is_standstill() {
            return Ok(());
        }
        for waiting in std::mem::take(&mut self.pairings) {
            let now = self.clock.now();
            let addresses = self.reachable_addresses();
            let (answer, effects) = self.library.admit(now, &self.device, &addresses, &waiting.request, &seed()?)?;
            self.carry_out(effects)?;
            let answer = match answer {
                Err(JoinRefused::NotYet) if now.elapsed.since(waiting.since) < PAIRING_PATIENCE => {
                    self.pairings.push(waiting);
                    continue;
                }
                Err(refused) => JoinAnswer::Refused(refused),
                Ok(admission) => {
                    self.news.joined(waiting.peer, waiting.request.name());
                    JoinAnswer::Admitted(Box::new(admission))
                }
            };
            let (network, answer) = (self.network.clone(), answer.to_bytes().into());
            self.once_durable(move || network.answer_pairing(waiting.pairing, Some(answer)));
        }
        Ok(())
    }

    /// Where this node can be reached, perhaps: what it was told, where it listens, where others have seen it. A ticket
    /// chooses among them.
    pub(super) fn reachable_addresses(&self) -> Vec<String> {
        let (loopback, reachable): (Vec<_>, Vec<_>) =
            self.listening.iter().cloned().partition(|address| is_loopback(address));
        let mut addresses = self.settings.announced.clone();
        for address in [reachable, self.observed.clone(), loopback].into_iter().flatten() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// Whether nobody but this machine reaches an address.
pub(super) fn is_loopback(address: &str) -> bool {
    address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/")
}
