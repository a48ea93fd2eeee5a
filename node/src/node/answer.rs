//! Answers to requests from the socket and from embedders.

use std::time::Duration;

use holdfast_protocol::certificate::Role;
use holdfast_protocol::id::DeviceId;

use super::export::WaitingExport;
use super::readers::{Among, Answer, Found, Question};
use super::runtime::Runtime;
use super::{NodeError, seed};
use crate::api::handle::Call;
use crate::api::request::{INVITATION_MINUTES_MAX, PHOTOS_PER_PAGE_MAX};
use crate::api::view::{
    Connection, Evidence, Holder, Importing, Invitation, Photo, PhotoDetail, PhotoPage, Problem, Status, Target,
    Traffic,
};
use crate::api::{PhotoSelection, Refusal, RefusalKind, Reply, Request, Response};
use crate::index::PhotoRow;

/// What makes a photo safe until a library says otherwise.
const TARGET: Target = Target { copies: 2, places: 2 };
/// Matches that an ambiguous name is answered with.
const MATCHES_MAX: usize = 5;

impl Runtime {
    /// Answers one call. A refusal is an answer; an error ends the node.
    pub(super) fn answer(&mut self, call: Call) -> Result<(), NodeError> {
        let Call { request, reply } = call;
        let answer = match request {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Photos { selection, search, after, limit } => {
                return self.list(selection, search, after, page_limit(limit), reply);
            }
            Request::Show { photo } => {
                self.readers.ask(Question::Named { text: photo, limit: MATCHES_MAX + 1 }, reply);
                return Ok(());
            }
            Request::Folders { skipped } => Ok(self.list_folders(skipped)),
            Request::WatchFolder { path } => self.watch_folder(path),
            Request::MoveFolder { from, to } => self.move_folder(&from, &to),
            Request::LeaveFolder { path } => self.leave_folder(&path),
            Request::ForgetFolder { path } => self.forget_folder(path),
            Request::Peers => Ok(Response::Peers(self.peers())),
            Request::Connect { device } => return self.connect(&device, reply),
            Request::Invite { minutes } => match self.invite(minutes)? {
                Ok(invitation) => {
                    self.once_durable(move || reply.finish(Ok(Response::Invite(invitation))));
                    return Ok(());
                }
                Err(refusal) => Err(refusal),
            },
            Request::Export { directory } if !directory.is_absolute() => {
                let next = "give a path that begins with /";
                Err(Refusal::new(RefusalKind::Usage, "the folder is no absolute path", next))
            }
            Request::Export { directory } => {
                self.exports.push(WaitingExport::new(directory, reply));
                return Ok(());
            }
            Request::Shutdown => {
                self.begin_stop();
                Ok(Response::Stopping)
            }
            Request::Events { .. } => {
                Err(Refusal::new(RefusalKind::Usage, "events are not answered here", "follow them"))
            }
        };
        reply.finish(answer);
        Ok(())
    }

    /// What makes a photo safe.
    #[expect(clippy::unused_self, reason = "libraries will have policies of their own")]
    pub(super) const fn target(&self) -> Target {
        TARGET
    }

    fn status(&mut self) -> Status {
        let moving = self.moving();
        let summary = self.library.summary();
        let target = self.target();
        let progress = self.ingest.progress();
        let peers = self.other_peers();
        let transfers = self.library.replica().transfers();
        let histogram = |count: fn(&(u32, u32)) -> u32| {
            let mut photos = Vec::new();
            for (key, number) in &summary.counts.histogram {
                let at = count(key) as usize;
                photos.resize(photos.len().max(at + 1), 0);
                photos[at] += number;
            }
            photos
        };
        let device = self.device_id();
        Status {
            library: self.library_id(),
            device,
            name: self.name_of(&device),
            place: self.library.place_label(&device),
            target,
            photos: summary.counts.photos,
            bytes: summary.bytes,
            safe: summary.counts.at_least(target.copies, target.places),
            held_here: summary.held_here,
            evidence: Evidence::Claimed,
            photos_by_copies: histogram(|(copies, _)| *copies),
            photos_by_places: histogram(|(_, places)| *places),
            moving,
            traffic: Traffic { sent: transfers.sent_bytes, received: transfers.received_bytes },
            importing: Importing { files: progress.files_waiting, bytes: progress.bytes_waiting },
            folders: self.folders(),
            peers_known: peers.len() as u32,
            peers_connected: peers.iter().filter(|peer| peer.connection == Connection::Connected).count() as u32,
            peers,
            catching_up_with: self.library.replica().catching_up_with().map(|device| self.name_of(&device)),
            problems: self.news.problems(),
        }
    }

    fn list(
        &self,
        selection: PhotoSelection,
        search: Option<String>,
        after: Option<String>,
        limit: usize,
        reply: Reply,
    ) -> Result<(), NodeError> {
        let Target { copies, places } = self.target();
        let counts = self.library.counts();
        let safe = counts.at_least(copies, places);
        let among = match selection {
            PhotoSelection::Unsafe if safe == counts.photos => {
                reply.finish(Ok(Response::Photos(PhotoPage::default())));
                return Ok(());
            }
            PhotoSelection::Unsafe if safe > 0 => Among::only(self.library.photos_below(copies, places)),
            PhotoSelection::Unsafe | PhotoSelection::All => Among::All,
        };
        self.readers.ask(Question::Photos { among, search, after, limit }, reply);
        Ok(())
    }

