//! What happens, as people and logs are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use holdfast_library::Library;
use holdfast_network::LinkEnd;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::message::Farewell;
use holdfast_protocol::metadata::Metadata;
use holdfast_protocol::replica::{self, DisconnectReason};
use holdfast_protocol::time::Timestamp;
use holdfast_store::Recovery;

use super::Clock;
use super::pace::Pace;
use super::runtime::Runtime;
use crate::api::view::{Moving, Problem};
use crate::api::{EventLog, Happening};
use crate::ingest::{FolderFiles, ImportProblem};

/// Problems that a status shows; older ones are forgotten.
const PROBLEMS_MAX: usize = 50;
/// Photos that arrive from a device are told of together, this often.
const RECEIVED_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connected device may stay unnamed: its name is in logs that it brings along.
const NAME_DELAY: Duration = Duration::from_secs(5);
/// What a device is called whose name is not known.
pub(super) const UNNAMED: &str = "unnamed";

/// Publishes events, and keeps what a status needs to know of them.
pub(super) struct News {
    events: EventLog,
    clock: Clock,
    problems: VecDeque<Known>,
    /// Counts the walks through all folders.
    walk: u64,
    imported_photos: u64,
    import_failures: u64,
    /// Photos of other devices that were not told of yet, and when some were last.
    received: BTreeMap<DeviceId, u64>,
    received_told: Timestamp,
    /// Devices whose connection was not told of yet, since when they are connected.
    unnamed: BTreeMap<DeviceId, Timestamp>,
    /// How the last connection with each device ended that is not connected.
    ended: BTreeMap<DeviceId, LinkEnd>,
    /// Devices that are passing from one connection to another: neither is told of.
    passing: BTreeSet<DeviceId>,
    /// Whether anything happened since the counts were looked at.
    pub(super) has_changed: bool,
    last_counts: Option<(u64, u64, u64)>,
    incoming: Pace,
    outgoing: Pace,
}

/// A problem that a status shows.
struct Known {
    problem: Problem,
    /// The walk that found it last, when it is one of the folders': it is settled once a walk finds it no more.
    walk: Option<u64>,
}

impl News {
    pub(super) fn new(events: EventLog, clock: Clock) -> Self {
        Self {
            events,
            clock,
            problems: VecDeque::new(),
            walk: 0,
            imported_photos: 0,
            import_failures: 0,
            received: BTreeMap::new(),
            received_told: Timestamp::default(),
            unnamed: BTreeMap::new(),
            ended: BTreeMap::new(),
            passing: BTreeSet::new(),
            has_changed: true,
            last_counts: None,
            incoming: Pace::default(),
            outgoing: Pace::default(),
        }
    }

    pub(super) fn publish(&self, happening: Happening) {
        self.events.publish(self.clock.now().wall, happening);
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.known_problem(problem, None);
    }

    /// A problem is none any more.
    pub(super) fn settled(&mut self, problem: &Problem) {
        self.problems.retain(|known| known.problem != *problem);
    }

    /// Whether the problem is new.
    fn known_problem(&mut self, problem: Problem, walk: Option<u64>) -> bool {
        if let Some(known) = self.problems.iter_mut().find(|known| known.problem == problem) {
            known.walk = walk;
            return false;
        }
        tracing::warn!(problem = problem.what, "something needs a person");
        if self.problems.len() == PROBLEMS_MAX {
            self.problems.pop_front();
        }
        self.problems.push_back(Known { problem: problem.clone(), walk });
        self.publish(Happening::Problem(problem));
        true
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.problems.iter().map(|known| known.problem.clone()).collect()
    }

    /// What opening the store found to repair.
    pub(super) fn recovered(&mut self, recovery: &Recovery) {
        if !recovery.lost.is_empty() {
            let what = format!("{} chunks of photos are no longer readable in the store", recovery.lost.len());
            let next = "they are fetched again from other devices that hold them; check the disk";
            self.problem(Problem { what, next: Some(next.to_owned()) });
        }
        if recovery.rebuilt_segments > 0 {
            tracing::info!(segments = recovery.rebuilt_segments, "the store's index was rebuilt");
        }
    }

