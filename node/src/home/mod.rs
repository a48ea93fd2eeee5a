//! A node's home: the one directory in which everything of it lies.
//!
//! ```text
//! device.key      the device's secret key            owner only
//! secrets         the library's keys                 owner only
//! settings.json   what `up` was last told
//! port            where this node listens unless it is told otherwise
//! metadata/       log, inventories, catalog          owner only, as everything below
//! store/          segments of sealed chunks
//! index.sqlite    the rebuildable index
//! node.sock       the local socket
//! lock            held by the one running node
//! ```
//!
//! A relay that is nothing else keeps `relay.key`, `relay.json` and the lock.
//!
//! Invariants: the directory is readable by its owner alone; a secret that others can read is refused, not used; a
//! secret file is replaced whole or not at all.

mod secret;
mod settings;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

pub use secret::SecretError;
pub use settings::{Discovery, Originals, PortMapping, RelaySettings, Relaying, Settings};

/// The longest path that a Unix socket can have everywhere.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Where a node lives. Holding one says nothing about whether anything is there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither a flag nor the environment says where homes are.
    #[error("there is no home directory to keep the library in; name one with --home DIR")]
    Nowhere,
    /// The directory cannot be created or read.
    #[error("cannot use {}: {error}; make it writable for this user, or choose another place with --home DIR", path.display())]
    Unusable {
        /// Which directory or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The directory belongs to someone else.
    #[error("{} belongs to another user; choose another place with --home DIR", path.display())]
    Foreign {
        /// Which directory.
        path: PathBuf,
    },
    /// The file system has no permissions, or does not change them.
    #[error(
        "{} lies on a disk that keeps no permissions, such as one with exFAT or FAT: everybody who uses this machine could \
         read the library's keys there; choose a place on another disk with --home DIR, the photos may lie here",
        path.display()
    )]
    NoPermissions {
        /// Which directory.
        path: PathBuf,
    },
    /// Another process runs on this home.
    #[error("a node already runs on {}{}; ask it with `holdfast status`, or stop it first", path.display(),
        process.map(|id| format!(" (process {id})")).unwrap_or_default())]
    InUse {
        /// Which home.
        path: PathBuf,
        /// The process that runs on it.
        process: Option<u32>,
    },
    /// What `settings.json` holds is not settings.
    #[error("cannot read {}: {error}; correct it, or remove it to start from the defaults", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        error: serde_json::Error,
    },
    /// A secret cannot be read or written.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Held by the one node that runs on a home; released when dropped, and by the system when the process dies.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

impl Home {
    /// The home at `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The home that a person means: `chosen` (from `--home` or `HOLDFAST_HOME`), else `$XDG_DATA_HOME/holdfast`, else
    /// `~/.local/share/holdfast`. `variable` reads the environment.
    ///
    /// # Errors
    /// [`HomeError::Nowhere`] when nothing says where.
    pub fn locate(chosen: Option<&Path>, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, HomeError> {
        if let Some(chosen) = chosen {
            return Ok(Self::at(chosen));
        }
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        let data = data.or_else(|| Some(variable("HOME")?.join(".local/share")));
        data.map(|data| Self::at(data.join("holdfast"))).ok_or(HomeError::Nowhere)
    }

    /// Creates the directory for its owner alone, or takes away what others may do with it.
    ///
    /// # Errors
    /// When it cannot be created, or belongs to someone else.
    pub fn create(&self) -> Result<(), HomeError> {
        create_private_directory(&self.root)
    }

    /// Whether a library was created or joined here.
    #[must_use]
    pub fn has_library(&self) -> bool {
        self.secrets().exists()
    }

    /// Locks the home for the one process that runs on it.
    ///
    /// # Errors
    /// [`HomeError::InUse`] when another process holds it.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.lock_file();
        let unusable = |error| HomeError::Unusable { path: path.clone(), error };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
        let mut file = options.open(&path).map_err(unusable)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(HomeError::InUse { path: self.root.clone(), process: holder.trim().parse().ok() });
        }
        // The number is for people; the lock is what counts.
        file.set_len(0).and_then(|()| file.rewind()).map_err(unusable)?;
        writeln!(file, "{}", std::process::id()).map_err(unusable)?;
        Ok(HomeLock { _file: file })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The device's secret key.
    #[must_use]
    pub fn device_key(&self) -> PathBuf {
        self.root.join("device.key")
    }

