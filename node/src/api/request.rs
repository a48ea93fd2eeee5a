//! What can be asked of a running node.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The most photos in one answer to [`Request::Photos`].
pub const PHOTOS_PER_PAGE_MAX: u32 = 1000;
/// The longest life of a ticket.
pub const INVITATION_MINUTES_MAX: u32 = 7 * 24 * 60;

/// A question to a running node, and what answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How safe the library is. Answered by `Response::Status`.
    Status,
    /// A page of photos, newest first. Answered by `Response::Photos`.
    Photos {
        /// Which photos.
        #[serde(default)]
        selection: PhotoSelection,
        /// Only photos whose names, captions, tags or camera contain all these words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        search: Option<String>,
        /// Continue behind this page: `next` of the answer before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// At most this many, and never more than [`PHOTOS_PER_PAGE_MAX`].
        limit: u32,
    },
    /// One photo with all that is known of its copies. Answered by `Response::Show`.
    Show {
        /// An identifier, the beginning of one (at least four digits), a file name or a path.
        photo: String,
    },
    /// The devices of this library. Answered by `Response::Peers`.
    Peers,
    /// The watched folders. Answered by `Response::Folders`, as are the requests about one folder.
    Folders {
        /// Whether what was passed over is named.
        #[serde(default)]
        skipped: bool,
    },
    /// Watches one more folder.
    WatchFolder {
        /// An absolute path.
        path: PathBuf,
    },
    /// A watched folder was moved or renamed: goes on with it where it is now, without reading its files again.
    MoveFolder {
        /// Where it was, an absolute path.
        from: PathBuf,
        /// Where it is, an absolute path.
        to: PathBuf,
    },
    /// Watches a folder no longer. Its photos stay in the library, and what this device holds of them it keeps.
    LeaveFolder {
        /// An absolute path.
        path: PathBuf,
    },
    /// A folder inside a watched one is not there because it was deleted: its photos need not be waited for.
    ForgetFolder {
        /// An absolute path.
        path: PathBuf,
    },
    /// Calls a device now, however long it was to be left alone, and waits a few seconds for what comes of it. Answered by
    /// `Response::Connect`.
    Connect {
        /// Its name, or the beginning of its identifier (at least four digits).
        device: String,
    },
    /// The recent events, and with `follow` those to come. Served from the event log; never reaches the runtime.
    Events {
        /// Whether the stream stays open for events to come.
        #[serde(default)]
        follow: bool,
    },
    /// Makes a ticket that lets one device join. Answered by `Response::Invite`.
    Invite {
        /// For how long the ticket can be used.
        minutes: u32,
    },
    /// Writes the originals of all photos into a folder. Sends `Progress`, then `Response::Export`.
    Export {
        /// An absolute path; it is created when missing.
        directory: PathBuf,
    },
    /// Stops the node as Ctrl-C would. Answered by `Response::Stopping` before it stops.
    Shutdown,
}

/// Which photos a list names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhotoSelection {
    /// Every live photo.
    #[default]
    All,
    /// Photos below their target of copies or places.
    Unsafe,
}