    /// A photo is in the library, durably.
    pub(super) fn imported(&mut self, happening: Happening) {
        self.imported_photos += 1;
        self.publish(happening);
    }

    pub(super) fn import_problem(&mut self, problem: &ImportProblem) {
        if self.known_problem(Problem::of(problem), Some(self.walk)) && problem.is_about_a_file() {
            self.import_failures += 1;
        }
    }

    pub(super) fn scanned(&mut self, folders: &[PathBuf], known: &[FolderFiles]) {
        for (path, FolderFiles { files, new, skipped, .. }) in folders.iter().zip(known) {
            let (path, skipped) = (path.clone(), skipped.clone());
            self.publish(Happening::FolderScanned { path, files: *files, new: *new, skipped });
        }
        self.problems.retain(|known| known.walk.is_none_or(|walk| walk == self.walk));
        self.walk += 1;
    }

    pub(super) fn joined(&self, device: DeviceId, name: &str) {
        self.publish(Happening::Joined { device, name: name.to_owned(), place: None });
    }

    /// A connection has ended, before the replica hears of it.
    pub(super) fn link_ended(&mut self, peer: &DeviceId, name: &str, end: &LinkEnd) {
        tracing::debug!(peer = peer.short(), %end, "a connection ended");
        if let LinkEnd::Misbehaved(misbehaviour) = end {
            tracing::warn!(peer = peer.short(), %misbehaviour, "a peer broke the protocol");
        }
        if self.passing.remove(peer) {
            // The connection that was to take the place of the one before has come to nothing.
            self.disconnected(*peer, name.to_owned(), end.to_string());
        }
        self.ended.insert(*peer, end.clone());
    }

    /// The session with a device is over: because one of the two decided it, or because its connection ended.
    fn session_ended(&mut self, peer: DeviceId, name: String, decided: Option<&DisconnectReason>) {
        if self.unnamed.remove(&peer).is_some() {
            return;
        }
        let reason = match (decided, self.ended.remove(&peer)) {
            (Some(DisconnectReason::Stopping), _) => return,
            (Some(DisconnectReason::Farewell(Farewell::ShuttingDown)), _) => "it was stopped".to_owned(),
            (Some(reason), _) => reason.to_string(),
            (None, Some(LinkEnd::Replaced)) => {
                self.passing.insert(peer);
                return;
            }
            (None, end) => end.unwrap_or(LinkEnd::Lost).to_string(),
        };
        self.disconnected(peer, name, reason);
    }

    fn disconnected(&self, device: DeviceId, name: String, reason: String) {
        self.publish(Happening::Disconnected { device, name, reason });
    }

    pub(super) fn of_library<M: Metadata>(&mut self, event: holdfast_library::Event, library: &Library<M>) {
        use holdfast_library::Event;
        let registry = library.replica().registry();
        match event {
            Event::PhotosReceived { author, photos } => {
                if let Some(device) = registry.device_of(&author) {
                    *self.received.entry(device).or_default() += photos;
                }
            }
            Event::MembershipChanged { device } => {
                tracing::info!(device = device.short(), "the library's devices changed");
            }
            Event::AuthorContinued { retired, author } => {
                tracing::info!(
                    retired = retired.short(),
                    author = author.short(),
                    "this device writes under a new key"
                );
            }
            Event::ChangeRefused { author, document, reason } => self.problem(Problem {
                what: format!("a change of {document} by device log {} is malformed: {reason}", author.short()),
                next: Some("everything else of the library goes on; update Holdfast on that device".to_owned()),
            }),
            Event::Rebuilt { document } => {
                let document = document.map_or_else(|| "all documents".to_owned(), |document| document.to_string());
                tracing::warn!(document, "the cached catalog was damaged and was made again from the logs");
            }
            Event::BodyUnreadable { author, seq, reason } => {
                tracing::warn!(author = author.short(), seq, reason, "a catalog change cannot be read");
            }
        }
    }