    /// The library's keys. They are written last when a library is created or joined, so their presence says it was.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// What `up` was last told.
    #[must_use]
    pub fn settings_file(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// The port that this node is known by.
    #[must_use]
    pub fn port_file(&self) -> PathBuf {
        self.root.join("port")
    }

    /// The database of log, inventories and catalog.
    #[must_use]
    pub fn metadata(&self) -> PathBuf {
        self.root.join("metadata")
    }

    /// The segments of sealed chunks.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The rebuildable index.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    /// The file that the running node locks.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The local socket: `node.sock`, or where that path is too long for a socket one in `/tmp/holdfast-<user>`, named
    /// after the home.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let socket = self.root.join("node.sock");
        if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return socket;
        }
        let absolute = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        let name = blake3::hash(absolute.as_os_str().as_encoded_bytes()).to_hex();
        let user = rustix::process::geteuid().as_raw();
        PathBuf::from(format!("/tmp/holdfast-{user}/{}.sock", &name[..16]))
    }

    /// Makes the directory of the socket, for the owner alone, and returns the socket's path.
    ///
    /// # Errors
    /// When the directory cannot be made, or is another user's.
    pub fn prepare_socket(&self) -> Result<PathBuf, HomeError> {
        let socket = self.socket();
        if let Some(directory) = socket.parent().filter(|directory| *directory != self.root) {
            // In a directory that everyone writes to, a link is someone's trick.
            if directory.is_symlink() {
                return Err(HomeError::Foreign { path: directory.to_owned() });
            }
            create_private_directory(directory)?;
        }
        Ok(socket)
    }

    /// The port that this node is known by; none before it listened for the first time, or when the file holds none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn port(&self) -> Result<Option<u16>, HomeError> {
        let path = self.port_file();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok().filter(|port| *port != 0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HomeError::Unusable { path, error }),
        }
    }

    /// Remembers the port that this node listens on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember_port(&self, port: u16) -> Result<(), HomeError> {
        let path = self.port_file();
        secret::replace(&path, format!("{port}\n").as_bytes()).map_err(|error| HomeError::Unusable { path, error })
    }

    /// Reads a file of this home that only its owner may read. The bytes are wiped when they are dropped.
    ///
    /// # Errors
    /// When it is missing, unreadable, or readable by others.
    pub fn read_secret(&self, path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, SecretError> {
        secret::read(path)
    }

    /// Writes a file that only its owner may read: whole and durable, or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_secret(&self, path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
        secret::write(path, bytes)
    }

    /// What `up` was last told; the defaults when it was told nothing yet.
    ///
    /// # Errors
    /// When the file cannot be read or is not settings.
    pub fn settings(&self) -> Result<Settings, HomeError> {
        settings::read(&self.settings_file())
    }

    /// Remembers `settings` for the next `up`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn remember(&self, settings: &Settings) -> Result<(), HomeError> {
        settings::write(settings, &self.settings_file())
    }

    /// The secret key of the relay that runs here.
    #[must_use]
    pub fn relay_key(&self) -> PathBuf {
        self.root.join("relay.key")
    }

    /// What `relay` was last told; the defaults when it was told nothing yet.
    ///
    /// # Errors
    /// When the file cannot be read or is not settings.
    pub fn relay_settings(&self) -> Result<RelaySettings, HomeError> {
        settings::read(&self.relay_file())
    }

    /// Remembers `settings` for the next `relay`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn remember_relay(&self, settings: &RelaySettings) -> Result<(), HomeError> {
        settings::write(settings, &self.relay_file())
    }

    fn relay_file(&self) -> PathBuf {
        self.root.join("relay.json")
    }
}

