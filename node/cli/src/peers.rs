//! `holdfast peers`: the devices of the library.

use holdfast::api::view::{Connection, DialFailure, Peer, Peers, Route, RouteKind};
use holdfast::api::{Request, Response};
use holdfast_protocol::time::WallTime;

use super::exit::Exit;
use super::failure::Failure;
use super::session::{Session, now, unexpected};
use super::terminal::Verbosity;
use super::words::{columns, count, duration, printable, seconds, thousands};

/// So long nothing may move although something waits to, before it is said.
const STILL_SECONDS: u64 = 60;
/// Rests that are shorter are not worth a word.
const REST_SECONDS: u64 = 2;

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
    let mut lines = Vec::new();
    for (peer, line) in peers.peers.iter().zip(rows(&peers.peers, peers.photos, now)) {
        lines.push(line);
        lines.extend(trouble(peer, now).map(|trouble| format!("  {trouble}")));
        if verbosity == Verbosity::Verbose {
            lines.push(format!("    {}  {}", peer.device, printable(&peer.role)));
            lines.extend(failures(peer).map(|failure| format!("    {failure}")));
            lines.extend(peer.addresses.iter().map(|address| format!("    {}", printable(address))));
        }
    }
    lines.join("\n")
}

/// A line for each device.
pub(super) fn rows(peers: &[Peer], photos: u64, now: WallTime) -> Vec<String> {
    let rows: Vec<_> = peers.iter().map(|peer| row(peer, photos, now)).collect();
    columns(&rows, &[])
}

fn row(peer: &Peer, photos: u64, now: WallTime) -> [String; 4] {
    let held = match peer.photos {
        held if held >= photos => format!("all {}", count(photos, "photo")),
        held => format!("{} of {}", thousands(held), count(photos, "photo")),
    };
    let place = printable(peer.place.as_deref().unwrap_or("no place given"));
    [printable(&peer.name), place, connection(peer, now), held]
}

/// How a device can be reached: `connected, local TCP, 2 ms`, `offline for 3 days, called in 4 min`.
pub(super) fn connection(peer: &Peer, now: WallTime) -> String {
    let mut text = match (peer.connection, &peer.heard_ms) {
        (Connection::ThisDevice, _) => return "this device".to_owned(),
        (Connection::Connected, _) => "connected".to_owned(),
        (Connection::Offline, Some(then)) => format!("offline for {}", duration(seconds(*then, now))),
        (Connection::Offline, None) => "never heard".to_owned(),
    };
    if let Some(Route { kind, transport, through }) = &peer.route {
        let transport = printable(&transport.to_uppercase());
        let route = match (kind, through) {
            (RouteKind::Local, _) => format!("local {transport}"),
            (RouteKind::Direct, _) => format!("direct {transport}"),
            (RouteKind::Relayed, Some(through)) => format!("relayed by {}", printable(through)),
            (RouteKind::Relayed, None) => "relayed".to_owned(),
        };
        text = format!("{text}, {route}");
    }
    match (peer.round_trip_ms, peer.next_dial_ms) {
        (Some(took), _) => format!("{text}, {took} ms"),
        (None, Some(at)) if at > now => format!("{text}, called in {}", duration(seconds(now, at))),
        (None, Some(_)) => format!("{text}, calling now"),
        (None, None) if peer.calling => format!("{text}, calling now"),
        (None, None) => text,
    }
}

/// What keeps photos from moving to or from a device that is connected.
pub(super) fn trouble(peer: &Peer, now: WallTime) -> Option<String> {
    let still = peer.still_since_ms.map(|since| seconds(since, now)).filter(|still| *still >= STILL_SECONDS);
    let rest = peer.resting_until_ms.map(|until| seconds(now, until)).filter(|rest| *rest >= REST_SECONDS);
    match (still, rest) {
        (None, None) => None,
        (None, Some(rest)) => Some(format!("could not give what it was asked for; asked again in {}", duration(rest))),
        (Some(still), rest) => {
            let again = rest.map(|rest| format!("; asked again in {}", duration(rest))).unwrap_or_default();
            Some(format!("connected, but nothing has moved for {}{again}", duration(still)))
        }
    }
}