    pub(super) fn of_replica<M: Metadata>(&mut self, event: replica::Event, library: &Library<M>) {
        use replica::Event;
        let registry = library.replica().registry();
        let name = |device: &DeviceId| registry.distinct_name(device).unwrap_or_else(|| UNNAMED.to_owned());
        match event {
            Event::PeerConnected { peer } if self.passing.remove(&peer) => {}
            Event::PeerConnected { peer } => {
                self.unnamed.insert(peer, self.clock.now().elapsed);
                self.tell_connected(library);
            }
            Event::PeerDisconnected { peer, reason } => self.session_ended(peer, name(&peer), reason.as_ref()),
            Event::PeerRefused { peer, reason } => {
                tracing::info!(peer = peer.short(), %reason, "a peer was turned away");
            }
            Event::CaughtUp => tracing::info!("everything that is wanted is held"),
            Event::ForkProven { author, seq } => self.problem(Problem {
                what: format!(
                    "a device went on twice from entry {seq} of its log {}, and knew nothing of it",
                    author.short()
                ),
                next: Some(
                    "what both wrote is kept; if the device was restored from a backup, there is nothing to do; if it was \
                     copied, let one of the copies join anew in an empty home"
                        .to_owned(),
                ),
            }),
            Event::RestoredFromBackup { author } => self.problem(Problem {
                what: format!("this device knows less of its own log {} than other devices do", author.short()),
                next: Some(
                    "if it was restored from a backup, there is nothing to do: it goes on under a new key; if it was \
                     copied, let one of the copies join anew in an empty home"
                        .to_owned(),
                ),
            }),
            Event::PeerRests { peer, rest } => {
                tracing::info!(
                    peer = peer.short(),
                    ?rest,
                    "a device sends nothing of what it is asked for; it is asked again after a rest"
                );
            }
            Event::ChunkCorrupt { peer, chunk } => {
                tracing::warn!(peer = peer.short(), chunk = chunk.short(), "a peer sent wrong bytes");
            }
            Event::StorageFailed(error) => self.problem(Problem::of(&error)),
            Event::NewerVersionNeeded { author, seq } => self.problem(Problem {
                what: format!("entry {seq} of device log {} needs a newer version of Holdfast", author.short()),
                next: Some("it is kept and passed on; update Holdfast here to see it".to_owned()),
            }),
            Event::BodyRefused { author, seq, refusal } => {
                tracing::warn!(author = author.short(), seq, %refusal, "an envelope is without effect");
            }
        }
    }

    /// Tells of connected devices, each as soon as its name is known.
    fn tell_connected<M: Metadata>(&mut self, library: &Library<M>) {
        if self.unnamed.is_empty() {
            return;
        }
        let (registry, now) = (library.replica().registry(), self.clock.now().elapsed);
        for (device, since) in std::mem::take(&mut self.unnamed) {
            match registry.distinct_name(&device) {
                Some(name) => self.publish(Happening::Connected { device, name }),
                None if now.since(since) < NAME_DELAY => _ = self.unnamed.insert(device, since),
                None => self.publish(Happening::Connected { device, name: UNNAMED.to_owned() }),
            }
        }
    }

    /// Tells of photos that became known, those of a device together.
    fn tell_received<M: Metadata>(&mut self, library: &Library<M>) {
        let now = self.clock.now().elapsed;
        if self.received.is_empty() || now.since(self.received_told) < RECEIVED_INTERVAL {
            return;
        }
        self.received_told = now;
        let registry = library.replica().registry();
        for (device, photos) in std::mem::take(&mut self.received) {
            let name = registry.distinct_name(&device).unwrap_or_else(|| UNNAMED.to_owned());
            self.publish(Happening::Received { photos, device, name });
        }
    }
}

impl Runtime {
    /// Publishes how far imports and copies are, when that changed.
    pub(super) fn publish_counts(&mut self) {
        let progress = self.ingest.progress();
        let is_importing = progress.busy || !self.uncatalogued.is_empty();
        if is_importing {
            let (files, bytes) = (progress.files_imported, progress.bytes_imported);
            self.news.publish(Happening::Importing {
                files,
                files_total: files + progress.files_waiting,
                bytes,
                bytes_total: bytes + progress.bytes_waiting,
            });
        } else if self.news.imported_photos + self.news.import_failures > 0 {
            let photos = std::mem::take(&mut self.news.imported_photos);
            let failed = std::mem::take(&mut self.news.import_failures);
            self.news.publish(Happening::ImportFinished { photos, failed });
        }
        self.news.tell_connected(&self.library);
        self.news.tell_received(&self.library);

        if !std::mem::take(&mut self.news.has_changed) {
            return;
        }
        self.look_at_connections();
        let target = self.target();
        let counts = self.library.counts();
        let safe = counts.at_least(target.copies, target.places);
        let moving = self.moving();
        let news = (counts.photos, safe, moving.bytes);
        if self.news.last_counts != Some(news) {
            self.news.last_counts = Some(news);
            self.news.publish(Happening::Safety { photos: counts.photos, safe, moving_bytes: moving.bytes });
        }
    }

