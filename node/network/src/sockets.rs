//! What the system is asked directly: whether a port is free, and from which address a peer is reached.
//!
//! The TCP transport lets its sockets share a port, since it also dials from where it listens. So the system does not
//! refuse a second node there: each would get every other connection, and joining would fail every other time. Whoever
//! wants to listen asks here first, with a socket that shares nothing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

/// Ports that the system is asked for until one is free on every address.
const ATTEMPTS_MAX: usize = 64;

/// A port that is free for TCP and QUIC, on every address of this machine.
///
/// # Errors
/// When the system gives none.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..ATTEMPTS_MAX {
        let port = probe((Ipv4Addr::UNSPECIFIED, 0).into(), SocketType::STREAM)?;
        if is_port_free(port) {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Whether nobody listens on `port`, by TCP or QUIC, on any address of this machine.
#[must_use]
pub fn is_port_free(port: u16) -> bool {
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut sockets = everywhere.into_iter().flat_map(|ip| [(ip, SocketType::STREAM), (ip, SocketType::DGRAM)]);
    sockets.all(|(ip, kind)| !is_taken(&probe((ip, port).into(), kind)))
}

/// Whether somebody else listens where `address` says. One that cannot be bound for another reason is nobody's.
pub(super) fn is_address_taken(address: &Multiaddr) -> bool {
    socket_address(address).is_some_and(|(address, kind)| is_taken(&probe(address, kind)))
}

fn is_taken(probed: &io::Result<u16>) -> bool {
    probed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// From which of this machine's addresses packets to `remote` leave, as the system would send them now; nothing is sent.
pub(super) fn source_address(remote: &Multiaddr) -> Option<IpAddr> {
    let (remote, _) = socket_address(remote)?;
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Binds `address` for a moment, and says which port that was.
fn probe(address: SocketAddr, kind: SocketType) -> io::Result<u16> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        // Connections of a node that was just stopped linger; only one that listens is in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(SocketAddr::try_from(getsockname(&socket)?)?.port())
}

fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, SocketType)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(((ip, port).into(), SocketType::STREAM)),
        Protocol::Udp(port) => Some(((ip, port).into(), SocketType::DGRAM)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_free_until_somebody_listens_on_any_address_by_any_transport() {
        let port = free_port().unwrap();
        assert!(port != 0 && is_port_free(port));
        let local = (Ipv4Addr::LOCALHOST, port);
        let listener = TcpListener::bind(local).unwrap();
        assert!(!is_port_free(port));
        assert!(is_address_taken(&format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()));
        assert!(!is_address_taken(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap()));
        drop(listener);
        assert!(is_port_free(port));
        let _socket = UdpSocket::bind(local).unwrap();
        assert!(!is_port_free(port));
        assert!(!is_address_taken(&format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()), "not this machine's");
    }

    #[test]
    fn connections_of_one_who_stopped_are_not_in_the_way() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _dialled = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        drop(listener.accept().unwrap());
        drop(listener);
        assert!(!is_address_taken(&format!("/ip4/0.0.0.0/tcp/{port}").parse().unwrap()));
    }

    #[test]
    fn peers_on_this_machine_are_reached_from_loopback() {
        let source = |address: &str| source_address(&address.parse().unwrap());
        assert_eq!(source("/ip4/127.0.0.1/tcp/4001"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(source("/dns4/nas/tcp/4001"), None);
    }
}
