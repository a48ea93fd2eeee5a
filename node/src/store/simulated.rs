//! A disk in memory that crashes, fills up and fails on command, and loses what was not synced.
//!
//! What survives [`SimulatedDisk::power_loss`]: everything synced, and of what was not, any of its sectors and any of
//! the names made, as a seed decides. What survives [`SimulatedDisk::restart`]: everything, as when a process dies.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::disk::{Access, Disk, DiskFile, FileStat};

const SECTOR_BYTES: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

struct State {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Handles of earlier boots are dead.
    boot: u64,
    capacity: u64,
    read_only: bool,
    fail_syncs: bool,
    operations: u64,
    crash_at: Option<u64>,
    random: ChaCha20Rng,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    changes: u64,
}

impl SimulatedDisk {
    /// An empty disk of a tebibyte.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            boot: 0,
            capacity: 1 << 40,
            read_only: false,
            fail_syncs: false,
            operations: 0,
            crash_at: None,
            random: ChaCha20Rng::seed_from_u64(seed),
        })))
    }

    /// Changing operations so far: writes, syncs, creations, renames, removals.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The changing operation of this number is done in part, and it and all later ones fail.
    pub fn crash_at(&self, operation: u64) {
        self.state().crash_at = Some(operation);
    }

    /// Whether the crash that was asked for has happened.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        let state = self.state();
        state.crash_at.is_some_and(|at| state.operations > at)
    }

    /// The process died and a new one begins: everything written is still there.
    pub fn restart(&self) {
        let mut state = self.state();
        state.boot += 1;
        state.crash_at = None;
    }

    /// The power failed and came back: unsynced sectors and names survive by chance.
    pub fn power_loss(&self) {
        let mut state = self.state();
        state.boot += 1;
        state.crash_at = None;
        let State { names, durable_names, files, random, .. } = &mut *state;
        for path in names.keys().chain(durable_names.keys()).cloned().collect::<Vec<_>>() {
            if coin(random) {
                match durable_names.get(&path) {
                    Some(file) => names.insert(path, *file),
                    None => names.remove(&path),
                };
            }
        }
        *durable_names = names.clone();
        files.values_mut().for_each(|file| file.lose_power(random));
    }

    /// From now on the disk holds at most `bytes`.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// From now on nothing can be changed, or it can again.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// From now on syncs fail and what they should have kept stays in doubt, or they work again.
    pub fn set_failing_syncs(&self, fail: bool) {
        self.state().fail_syncs = fail;
    }

    /// Files by name.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Changes the bytes of a file as a person or a failing disk would: behind the store's back, durably.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let State { names, durable_names, files, next_file, .. } = &mut *state;
        let file = *names.entry(path.to_owned()).or_insert_with(|| {
            *next_file += 1;
            *next_file
        });
        durable_names.insert(path.to_owned(), file);
        let content = files.entry(file).or_default();
        change(&mut content.bytes);
        content.durable = content.bytes.clone();
        content.changes += 1;
    }

    /// Removes a file behind the store's back, durably.
    pub fn destroy(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn lose_power(&mut self, random: &mut ChaCha20Rng) {
        let length = if coin(random) { self.bytes.len() } else { self.durable.len() };
        let mut survived = self.durable.clone();
        survived.resize(length, 0);
        for (at, sector) in self.bytes.chunks(SECTOR_BYTES).enumerate() {
            let start = at * SECTOR_BYTES;
            if start < length && coin(random) {
                let end = (start + sector.len()).min(length);
                survived[start..end].copy_from_slice(&sector[..end - start]);
            }
        }
        self.bytes.clone_from(&survived);
        self.durable = survived;
    }
}

/// How far a changing operation gets.
enum Progress {
    Whole,
    Torn,
}

impl State {
    fn change(&mut self) -> io::Result<Progress> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let operation = self.operations;
        if self.crash_at.is_some_and(|at| operation > at) {
            return Err(crashed());
        }
        self.operations += 1;
        Ok(if self.crash_at == Some(operation) { Progress::Torn } else { Progress::Whole })
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|file| self.files.get(file)).map(|file| file.bytes.len() as u64).sum()
    }
}

