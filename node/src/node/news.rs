//! What happens, as people and logs are told.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_protocol::id::DeviceId;
use holdfast_protocol::metadata::Metadata;
use holdfast_protocol::replica;
use holdfast_protocol::time::Timestamp;

use super::Clock;
use super::runtime::Runtime;
use crate::api::view::{Moving, Problem};
use crate::api::{EventLog, Happening};
use crate::ingest::{ImportProblem, ScanSummary};
use crate::library::{self, ImportedPhoto, Library};
use crate::network::LinkEnd;
use crate::store::Recovery;

/// Problems that a status shows; older ones are forgotten.
const PROBLEMS_MAX: usize = 50;
/// Over how long the rate of transfers is measured.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Publishes events, and keeps what a status needs to know of them.
pub(super) struct News {
    events: EventLog,
    clock: Clock,
    problems: VecDeque<Known>,
    /// Counts the walks through all folders.
    walk: u64,
    scanned: Option<ScanSummary>,
    imported_photos: u64,
    import_failures: u64,
    was_importing: bool,
    last_counts: Option<(u64, u64, u64)>,
    samples: VecDeque<(Timestamp, u64)>,
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
            scanned: None,
            imported_photos: 0,
            import_failures: 0,
            was_importing: false,
            last_counts: None,
            samples: VecDeque::new(),
        }
    }

    pub(super) fn publish(&self, happening: Happening) {
        self.events.publish(self.clock.now().wall, happening);
    }

    pub(super) fn problem(&mut self, what: String, next: Option<String>) {
        self.known_problem(Problem { what, next }, None);
    }

    fn known_problem(&mut self, problem: Problem, walk: Option<u64>) {
        if let Some(known) = self.problems.iter_mut().find(|known| known.problem == problem) {
            known.walk = walk;
            return;
        }
        tracing::warn!(problem = problem.what, "something needs a person");
        if self.problems.len() == PROBLEMS_MAX {
            self.problems.pop_front();
        }
        self.problems.push_back(Known { problem: problem.clone(), walk });
        self.publish(Happening::Problem(problem));
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.problems.iter().map(|known| known.problem.clone()).collect()
    }

    /// Files in the watched folders, once they were walked through.
    pub(super) fn files(&self) -> u64 {
        self.scanned.map_or(0, |scanned| scanned.files)
    }

    /// What opening the store found to repair.
    pub(super) fn recovered(&mut self, recovery: &Recovery) {
        if !recovery.lost.is_empty() {
            let what = format!("{} chunks of photos are no longer readable in the store", recovery.lost.len());
            let next = "they are fetched again from other devices that hold them; check the disk";
            self.problem(what, Some(next.to_owned()));
        }
        if recovery.rebuilt_segments > 0 {
            tracing::info!(segments = recovery.rebuilt_segments, "the store's index was rebuilt");
        }
    }

    pub(super) fn imported(&mut self, photo: &ImportedPhoto) {
        self.imported_photos += 1;
        let name = photo.name.path.clone();
        self.publish(Happening::Imported { photo: photo.photo, name, bytes: photo.name.size });
    }

    pub(super) fn import_problem(&mut self, problem: &ImportProblem) {
        self.import_failures += 1;
        self.known_problem(Problem { what: problem.to_string(), next: None }, Some(self.walk));
    }

    pub(super) fn scanned(&mut self, folders: &[PathBuf], summary: &ScanSummary) {
        let new = summary.files.saturating_sub(summary.unchanged);
        for path in folders {
            self.publish(Happening::FolderScanned { path: path.clone(), files: summary.files, new });
        }
        self.scanned = Some(*summary);
        self.problems.retain(|known| known.walk.is_none_or(|walk| walk == self.walk));
        self.walk += 1;
    }

    pub(super) fn joined(&self, device: DeviceId, name: &str) {
        self.publish(Happening::Joined { device, name: name.to_owned(), place: None });
    }

    pub(super) fn link_ended(&mut self, peer: &DeviceId, end: &LinkEnd) {
        tracing::debug!(peer = peer.short(), %end, "a connection ended");
        if let LinkEnd::Misbehaved(misbehaviour) = end {
            tracing::warn!(peer = peer.short(), %misbehaviour, "a peer broke the protocol");
        }
    }

    pub(super) fn of_library<M: Metadata>(&mut self, event: library::Event, library: &Library<M>) {
        use library::Event;
        let registry = library.replica().registry();
        match event {
            Event::PhotosReceived { author, photos } => {
                let Some(device) = registry.device_of(&author) else { return };
                let name = registry.name(&device).unwrap_or("unnamed").to_owned();
                self.publish(Happening::Received { photos, device, name });
            }
            Event::MembershipChanged { device } => {
                tracing::info!(device = device.short(), "the library's devices changed");
            }
            Event::ChangeRefused { author, document, reason } => self.problem(
                format!("a change of {document} by device log {} is malformed: {reason}", author.short()),
                Some("everything else of the library goes on; update Holdfast on that device".to_owned()),
            ),
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
        let name = |device: &DeviceId| library.replica().registry().name(device).unwrap_or("unnamed").to_owned();
        match event {
            Event::PeerConnected { peer } => {
                self.publish(Happening::Connected { device: peer, name: name(&peer) });
            }
            Event::PeerDisconnected { peer } => {
                let reason = "the connection ended".to_owned();
                self.publish(Happening::Disconnected { device: peer, name: name(&peer), reason });
            }
            Event::PeerRefused { peer, reason } => {
                tracing::info!(peer = peer.short(), %reason, "a peer was turned away");
            }
            Event::CaughtUp => tracing::info!("everything that is wanted is held"),
            Event::ForkProven { author, seq } => self.problem(
                format!("device log {} says two different things at entry {seq}; it is frozen here", author.short()),
                Some("that device may have been copied or its key stolen: remove it and let it join anew".to_owned()),
            ),
            Event::RestoredFromBackup { author } => self.problem(
                format!("this device's log {} is older than what other devices know of it", author.short()),
                Some("it was restored from a backup or copied; let it join anew in an empty home".to_owned()),
            ),
            Event::ChunkCorrupt { peer, chunk } => {
                tracing::warn!(peer = peer.short(), chunk = chunk.short(), "a peer sent wrong bytes");
            }
            Event::StorageFailed(error) => self.problem(error.to_string(), None),
            Event::NewerVersionNeeded { author, seq } => self.problem(
                format!("entry {seq} of device log {} needs a newer version of Holdfast", author.short()),
                Some("it is kept and passed on; update Holdfast here to see it".to_owned()),
            ),
            Event::BodyRefused { author, seq, refusal } => {
                tracing::warn!(author = author.short(), seq, %refusal, "an envelope is without effect");
            }
        }
    }

    /// Bytes per second over the last seconds, of a counter that only grows.
    fn rate(&mut self, now: Timestamp, moved: u64) -> u64 {
        self.samples.push_back((now, moved));
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > RATE_WINDOW) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else { return 0 };
        let elapsed = now.since(*since).as_millis() as u64;
        (moved.saturating_sub(*before)).saturating_mul(1000).checked_div(elapsed).unwrap_or(0)
    }
}

