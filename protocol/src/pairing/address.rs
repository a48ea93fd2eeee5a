//! Addresses as a ticket carries them: in a few bytes each, and as text on either side of it.
//!
//! A place on the wire is `head u8 ‖ host ‖ ports ‖ relay`. The head holds the kind of host (3 bits), which ports
//! follow (3 bits), whether a relay does (1 bit), and whether another place does (1 bit). The inviter's own ports are
//! left out where they are those of the places before.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::id::DeviceId;

/// Places of a ticket at most.
pub(super) const PLACES_MAX: usize = 4;
/// Bytes of a place at most: its head, a name or a text with its length, two ports and a relay.
pub(super) const PLACE_BYTES_MAX: usize = 1 + 1 + u8::MAX as usize + 4 + 32;

const RELAYED: u8 = 1 << 6;
const MORE: u8 = 1 << 7;
/// What precedes an Ed25519 key in a transport identity: the identity hash of a key in protobuf.
const IDENTITY_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Where the inviter is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A host: the inviter's own, or that of a relay which the inviter listens at.
    Host { host: Host, ports: Ports, relay: Option<DeviceId> },
    /// An address of any other form.
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Ip4(Ipv4Addr),
    Ip6(Ipv6Addr),
    /// A name, and what the address calls it: `dns`, `dns4` or `dns6`.
    Name(&'static str, String),
}

/// Where a host listens: by one transport at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ports {
    tcp: Option<u16>,
    quic: Option<u16>,
}

/// How far an address is good, and so how early it stands in a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Public,
    /// The home's network.
    Local,
    /// Where containers have their networks, and some homes theirs.
    LocalOrContainers,
    Relayed,
    Ip6,
    Unknown,
    LinkLocal,
    Loopback,
}

/// Why bytes are not the places of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlacesRefused {
    CutOff,
    Malformed,
}

/// The best of `addresses` of `inviter`, best first: not all of one kind, and this machine's own only for want of others.
pub(super) fn choose(addresses: &[String], inviter: &DeviceId) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for place in addresses.iter().filter_map(|address| Place::parse(address, inviter)) {
        if !places.iter_mut().any(|known| known.joins(&place)) {
            places.push(place);
        }
    }
    places.sort_by_key(Place::reach);
    if places.first().is_some_and(|best| best.reach() < Reach::LinkLocal) {
        places.retain(|place| place.reach() < Reach::LinkLocal);
    }
    // Each way gets a place before another has two.
    let (mut chosen, mut others): (Vec<Place>, Vec<Place>) = (Vec::new(), Vec::new());
    for place in places {
        let is_first = chosen.last().is_none_or(|last| last.reach() != place.reach());
        let is_chosen = is_first && chosen.len() < PLACES_MAX && place.reach() != Reach::LocalOrContainers;
        if is_chosen { chosen.push(place) } else { others.push(place) }
    }
    others.truncate(PLACES_MAX - chosen.len());
    chosen.append(&mut others);
    chosen.sort_by_key(Place::reach);
    chosen
}

/// Whether nobody outside of one home gets to any of `places`.
pub(super) fn are_local(places: &[Place]) -> bool {
    use Reach::{LinkLocal, Local, LocalOrContainers, Loopback};
    let is_local = |place: &Place| matches!(place.reach(), Local | LocalOrContainers | LinkLocal | Loopback);
    places.iter().all(|place| {
        is_local(place) || matches!(place, Place::Host { host: Host::Ip6(ip), relay: None, .. } if ip.is_unique_local())
    })
}

/// The bytes of `places`.
pub(super) fn encode(places: &[Place]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = Ports::default();
    for (number, place) in places.iter().enumerate() {
        let more = if number + 1 < places.len() { MORE } else { 0 };
        place.encode(more, &mut before, &mut bytes);
    }
    if places.is_empty() {
        Place::Text(String::new()).encode(0, &mut before, &mut bytes);
    }
    bytes
}

