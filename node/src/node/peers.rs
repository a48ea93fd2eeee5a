//! The devices of the library as people see them, and calling one of them at once.

use std::time::Duration;

use holdfast_library::Input;
use holdfast_network::{Path, Reach, Transport};
use holdfast_protocol::certificate::Role;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::replica::{self, PeerView};
use holdfast_protocol::time::{Timestamp, WallTime};
use indexmap::IndexSet;

use super::NodeError;
use super::connections::Link;
use super::runtime::Runtime;
use crate::api::view::{Connection, DialFailure, Peer, Peers, Route, RouteKind};
use crate::api::{Refusal, RefusalKind, Reply, Response};

/// How long a call may take before what is known by then is answered.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// How long the answer waits for the first round trip of a new connection.
const ROUND_TRIP_WAIT: Duration = Duration::from_secs(1);
/// The fewest digits that name a device.
const DIGITS_MIN: usize = 4;

/// Somebody who waits for what comes of a call.
pub(super) struct WaitingCall {
    device: DeviceId,
    reply: Reply,
    since: Timestamp,
    /// Since when it is connected.
    connected: Option<Timestamp>,
}

impl Runtime {
    pub(super) fn peers(&self) -> Peers {
        let me = self.device_id();
        let this = Peer {
            device: me,
            name: self.name_of(&me),
            place: self.library.place_label(&me),
            role: self.role(&me),
            connection: Connection::ThisDevice,
            route: None,
            round_trip_ms: None,
            still_since_ms: None,
            resting_until_ms: None,
            calling: false,
            next_dial_ms: None,
            failures: Vec::new(),
            addresses: self.listening.iter().cloned().collect::<IndexSet<_>>().into_iter().collect(),
            heard_ms: None,
            photos: self.library.photos_held_by(&me),
            photos_resting_on_it: self.resting_on(&me),
        };
        let peers = std::iter::once(this).chain(self.other_peers()).collect();
        Peers { peers, photos: self.library.counts().photos }
    }

    pub(super) fn other_peers(&self) -> Vec<Peer> {
        let mut peers: Vec<_> = self.library.replica().peers().into_iter().map(|view| self.peer(view)).collect();
        peers.sort_by(|one, other| (&one.name, one.device).cmp(&(&other.name, other.device)));
        peers
    }

    fn peer(&self, view: PeerView) -> Peer {
        let link = self.connections.of(&view.device).filter(|_| view.connected);
        let failures = self.connections.failures(&view.device).iter();
        let failure =
            |of: &holdfast_network::DialFailure| DialFailure { address: of.address.clone(), reason: of.reason.clone() };
        Peer {
            device: view.device,
            place: self.library.place_label(&view.device),
            role: self.role(&view.device),
            connection: if view.connected { Connection::Connected } else { Connection::Offline },
            route: link.map(|link| self.route(link.path())),
            round_trip_ms: link.and_then(Link::round_trip).map(|took| took.as_millis() as u64),
            still_since_ms: link.and_then(Link::still_since).map(|since| self.wall_time_of(since)),
            resting_until_ms: view.resting_until.map(|until| self.wall_time_of(until)),
            calling: view.dialling,
            next_dial_ms: view.next_dial.map(|at| self.wall_time_of(at)),
            failures: failures.map(failure).collect(),
            addresses: self.addresses.of(&view.device),
            heard_ms: view.last_heard,
            photos: self.library.photos_held_by(&view.device),
            photos_resting_on_it: self.resting_on(&view.device),
            name: view.name,
        }
    }

    fn resting_on(&self, device: &DeviceId) -> u64 {
        let target = self.target();
        self.library.resting_on(device, target.copies, target.places)
    }

    fn role(&self, device: &DeviceId) -> String {
        let role = self.library.replica().registry().role(device).map(|role| match role {
            Role::Owner => "owner",
            Role::Member => "member",
            Role::Viewer => "viewer",
        });
        role.unwrap_or_default().to_owned()
    }

