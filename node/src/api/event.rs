//! What a node tells unasked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_protocol::id::{DeviceId, PhotoId};
use holdfast_protocol::time::WallTime;
use serde::{Deserialize, Serialize};

use super::view::Problem;
use crate::ingest::SkipReason;

/// Something that happened, numbered in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the events of one run of the node from 1. A gap means that the reader was too slow.
    pub number: u64,
    /// When.
    pub time_ms: WallTime,
    /// What.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// The node runs.
    Started {
        /// Its version.
        version: String,
    },
    /// The node can be reached at an address.
    Listening {
        /// A multiaddress.
        address: String,
    },
    /// A folder is watched, and everything in it was compared with the library.
    FolderScanned {
        /// The folder.
        path: PathBuf,
        /// Photos and videos in it.
        files: u64,
        /// Those that are new or changed.
        new: u64,
        /// How many things were passed over, by the reason why.
        #[serde(default)]
        skipped: BTreeMap<SkipReason, u64>,
    },
    /// The importer got further; at most a few of these a second.
    Importing {
        /// Files finished since the import began.
        files: u64,
        /// Files in all, as far as they are known.
        files_total: u64,
        /// Bytes finished.
        bytes: u64,
        /// Bytes in all, as far as they are known.
        bytes_total: u64,
    },
    /// A photo is in the library and durable on this device.
    Imported {
        /// The photo.
        #[serde(with = "crate::api::text")]
        photo: PhotoId,
        /// Its file.
        name: String,
        /// Its bytes.
        bytes: u64,
    },
    /// Nothing is left to import, and something was.
    ImportFinished {
        /// Photos that were new.
        photos: u64,
        /// Files that could not be read; each was a `Problem`.
        failed: u64,
    },
    /// Photos became known that another device imported; at most one of these a second.
    Received {
        /// How many.
        photos: u64,
        /// Who imported them.
        #[serde(with = "crate::api::text")]
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// Another device joined the library.
    Joined {
        /// The device.
        #[serde(with = "crate::api::text")]
        device: DeviceId,
        /// Its name.
        name: String,
        /// Where it stands, when that was said.
        place: Option<String>,
    },
    /// A device of the library is connected.
    Connected {
        /// The device.
        #[serde(with = "crate::api::text")]
        device: DeviceId,
        /// Its name.
        name: String,
    },
    /// A device of the library is no longer connected.
    Disconnected {
        /// The device.
        #[serde(with = "crate::api::text")]
        device: DeviceId,
        /// Its name.
        name: String,
        /// Why, as far as it is known.
        reason: String,
    },
    /// The counts changed; at most a few of these a second.
    Safety {
        /// Live photos.
        photos: u64,
        /// Those that reach the target.
        safe: u64,
        /// Bytes still to be sent or fetched.
        moving_bytes: u64,
    },
    /// Something needs a person.
    Problem(Problem),
    /// The node stops.
    Stopping,
}