/// Why a device could not be reached, address by address.
pub(super) fn failures(peer: &Peer) -> impl Iterator<Item = String> + '_ {
    peer.failures.iter().map(|DialFailure { address, reason }| match address {
        Some(address) => format!("{}: {}", printable(address), printable(reason)),
        None => printable(reason),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use holdfast_protocol::id::DeviceId;

    use super::*;

    pub(crate) fn peer(name: &str, place: Option<&str>, connection: Connection, photos: u64) -> Peer {
        Peer {
            device: DeviceId::from_bytes([9; 32]),
            name: name.into(),
            place: place.map(str::to_owned),
            role: "owner".into(),
            connection,
            route: None,
            round_trip_ms: None,
            still_since_ms: None,
            resting_until_ms: None,
            calling: false,
            next_dial_ms: None,
            failures: Vec::new(),
            addresses: vec!["/ip4/192.168.1.7/tcp/4001".into()],
            heard_ms: (connection != Connection::ThisDevice).then_some(WallTime(0)),
            photos,
            photos_resting_on_it: 0,
        }
    }

    fn route(kind: RouteKind, through: Option<&str>) -> Option<Route> {
        Some(Route { kind, transport: "tcp".into(), through: through.map(str::to_owned) })
    }

    #[test]
    fn a_device_is_a_line() {
        let now = WallTime(12 * 86_400_000);
        let nas = Peer {
            route: route(RouteKind::Local, None),
            round_trip_ms: Some(2),
            ..peer("nas", Some("office"), Connection::Connected, 1198)
        };
        let phone = Peer {
            next_dial_ms: Some(WallTime(now.0 + 240_000)),
            failures: vec![DialFailure {
                address: Some("/ip4/192.168.1.7/tcp/4001".into()),
                reason: "connection refused".into(),
            }],
            ..peer("old-phone", Some("home"), Connection::Offline, 0)
        };
        let laptop = peer("laptop", Some("home"), Connection::ThisDevice, 1204);
        let peers = Peers { peers: vec![laptop, nas, phone], photos: 1204 };
        assert_eq!(
            lines(&peers, now, Verbosity::Normal),
            "laptop     home    this device                           all 1,204 photos\n\
             nas        office  connected, local TCP, 2 ms            1,198 of 1,204 photos\n\
             old-phone  home    offline for 12 days, called in 4 min  0 of 1,204 photos"
        );
        let verbose = lines(&peers, now, Verbosity::Verbose);
        let (id, address) = ("09".repeat(32), "/ip4/192.168.1.7/tcp/4001");
        assert!(verbose.contains(&format!("    {id}  owner\n    {address}\nnas")), "{verbose}");
        assert!(verbose.ends_with(&format!("owner\n    {address}: connection refused\n    {address}")), "{verbose}");
    }

    #[test]
    fn a_line_says_how_a_device_is_reached() {
        let now = WallTime(100_000);
        let connected =
            |route, round_trip_ms| Peer { route, round_trip_ms, ..peer("nas", None, Connection::Connected, 0) };
        let offline =
            |calling, next_dial_ms| Peer { calling, next_dial_ms, ..peer("nas", None, Connection::Offline, 0) };
        for (peer, text) in [
            (connected(None, None), "connected"),
            (connected(route(RouteKind::Direct, None), Some(40)), "connected, direct TCP, 40 ms"),
            (connected(route(RouteKind::Relayed, Some("hut")), Some(40)), "connected, relayed by hut, 40 ms"),
            (offline(true, None), "offline for 2 min, calling now"),
            (offline(false, Some(WallTime(99_000))), "offline for 2 min, calling now"),
            (offline(false, Some(WallTime(112_000))), "offline for 2 min, called in 12 s"),
            (Peer { heard_ms: None, ..offline(true, None) }, "never heard, calling now"),
        ] {
            assert_eq!(connection(&peer, now), text);
        }
    }

    #[test]
    fn a_connection_over_which_nothing_moves_says_so() {
        let now = WallTime(1_000_000);
        let nas = |still: Option<i64>, rest: Option<i64>| Peer {
            still_since_ms: still.map(|seconds| WallTime(now.0 - seconds * 1000)),
            resting_until_ms: rest.map(|seconds| WallTime(now.0 + seconds * 1000)),
            ..peer("nas", None, Connection::Connected, 0)
        };
        assert_eq!(trouble(&nas(Some(59), Some(1)), now), None);
        let said = |still, rest| trouble(&nas(still, rest), now).unwrap();
        assert_eq!(said(Some(180), None), "connected, but nothing has moved for 3 min");
        assert_eq!(said(Some(180), Some(12)), "connected, but nothing has moved for 3 min; asked again in 12 s");
        assert_eq!(said(None, Some(12)), "could not give what it was asked for; asked again in 12 s");
    }
}
