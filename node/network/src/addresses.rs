//! Devices and transport identities, both ways, and where peers were last seen.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, time::Duration};

use holdfast_protocol::{id::DeviceId, limits::PEERS_MAX};
use indexmap::IndexSet;
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, identity, multiaddr::Protocol};

use super::StartError;

/// Addresses kept of one peer.
const ADDRESSES_PER_PEER_MAX: usize = 16;
/// Bytes of one address, in text.
const ADDRESS_BYTES_MAX: usize = 256;
/// How long a route that stood still is avoided: at first, doubled each time, and at most.
const AVOID: Duration = Duration::from_secs(60);
const AVOID_MAX: Duration = Duration::from_secs(15 * 60);

/// The transport identity of a device; `None` when the id is not a point on the curve.
pub(super) fn peer_id(device: &DeviceId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(device.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The device of a transport identity; `None` for keys other than Ed25519, which no device has.
pub(super) fn device_id(peer: &PeerId) -> Option<DeviceId> {
    // An Ed25519 identity is the key itself under the identity hash (code 0).
    let hash = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(DeviceId::from_bytes(key.try_into_ed25519().ok()?.to_bytes()))
}

/// Parses an address; too long ones are refused.
pub(super) fn parse(text: &str) -> Result<Multiaddr, String> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(format!("it has {} characters, at most {ADDRESS_BYTES_MAX} are allowed", text.len()));
    }
    text.parse().map_err(|error: libp2p::multiaddr::Error| error.to_string())
}

/// Parses an address that must be `usable`, and says what is `missing` when it is not.
pub(super) fn check(text: &str, missing: &str, usable: fn(&Multiaddr) -> bool) -> Result<(), StartError> {
    let refused = |detail| StartError::Address { address: text.to_owned(), detail };
    let address = parse(text).map_err(refused)?;
    if usable(&address) { Ok(()) } else { Err(refused(missing.to_owned())) }
}

/// Whether an address has a transport that this node speaks.
pub(super) fn is_dialled(address: &Multiaddr) -> bool {
    let mut before = None;
    address.iter().any(|part| {
        let is_transport = matches!(
            (&before, &part),
            (_, Protocol::Tcp(_) | Protocol::Dnsaddr(_)) | (Some(Protocol::Udp(_)), Protocol::QuicV1)
        );
        before = Some(part);
        is_transport
    })
}

/// Whether the peer at the end of an address has an id that a key can have.
pub(super) fn names_a_key(address: &Multiaddr) -> bool {
    let is_key = |digest: &[u8]| identity::PublicKey::try_decode_protobuf(digest).is_ok();
    peer_of(address).is_some_and(|peer| {
        // Short keys are ids themselves, under the identity hash; of others the id is a hash.
        let hash = peer.as_ref();
        hash.code() != 0 || is_key(hash.digest())
    })
}

/// Whether an address is one that a socket can be bound to.
pub(super) fn is_listened(address: &Multiaddr) -> bool {
    let address = without_peer(address.clone());
    let mut parts = address.iter();
    let is_number = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)));
    let transport = (parts.next(), parts.next(), parts.next());
    is_number
        && matches!(
            transport,
            (Some(Protocol::Tcp(_)), None, None) | (Some(Protocol::Udp(_)), Some(Protocol::QuicV1), None)
        )
}

/// The peer at the end of an address.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// An address without the peer at its end, so that equal places compare equal.
pub(super) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if peer_of(&address).is_some() {
        address.pop();
    }
    address
}

/// The number that an address begins with.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Whether an address is this machine's own, whoever reads it.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

/// Whether an address means a place on one cable only, which its text cannot name.
fn is_link_local(address: &Multiaddr) -> bool {
    matches!(ip(address), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// How a connection reaches its peer, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    /// Through a relay.
    Relayed,
    /// QUIC: slower for bulk.
    Quic,
    /// TCP: where bulk goes fastest.
    Tcp,
}

/// The route of a connection. At the end that did not dial, a circuit has no address of the other but its id.
pub(super) fn route_of(endpoint: &ConnectedPoint) -> Route {
    if endpoint.is_relayed() { Route::Relayed } else { route(endpoint.get_remote_address()) }
}

/// The route that an address takes.
pub(super) fn route(address: &Multiaddr) -> Route {
    let mut route = Route::Tcp;
    for part in address {
        match part {
            Protocol::P2pCircuit => return Route::Relayed,
            Protocol::QuicV1 | Protocol::Quic => route = Route::Quic,
            _ => {}
        }
    }
    route
}

/// Where peers were last seen: at most [`PEERS_MAX`] peers with 16 addresses each, the oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    peers: BTreeMap<PeerId, IndexSet<Multiaddr>>,
    avoided: BTreeMap<(PeerId, Route), Avoided>,
}