/// The places at the beginning of `bytes`, which are left with what follows.
pub(super) fn decode(bytes: &mut &[u8]) -> Result<Vec<Place>, PlacesRefused> {
    let mut places = Vec::new();
    let mut before = Ports::default();
    loop {
        let [head] = take(bytes)?;
        match Place::decode(head, &mut before, bytes)? {
            // A ticket without a place has an empty one.
            Place::Text(text) if text.is_empty() && places.is_empty() && head & MORE == 0 => return Ok(places),
            Place::Text(text) if text.is_empty() => return Err(PlacesRefused::Malformed),
            place => places.push(place),
        }
        if head & MORE == 0 {
            return Ok(places);
        }
        if places.len() == PLACES_MAX {
            return Err(PlacesRefused::Malformed);
        }
    }
}

impl Place {
    /// The place that an address of `inviter` names; `None` when it is none that a ticket can carry.
    fn parse(address: &str, inviter: &DeviceId) -> Option<Self> {
        let text = address.strip_suffix(&format!("/p2p/{}", identity(inviter))).unwrap_or(address);
        let is_carried = is_word(text) && text.len() <= usize::from(u8::MAX);
        is_carried.then(|| {
            let host = Self::parse_host(text).filter(|host| host.texts() == [text]);
            host.unwrap_or_else(|| Self::Text(text.to_owned()))
        })
    }

    fn parse_host(text: &str) -> Option<Self> {
        let (at, relay) = match text.strip_suffix("/p2p-circuit") {
            Some(way) => way.rsplit_once("/p2p/").map(|(at, id)| Some((at, Some(device(id)?))))??,
            None => (text, None),
        };
        let mut parts = at.strip_prefix('/')?.split('/');
        let host = match (parts.next()?, parts.next()?) {
            ("ip4", ip) => Host::Ip4(ip.parse().ok()?),
            ("ip6", ip) => Host::Ip6(ip.parse().ok()?),
            ("dns", name) => Host::Name("dns", name.to_owned()),
            ("dns4", name) => Host::Name("dns4", name.to_owned()),
            ("dns6", name) => Host::Name("dns6", name.to_owned()),
            _ => return None,
        };
        let (transport, port) = (parts.next()?, parts.next()?.parse().ok());
        let ports = match (transport, parts.next(), parts.next()) {
            ("tcp", None, None) => Ports { tcp: port, quic: None },
            ("udp", Some("quic-v1"), None) => Ports { tcp: None, quic: port },
            _ => return None,
        };
        port.map(|_| Self::Host { host, ports, relay })
    }

    /// The addresses of the place, as text: one for each transport.
    pub(super) fn texts(&self) -> Vec<String> {
        let (host, ports, relay) = match self {
            Self::Host { host, ports, relay } => (host, ports, relay),
            Self::Text(text) => return vec![text.clone()],
        };
        let host = match host {
            Host::Ip4(ip) => format!("/ip4/{ip}"),
            Host::Ip6(ip) => format!("/ip6/{ip}"),
            Host::Name(kind, name) => format!("/{kind}/{name}"),
        };
        let circuit = relay.map_or(String::new(), |relay| format!("/p2p/{}/p2p-circuit", identity(&relay)));
        let tcp = ports.tcp.map(|port| format!("{host}/tcp/{port}{circuit}"));
        let quic = ports.quic.map(|port| format!("{host}/udp/{port}/quic-v1{circuit}"));
        tcp.into_iter().chain(quic).collect()
    }

    /// Takes `other` in when it is the same host by the other transport, or nothing new.
    fn joins(&mut self, other: &Self) -> bool {
        match (&mut *self, other) {
            (Self::Host { host, ports, relay }, Self::Host { host: same_host, ports: more, relay: same_relay })
                if *host == *same_host
                    && *relay == *same_relay
                    && (ports.tcp.is_none() || more.tcp.is_none())
                    && (ports.quic.is_none() || more.quic.is_none()) =>
            {
                *ports = Ports { tcp: ports.tcp.or(more.tcp), quic: ports.quic.or(more.quic) };
                true
            }
            _ => self == other,
        }
    }

