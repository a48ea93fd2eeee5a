//! Finishing: files that were read become manifests, durable chunks and events, many with one sync.
//!
//! Order, for each batch: chunks and manifests are appended · one sync of the segments · the files' records are committed, from
//! when on their chunks count as held · events. An import is final when the library acknowledges it; a crash before
//! that leaves the record unfinished, and the next walk imports the file again.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use holdfast_library::{FileChange, Settled};
use holdfast_media::{Examination, ExamineError};
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::manifest::{Facts, Manifest, Thumbnail};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::sealing::sealed_length;
use holdfast_store::{ChunkStore, FileRecord, FileStat, Known};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::flow::{Flow, lock};
use super::read::{Ending, Found, ReadFile};
use super::settle::Look;
use super::{FileName, ImportEvent, ImportId, ImportProblem, ImportedPhoto, Keep, RemovedName};

/// Files that share a sync at most.
const BATCH_FILES_MAX: usize = 256;
/// Bytes for the segments that share a sync, about.
const BATCH_BYTES_MAX: u64 = 32 << 20;
/// How long a file waits for others to share its sync.
const BATCH_DELAY: Duration = Duration::from_millis(100);
/// How often a full event queue is tried again.
const FULL_DELAY: Duration = Duration::from_millis(2);

/// What the finishing thread does next.
pub(super) enum Step {
    /// A file was read.
    Read(Box<ReadFile>),
    /// A file changes while it is read.
    Changing(Found),
    /// A known file is gone.
    Gone(PathBuf),
    /// Something is for the library to know, as it is and in its turn.
    Tell(ImportEvent),
    /// The library has catalogued imports.
    Catalogued(Vec<ImportId>),
    /// Ingest ends.
    Stop,
}

impl Step {
    /// Something is for a person to see to.
    pub(super) const fn problem(problem: ImportProblem) -> Self {
        Self::Tell(ImportEvent::Problem(problem))
    }
}

/// A file on its way out.
struct Finished {
    record: FileRecord,
    folder: usize,
    /// As the walk found it: what waits was counted by that.
    found_size: u64,
    imported: Box<ImportedPhoto>,
}

/// Why a file was not finished.
enum NotFinished {
    Changing,
    Gone,
    Problem(ImportProblem),
    Storage(StorageError),
}

impl From<StorageError> for NotFinished {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

pub(super) struct Finisher {
    flow: Arc<Flow>,
    store: Arc<ChunkStore>,
    events: mpsc::Sender<ImportEvent>,
    batch: Vec<Finished>,
    batch_bytes: u64,
    batch_due: Option<Instant>,
}

impl Finisher {
    pub(super) fn new(flow: Arc<Flow>, store: Arc<ChunkStore>, events: mpsc::Sender<ImportEvent>) -> Self {
        Self { flow, store, events, batch: Vec::new(), batch_bytes: 0, batch_due: None }
    }