/// A route that stood still while another answered.
#[derive(Debug)]
struct Avoided {
    /// How long it is not taken by choice.
    rest: Duration,
    /// How long its failures are remembered.
    memory: Duration,
    failures: u32,
}

impl AddressBook {
    /// Remembers `addresses` of `peer`; whether one of them is new.
    pub(super) fn remember(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= 2 * PEERS_MAX {
            self.peers.pop_first();
        }
        let known = self.peers.entry(peer).or_default();
        let mut new = false;
        for address in addresses {
            let address = without_peer(address);
            if address.to_vec().len() > ADDRESS_BYTES_MAX || is_link_local(&address) {
                continue;
            }
            new |= known.insert(address);
            if known.len() > ADDRESSES_PER_PEER_MAX {
                known.shift_remove_index(0);
            }
        }
        new
    }

    /// The addresses of `peer`, grouped by route, best first; a `doubted` route, and those that are avoided, behind the others,
    /// and relays last.
    pub(super) fn stages(&self, peer: &PeerId, doubted: Option<Route>) -> Vec<Vec<Multiaddr>> {
        self.grouped(peer, |route| {
            let is_behind = doubted == Some(route) || self.is_avoided(peer, route);
            Some((route == Route::Relayed, is_behind, Reverse(route)))
        })
    }

    /// The addresses of `peer` by which a better route leads to it, grouped by route, best first.
    pub(super) fn better(&self, peer: &PeerId, than: Route) -> Vec<Vec<Multiaddr>> {
        self.grouped(peer, |route| (route > than && !self.is_avoided(peer, route)).then_some(Reverse(route)))
    }

    /// The addresses whose routes have a place in the order, grouped by it.
    fn grouped<O: Ord>(&self, peer: &PeerId, order: impl Fn(Route) -> Option<O>) -> Vec<Vec<Multiaddr>> {
        let mut groups: BTreeMap<O, Vec<Multiaddr>> = BTreeMap::new();
        for address in self.peers.get(peer).into_iter().flatten() {
            if let Some(place) = order(route(address)) {
                groups.entry(place).or_default().push(address.clone());
            }
        }
        groups.into_values().collect()
    }

    /// A route to `peer` stood still while another answered: it rests, longer each time.
    pub(super) fn avoid(&mut self, peer: PeerId, route: Route) {
        let avoided = self.avoided.entry((peer, route)).or_insert(Avoided {
            rest: Duration::ZERO,
            memory: Duration::ZERO,
            failures: 0,
        });
        avoided.rest = AVOID.saturating_mul(1 << avoided.failures.min(8)).min(AVOID_MAX);
        avoided.memory = AVOID_MAX * 4;
        avoided.failures += 1;
    }

    fn is_avoided(&self, peer: &PeerId, route: Route) -> bool {
        self.avoided.get(&(*peer, route)).is_some_and(|avoided| !avoided.rest.is_zero())
    }

    /// So much time has passed.
    pub(super) fn passed(&mut self, time: Duration) {
        self.avoided.retain(|_, avoided| {
            avoided.rest = avoided.rest.saturating_sub(time);
            avoided.memory = avoided.memory.saturating_sub(time);
            !avoided.memory.is_zero()
        });
    }