    fn reach(&self) -> Reach {
        match self {
            Self::Text(text) if text.ends_with("/p2p-circuit") => Reach::Relayed,
            Self::Text(_) => Reach::Unknown,
            Self::Host { relay: Some(_), .. } => Reach::Relayed,
            Self::Host { host: Host::Name(..), .. } => Reach::Public,
            Self::Host { host: Host::Ip4(ip), .. } => match ip.octets() {
                _ if ip.is_loopback() => Reach::Loopback,
                _ if ip.is_link_local() => Reach::LinkLocal,
                [172, ..] if ip.is_private() => Reach::LocalOrContainers,
                _ if ip.is_private() => Reach::Local,
                _ => Reach::Public,
            },
            Self::Host { host: Host::Ip6(ip), .. } if ip.is_loopback() => Reach::Loopback,
            Self::Host { host: Host::Ip6(ip), .. } if ip.is_unicast_link_local() => Reach::LinkLocal,
            Self::Host { host: Host::Ip6(_), .. } => Reach::Ip6,
        }
    }

    fn encode(&self, more: u8, before: &mut Ports, bytes: &mut Vec<u8>) {
        let (host, ports, relay) = match self {
            Self::Host { host, ports, relay } => (host, ports, relay),
            Self::Text(text) => {
                bytes.push(more);
                return encode_text(text, bytes);
            }
        };
        let kind = match host {
            Host::Ip4(_) => 1,
            Host::Ip6(_) => 2,
            Host::Name("dns", _) => 3,
            Host::Name("dns4", _) => 4,
            Host::Name(..) => 5,
        };
        // A relay's ports say nothing of the inviter's.
        let mut none = Ports::default();
        let (code, numbers) = ports.encode(if relay.is_some() { &mut none } else { before });
        bytes.push(kind | code << 3 | if relay.is_some() { RELAYED } else { 0 } | more);
        match host {
            Host::Ip4(ip) => bytes.extend_from_slice(&ip.octets()),
            Host::Ip6(ip) => bytes.extend_from_slice(&ip.octets()),
            Host::Name(_, name) => encode_text(name, bytes),
        }
        bytes.extend(numbers.iter().flat_map(|port| port.to_le_bytes()));
        bytes.extend(relay.iter().flat_map(DeviceId::as_bytes));
    }

    fn decode(head: u8, before: &mut Ports, bytes: &mut &[u8]) -> Result<Self, PlacesRefused> {
        let host = match head & 7 {
            0 if head & !MORE == 0 => return Ok(Self::Text(decode_text(bytes)?)),
            1 => Host::Ip4(take::<4>(bytes)?.into()),
            2 => Host::Ip6(take::<16>(bytes)?.into()),
            3 => Host::Name("dns", decode_name(bytes)?),
            4 => Host::Name("dns4", decode_name(bytes)?),
            5 => Host::Name("dns6", decode_name(bytes)?),
            _ => return Err(PlacesRefused::Malformed),
        };
        let is_relayed = head & RELAYED != 0;
        let mut none = Ports::default();
        let ports = Ports::decode(head >> 3 & 7, if is_relayed { &mut none } else { before }, bytes)?;
        let relay = if is_relayed { Some(DeviceId::from_bytes(take(bytes)?)) } else { None };
        Ok(Self::Host { host, ports, relay })
    }
}

impl Ports {
    /// Which ports there are, and those that have to be said.
    fn encode(self, before: &mut Self) -> (u8, Vec<u16>) {
        let Self { tcp, quic } = self;
        let is_known = (tcp.is_none() || tcp == before.tcp) && (quic.is_none() || quic == before.quic);
        *before = Self { tcp: tcp.or(before.tcp), quic: quic.or(before.quic) };
        match (tcp, quic) {
            (Some(_), Some(_)) if is_known => (6, Vec::new()),
            (_, None) if is_known => (4, Vec::new()),
            (None, _) if is_known => (5, Vec::new()),
            (Some(tcp), Some(quic)) if tcp == quic => (2, vec![tcp]),
            (Some(tcp), Some(quic)) => (3, vec![tcp, quic]),
            (tcp, None) => (0, tcp.into_iter().collect()),
            (None, quic) => (1, quic.into_iter().collect()),
        }
    }

