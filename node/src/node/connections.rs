//! How each device is reached, what came of calling it, and when anything last moved between it and this one.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_network::{DialFailure, Path};
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::replica::LinkId;
use holdfast_protocol::time::Timestamp;

/// Failures kept of one device: as many addresses as are known of it.
const FAILURES_MAX: usize = 16;

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Connections {
    links: BTreeMap<LinkId, Link>,
    /// Why members could not be reached when they were called last.
    failures: BTreeMap<DeviceId, Vec<DialFailure>>,
}

/// What is known of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    peer: DeviceId,
    path: Path,
    round_trip: Option<Duration>,
    /// When a chunk last came or went.
    moved: Timestamp,
    /// Since when something waits to come or go.
    waiting: Option<Timestamp>,
}

impl Link {
    pub(super) const fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Since when something waits to come or go, and nothing does.
    pub(super) fn still_since(&self) -> Option<Timestamp> {
        self.waiting.map(|since| since.max(self.moved))
    }
}

impl Connections {
    pub(super) fn connected(&mut self, now: Timestamp, link: LinkId, peer: DeviceId, path: Path) {
        self.failures.remove(&peer);
        self.links.insert(link, Link { peer, path, round_trip: None, moved: now, waiting: None });
    }

    pub(super) fn ended(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    pub(super) fn answered(&mut self, link: LinkId, took: Duration) {
        if let Some(link) = self.links.get_mut(&link) {
            link.round_trip = Some(took);
        }
    }

    /// A chunk came or went.
    pub(super) fn moved(&mut self, now: Timestamp, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.moved = now;
        }
    }

    /// Looks at each connection whether anything `waits` to come or go.
    pub(super) fn look(&mut self, now: Timestamp, waits: impl Fn(&DeviceId) -> bool) {
        for link in self.links.values_mut() {
            link.waiting = if waits(&link.peer) { link.waiting.or(Some(now)) } else { None };
        }
    }

    /// A device is called: what came of it before is the past.
    pub(super) fn calling(&mut self, peer: &DeviceId) {
        self.failures.remove(peer);
    }

    /// A device did not answer, or not as it should.
    pub(super) fn failed(&mut self, peer: DeviceId, failures: impl IntoIterator<Item = DialFailure>) {
        let known = self.failures.entry(peer).or_default();
        for failure in failures {
            if known.len() < FAILURES_MAX && !known.contains(&failure) {
                known.push(failure);
            }
        }
    }

    /// The connection to a device: the newest.
    pub(super) fn of(&self, peer: &DeviceId) -> Option<&Link> {
        self.links.values().rfind(|link| link.peer == *peer)
    }

    /// Why a device could not be reached when it was called last.
    pub(super) fn failures(&self, peer: &DeviceId) -> &[DialFailure] {
        self.failures.get(peer).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_network::{Reach, Transport};

    const PEER: DeviceId = DeviceId::from_bytes([7; 32]);
    const OTHER: DeviceId = DeviceId::from_bytes([8; 32]);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn direct() -> Path {
        Path::Direct { transport: Transport::Tcp, reach: Reach::Local }
    }

    #[test]
    fn a_connection_is_still_while_something_waits_and_nothing_moves() {
        let mut connections = Connections::default();
        connections.connected(at(1), LinkId(1), PEER, direct());
        let still = |connections: &Connections| connections.of(&PEER).unwrap().still_since();
        connections.look(at(100), |_| false);
        assert_eq!(still(&connections), None, "nothing waits");
        connections.look(at(200), |peer| *peer == PEER);
        connections.look(at(201), |peer| *peer == PEER);
        assert_eq!(still(&connections), Some(at(200)), "it waits only since then");
        connections.moved(at(230), LinkId(1));
        assert_eq!(still(&connections), Some(at(230)));
        connections.look(at(240), |peer| *peer == OTHER);
        assert_eq!(still(&connections), None, "all has arrived");
        connections.ended(LinkId(1));
        assert_eq!(connections.of(&PEER), None);
    }

    #[test]
    fn the_newest_connection_is_the_one_that_is_shown() {
        let mut connections = Connections::default();
        connections.connected(at(1), LinkId(1), PEER, direct());
        let relayed = Path::Relayed { relay: None, address: "/ip4/203.0.113.5".into(), transport: Transport::Tcp };
        connections.connected(at(2), LinkId(2), PEER, relayed.clone());
        connections.answered(LinkId(2), Duration::from_millis(40));
        let shown = connections.of(&PEER).unwrap();
        assert_eq!((shown.path(), shown.round_trip()), (&relayed, Some(Duration::from_millis(40))));
        connections.ended(LinkId(2));
        assert_eq!(connections.of(&PEER).unwrap().path(), &direct());
    }

    #[test]
    fn failures_are_those_of_the_last_call() {
        let failure =
            |number: usize| DialFailure { address: Some(format!("/ip4/10.0.0.{number}/tcp/1")), reason: "no".into() };
        let mut connections = Connections::default();
        connections.failed(PEER, [failure(1), failure(1)]);
        assert_eq!(connections.failures(&PEER), [failure(1)]);
        connections.calling(&PEER);
        connections.failed(PEER, (0..100).map(failure));
        assert_eq!(connections.failures(&PEER).len(), FAILURES_MAX);
        connections.connected(at(1), LinkId(1), PEER, direct());
        assert!(connections.failures(&PEER).is_empty() && connections.failures(&OTHER).is_empty());
    }
}