impl Runtime {
    /// Publishes how far imports and copies are, when that changed.
    pub(super) fn publish_counts(&mut self) {
        let progress = self.ingest.progress();
        let is_importing = progress.busy || self.uncatalogued > 0;
        if is_importing {
            let (files, bytes) = (progress.files_imported, progress.bytes_imported);
            self.news.publish(Happening::Importing {
                files,
                files_total: files + progress.files_waiting,
                bytes,
                bytes_total: bytes + progress.bytes_waiting,
            });
        } else if self.news.was_importing || self.news.imported_photos > 0 {
            let photos = std::mem::take(&mut self.news.imported_photos);
            let failed = std::mem::take(&mut self.news.import_failures);
            self.news.publish(Happening::ImportFinished { photos, failed });
        }
        self.news.was_importing = is_importing;

        let target = self.target();
        let counts = self.library.summary().counts;
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
        let transfers = self.library.replica().transfers();
        let now = self.clock.now().elapsed;
        let rate = self.news.rate(now, transfers.sent_bytes + transfers.received_bytes);
        let target = self.target();
        let bytes = self.library.bytes_below(target.copies, target.places).max(transfers.missing_bytes);
        let is_anyone_there = self.library.replica().peers().iter().any(|peer| peer.connected);
        let counts = self.library.summary().counts;
        let below = counts.photos - counts.at_least(target.copies, target.places);
        Moving {
            photos: if is_anyone_there { below } else { 0 },
            bytes: if is_anyone_there { bytes } else { 0 },
            seconds: (is_anyone_there && rate > 0 && bytes > 0).then(|| bytes.div_ceil(rate)),
        }
    }
}
