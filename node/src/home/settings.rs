//! What `up` was last told, so that the next `up` just continues.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{HomeError, secret};

/// What a node does when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The device's name; without one, the machine's.
    pub name: Option<String>,
    /// The label of the place where it stands.
    pub place: Option<String>,
    /// The folders that are imported and watched, absolute.
    pub folders: Vec<PathBuf>,
    /// Where the originals' bytes are kept.
    pub originals: Originals,
    /// Multiaddresses to listen on; empty for the defaults.
    pub listen: Vec<String>,
    /// Whether the local network is searched.
    pub discovery: Discovery,
    /// Multiaddresses that are dialled at the start.
    pub peers: Vec<String>,
    /// Multiaddresses of relays, for a device that cannot be dialled.
    pub relays: Vec<String>,
}

/// Where the bytes of imported originals are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Originals {
    /// In the watched folder only: no second copy on this disk.
    #[default]
    InPlace,
    /// Sealed in the store as well.
    Copied,
}

/// Whether devices find each other on the local network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// By multicast DNS.
    #[default]
    LocalNetwork,
    /// Only known addresses are used.
    Off,
}

impl Settings {
    pub(super) fn read(path: &Path) -> Result<Self, HomeError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| HomeError::Settings { path: path.to_owned(), error })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(HomeError::Unusable { path: path.to_owned(), error }),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), HomeError> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|error| HomeError::Settings { path: path.to_owned(), error })?;
        bytes.push(b'\n');
        secret::replace(path, &bytes).map_err(|error| HomeError::Unusable { path: path.to_owned(), error })
    }
}
