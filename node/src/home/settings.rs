//! What `up` was last told, so that the next `up` just continues.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{HomeError, secret};
use crate::ingest;

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
    /// Folders that are watched no longer, as long as something of them is still to be copied into the store.
    pub leaving: Vec<PathBuf>,
    /// Folders that are to be called otherwise in the store, from old to new, until that is done.
    pub moving: Vec<(PathBuf, PathBuf)>,
    /// Folders inside them that are passed over: exports.
    pub excluded: Vec<PathBuf>,
    /// What each folder is called in the catalog, once that was said: names that are there are found by it.
    pub labels: BTreeMap<PathBuf, String>,
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
    /// Multiaddresses at which the device is reached besides, such as a router's forwarded port.
    pub announced: Vec<String>,
    /// Whether the router is asked to forward ports.
    pub port_mapping: PortMapping,
    /// Whether the device passes connections on.
    pub relaying: Relaying,
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

/// Whether the device is a relay for those that cannot be dialled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relaying {
    /// It is none.
    #[default]
    Off,
    /// For the library's members.
    Members,
}

/// Whether the router is asked, by UPnP, to forward the ports that the device listens on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMapping {
    /// If there is one that does it.
    #[default]
    Tried,
    /// Nobody is asked.
    Off,
}

impl Settings {
    /// Watches `folder` too, under a label that it keeps. What is watched already keeps what it was called so far, and so
    /// does what lies in a folder that is watched.
    pub fn watch(&mut self, folder: PathBuf) {
        self.excluded.retain(|excluded| !folder.starts_with(excluded));
        self.leaving.retain(|leaving| *leaving != folder);
        let called = ingest::labels(&self.folders);
        for (known, label) in self.folders.iter().zip(called) {
            self.labels.entry(known.clone()).or_insert(label);
        }
        if self.folders.iter().any(|known| folder.starts_with(known)) {
            return;
        }
        let own_name = ingest::own_name(&folder).filter(|name| !self.labels.values().any(|label| label == name));
        let label = own_name.unwrap_or_else(|| folder.to_string_lossy().into_owned());
        self.labels.entry(folder.clone()).or_insert(label);
        self.folders.push(folder);
    }

    /// A watched folder is somewhere else now, and is called as before; so is what is watched or passed over in it.
    pub fn move_folder(&mut self, from: &Path, to: &Path) {
        self.folders.retain(|folder| folder != to);
        self.labels.remove(to);
        self.excluded.retain(|excluded| !to.starts_with(excluded));
        let moved = |path: &Path| Some(joined(to, path.strip_prefix(from).ok()?));
        for path in self.folders.iter_mut().chain(&mut self.excluded) {
            if let Some(moved) = moved(path) {
                *path = moved;
            }
        }
        self.labels = std::mem::take(&mut self.labels)
            .into_iter()
            .map(|(path, label)| (moved(&path).unwrap_or(path), label))
            .collect();
        self.moving.push((from.to_owned(), to.to_owned()));
    }

    /// The store knows the files of a folder by their new paths.
    pub fn moved(&mut self, from: &Path, to: &Path) {
        self.moving.retain(|moving| (&*moving.0, &*moving.1) != (from, to));
    }

    /// Stops watching a folder; what is held in its files is still to be copied.
    pub fn leave(&mut self, folder: &Path) {
        self.folders.retain(|known| known != folder);
        self.leaving.retain(|leaving| leaving != folder);
        self.leaving.push(folder.to_owned());
    }

    /// Nothing more is to be copied from a folder.
    pub fn left(&mut self, folder: &Path) {
        self.leaving.retain(|leaving| leaving != folder);
        if !self.folders.iter().any(|known| known == folder) {
            self.labels.remove(folder);
        }
    }
}

/// `folder` and what is in it, without a slash behind it when that is nothing.
fn joined(folder: &Path, inside: &Path) -> PathBuf {
    folder.components().chain(inside.components()).collect()
}

/// What `holdfast relay` was last told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// The ids of the libraries whose devices are served.
    pub libraries: Vec<String>,
    /// Multiaddresses to listen on; empty for the defaults.
    pub listen: Vec<String>,
    /// Multiaddresses at which the relay is reached, if those are others.
    pub announced: Vec<String>,
}

pub(super) fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, HomeError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| HomeError::Settings { path: path.to_owned(), error })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(HomeError::Unusable { path: path.to_owned(), error }),
    }
}

pub(super) fn write<T: Serialize>(settings: &T, path: &Path) -> Result<(), HomeError> {
    let mut bytes =
        serde_json::to_vec_pretty(settings).map_err(|error| HomeError::Settings { path: path.to_owned(), error })?;
    bytes.push(b'\n');
    secret::replace(path, &bytes).map_err(|error| HomeError::Unusable { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_watched_by_a_persons_word_is_not_passed_over() {
        let excluded = vec!["/a/Restored".into(), "/a/other".into()];
        let mut settings = Settings { folders: vec!["/a".into()], excluded, ..Settings::default() };
        settings.watch("/a/Restored/2021".into());
        assert_eq!(settings.excluded, [PathBuf::from("/a/other")]);
    }

    #[test]
    fn what_is_watched_in_a_folder_that_moves_moves_with_it() {
        let mut settings = Settings::default();
        for folder in ["/a/Pictures/Scans", "/a/Pictures", "/a/Pictures 2"] {
            settings.watch(folder.into());
        }
        settings.excluded.push("/a/Pictures/Restored".into());
        settings.move_folder(Path::new("/a/Pictures"), Path::new("/b/Photos"));
        assert_eq!(settings.folders, ["/b/Photos/Scans", "/b/Photos", "/a/Pictures 2"].map(PathBuf::from));
        assert_eq!(settings.excluded, [PathBuf::from("/b/Photos/Restored")]);
        let labelled: Vec<(&Path, &str)> =
            settings.labels.iter().map(|(path, label)| (path.as_path(), label.as_str())).collect();
        let expected = [("/a/Pictures 2", "Pictures 2"), ("/b/Photos", "Pictures"), ("/b/Photos/Scans", "Scans")];
        assert_eq!(labelled, expected.map(|(path, label)| (Path::new(path), label)));
        settings.moved(Path::new("/a/Pictures"), Path::new("/b/Photos"));
        assert!(settings.moving.is_empty());
    }

    #[test]
    fn a_folder_keeps_its_label_when_another_of_the_same_name_comes() {
        let label = |settings: &Settings, folder: &str| settings.labels[Path::new(folder)].clone();
        let mut settings = Settings::default();
        settings.watch("/home/anna/Pictures".into());
        settings.watch("/mnt/card/Pictures".into());
        settings.watch("/home/anna/Pictures".into());
        assert_eq!(settings.folders.len(), 2);
        assert_eq!(label(&settings, "/home/anna/Pictures"), "Pictures");
        assert_eq!(label(&settings, "/mnt/card/Pictures"), "/mnt/card/Pictures");

        // What was watched before labels were kept is called what it was called then.
        let folders = vec!["/a/Pictures".into(), "/b/Pictures".into(), "/c/Scans".into()];
        let mut settings = Settings { folders, ..Settings::default() };
        settings.watch("/d/Scans".into());
        let labels = ["/a/Pictures", "/b/Pictures", "/c/Scans", "/d/Scans"].map(|folder| label(&settings, folder));
        assert_eq!(labels, ["/a/Pictures", "/b/Pictures", "Scans", "/d/Scans"]);
    }
}