    fn decode(code: u8, before: &mut Self, bytes: &mut &[u8]) -> Result<Self, PlacesRefused> {
        let mut port = || take(bytes).map(u16::from_le_bytes).map(Some);
        let known = |port: Option<u16>| port.map(Some).ok_or(PlacesRefused::Malformed);
        let (tcp, quic) = match code {
            0 => (port()?, None),
            1 => (None, port()?),
            2 => {
                let both = port()?;
                (both, both)
            }
            3 => (port()?, port()?),
            4 => (known(before.tcp)?, None),
            5 => (None, known(before.quic)?),
            6 => (known(before.tcp)?, known(before.quic)?),
            _ => return Err(PlacesRefused::Malformed),
        };
        *before = Self { tcp: tcp.or(before.tcp), quic: quic.or(before.quic) };
        Ok(Self { tcp, quic })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], PlacesRefused> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(PlacesRefused::CutOff)?;
    *bytes = rest;
    Ok(*taken)
}

/// `text` has at most 255 bytes.
fn encode_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(u8::try_from(text.len()).unwrap_or_default());
    bytes.extend_from_slice(text.as_bytes());
}

/// A word, or nothing.
fn decode_text(bytes: &mut &[u8]) -> Result<String, PlacesRefused> {
    let [length] = take(bytes)?;
    let (text, rest) = bytes.split_at_checked(length.into()).ok_or(PlacesRefused::CutOff)?;
    *bytes = rest;
    let text = str::from_utf8(text).ok().filter(|text| text.is_empty() || is_word(text));
    text.map(str::to_owned).ok_or(PlacesRefused::Malformed)
}