fn coin(random: &mut ChaCha20Rng) -> bool {
    random.next_u32() & 1 == 0
}

fn crashed() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let file = match (access, state.names.get(path).copied()) {
            (Access::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Access::Create, None) => {
                let progress = state.change()?;
                state.next_file += 1;
                let file = state.next_file;
                if matches!(progress, Progress::Torn) {
                    return Err(crashed());
                }
                state.names.insert(path.to_owned(), file);
                state.files.insert(file, Content::default());
                file
            }
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
            (Access::Write, Some(_)) if state.read_only => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            (_, Some(file)) => file,
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file, boot: state.boot }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.state().names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }

    fn create_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Progress::Torn = state.change()? {
            return Err(crashed());
        }
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Progress::Torn = state.change()? {
            return Err(crashed());
        }
        state.names.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Progress::Torn = state.change()? {
            return Err(crashed());
        }
        if state.fail_syncs {
            return Err(io::Error::from_raw_os_error(5));
        }
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(directory));
        let here = names.iter().filter(|(path, _)| path.parent() == Some(directory));
        durable_names.extend(here.map(|(path, file)| (path.clone(), *file)));
        Ok(())
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
    boot: u64,
}

impl SimulatedFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.boot != self.boot {
            return Err(io::Error::other("this handle belongs to an earlier boot of the simulated machine"));
        }
        work(&mut state, self.file)
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, file| {
            let bytes = &state.files.get(&file).ok_or(io::ErrorKind::NotFound)?.bytes;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let count = buffer.len().min(bytes.len() - start);
            buffer[..count].copy_from_slice(&bytes[start..start + count]);
            Ok(count)
        })
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.with(|state, file| {
            let progress = state.change()?;
            let mut all = parts.concat();
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let free = state.capacity.saturating_sub(state.used());
            let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            let growth = (start + all.len()).saturating_sub(content.bytes.len()) as u64;
            let full = growth > free;
            if full || matches!(progress, Progress::Torn) {
                all.truncate(all.len() / 2 / SECTOR_BYTES * SECTOR_BYTES);
            }
            if content.bytes.len() < start + all.len() {
                content.bytes.resize(start + all.len(), 0);
            }
            content.bytes[start..start + all.len()].copy_from_slice(&all);
            content.changes += 1;
            match progress {
                Progress::Torn => Err(crashed()),
                Progress::Whole if full => Err(io::ErrorKind::StorageFull.into()),
                Progress::Whole => Ok(()),
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            // Nothing to write is nothing to fail at: a read-only disk can be synced.
            let content = state.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
            if content.bytes == content.durable {
                return Ok(());
            }
            let progress = state.change()?;
            if state.fail_syncs {
                return Err(io::Error::from_raw_os_error(5));
            }
            let State { files, random, .. } = state;
            let content = files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            if matches!(progress, Progress::Torn) {
                let written = content.bytes.clone();
                content.lose_power(random);
                content.durable = std::mem::replace(&mut content.bytes, written);
                return Err(crashed());
            }
            content.durable.clone_from(&content.bytes);
            Ok(())
        })
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            let progress = state.change()?;
            let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            let end = usize::try_from(offset + length).unwrap_or(usize::MAX).min(content.bytes.len());
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(end);
            let end = if matches!(progress, Progress::Torn) { start + (end - start) / 2 } else { end };
            content.bytes[start..end].fill(0);
            content.changes += 1;
            if matches!(progress, Progress::Torn) { Err(crashed()) } else { Ok(()) }
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            if let Progress::Torn = state.change()? {
                return Err(crashed());
            }
            let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            content.bytes.resize(usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?, 0);
            content.changes += 1;
            Ok(())
        })
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.with(|state, file| {
            let content = state.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
            let mtime_ns = i64::try_from(content.changes).unwrap_or(i64::MAX);
            Ok(FileStat { size: content.bytes.len() as u64, mtime_ns, inode: file })
        })
    }
}