fn create_private_directory(path: &Path) -> Result<(), HomeError> {
    let unusable = |error| HomeError::Unusable { path: path.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
    let metadata = std::fs::metadata(path).map_err(unusable)?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(HomeError::Foreign { path: path.to_owned() });
    }
    if metadata.mode() & 0o077 != 0 {
        // Some file systems refuse, others only seem to do it.
        _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700));
        if std::fs::metadata(path).map_err(unusable)?.mode() & 0o077 != 0 {
            return Err(HomeError::NoPermissions { path: path.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("a/home"));
        home.create().unwrap();
        (directory, home)
    }

    #[test]
    fn a_home_is_where_the_person_says_else_where_xdg_says() {
        let set = |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| value.into());
        let located = |home: Result<Home, HomeError>| home.unwrap().root;
        assert_eq!(located(Home::locate(Some(Path::new("x")), set("HOME", "/h"))), Path::new("x"));
        assert_eq!(located(Home::locate(None, set("XDG_DATA_HOME", "/d"))), Path::new("/d/holdfast"));
        assert_eq!(located(Home::locate(None, set("HOME", "/h"))), Path::new("/h/.local/share/holdfast"));
        assert!(matches!(Home::locate(None, set("XDG_DATA_HOME", "relative")), Err(HomeError::Nowhere)));
    }

    #[test]
    fn a_home_is_its_owners_alone() {
        let (_directory, home) = home();
        assert_eq!(mode(home.root()), 0o700);
        std::fs::set_permissions(home.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
        home.create().unwrap();
        assert_eq!(mode(home.root()), 0o700);
    }

    #[test]
    fn one_process_at_a_time_runs_on_a_home() {
        let (_directory, home) = home();
        let lock = home.lock().unwrap();
        let process = match home.lock() {
            Err(HomeError::InUse { process, .. }) => process,
            other => panic!("{other:?}"),
        };
        assert_eq!(process, Some(std::process::id()));
        drop(lock);
        home.lock().unwrap();
    }

    #[test]
    fn secrets_are_replaced_whole_and_refused_when_others_can_read_them() {
        let (_directory, home) = home();
        let path = home.device_key();
        assert!(home.read_secret(&path).unwrap_err().is_missing());
        std::fs::write(path.with_extension("key.new"), b"left behind").unwrap();
        home.write_secret(&path, b"first").unwrap();
        home.write_secret(&path, b"second").unwrap();
        assert_eq!((home.read_secret(&path).unwrap().as_slice(), mode(&path)), (&b"second"[..], 0o600));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(home.read_secret(&path), Err(SecretError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn settings_are_remembered_and_wrong_ones_refused() {
        let (_directory, home) = home();
        assert_eq!(home.settings().unwrap(), Settings::default());
        let settings = Settings { place: Some("home".into()), folders: vec!["/p".into()], ..Settings::default() };
        home.remember(&settings).unwrap();
        assert_eq!(home.settings().unwrap(), settings);
        std::fs::write(home.settings_file(), r#"{"folder": "/p"}"#).unwrap();
        assert!(matches!(home.settings(), Err(HomeError::Settings { .. })));
    }

    #[test]
    fn the_port_is_remembered_and_what_is_none_is_not_taken_for_one() {
        let (_directory, home) = home();
        assert_eq!(home.port().unwrap(), None);
        home.remember_port(40_123).unwrap();
        assert_eq!(home.port().unwrap(), Some(40_123));
        for damaged in ["", "0", "70000", "forty"] {
            std::fs::write(home.port_file(), damaged).unwrap();
            assert_eq!(home.port().unwrap(), None, "{damaged}");
        }
    }

    #[test]
    fn every_home_has_a_socket_path_that_is_short_enough() {
        let deep = Home::at(format!("/{}", "long/".repeat(40)));
        let deeper = Home::at(format!("/{}", "long/".repeat(41)));
        assert!(deep.socket().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert_ne!(deep.socket(), deeper.socket());
        assert_eq!(Home::at("/h").socket(), Path::new("/h/node.sock"));
    }
}