    /// Every address of `peer`, as text.
    pub(super) fn texts(&self, peer: &PeerId) -> Vec<String> {
        self.peers.get(peer).into_iter().flatten().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;

    fn peer() -> PeerId {
        identity::Keypair::ed25519_from_bytes([7; 32]).unwrap().public().to_peer_id()
    }

    #[test]
    fn devices_and_transport_identities_are_the_same_key() {
        let device = device_id(&peer()).unwrap();
        assert_eq!(peer_id(&device), Some(peer()));
    }

    #[test]
    fn both_ends_know_a_circuit_for_what_it_is() {
        let relay: Multiaddr = format!("/ip4/10.0.0.9/tcp/1/p2p/{}", peer()).parse().unwrap();
        let circuit = relay.with(Protocol::P2pCircuit);
        let dialled = ConnectedPoint::Dialer {
            address: circuit.clone().with(Protocol::P2p(peer())),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let from = Multiaddr::empty().with(Protocol::P2p(peer()));
        let accepted = ConnectedPoint::Listener { local_addr: circuit, send_back_addr: from };
        assert_eq!((route_of(&dialled), route_of(&accepted)), (Route::Relayed, Route::Relayed));
    }

    #[test]
    fn tcp_is_dialled_before_quic_and_relays() {
        let mut book = AddressBook::default();
        let texts = ["/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.9/tcp/1/p2p-circuit"];
        assert!(book.remember(peer(), texts.iter().map(|text| parse(text).unwrap())));
        assert!(!book.remember(peer(), texts.iter().map(|text| parse(text).unwrap())));
        let stages: Vec<Route> = book.stages(&peer(), None).iter().map(|stage| route(&stage[0])).collect();
        assert_eq!(stages, [Route::Tcp, Route::Quic, Route::Relayed]);
    }

    #[test]
    fn a_route_that_stood_still_is_avoided_for_a_while_and_longer_the_next_time() {
        let mut book = AddressBook::default();
        let texts = ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.9/tcp/1/p2p-circuit"];
        book.remember(peer(), texts.iter().map(|text| parse(text).unwrap()));
        let routes = |stages: Vec<Vec<Multiaddr>>| stages.iter().map(|stage| route(&stage[0])).collect::<Vec<_>>();
        let doubted = routes(book.stages(&peer(), Some(Route::Tcp)));
        assert_eq!(doubted, [Route::Quic, Route::Tcp, Route::Relayed]);
        assert_eq!(routes(book.better(&peer(), Route::Relayed)), [Route::Tcp, Route::Quic]);
        assert_eq!(routes(book.better(&peer(), Route::Quic)), [Route::Tcp]);
        for minutes in [1, 2, 4, 8, 15, 15] {
            book.avoid(peer(), Route::Tcp);
            book.passed(Duration::from_secs(60 * minutes - 1));
            assert_eq!(routes(book.stages(&peer(), None)), [Route::Quic, Route::Tcp, Route::Relayed]);
            assert!(book.better(&peer(), Route::Quic).is_empty());
            book.passed(Duration::from_secs(1));
            assert_eq!(routes(book.better(&peer(), Route::Quic)), [Route::Tcp]);
        }
        book.passed(Duration::from_secs(2 * 60 * 60));
        assert!(book.avoided.is_empty());
    }

    #[test]
    fn addresses_that_mean_one_cable_only_are_not_remembered() {
        let mut book = AddressBook::default();
        assert!(!book.remember(peer(), [parse("/ip6/fe80::1/tcp/1").unwrap()]));
        assert!(book.remember(peer(), [parse("/ip6/fd00::1/tcp/1").unwrap()]));
    }

    #[test]
    fn what_cannot_be_dialled_or_listened_on_is_told_apart() {
        let relay = format!("/dns4/relay.example/tcp/4001/p2p/{}", peer());
        let cases = [
            ("/ip4/0.0.0.0/tcp/4001", true, true),
            ("/ip6/::/udp/4001/quic-v1", true, true),
            (relay.as_str(), true, false),
            ("/ip4/192.168.1.7", false, false),
            ("/ip4/192.168.1.7/udp/4001", false, false),
            ("/dns4/nas/udp/4001/quic-v1", true, false),
        ];
        for (text, dialled, listened) in cases {
            let address = parse(text).unwrap();
            assert_eq!((is_dialled(&address), is_listened(&address)), (dialled, listened), "{text}");
        }
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let mut book = AddressBook::default();
        book.remember(peer(), (1..2000u16).map(|port| parse(&format!("/ip4/10.0.0.1/tcp/{port}")).unwrap()));
        assert_eq!(book.texts(&peer()).len(), ADDRESSES_PER_PEER_MAX);
    }
}
