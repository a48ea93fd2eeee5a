//! Reading: one pass over a file's bytes that hashes, cuts and seals them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use holdfast_media::{MediaPool, PendingExamination};
use holdfast_protocol::cutting::{CutKind, Pieces};
use holdfast_protocol::manifest::{Content, ContentBuilder};
use holdfast_protocol::media_type::{MediaType, SNIFF_BYTES};
use holdfast_protocol::metadata::StorageError;
use holdfast_store::{ChunkStore, FileIdentity, FileStat, InPlaceCut};

use super::finish::Step;
use super::flow::{Flow, Keys, lock};
use super::settle::Look;
use super::skip::{self, SkipReason};
use super::whole::is_cut;
use super::{ImportProblem, Keep};

/// Files that changed more recently are written through to the disk before their chunks count as held in place: the
/// system writes everything older by itself.
const WRITTEN_BACK: Duration = Duration::from_secs(10 * 60);
/// How far ahead of the hashing the disk is asked to read.
const READ_AHEAD_BYTES: u64 = 8 << 20;
/// A file that its format says is cut off is waited for until it is so old.
const CUT_AGE_MAX: Duration = Duration::from_secs(60);
/// Times a file is read again at once when it changed meanwhile, before it is left alone for a while.
const ATTEMPTS: usize = 2;

/// A file that the walk found new or changed.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) look: Look,
    /// Index of its watched folder.
    pub(super) folder: usize,
    pub(super) size: u64,
}

/// A file that was read.
pub(super) struct ReadFile {
    pub(super) found: Found,
    pub(super) stat: FileStat,
    pub(super) identity: FileIdentity,
    pub(super) media: MediaType,
    pub(super) content: Content,
    /// Whether its end is missing, as its format says.
    pub(super) ending: Ending,
    /// The chunks that stay in the file.
    pub(super) cuts: Vec<InPlaceCut>,
    /// The keys it was sealed with.
    pub(super) keys: Keys,
    pub(super) examination: Option<PendingExamination>,
}

/// Whether a file has its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    There,
    Missing,
}

/// Why a file was not read.
pub(super) enum NotRead {
    /// It holds neither photo nor video.
    PassedOver(FileStat, SkipReason),
    /// It changed meanwhile or may be about to.
    Changing,
    /// Its end is not there yet, most likely; it is looked at again after this time.
    Cut(Duration),
    /// It is not there any more, or no file.
    Gone,
    Unreadable(io::Error),
    Storage(StorageError),
}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Gone,
            _ => Self::Unreadable(error),
        }
    }
}

impl From<StorageError> for NotRead {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// A reading thread.
pub(super) struct Reader {
    flow: Arc<Flow>,
    store: Arc<ChunkStore>,
    media: Option<Arc<MediaPool>>,
    steps: Sender<Step>,
    buffer: Vec<u8>,
    sealed: Vec<u8>,
}

impl Reader {
    pub(super) fn new(
        flow: Arc<Flow>,
        store: Arc<ChunkStore>,
        media: Option<Arc<MediaPool>>,
        steps: Sender<Step>,
    ) -> Self {
        Self { flow, store, media, steps, buffer: Vec::new(), sealed: Vec::new() }
    }

    pub(super) fn run(mut self, found: &Mutex<Receiver<Found>>) {
        loop {
            let Ok(next) = lock(found).recv() else { return };
            let size = next.size;
            if self.flow.is_halted() {
                self.flow.end(size);
                continue;
            }
            self.flow.take_off();
            let step = self.attempt(next);
            let goes_on = matches!(step, Some(Step::Read(_)));
            if let Some(step) = step
                && self.steps.send(step).is_err()
            {
                return;
            }
            // After the step, so that the walk's end is not reported before it.
            if !goes_on {
                self.flow.land(1);
                self.flow.end(size);
            }
        }
    }