    pub(super) fn run(mut self, steps: &Receiver<Step>) {
        loop {
            let next = match self.batch_due {
                None => steps.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => steps.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match next {
                Ok(Step::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(step) => self.take(step),
                Err(RecvTimeoutError::Timeout) => self.flush(),
            }
            if self.batch.len() >= BATCH_FILES_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
                self.flush();
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read(read) => self.finish_or_give_up(*read),
            Step::Changing(found) => self.changing(found.look),
            Step::Gone(path) => {
                self.gone(path);
                self.flow.departing.fetch_sub(1, Ordering::AcqRel);
            }
            Step::Tell(event) => self.emit(event),
            Step::Catalogued(imports) => self.catalogued(imports),
            Step::Stop => {}
        }
    }

    fn finish_or_give_up(&mut self, read: ReadFile) {
        let Found { look, size, .. } = read.found.clone();
        let outcome = if self.flow.is_halted() { Err(NotFinished::Gone) } else { self.finish(read) };
        let given_up = match outcome {
            Ok(finished) => {
                self.batch.push(finished);
                self.batch_due.get_or_insert_with(|| Instant::now() + BATCH_DELAY);
                return;
            }
            Err(given_up) => given_up,
        };
        match given_up {
            NotFinished::Changing => self.changing(look),
            NotFinished::Gone => {}
            NotFinished::Problem(problem) => {
                lock(&self.flow.scan).summary.failed += 1;
                self.emit(ImportEvent::Problem(problem));
            }
            NotFinished::Storage(error) => self.storage_failed(error),
        }
        self.flow.land(1);
        self.flow.end(size);
    }

    /// Makes the manifest of a file that was read, and appends it and its thumbnail.
    fn finish(&mut self, read: ReadFile) -> Result<Finished, NotFinished> {
        let ReadFile { found, stat, identity, media, ending, content, cuts, keys, examination } = read;
        let Look { path, renamed_from, .. } = found.look;
        let examined = match examination.map(|pending| pending.wait()) {
            Some(Ok(examined)) => examined,
            Some(Err(error)) => return Err(not_examined(path, error)),
            None => Examination { facts: Facts::default(), thumbnail: None },
        };
        // The examination opened the file by its name, a while after it was read.
        let metadata = path.symlink_metadata().ok().filter(|metadata| FileStat::of(metadata) == stat);
        let Some(metadata) = metadata else { return Err(NotFinished::Changing) };
        let mut thumbnails = Vec::new();
        if let Some(image) = examined.thumbnail {
            let sealed = keys.sealer.seal(&image.bytes);
            self.store.append(sealed.id, &sealed.bytes)?;
            self.batch_bytes += sealed.bytes.len() as u64;
            let length = image.bytes.len() as u32; // at most THUMBNAIL_BYTES_MAX
            thumbnails.push(Thumbnail { chunk: sealed.id, length, dimensions: image.dimensions, media: image.media });
        }
        let mut facts = examined.facts;
        if ending == Ending::Missing {
            facts.unreadable.get_or_insert_with(|| CUT.to_owned());
        }
        let manifest = Manifest { content, media, facts: facts.normalized(), thumbnails };
        let sealed = manifest
            .seal(&keys.sealer)
            .map_err(|error| NotFinished::Problem(ImportProblem::TooLarge { path: path.clone(), error }))?;
        for chunk in &sealed {
            self.store.append(chunk.id, &chunk.bytes)?;
            self.batch_bytes += chunk.bytes.len() as u64;
        }
        if self.flow.config.folders[found.folder].keep == Keep::Copy {
            self.batch_bytes += manifest.content.length;
        }
        let photo = manifest.photo(&keys.secrets);
        let mut replaces = self.replaced(&path, &stat, photo)?;
        let half = if replaces.is_empty() { self.half(renamed_from.as_deref(), photo)? } else { None };
        replaces.extend(half.iter().map(|half| half.photo));
        let renamed_from =
            half.and_then(|half| Some(self.flow.name(self.flow.folder_of(&half.path)?, &half.path, &half.stat)));
        let imported = ImportedPhoto {
            import: ImportId(0), // given when it is handed out
            photo,
            photo_key: manifest.photo_key(&keys.secrets),
            chunks: run(&manifest, &sealed.iter().map(|chunk| (chunk.id, chunk.bytes.len())).collect::<Vec<_>>()),
            facts: manifest.facts,
            media,
            name: FileName {
                mode: Some(mode(&metadata)),
                created_ns: created_ns(&metadata),
                ..self.flow.name(found.folder, &path, &stat)
            },
            replaces: replaces.clone(),
            renamed_from,
        };
        let record = FileRecord { path, stat, identity, photo, replaces, content_hash: manifest.content.hash, cuts };
        Ok(Finished { record, folder: found.folder, found_size: found.size, imported: Box::new(imported) })
    }

    /// The photos that the file at `path` was before it became `photo`.
    fn replaced(&mut self, path: &Path, stat: &FileStat, photo: PhotoId) -> Result<Vec<PhotoId>, NotFinished> {
        if self.batch.iter().any(|finished| finished.record.path == path) {
            self.flush();
        }
        if self.store.look_up(path, stat) == Known::No {
            return Ok(Vec::new());
        }
        let Some(before) = self.store.file(path)? else { return Ok(Vec::new()) };
        // Edited over and over while the library has no time: this state of it will not be the last.
        before.replaced_by(photo).ok_or(NotFinished::Changing)
    }

    /// What was taken in of the file under the name that it had a moment ago, when it is another photo now: half of it.
    fn half(&self, before: Option<&Path>, photo: PhotoId) -> Result<Option<FileRecord>, NotFinished> {
        let Some(before) = before.filter(|before| !before.exists()) else { return Ok(None) };
        Ok(self.store.file(before)?.filter(|half| half.photo != photo))
    }

    /// Makes the batch durable and hands it out.
    fn flush(&mut self) {
        (self.batch_bytes, self.batch_due) = (0, None);
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        let sizes: Vec<u64> = batch.iter().map(|finished| finished.found_size).collect();
        let (records, handed_out): (Vec<FileRecord>, Vec<(usize, Box<ImportedPhoto>)>) =
            batch.into_iter().map(|finished| (finished.record, (finished.folder, finished.imported))).unzip();
        match self.store.commit().and_then(|()| self.store.adopt_files(&records)) {
            Ok(lost) => {
                for (record, (folder, imported)) in records.into_iter().zip(handed_out) {
                    self.hand_out(record, folder, imported);
                }
                self.lost(lost);
            }
            Err(error) => {
                self.flow.land(sizes.len());
                self.storage_failed(error);
            }
        }
        sizes.into_iter().for_each(|size| self.flow.end(size));
    }

    fn hand_out(&mut self, record: FileRecord, folder: usize, mut imported: Box<ImportedPhoto>) {
        self.flow.files_imported.fetch_add(1, Ordering::Relaxed);
        self.flow.bytes_imported.fetch_add(record.stat.size, Ordering::Relaxed);
        {
            let mut scan = lock(&self.flow.scan);
            scan.summary.imported += 1;
            if let Some(number) = self.store.file_number(&record.path) {
                scan.seen.insert(number.get());
                let folder = &mut lock(&self.flow.folders)[folder];
                folder.files.insert(number.get());
                folder.new += 1;
                folder.skipped.remove(&record.path);
            }
        }
        imported.import = lock(&self.flow.unacknowledged).add(FileChange::Imported(record.path));
        self.emit(ImportEvent::Imported(imported));
    }

    /// A name goes from the catalog first and from the store when that is done.
    fn gone(&mut self, path: PathBuf) {
        self.flush();
        if lock(&self.flow.unacknowledged).latest(&path).is_some() {
            return; // under way already, or just imported: the next walk looks again
        }
        let record = match self.store.file(&path) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(error) => return self.storage_failed(error),
        };
        let Some(folder) = self.flow.folder_of(&path) else { return };
        // Should it be back, or be watched again, before the catalog has heard of this, it is told anew.
        if let Err(error) = self.store.reopen_file(&path) {
            return self.storage_failed(error);
        }
        lock(&self.flow.scan).summary.removed += 1;
        let name = self.flow.name(folder, &path, &record.stat);
        // Photos that the file was before may have kept the name, when the import of the last one was cut short.
        for photo in record.replaces.into_iter().chain([record.photo]) {
            let import = lock(&self.flow.unacknowledged).add(FileChange::Removed(path.clone()));
            self.emit(ImportEvent::NameRemoved(Box::new(RemovedName { import, photo, name: name.clone() })));
        }
    }

    fn catalogued(&mut self, imports: Vec<ImportId>) {
        let Settled { finished, forgotten, imports: landed } = lock(&self.flow.unacknowledged).settled(&imports);
        for path in &forgotten {
            let number = self.store.file_number(path);
            let folders = &mut *lock(&self.flow.folders);
            number
                .into_iter()
                .for_each(|number| folders.iter_mut().for_each(|folder| _ = folder.files.remove(number.get())));
        }
        let outcome = self.store.finish_files(&finished).and_then(|()| self.store.forget_files(&forgotten));
        // Only now, so that no walk takes what is being finished for unfinished.
        lock(&self.flow.unacknowledged).remove(&imports);
        self.flow.land(landed);
        match outcome {
            Ok(lost) => self.lost(lost),
            Err(error) => self.storage_failed(error),
        }
    }

    fn changing(&mut self, look: Look) {
        // Most files that change are being written and done in a moment: no word about those.
        if look.attempt == ATTEMPTS_UNTOLD {
            lock(&self.flow.scan).summary.failed += 1;
            self.emit(ImportEvent::Problem(ImportProblem::FileChanging { path: look.path.clone() }));
        }
        self.flow.again(look);
    }

    /// Stops this walk: nothing else can be kept either. The next one tries again.
    fn storage_failed(&mut self, error: StorageError) {
        if self.flow.halt() {
            self.emit(ImportEvent::Problem(ImportProblem::Storage(error)));
        }
    }

    fn lost(&mut self, chunks: Vec<ChunkId>) {
        if !chunks.is_empty() {
            self.emit(ImportEvent::ChunksLost(chunks));
        }
    }

    /// Hands an event to the library, waiting while it has no time.
    fn emit(&mut self, event: ImportEvent) {
        let mut event = event;
        while !self.flow.is_stopping() {
            match self.events.try_send(event) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) => event = back,
                Err(TrySendError::Closed(_)) => return self.flow.stop(),
            }
            thread::sleep(FULL_DELAY);
        }
    }
}

