//! What a node answers: plain values, ready to be shown or printed as JSON. Lengths are in bytes, times in
//! milliseconds since the Unix epoch.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use holdfast_protocol::id::{DeviceId, LibraryId, PhotoId};
use holdfast_protocol::time::WallTime;
use serde::{Deserialize, Serialize};

use crate::ingest::SkipReason;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Response {
    /// How safe the library is.
    Status(Box<Status>),
    /// A page of photos.
    Photos(PhotoPage),
    /// One photo.
    Show(Box<PhotoDetail>),
    /// The devices of the library.
    Peers(Peers),
    /// The watched folders.
    Folders(Folders),
    /// A device that was called, and how it can be reached now.
    Connect(Box<Peer>),
    /// A ticket.
    Invite(Invitation),
    /// The outcome of an export.
    Export(ExportOutcome),
    /// The node stops now.
    Stopping,
}

/// How safe a library is, as one device sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The library.
    #[serde(with = "crate::api::text")]
    pub library: LibraryId,
    /// The device that answers.
    #[serde(with = "crate::api::text")]
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where it stands, when that was said.
    pub place: Option<String>,
    /// What counts as safe.
    pub target: Target,
    /// Live photos of the library.
    pub photos: u64,
    /// The bytes of their originals.
    pub bytes: u64,
    /// Photos that reach the target.
    pub safe: u64,
    /// Photos whose every chunk this device holds.
    pub held_here: u64,
    /// On what evidence copies are counted.
    pub evidence: Evidence,
    /// How many photos have exactly so many copies, by copies; entry `n` counts photos with `n`, the last also those above.
    pub photos_by_copies: Vec<u64>,
    /// How many photos lie in exactly so many places, by places; entry `n` counts photos in `n`, the last also those above.
    pub photos_by_places: Vec<u64>,
    /// What is being copied now, to this device or from it.
    pub moving: Moving,
    /// What was copied since the node started.
    #[serde(default)]
    pub traffic: Traffic,
    /// What is found in the watched folders and not in the library yet.
    pub importing: Importing,
    /// The watched folders.
    pub folders: Vec<Folder>,
    /// Other devices of the library.
    pub peers_known: u32,
    /// Those of them that are connected.
    pub peers_connected: u32,
    /// They, by name.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// The name of a device that is still telling this one of photos; absent once all that it knows is known here.
    #[serde(default)]
    pub catching_up_with: Option<String>,
    /// What needs a person, most urgent first.
    pub problems: Vec<Problem>,
}

/// How many copies in how many places make a photo safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Devices that hold it whole.
    pub copies: u32,
    /// Distinct places among them.
    pub places: u32,
}

/// What a count of copies rests on; ranks are shown apart and never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Each device's own signed inventory.
    Claimed,
    /// A proof that was asked for and checked.
    Audited,
    /// Every byte was read and checked.
    ReadInFull,
}

/// Transfers under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Photos on their way to the target.
    pub photos: u64,
    /// Bytes that are still to come to this device or to go from it.
    pub bytes: u64,
    /// About how long that takes; absent while nothing was measured.
    pub seconds: Option<u64>,
    /// Those of the bytes that are to come here.
    #[serde(default)]
    pub incoming: u64,
    /// Those that are to go from here.
    #[serde(default)]
    pub outgoing: u64,
}

/// Chunks that went over the network since the node started, in sealed bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// To other devices.
    pub sent: u64,
    /// From other devices, kept and durable.
    pub received: u64,
}

/// Work of the importer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Importing {
    /// Files that wait or are being read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A watched folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Files of it that are in the library.
    pub files: u64,
    /// Whether it can be read now; an unmounted disk makes it missing, and then nothing counts as deleted.
    pub present: bool,
    /// What it is called in the library.
    #[serde(default)]
    pub label: String,
    /// Folders in it that are not there, and whose photos are waited for.
    #[serde(default)]
    pub missed: Vec<MissedFolder>,
    /// How many things in it were passed over, by the reason why.
    #[serde(default)]
    pub skipped: BTreeMap<SkipReason, u64>,
}

