//! `holdfast peers`: the devices of the library.

use holdfast_protocol::time::WallTime;

use super::exit::Exit;
use super::failure::Failure;
use super::session::{Session, now, unexpected};
use super::terminal::Verbosity;
use super::words::{ago, columns, count, printable, thousands};
use crate::api::view::{Connection, Peer, Peers};
use crate::api::{Request, Response};

pub(super) fn run(session: &Session<'_>) -> Result<Exit, Failure> {
    let response = session.ask(&Request::Peers)?;
    let Response::Peers(peers) = &response else { return Err(unexpected(&response)) };
    let verbosity = session.terminal.verbosity();
    session.show(&response, peers, |peers| lines(peers, now(), verbosity))?;
    if peers.peers.len() == 1 {
        session
            .terminal
            .note(&format!("No other device yet. Make a ticket for one with {}.", session.command("invite")));
    }
    Ok(Exit::Done)
}

fn lines(peers: &Peers, now: WallTime, verbosity: Verbosity) -> String {
    let rows: Vec<_> = peers.peers.iter().map(|peer| row(peer, peers.photos, now)).collect();
    let mut lines = Vec::new();
    for (peer, line) in peers.peers.iter().zip(columns(&rows, &[])) {
        lines.push(line);
        if verbosity == Verbosity::Verbose {
            lines.push(format!("    {}  {}", peer.device, printable(&peer.role)));
            lines.extend(peer.addresses.iter().map(|address| format!("    {}", printable(address))));
        }
    }
    lines.join("\n")
}

fn row(peer: &Peer, photos: u64, now: WallTime) -> [String; 4] {
    let connection = match (peer.connection, peer.heard_ms) {
        (Connection::ThisDevice, _) => "this device".to_owned(),
        (Connection::Connected, _) => "connected".to_owned(),
        (Connection::Offline, Some(then)) => format!("offline, heard {}", ago(then, now)),
        (Connection::Offline, None) => "offline, never heard".to_owned(),
    };
    let held = match peer.photos {
        held if held >= photos => format!("all {}", count(photos, "photo")),
        held => format!("{} of {}", thousands(held), count(photos, "photo")),
    };
    let place = printable(peer.place.as_deref().unwrap_or("no place given"));
    [printable(&peer.name), place, connection, held]
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::DeviceId;

    use super::*;

    fn peer(name: &str, place: Option<&str>, connection: Connection, photos: u64) -> Peer {
        Peer {
            device: DeviceId::from_bytes([9; 32]),
            name: name.into(),
            place: place.map(str::to_owned),
            role: "owner".into(),
            connection,
            addresses: vec!["/ip4/192.168.1.7/tcp/4001".into()],
            heard_ms: (connection != Connection::ThisDevice).then_some(WallTime(0)),
            photos,
        }
    }

    #[test]
    fn a_device_is_a_line() {
        let peers = Peers {
            peers: vec![
                peer("laptop", Some("home"), Connection::ThisDevice, 1204),
                peer("nas", Some("office"), Connection::Connected, 1198),
                peer("old-phone", None, Connection::Offline, 0),
            ],
            photos: 1204,
        };
        assert_eq!(
            lines(&peers, WallTime(12 * 86_400_000), Verbosity::Normal),
            "laptop     home            this device                 all 1,204 photos\n\
             nas        office          connected                   1,198 of 1,204 photos\n\
             old-phone  no place given  offline, heard 12 days ago  0 of 1,204 photos"
        );
        let verbose = lines(&peers, WallTime(0), Verbosity::Verbose);
        assert!(verbose.contains(&format!("    {}  owner\n    /ip4/192.168.1.7/tcp/4001", "09".repeat(32))));
    }
}