/// What is said of a file that was taken in without its end.
const CUT: &str = "the file is cut off: its end is missing";
/// Times a file may be found changing before a person hears of it.
const ATTEMPTS_UNTOLD: u32 = 4;

fn not_examined(path: PathBuf, error: ExamineError) -> NotFinished {
    match error {
        ExamineError::Gone(_) => NotFinished::Changing,
        ExamineError::NotAllowed(detail) | ExamineError::Unreadable(detail) => {
            NotFinished::Problem(ImportProblem::FileUnreadable { path, detail })
        }
        ExamineError::NoWorker { .. } => {
            NotFinished::Problem(ImportProblem::NotExamined { path, detail: error.to_string() })
        }
        ExamineError::Stopped => NotFinished::Gone,
    }
}

/// The chunks of a photo in the order of its run.
fn run(manifest: &Manifest, sealed: &[(ChunkId, usize)]) -> Vec<(ChunkId, u32)> {
    // Sealed chunks are bounded by SEALED_CHUNK_BYTES_MAX.
    let length = |plain: u32| sealed_length(plain as usize) as u32;
    let manifests = sealed.iter().map(|(chunk, bytes)| (*chunk, *bytes as u32));
    let thumbnails = manifest.thumbnails.iter().map(|thumbnail| (thumbnail.chunk, length(thumbnail.length)));
    let pieces = manifest.content.chunks.iter().map(|piece| (piece.chunk, length(piece.length)));
    manifests.chain(thumbnails).chain(pieces).collect()
}