/// A folder inside a watched one that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedFolder {
    /// Where it was.
    pub path: PathBuf,
    /// Files of it that are in the library.
    pub files: u64,
    /// Since when it is missed.
    pub since_ms: WallTime,
}

/// The watched folders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// They, in the order in which they were added.
    pub folders: Vec<Folder>,
    /// Folders that are watched no longer, and from which something is still to be copied into the store.
    pub leaving: Vec<PathBuf>,
    /// Exports inside watched folders, which are passed over until they are added as folders.
    pub excluded: Vec<PathBuf>,
    /// What was passed over, by name, at most ten thousand a folder; empty unless it was asked for.
    pub skipped: Vec<SkippedPath>,
}

/// Something that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedPath {
    /// Where it is.
    pub path: PathBuf,
    /// Why it was passed over.
    pub reason: SkipReason,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, as a sentence without a full stop: `cannot read /home/anna/IMG_1.HEIC: permission denied`.
    pub what: String,
    /// What to do about it, as an imperative: `make the file readable`.
    pub next: Option<String>,
}

impl Problem {
    /// What an error says; its message has the next step behind a semicolon.
    #[must_use]
    pub fn of(error: &dyn std::error::Error) -> Self {
        let text = error.to_string();
        match text.split_once("; ") {
            Some((what, next)) => Self { what: what.to_owned(), next: Some(next.to_owned()) },
            None => Self { what: text, next: None },
        }
    }
}

/// A page of photos, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoPage {
    /// The photos.
    pub photos: Vec<Photo>,
    /// Where the next page begins; absent on the last.
    pub next: Option<String>,
}

/// A photo in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Photo {
    /// The photo.
    #[serde(with = "crate::api::text")]
    pub id: PhotoId,
    /// A name of its file; the one that sorts first when there are several.
    pub name: String,
    /// When it was taken, `2021-07-04T18:03:12` on the camera's clock, followed by `+02:00` when the offset is known.
    pub captured: Option<String>,
    /// What it is: `image/jpeg`.
    pub media: String,
    /// The length of the original.
    pub bytes: u64,
    /// Pixels from left to right, before orientation; 0 when unknown.
    pub width: u32,
    /// Pixels from top to bottom, before orientation; 0 when unknown.
    pub height: u32,
    /// Devices that hold it whole.
    pub copies: u32,
    /// Distinct places among them.
    pub places: u32,
    /// Whether it reaches the target.
    pub safe: bool,
    /// On what evidence.
    pub evidence: Evidence,
    /// Whether it is a favourite.
    pub favourite: bool,
    /// Its caption.
    pub caption: Option<String>,
}

/// A photo and everything known of its copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoDetail {
    /// As in a list.
    #[serde(flatten)]
    pub photo: Photo,
    /// What counts as safe.
    pub target: Target,
    /// Every path that the file lies under, relative to its folder.
    pub paths: Vec<String>,
    /// The path that its last file lay under, when no device has one any more.
    #[serde(default)]
    pub last_path: Option<String>,
    /// Since when that file is gone.
    #[serde(default)]
    pub gone_since_ms: Option<WallTime>,
    /// The camera that took it.
    pub camera: Option<String>,
    /// Where it was taken: degrees north and east.
    pub location: Option<(String, String)>,
    /// Captions written at the same time by different devices; empty unless there are several.
    pub other_captions: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Why its metadata could not be read.
    pub unreadable: Option<String>,
    /// Chunks that the photo consists of.
    pub chunks: u32,
    /// Every device of the library and how much of the photo it holds.
    pub holders: Vec<Holder>,
}

/// How much of one photo one device holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The device.
    #[serde(with = "crate::api::text")]
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where it stands, when that was said.
    pub place: Option<String>,
    /// Chunks of the photo that it holds.
    pub chunks: u32,
    /// On what evidence.
    pub evidence: Evidence,
    /// Whether this is the device that answers.
    pub this_device: bool,
    /// When it was last heard; absent for this device and for one that was never heard.
    pub heard_ms: Option<WallTime>,
}

/// The devices of a library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// This device first, then the others by name.
    pub peers: Vec<Peer>,
    /// Live photos of the library.
    pub photos: u64,
}

