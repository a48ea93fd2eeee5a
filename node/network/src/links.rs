//! Links: what the runtime, the swarm and the tasks of a connection share about it.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use holdfast_protocol::{id::DeviceId, replica::LinkId};
use libp2p::{PeerId, StreamProtocol, swarm::ConnectionId};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    LinkEnd,
    addresses::Route,
    command::{Command, FetchCommand, ServeCommand},
    queue::ControlQueue,
    streams::Stream,
};

/// Fetches and answers that wait on one link; more than the replica ever has in flight.
const WAITING_MAX: usize = 64;

/// One connection to one peer.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) peer: DeviceId,
    pub(super) peer_id: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) rank: Rank,
    /// Frames to send.
    pub(super) control: ControlQueue,
    /// Ends every task of the link.
    pub(super) closed: CancellationToken,
    /// Whether the peer's control stream arrived: there may be only one.
    control_accepted: AtomicBool,
    /// Set when nothing more comes from it.
    pub(super) control_ended: CancellationToken,
    /// Taken when the peer's chunk stream arrived: there may be only one.
    serves_waiting: Mutex<Option<mpsc::Receiver<ServeCommand>>>,
    admitted: AtomicBool,
    admission: Notify,
    end: OnceLock<LinkEnd>,
    fetches: mpsc::Sender<FetchCommand>,
    serves: mpsc::Sender<ServeCommand>,
    commands: mpsc::Sender<Command>,
}

impl Link {
    pub(super) fn new(
        id: LinkId,
        (peer, peer_id): (DeviceId, PeerId),
        connection: ConnectionId,
        rank: Rank,
        commands: mpsc::Sender<Command>,
    ) -> (Self, mpsc::Receiver<FetchCommand>) {
        let (fetches, fetches_waiting) = mpsc::channel(WAITING_MAX);
        let (serves, serves_waiting) = mpsc::channel(WAITING_MAX);
        let link = Self {
            id,
            peer,
            peer_id,
            connection,
            rank,
            control: ControlQueue::default(),
            closed: CancellationToken::new(),
            control_accepted: AtomicBool::new(false),
            control_ended: CancellationToken::new(),
            serves_waiting: Mutex::new(Some(serves_waiting)),
            admitted: AtomicBool::new(false),
            admission: Notify::new(),
            end: OnceLock::new(),
            fetches,
            serves,
            commands,
        };
        (link, fetches_waiting)
    }

    /// Whether the peer has proven to be a member.
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    pub(super) fn admit(&self) {
        self.admitted.store(true, Ordering::Release);
        self.admission.notify_waiters();
    }

    /// Waits until the link is admitted.
    pub(super) async fn admission(&self) {
        let admission = self.admission.notified();
        if !self.is_admitted() {
            admission.await;
        }
    }

    /// Ends the link; the first reason given is the one reported.
    pub(super) fn end(&self, end: LinkEnd) {
        if self.end.set(end).is_ok() {
            let _ = self.commands.try_send(Command::End { link: self.id });
        }
    }

    /// Ends the link because one of its streams ended.
    pub(super) fn finish(&self, end: LinkEnd) {
        if let LinkEnd::Misbehaved(misbehaviour) = &end {
            tracing::info!(peer = %self.peer.short(), %misbehaviour, "link ended");
        }
        self.end(end);
    }

    /// Why the link ended.
    pub(super) fn ended(&self) -> LinkEnd {
        self.end.get().cloned().unwrap_or(LinkEnd::Lost)
    }

    /// Waits until the peer's control stream, if it opened one, was read to its end.
    pub(super) async fn frames_read(&self) {
        if self.control_accepted.load(Ordering::Acquire) {
            self.control_ended.cancelled().await;
        }
    }

    /// Whether the control stream that just arrived is the peer's first.
    pub(super) fn accept_control(&self) -> bool {
        !self.control_accepted.swap(true, Ordering::AcqRel)
    }

    /// The answers for the chunk stream that just arrived, if it is the peer's first.
    pub(super) fn take_serves(&self) -> Option<mpsc::Receiver<ServeCommand>> {
        self.serves_waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn fetch(&self, command: FetchCommand) {
        if self.fetches.try_send(command).is_err() {
            self.end(LinkEnd::TooSlow);
        }
    }

    pub(super) fn serve(&self, command: ServeCommand) {
        if self.serves.try_send(command).is_err() {
            self.end(LinkEnd::TooSlow);
        }
    }

    /// Opens a stream on this link's connection.
    pub(super) async fn open(&self, protocol: StreamProtocol) -> Option<Stream> {
        let (reply, opened) = oneshot::channel();
        let (peer, connection) = (self.peer_id, self.connection);
        self.commands.send(Command::Open { peer, connection, protocol, reply }).await.ok()?;
        opened.await.ok()?.ok()
    }
}

/// Which of two connections to one peer stays. Both sides compute the same order: a direct route before a relayed one,
/// TCP before QUIC, and of two dialled at once the one that the device with the lower id dialled. Equal ones were
/// dialled one after the other, because the dialler had lost the first: the later stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    route: Route,
    dialled_by_lower: bool,
}

impl Rank {
    pub(super) fn new(route: Route, local: &DeviceId, remote: &DeviceId, outbound: bool) -> Self {
        Self { route, dialled_by_lower: outbound == (local < remote) }
    }

    /// Whether a new connection of this rank takes the place of one of rank `standing`, when both are new.
    pub(super) fn replaces(self, standing: Self) -> bool {
        self >= standing
    }

    pub(super) const fn route(self) -> Route {
        self.route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_the_same_of_two_connections() {
        let (low, high) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([2; 32]));
        for route in [Route::Tcp, Route::Quic, Route::Relayed] {
            let dialled_by_low = (Rank::new(route, &low, &high, true), Rank::new(route, &high, &low, false));
            let dialled_by_high = (Rank::new(route, &low, &high, false), Rank::new(route, &high, &low, true));
            assert_eq!(dialled_by_low.0, dialled_by_low.1);
            assert_eq!(dialled_by_high.0, dialled_by_high.1);
            assert!(dialled_by_low.0.replaces(dialled_by_high.0) && !dialled_by_high.0.replaces(dialled_by_low.0));
        }
        let direct = Rank::new(Route::Quic, &low, &high, false);
        assert!(direct.replaces(Rank::new(Route::Relayed, &low, &high, true)));
    }
}