impl Flow {
    /// The watched folder that `path` lies in, or the one that is left.
    pub(super) fn folder_of(&self, path: &Path) -> Option<usize> {
        let inside = |(_, folder): &(usize, &super::WatchedFolder)| path.starts_with(&folder.path);
        let deepest = |(_, folder): &(usize, &super::WatchedFolder)| folder.path.components().count();
        let all = self.config.folders.iter().chain(&self.config.leaving);
        all.enumerate().filter(inside).max_by_key(deepest).map(|(index, _)| index)
    }

    /// Whether a watched folder begins at `path`, or one that is left.
    pub(super) fn is_root(&self, path: &Path) -> bool {
        self.config.folders.iter().chain(&self.config.leaving).any(|folder| folder.path == path)
    }

    /// Where a watched folder is, or one that is left.
    pub(super) fn root(&self, folder: usize) -> &Path {
        let watched = self.config.folders.len();
        let folder = self.config.folders.get(folder).unwrap_or_else(|| &self.config.leaving[folder - watched]);
        &folder.path
    }

    /// What the library calls the file at `path`; who may use it is not known from that.
    pub(super) fn name(&self, folder: usize, path: &Path, stat: &FileStat) -> FileName {
        let root = self.root(folder);
        let relative = path.strip_prefix(root).unwrap_or(path);
        let parts: Vec<_> = relative.components().map(|part| part.as_os_str().as_encoded_bytes()).collect();
        FileName {
            folder: self.labels[folder].clone(),
            path: parts.join(&b'/').into(),
            mtime_ns: stat.mtime_ns,
            size: stat.size,
            mode: None,
            created_ns: None,
        }
    }
}

/// Who may read, write and execute a file.
fn mode(metadata: &Metadata) -> u16 {
    (metadata.permissions().mode() & 0o777) as u16 // nine bits
}

/// When a file was created, in nanoseconds since the Unix epoch, where the file system knows.
fn created_ns(metadata: &Metadata) -> Option<i64> {
    let created = metadata.created().ok()?;
    match created.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|before| -before),
    }
}
