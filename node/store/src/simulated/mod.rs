//! A disk in memory that crashes, fills up and fails on command, and loses what was not synced.
//!
//! What survives [`SimulatedDisk::power_loss`]: everything synced, and of what was not, any of its sectors and any of
//! the names made, as a seed decides. What survives [`SimulatedDisk::restart`]: everything, as when a process dies.
//! After a sync that failed, later ones may succeed without writing what it did not, as on Linux.
//! Reads, writes and syncs fail by chances of their own, so that leaving one kind out leaves the others as they were.

mod content;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::disk::{Access, Disk, DiskFile, FileStat};
use content::{Content, SECTOR_BYTES};

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

/// How often operations fail with an input/output error: one in so many; 0 for never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failing {
    /// Reads.
    pub reads: u64,
    /// Writes, and other changes of files.
    pub writes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
}

#[derive(Clone)]
struct State {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Handles of earlier boots are dead.
    boot: u64,
    used: u64,
    capacity: u64,
    read_only: bool,
    failing: Failing,
    failures: u64,
    operations: u64,
    crash_at: Option<u64>,
    random: ChaCha20Rng,
    failing_reads: ChaCha20Rng,
    failing_writes: ChaCha20Rng,
    failing_syncs: ChaCha20Rng,
}

impl SimulatedDisk {
    /// An empty disk of a tebibyte.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let stream = |number| {
            let mut random = ChaCha20Rng::seed_from_u64(seed);
            random.set_stream(number);
            random
        };
        Self(Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 1,
            boot: 0,
            used: 0,
            capacity: 1 << 40,
            read_only: false,
            failing: Failing::default(),
            failures: 0,
            operations: 0,
            crash_at: None,
            random: stream(0),
            failing_reads: stream(1),
            failing_writes: stream(2),
            failing_syncs: stream(3),
        })))
    }

    /// The disk as it is now, on a disk of its own: a backup, or a look at what a crash would leave.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// Puts everything below `directory` back as it is in `backup`, durably.
    pub fn restore(&self, backup: &Self, directory: &Path) {
        let backup = backup.state().clone();
        let mut state = self.state();
        let State { names, durable_names, files, next_file, .. } = &mut *state;
        names.retain(|path, _| !path.starts_with(directory));
        for (path, file) in backup.names.iter().filter(|(path, _)| path.starts_with(directory)) {
            let Some(content) = backup.files.get(file) else { continue };
            *next_file += 1;
            names.insert(path.clone(), *next_file);
            let mut content = content.clone();
            content.settle();
            files.insert(*next_file, content);
        }
        *durable_names = names.clone();
        state.boot += 1;
        state.tidy();
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

    /// Counts restarts and power failures: what was opened before belongs to the dead.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.state().boot
    }

    /// The power failed and came back: unsynced sectors and names survive by chance.
    pub fn power_loss(&self) {
        let mut state = self.state();
        state.boot += 1;
        state.crash_at = None;
        let State { names, durable_names, files, random, .. } = &mut *state;
        for path in names.keys().chain(durable_names.keys()).cloned().collect::<Vec<_>>() {
            if names.get(&path) != durable_names.get(&path) && coin(random) {
                match durable_names.get(&path) {
                    Some(file) => names.insert(path, *file),
                    None => names.remove(&path),
                };
            }
        }
        *durable_names = names.clone();
        files.values_mut().for_each(|file| file.lose_power(random));
        state.tidy();
    }

    /// From now on the disk holds at most `bytes`.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used
    }

    /// From now on nothing can be changed, or it can again.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// From now on syncs fail and what they should have kept stays in doubt, whatever is synced later, or they work again.
    pub fn set_failing_syncs(&self, fail: bool) {
        self.state().failing.syncs = u64::from(fail);
    }

    /// From now on operations fail so often.
    pub fn set_failing(&self, failing: Failing) {
        self.state().failing = failing;
    }

    /// Operations that failed so far, by chance or for want of space.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// What a database on this disk meets when it appends something.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    pub fn append_elsewhere(&self) -> io::Result<()> {
        match self.state().change()? {
            Progress::Whole => Ok(()),
            Progress::Torn => Err(crashed()),
        }
    }

    /// What a database on this disk meets when it syncs.
    ///
    /// # Errors
    /// As [`DiskFile::sync`].
    pub fn sync_elsewhere(&self) -> io::Result<()> {
        self.state().begin_sync().and_then(|progress| match progress {
            Progress::Whole => Ok(()),
            Progress::Torn => Err(crashed()),
        })
    }

    /// Files by name.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// Changes the bytes of a file as a person or a failing disk would: behind the store's back, durably.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let State { names, durable_names, files, next_file, used, .. } = &mut *state;
        let file = *names.entry(path.to_owned()).or_insert_with(|| {
            *next_file += 1;
            *next_file
        });
        durable_names.insert(path.to_owned(), file);
        let content = files.entry(file).or_default();
        let before = content.len() as u64;
        content.tamper(change);
        *used = used.saturating_sub(before) + content.len() as u64;
    }

    /// Flips a bit of a file: its size and dates stay. Whether there is such a byte.
    pub fn rot(&self, path: &Path, at: u64, bit: u32) -> bool {
        let mut state = self.state();
        let Some(file) = state.names.get(path).copied() else { return false };
        state.files.get_mut(&file).is_some_and(|content| content.rot(at as usize, bit))
    }

    /// Removes a file behind the store's back, durably.
    pub fn destroy(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
        state.tidy();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a changing operation gets.
enum Progress {
    Whole,
    Torn,
}

impl State {
    fn change(&mut self) -> io::Result<Progress> {
        let progress = self.operate()?;
        let is_failing = one_in(self.failing.writes, &mut self.failing_writes);
        self.unless(is_failing).map(|()| progress)
    }

    fn begin_sync(&mut self) -> io::Result<Progress> {
        let progress = self.operate()?;
        let is_failing = one_in(self.failing.syncs, &mut self.failing_syncs);
        self.unless(is_failing).map(|()| progress)
    }

    fn begin_read(&mut self) -> io::Result<()> {
        let is_failing = one_in(self.failing.reads, &mut self.failing_reads);
        self.unless(is_failing)
    }

    fn unless(&mut self, is_failing: bool) -> io::Result<()> {
        if is_failing {
            self.failures += 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn operate(&mut self) -> io::Result<Progress> {
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

    /// Forgets files without a name and counts the bytes of the others.
    fn tidy(&mut self) {
        let Self { names, durable_names, files, .. } = self;
        let named: std::collections::BTreeSet<u64> = names.values().chain(durable_names.values()).copied().collect();
        files.retain(|file, _| named.contains(file));
        self.used = names.values().filter_map(|file| files.get(file)).map(|file| file.len() as u64).sum();
    }

    fn bytes_of(&self, file: u64) -> u64 {
        self.files.get(&file).map_or(0, |content| content.len() as u64)
    }
}

fn coin(random: &mut ChaCha20Rng) -> bool {
    random.next_u32() & 1 == 0
}

fn one_in(times: u64, random: &mut ChaCha20Rng) -> bool {
    times > 0 && random.next_u64().is_multiple_of(times)
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
        if let Some(replaced) = state.names.insert(to.to_owned(), file) {
            state.used = state.used.saturating_sub(state.bytes_of(replaced));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Progress::Torn = state.change()? {
            return Err(crashed());
        }
        let file = state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.used = state.used.saturating_sub(state.bytes_of(file));
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        if let Progress::Torn = state.begin_sync()? {
            return Err(crashed());
        }
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(directory));
        let here = names.iter().filter(|(path, _)| path.parent() == Some(directory));
        durable_names.extend(here.map(|(path, file)| (path.clone(), *file)));
        Ok(())
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.saturating_sub(state.used))
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
            state.begin_read()?;
            let bytes = state.files.get(&file).ok_or(io::ErrorKind::NotFound)?.bytes();
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
            let free = state.capacity.saturating_sub(state.used);
            let before = state.bytes_of(file);
            let full = ((start + all.len()) as u64).saturating_sub(before) > free;
            if full || matches!(progress, Progress::Torn) {
                all.truncate(all.len() / 2 / SECTOR_BYTES * SECTOR_BYTES);
            }
            let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            content.write(&all, start);
            state.used += state.bytes_of(file) - before;
            match progress {
                Progress::Torn => Err(crashed()),
                Progress::Whole if full => {
                    state.failures += 1;
                    Err(io::ErrorKind::StorageFull.into())
                }
                Progress::Whole => Ok(()),
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            // Nothing to write is nothing to fail at: a read-only disk can be synced.
            if state.files.get(&file).ok_or(io::ErrorKind::NotFound)?.is_synced() {
                return Ok(());
            }
            let progress = state.begin_sync();
            let State { files, random, .. } = state;
            let content = files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            match &progress {
                Ok(Progress::Whole) => content.sync(),
                Ok(Progress::Torn) => content.sync_in_part(random),
                Err(_) => content.fail_sync(random),
            }
            progress.and_then(|progress| if let Progress::Torn = progress { Err(crashed()) } else { Ok(()) })
        })
    }

    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            let progress = state.change()?;
            let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            let end = usize::try_from(offset + length).unwrap_or(usize::MAX).min(content.len());
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(end);
            let end = if matches!(progress, Progress::Torn) { start + (end - start) / 2 } else { end };
            content.clear(start..end);
            if matches!(progress, Progress::Torn) { Err(crashed()) } else { Ok(()) }
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|state, file| {
            if let Progress::Torn = state.change()? {
                return Err(crashed());
            }
            let before = state.bytes_of(file);
            let content = state.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
            content.set_length(usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?);
            state.used = (state.used + state.bytes_of(file)).saturating_sub(before);
            Ok(())
        })
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.with(|state, file| {
            let content = state.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
            let mtime_ns = i64::try_from(content.changes).unwrap_or(i64::MAX);
            // A file that takes another's place has a change time of its own, whatever it holds.
            let ctime_ns = mtime_ns.saturating_add(i64::try_from(file << 32).unwrap_or(i64::MAX));
            Ok(FileStat { size: content.len() as u64, mtime_ns, ctime_ns })
        })
    }
}
