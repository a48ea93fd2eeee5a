//! How a connection reaches its peer, for people to see.

use std::net::IpAddr;

use holdfast_protocol::id::DeviceId;
use libp2p::{Multiaddr, core::ConnectedPoint, multiaddr::Protocol};

use super::addresses;

/// How a connection reaches its peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Nobody is in between.
    Direct {
        /// What carries it.
        transport: Transport,
        /// Whether the peer's address is one of a local network.
        reach: Reach,
    },
    /// A relay passes everything on; it sees nothing but how much.
    Relayed {
        /// The relay, when its key is one that a device can have.
        relay: Option<DeviceId>,
        /// Where it is.
        address: String,
        /// What carries the way to it.
        transport: Transport,
    },
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// QUIC, over UDP.
    Quic,
}

/// How far away an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A private address: on this machine or a network of the house.
    Local,
    /// Any other.
    Distant,
}

impl Path {
    pub(super) fn of(endpoint: &ConnectedPoint) -> Self {
        let address = match endpoint {
            // Of a relayed connection that came in, the address on this side names the relay.
            ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr,
            ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
            ConnectedPoint::Dialer { address, .. } => address,
        };
        if !endpoint.is_relayed() {
            return Self::direct(address);
        }
        let to_relay: Multiaddr = address.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
        Self::Relayed {
            relay: addresses::peer_of(&to_relay).and_then(|peer| addresses::device_id(&peer)),
            transport: transport(&to_relay),
            address: addresses::without_peer(to_relay).to_string(),
        }
    }

    fn direct(address: &Multiaddr) -> Self {
        let is_local = address.iter().any(|part| match part {
            Protocol::Ip4(ip) => is_private(ip.into()),
            Protocol::Ip6(ip) => is_private(ip.into()),
            _ => false,
        });
        let reach = if is_local { Reach::Local } else { Reach::Distant };
        Self::Direct { transport: transport(address), reach }
    }
}

fn transport(address: &Multiaddr) -> Transport {
    match addresses::route(address) {
        addresses::Route::Quic => Transport::Quic,
        addresses::Route::Tcp | addresses::Route::Relayed => Transport::Tcp,
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;

    const RELAY: &str = "12D3KooWH5MaK7WrLhQr2wsg9eVzje9qkTxxVeaFUd7Qx6ZHg3Ud";

    fn dialled(address: &str) -> Path {
        let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
        Path::of(&ConnectedPoint::Dialer { address: address.parse().unwrap(), role_override, port_use })
    }

    fn accepted(here: &str, there: &str) -> Path {
        let (local_addr, send_back_addr) = (here.parse().unwrap(), there.parse().unwrap());
        Path::of(&ConnectedPoint::Listener { local_addr, send_back_addr })
    }

    #[test]
    fn a_private_address_is_local() {
        let direct = |transport, reach| Path::Direct { transport, reach };
        for (address, transport, reach) in [
            ("/ip4/192.168.1.7/tcp/4001", Transport::Tcp, Reach::Local),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", Transport::Quic, Reach::Local),
            ("/ip6/fe80::1/tcp/1", Transport::Tcp, Reach::Local),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Transport::Tcp, Reach::Local),
            ("/ip4/203.0.113.5/udp/4001/quic-v1", Transport::Quic, Reach::Distant),
            ("/ip6/2001:db8::1/tcp/1", Transport::Tcp, Reach::Distant),
        ] {
            assert_eq!(dialled(address), direct(transport, reach), "{address}");
            assert_eq!(accepted("/ip4/10.0.0.1/tcp/1", address), direct(transport, reach), "{address}");
        }
    }

    #[test]
    fn a_relay_is_named_on_both_sides() {
        let relay = addresses::device_id(&RELAY.parse().unwrap());
        let address = "/ip4/203.0.113.5/tcp/4001".to_owned();
        let expected = Path::Relayed { relay, address: address.clone(), transport: Transport::Tcp };
        let circuit = format!("{address}/p2p/{RELAY}/p2p-circuit");
        assert_eq!(dialled(&format!("{circuit}/p2p/{RELAY}")), expected);
        assert_eq!(accepted(&circuit, &format!("/p2p/{RELAY}")), expected);
        assert!(relay.is_some());
    }
}