    /// Reads a file, again if it changes meanwhile, and says what there is to do about it.
    fn attempt(&mut self, found: Found) -> Option<Step> {
        for _ in 0..ATTEMPTS {
            match self.read(&found) {
                Ok(read) => return Some(Step::Read(Box::new(read))),
                Err(NotRead::Changing) => {}
                Err(NotRead::Gone) => return None,
                Err(NotRead::PassedOver(stat, reason)) => {
                    self.flow.ignore(found.folder, &found.look.path, &stat, reason);
                    return None;
                }
                Err(NotRead::Cut(delay)) => {
                    self.flow.again_after(delay, found.look);
                    return None;
                }
                Err(NotRead::Unreadable(error)) => {
                    self.flow.skip(found.folder, &found.look.path, SkipReason::Unreadable);
                    lock(&self.flow.scan).summary.failed += 1;
                    let detail = error.to_string();
                    return Some(Step::problem(ImportProblem::FileUnreadable { path: found.look.path, detail }));
                }
                Err(NotRead::Storage(error)) => {
                    return self.flow.halt().then_some(Step::problem(ImportProblem::Storage(error)));
                }
            }
        }
        Some(Step::Changing(found))
    }

    fn read(&mut self, found: &Found) -> Result<ReadFile, NotRead> {
        let path = &found.look.path;
        let mut file = open(path)?;
        let metadata = file.metadata()?;
        let stat = FileStat::of(&metadata);
        if !metadata.is_file() {
            return Err(NotRead::Gone);
        }
        let media = sniff(&mut file, found)?.map_err(|reason| NotRead::PassedOver(stat, reason))?;
        let age = age(&stat);
        let young = age.and_then(|age| CUT_AGE_MAX.checked_sub(age));
        if let Some(young) = young
            && is_cut(&mut file, media, stat.size)?
        {
            return Err(NotRead::Cut(young));
        }
        file.rewind()?;
        let examination = self.media.as_ref().map(|media_pool| media_pool.examine(path, media));
        let keys = self.flow.keys();
        let keep = self.flow.config.folders[found.folder].keep;
        let epoch = keys.sealer.epoch();
        let (mut builder, mut cuts) = (ContentBuilder::new(&keys.sealer), Vec::new());
        let mut pieces = Pieces::new(ReadAhead { file: &file, at: 0, asked: 0 }, &mut self.buffer);
        while let Some(piece) = pieces.next()? {
            let chunk = builder.push(piece.bytes, piece.kind, &mut self.sealed);
            if keep == Keep::Copy || piece.kind == CutKind::Metadata {
                self.store.append(chunk, &self.sealed)?;
            } else {
                // A piece is at most a chunk long.
                cuts.push(InPlaceCut { chunk, offset: piece.offset, length: piece.bytes.len() as u32, epoch });
            }
            if piece.offset > stat.size || self.flow.is_stopping() {
                return Err(NotRead::Changing);
            }
        }
        let content = builder.finish();
        let unchanged = content.length == stat.size
            && FileStat::of(&file.metadata()?) == stat
            && FileStat::of(&path.symlink_metadata()?) == stat;
        if !unchanged {
            return Err(NotRead::Changing);
        }
        // Nobody completes an old one any more: what there is of it is kept. It is looked at now that the system has it at hand.
        let ending =
            if young.is_none() && is_cut(&mut file, media, stat.size)? { Ending::Missing } else { Ending::There };
        if !cuts.is_empty() && age.is_some_and(|age| age < WRITTEN_BACK) {
            file.sync_data()?;
        }
        let identity = self.flow.identity(&metadata);
        Ok(ReadFile { found: found.clone(), stat, identity, media, ending, content, cuts, keys, examination })
    }
}

/// Reads a file from its start, and asks the system early for what comes next: it then reads while this thread hashes.
struct ReadAhead<'a> {
    file: &'a File,
    at: u64,
    asked: u64,
}

impl Read for ReadAhead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.asked < self.at + READ_AHEAD_BYTES {
            // What the system makes of it changes nothing but the time that reading takes.
            #[cfg(target_os = "linux")]
            let _ = rustix::fs::fadvise(
                self.file,
                self.asked,
                std::num::NonZeroU64::new(READ_AHEAD_BYTES),
                rustix::fs::Advice::WillNeed,
            );
            self.asked += READ_AHEAD_BYTES;
        }
        let read = (&mut &*self.file).read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Opens a file for reading; a pipe that took its place does not hold the thread up.
fn open(path: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// What kind of photo or video the file is, or why it is none.
fn sniff(file: &mut File, found: &Found) -> io::Result<Result<MediaType, SkipReason>> {
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    file.by_ref().take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    Ok(skip::by_content(&found.look.path, &head))
}

/// How long ago the file was modified; `None` for a time in the future, which says nothing.
pub(super) fn age(stat: &FileStat) -> Option<Duration> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(Duration::from_nanos(u64::try_from(stat.mtime_ns).unwrap_or(0)))
}