    /// Something was looked up: adds what only the library knows, and answers.
    pub(super) fn answer_found(&mut self, Answer { found, reply }: Answer) {
        let answer = match found {
            Ok(Found::Photos(page)) => {
                let photos = page.photos.into_iter().map(|row| self.photo(row)).collect();
                Ok(Response::Photos(PhotoPage { photos, next: page.next }))
            }
            Ok(Found::Named { text, rows }) => self.show(&text, rows),
            Ok(Found::Export { directory, destination, files }) => {
                return self.export(directory, destination, files, reply);
            }
            Err(refusal) => Err(refusal),
        };
        reply.finish(answer);
    }

    fn photo(&self, row: PhotoRow) -> Photo {
        let (copies, places) = self.library.copies_of(&row.photo);
        let target = self.target();
        Photo {
            id: row.photo,
            name: row.name().map_or_else(|| row.photo.short(), str::to_owned),
            captured: row.captured.map(|captured| captured.to_string()),
            media: row.media,
            bytes: row.bytes,
            width: row.width,
            height: row.height,
            copies,
            places,
            safe: copies >= target.copies && places >= target.places,
            evidence: Evidence::Claimed,
            favourite: row.favourite,
            caption: row.captions.into_iter().next(),
        }
    }

    fn show(&self, text: &str, mut found: Vec<PhotoRow>) -> Result<Response, Refusal> {
        if found.len() > 1 {
            let named =
                |row: &PhotoRow| format!("{} ({})", row.name().unwrap_or("a photo without a name"), row.photo.short());
            let mut names: Vec<_> = found.iter().take(MATCHES_MAX).map(named).collect();
            names.extend((found.len() > MATCHES_MAX).then(|| "others".to_owned()));
            let message = format!("`{text}` could be {}", names.join(", "));
            return Err(Refusal::new(RefusalKind::NotFound, message, "name the one you mean by its identifier"));
        }
        let row = found.pop().ok_or_else(|| {
            let message = format!("no photo is called `{text}`");
            Refusal::new(RefusalKind::NotFound, message, "list them with `holdfast photos`, or search with --search")
        })?;
        Ok(Response::Show(Box::new(self.detail(row))))
    }

    fn detail(&self, row: PhotoRow) -> PhotoDetail {
        let copies = self.library.photo_copies(&row.photo);
        let me = self.device_id();
        let peers = self.library.replica().peers();
        let held = |device: &DeviceId| {
            let holders = copies.iter().flat_map(|copies| &copies.holders);
            holders.filter(|(holder, _)| holder == device).map(|(_, chunks)| *chunks).sum()
        };
        let holder = |device: DeviceId, heard_ms| Holder {
            device,
            name: self.name_of(&device),
            place: self.library.place_label(&device),
            chunks: held(&device),
            evidence: Evidence::Claimed,
            this_device: device == me,
            heard_ms,
        };
        let others = peers.iter().map(|peer| holder(peer.device, peer.last_heard));
        let degrees = |e7: i32| {
            let (sign, e7) = (if e7 < 0 { "-" } else { "" }, e7.unsigned_abs());
            format!("{sign}{}.{:07}", e7 / 10_000_000, e7 % 10_000_000)
        };
        PhotoDetail {
            target: self.target(),
            paths: row.paths.clone(),
            last_path: row.last_name.as_ref().map(|last| last.path.clone()),
            gone_since_ms: row.last_name.as_ref().map(|last| last.gone_since),
            camera: row.camera.clone(),
            location: row.location.map(|(latitude, longitude)| (degrees(latitude), degrees(longitude))),
            other_captions: row.captions.iter().skip(1).cloned().collect(),
            tags: row.tags.clone(),
            unreadable: row.unreadable.clone(),
            chunks: copies.as_ref().map_or(0, |copies| copies.run.count),
            holders: std::iter::once(holder(me, None)).chain(others).collect(),
            photo: self.photo(row),
        }
    }

    /// An invitation that must be durable before it is given out.
    fn invite(&mut self, minutes: u32) -> Result<Result<Invitation, Refusal>, NodeError> {
        if let Some(Problem { what, next }) = self.space.standstill() {
            return Ok(Err(Refusal { kind: RefusalKind::Failed, message: what, next }));
        }
        if minutes == 0 || minutes > INVITATION_MINUTES_MAX {
            let next = format!("choose between 1 and {INVITATION_MINUTES_MAX} minutes");
            return Ok(Err(Refusal::new(RefusalKind::Usage, "a ticket cannot live that long", next)));
        }
        if !self.library.may_invite() {
            let next = "run `holdfast invite` on the device that created the library";
            return Ok(Err(Refusal::new(RefusalKind::NotAllowed, "this device may not invite others", next)));
        }
        let ttl = Duration::from_secs(u64::from(minutes) * 60);
        let addresses = self.reachable_addresses();
        let invited = self.library.invite(self.clock.now(), &self.device, &addresses, &seed()?, (Role::Member, ttl))?;
        let (ticket, expires_ms) = invited;
        Ok(Ok(Invitation { ticket: ticket.to_string(), expires_ms }))
    }

    pub(super) fn name_of(&self, device: &DeviceId) -> String {
        self.library.replica().registry().distinct_name(device).unwrap_or_else(|| super::news::UNNAMED.to_owned())
    }
}

fn page_limit(limit: u32) -> usize {
    limit.clamp(1, PHOTOS_PER_PAGE_MAX) as usize
}