fn decode_name(bytes: &mut &[u8]) -> Result<String, PlacesRefused> {
    Some(decode_text(bytes)?).filter(|name| !name.is_empty() && !name.contains('/')).ok_or(PlacesRefused::Malformed)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The transport identity of a device, as addresses write it.
fn identity(device: &DeviceId) -> String {
    bs58::encode([IDENTITY_PREFIX.as_slice(), device.as_bytes()].concat()).into_string()
}

/// The device of a transport identity; `None` for keys of other kinds, which no device has.
fn device(identity: &str) -> Option<DeviceId> {
    let mut bytes = [0; IDENTITY_PREFIX.len() + 32];
    let length = bs58::decode(identity).onto(bytes.as_mut_slice()).ok()?;
    let key = bytes[..length].strip_prefix(IDENTITY_PREFIX.as_slice())?;
    Some(DeviceId::from_bytes(key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RELAY: &str = "12D3KooWH5MaK7WrLhQr2wsg9eVzje9qkTxxVeaFUd7Qx6ZHg3Ud";

    fn inviter() -> DeviceId {
        DeviceId::from_bytes([7; 32])
    }

    fn chosen(addresses: &[&str]) -> Vec<String> {
        let addresses: Vec<_> = addresses.iter().map(|&address| address.to_owned()).collect();
        let places = choose(&addresses, &inviter());
        let bytes = encode(&places);
        let mut left = bytes.as_slice();
        assert_eq!(decode(&mut left).as_ref(), Ok(&places));
        assert!(left.is_empty());
        places.iter().flat_map(Place::texts).collect()
    }

    #[test]
    fn the_best_stand_first_and_every_way_has_one() {
        let circuit = format!("/ip4/203.0.113.9/tcp/4001/p2p/{RELAY}/p2p-circuit");
        let listened = [
            "/ip4/127.0.0.1/tcp/4001",
            "/ip6/::1/tcp/4001",
            &circuit,
            "/ip4/172.17.0.1/tcp/4001",
            "/ip6/fd00::7/tcp/4001",
            "/ip4/192.168.1.7/tcp/4001",
            "/ip4/192.168.1.7/udp/4002/quic-v1",
            "/ip4/10.0.0.7/tcp/4001",
            "/dns4/home.example/tcp/4001",
        ];
        assert_eq!(
            chosen(&listened),
            [
                "/dns4/home.example/tcp/4001",
                "/ip4/192.168.1.7/tcp/4001",
                "/ip4/192.168.1.7/udp/4002/quic-v1",
                &circuit,
                "/ip6/fd00::7/tcp/4001",
            ]
        );
    }

    #[test]
    fn what_is_left_is_filled_up() {
        let listened = ["/ip4/172.17.0.1/tcp/1", "/ip4/10.0.0.8/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip4/10.0.0.6/tcp/1"];
        assert_eq!(
            chosen(&[&listened[..], &["/ip6/fd00::7/tcp/1"]].concat()),
            [&listened[1..], &["/ip6/fd00::7/tcp/1"]].concat()
        );
    }

    #[test]
    fn this_machine_only_is_better_than_nothing() {
        assert_eq!(chosen(&["/ip4/127.0.0.1/tcp/7", "/ip4/10.0.0.7/tcp/7"]), ["/ip4/10.0.0.7/tcp/7"]);
        assert_eq!(chosen(&["/ip4/127.0.0.1/tcp/7"]), ["/ip4/127.0.0.1/tcp/7"]);
        assert!(chosen(&[]).is_empty());
    }

    #[test]
    fn a_place_takes_few_bytes() {
        let bytes = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|&address| address.to_owned()).collect();
            encode(&choose(&addresses, &inviter())).len()
        };
        let own = format!("/ip4/192.168.1.7/tcp/4001/p2p/{}", identity(&inviter()));
        assert_eq!(bytes(&[&own]), 1 + 4 + 2);
        assert_eq!(bytes(&[&own, "/ip4/192.168.1.7/udp/4001/quic-v1"]), 1 + 4 + 2);
        assert_eq!(bytes(&[&own, "/ip4/10.0.0.7/tcp/4001"]), 1 + 4 + 2 + 1 + 4);
        assert_eq!(bytes(&[&format!("/ip4/203.0.113.9/tcp/4001/p2p/{RELAY}/p2p-circuit")]), 1 + 4 + 2 + 32);
    }

    #[test]
    fn other_forms_stay_text() {
        let strange = [
            "/ip4/10.0.0.7/tcp/04001",
            "/ip4/10.0.0.7/tcp/1/ws",
            "/ip4/10.0.0.7/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N/p2p-circuit",
            "nonsense",
        ];
        for text in strange {
            assert_eq!(chosen(&[text]), [text]);
        }
        assert!(chosen(&["", "two words", &"x".repeat(256)]).is_empty());
    }

    #[test]
    fn what_only_a_home_reaches_is_told_apart() {
        let local = |addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|&address| address.to_owned()).collect();
            are_local(&choose(&addresses, &inviter()))
        };
        assert!(local(&["/ip4/192.168.1.7/tcp/1", "/ip6/fd00::7/tcp/1"]));
        assert!(local(&["/ip4/127.0.0.1/tcp/1"]));
        for other in ["/ip4/203.0.113.9/tcp/1", "/dns/a.example/tcp/1", "/ip6/2001:db8::7/tcp/1"] {
            assert!(!local(&["/ip4/192.168.1.7/tcp/1", other]), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut left = bytes.as_slice();
            if let Ok(places) = decode(&mut left) {
                prop_assert!(places.len() <= PLACES_MAX);
                let encoded = encode(&places);
                prop_assert!(encoded.len() <= PLACES_MAX * PLACE_BYTES_MAX);
                prop_assert_eq!(decode(&mut encoded.as_slice()), Ok(places));
            }
        }

        #[test]
        fn any_address_is_carried_as_it_is(parts in proptest::collection::vec("(ip4|ip6|dns4|tcp|udp|quic-v1|p2p|p2p-circuit|10\\.0\\.0\\.7|::1|4001|nas|[ -~]{1,9})", 1..9)) {
            let text = format!("/{}", parts.join("/"));
            let carried: Vec<_> = choose(std::slice::from_ref(&text), &inviter()).iter().flat_map(Place::texts).collect();
            prop_assert!(carried.is_empty() == text.contains(' '), "{}", text);
            prop_assert!(carried.is_empty() || carried == [text.clone()], "{:?}", carried);
        }
    }
}