/// A device of a library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The device.
    #[serde(with = "crate::api::text")]
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Where it stands, when that was said.
    pub place: Option<String>,
    /// What it may do: `owner`, `member`, `viewer`.
    pub role: String,
    /// How it can be reached now.
    pub connection: Connection,
    /// How the connection reaches it; absent for one that is not connected.
    #[serde(default)]
    pub route: Option<Route>,
    /// How long it took to answer, there and back; absent before it was measured.
    #[serde(default)]
    pub round_trip_ms: Option<u64>,
    /// Since when something waits to move between it and this device, and nothing does; absent while all is well.
    #[serde(default)]
    pub still_since_ms: Option<WallTime>,
    /// Until when it is not asked for photos, because it could not give some; absent when it may be.
    #[serde(default)]
    pub resting_until_ms: Option<WallTime>,
    /// Whether it is being called right now.
    #[serde(default)]
    pub calling: bool,
    /// When it is called next; absent for one that is connected or being called.
    #[serde(default)]
    pub next_dial_ms: Option<WallTime>,
    /// Why it could not be reached when it was called last.
    #[serde(default)]
    pub failures: Vec<DialFailure>,
    /// Addresses it was reached at or listens on, each once.
    pub addresses: Vec<String>,
    /// When it was last heard; absent for this device and for one that was never heard.
    pub heard_ms: Option<WallTime>,
    /// Photos that it holds whole.
    pub photos: u64,
    /// Photos that reach the target only because its copies count.
    #[serde(default)]
    pub photos_resting_on_it: u64,
}

/// How a connection reaches its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// What is in between.
    pub kind: RouteKind,
    /// What carries it: `tcp` or `quic`.
    pub transport: String,
    /// Who relays it: the name of a device of the library, or an address; absent when nobody does.
    pub through: Option<String>,
}

/// What is between two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// A private address: this machine, or a network of the house.
    Local,
    /// Other networks, and nobody who passes anything on.
    Direct,
    /// A relay passes everything on.
    Relayed,
}

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialFailure {
    /// Which address was called; absent when it is not about one.
    pub address: Option<String>,
    /// What went wrong.
    pub reason: String,
}

/// How a device can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// It is the device that answers.
    ThisDevice,
    /// It is connected.
    Connected,
    /// It is not connected.
    Offline,
}

/// A ticket for one device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// What the other device is given. Whoever has it can join, so it is a secret until it is used or expires.
    pub ticket: String,
    /// When it expires.
    pub expires_ms: WallTime,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("expires_ms", &self.expires_ms).finish_non_exhaustive()
    }
}

/// How an export ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportOutcome {
    /// Where to.
    pub directory: PathBuf,
    /// Files that were written.
    pub written: u64,
    /// Files that were there already, with the same content.
    pub unchanged: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// The watched folder that the directory lies in, which passes it over.
    #[serde(default)]
    pub passed_over_by: Option<PathBuf>,
    /// Files of those that had lost their date or mode, and have them again.
    #[serde(default)]
    pub repaired: u64,
    /// Files that are there with another date: the file system does not keep theirs.
    #[serde(default)]
    pub undated: u64,
    /// Files that could not be written.
    #[serde(default)]
    pub missing: u64,
    /// The first of those, with the reason.
    pub problems: Vec<Problem>,
}

/// How far a long request got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Files that are finished.
    pub files: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes that are finished.
    pub bytes: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of refusal, which decides the exit code.
    pub kind: RefusalKind,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Refusal {
    /// A refusal that tells the person what to do.
    #[must_use]
    pub fn new(kind: RefusalKind, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next: Some(next.into()) }
    }

    /// The request ran and failed.
    #[must_use]
    pub fn failed(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { kind: RefusalKind::Failed, message: error.to_string(), next: None }
    }
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The request is understood and fails: a disk, a peer.
    Failed,
    /// The request makes no sense: a value out of range, a line that is not JSON.
    Usage,
    /// What it names does not exist, or names several things.
    NotFound,
    /// The caller may not do this.
    NotAllowed,
    /// The node is starting, stopping or overloaded; asking again later helps.
    Busy,
    /// The caller speaks a schema that this node does not.
    Schema,
}