    /// What is on its way to other devices and from them.
    pub(super) fn moving(&mut self) -> Moving {
        let (now, target) = (self.clock.now().elapsed, self.target());
        let replica = self.library.replica();
        let transfers = replica.transfers();
        let connected: Vec<_> = replica.peers().into_iter().filter(|peer| peer.connected).collect();
        let counts = self.library.counts();
        let below = counts.photos - counts.at_least(target.copies, target.places);
        let incoming = transfers.missing_bytes - transfers.unavailable_bytes;
        // One more copy makes a photo safe: that of the device which lacks least.
        let lacked = connected.iter().map(|peer| if below > 0 { replica.lacked_by(&peer.device) } else { 0 });
        let outgoing = lacked.filter(|lacked| *lacked > 0).min().unwrap_or(0);
        self.news.incoming.look(now, transfers.received_bytes, incoming);
        self.news.outgoing.look(now, transfers.sent_bytes, outgoing);
        let time_in = (incoming > 0).then(|| self.news.incoming.time_for(now, incoming)).flatten();
        let time_out = (outgoing > 0).then(|| self.news.outgoing.time_for(now, outgoing)).flatten();
        Moving {
            photos: if incoming + outgoing > 0 { below } else { 0 },
            bytes: incoming + outgoing,
            seconds: time_in.max(time_out).map(|time| time.as_secs().max(1)),
            incoming,
            outgoing,
        }
    }

    /// Looks whether anything waits to move between this device and those that are connected.
    pub(super) fn look_at_connections(&mut self) {
        let library = &self.library;
        self.connections.look(self.clock.now().elapsed, |peer| library.differs_from(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId::from_bytes([1; 32]);

    /// Why a device is said to be gone after a connection ended so.
    fn told(news: &mut News, decided: Option<DisconnectReason>, end: LinkEnd) -> Vec<String> {
        let known = news.events.follow().0.len();
        if decided.is_some() {
            news.session_ended(PEER, "nas".to_owned(), decided.as_ref());
            news.link_ended(&PEER, "nas", &end);
        } else {
            news.link_ended(&PEER, "nas", &end);
            news.session_ended(PEER, "nas".to_owned(), None);
        }
        let reason = |happening: &Happening| match happening {
            Happening::Disconnected { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        news.events.follow().0.iter().skip(known).filter_map(|event| reason(&event.happening)).collect()
    }

    #[test]
    fn a_device_that_is_gone_is_gone_for_a_reason() {
        let mut news = News::new(EventLog::new(), Clock::new());
        let farewell = DisconnectReason::Farewell(Farewell::ShuttingDown);
        assert_eq!(told(&mut news, Some(farewell), LinkEnd::Closed), ["it was stopped"]);
        assert_eq!(told(&mut news, None, LinkEnd::Silent { seconds: 12 }), ["nothing was heard for 12 s"]);
        assert_eq!(told(&mut news, None, LinkEnd::Lost), ["the connection was lost"]);
        assert!(told(&mut news, Some(DisconnectReason::Stopping), LinkEnd::Closed).is_empty());
    }

    #[test]
    fn passing_to_a_better_connection_is_no_news_unless_that_comes_to_nothing() {
        let mut news = News::new(EventLog::new(), Clock::new());
        assert!(told(&mut news, None, LinkEnd::Replaced).is_empty());
        assert!(news.passing.contains(&PEER));
        news.link_ended(&PEER, "nas", &LinkEnd::Lost);
        assert!(news.events.follow().0.iter().any(|event| matches!(event.happening, Happening::Disconnected { .. })));
        assert!(news.passing.is_empty());
    }
}