    fn route(&self, path: &Path) -> Route {
        let transport = |transport: &Transport| match transport {
            Transport::Tcp => "tcp".to_owned(),
            Transport::Quic => "quic".to_owned(),
        };
        match path {
            Path::Direct { transport: carrier, reach } => {
                let kind = match reach {
                    Reach::Local => RouteKind::Local,
                    Reach::Distant => RouteKind::Direct,
                };
                Route { kind, transport: transport(carrier), through: None }
            }
            Path::Relayed { relay, address, transport: carrier } => {
                let name = relay.and_then(|relay| self.library.replica().registry().distinct_name(&relay));
                let through = Some(name.unwrap_or_else(|| address.clone()));
                Route { kind: RouteKind::Relayed, transport: transport(carrier), through }
            }
        }
    }

    /// What the wall clock shows, or will show, at a moment of this run.
    fn wall_time_of(&self, at: Timestamp) -> WallTime {
        let now = self.clock.now();
        let milliseconds = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let (ahead, ago) = (milliseconds(at.since(now.elapsed)), milliseconds(now.elapsed.since(at)));
        WallTime(now.wall.0.saturating_add(ahead).saturating_sub(ago))
    }

    /// Calls a device at once; it is answered once something came of it.
    pub(super) fn connect(&mut self, text: &str, reply: Reply) -> Result<(), NodeError> {
        let device = match self.named(text) {
            Ok(device) => device,
            Err(refusal) => {
                reply.finish(Err(refusal));
                return Ok(());
            }
        };
        let since = self.clock.now().elapsed;
        self.calls.push(WaitingCall { device, reply, since, connected: None });
        self.handle(Input::Replica(replica::Input::PeerSeen { peer: device, addresses: Vec::new() }))
    }

    /// The one other device that `text` names.
    fn named(&self, text: &str) -> Result<DeviceId, Refusal> {
        let digits = text.to_ascii_lowercase();
        let is_meant = |device: &DeviceId, name: &str| {
            name.to_lowercase() == text.to_lowercase()
                || (digits.len() >= DIGITS_MIN && device.to_string().starts_with(&digits))
        };
        let peers = self.library.replica().peers();
        let meant: Vec<_> = peers.iter().filter(|peer| is_meant(&peer.device, &peer.name)).collect();
        match meant.as_slice() {
            [peer] => Ok(peer.device),
            [] if is_meant(&self.device_id(), &self.name_of(&self.device_id())) => {
                Err(Refusal::new(RefusalKind::Usage, format!("`{text}` is this device"), "name another one"))
            }
            [] => {
                let message = format!("no device is called `{text}`");
                Err(Refusal::new(RefusalKind::NotFound, message, "list them with `holdfast peers`"))
            }
            several => {
                let ids: Vec<_> =
                    several.iter().map(|peer| format!("{} ({})", peer.name, peer.device.short())).collect();
                let message = format!("`{text}` could be {}", ids.join(", "));
                Err(Refusal::new(RefusalKind::NotFound, message, "name the one you mean by its identifier"))
            }
        }
    }

    /// Answers the calls of which something came, or that took too long.
    pub(super) fn answer_calls(&mut self) {
        let now = self.clock.now().elapsed;
        for mut call in std::mem::take(&mut self.calls) {
            if call.reply.is_abandoned() {
                continue;
            }
            let view = self.library.replica().peers().into_iter().find(|peer| peer.device == call.device);
            let Some(view) = view else {
                let message = "the device does not belong to the library any more";
                call.reply.finish(Err(Refusal::new(RefusalKind::NotFound, message, "list them with `holdfast peers`")));
                continue;
            };
            if view.connected {
                call.connected.get_or_insert(now);
            }
            let is_measured = self.connections.of(&call.device).is_some_and(|link| link.round_trip().is_some());
            let is_connected = call.connected.is_some_and(|since| is_measured || now.since(since) >= ROUND_TRIP_WAIT)
                && view.connected;
            // It is to be called again only when the call is over.
            let is_over = view.next_dial.is_some() || now.since(call.since) >= CALL_DEADLINE;
            if is_connected || is_over {
                call.reply.finish(Ok(Response::Connect(Box::new(self.peer(view)))));
            } else {
                self.calls.push(call);
            }
        }
    }
}
