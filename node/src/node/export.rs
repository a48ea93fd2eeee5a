//! Exports, on a thread of their own: the library goes on meanwhile.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_library::FileName;
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::position::Position;
use holdfast_store::ChunkStore;

use super::destination::Destination;
use super::readers::Question;
use super::runtime::Runtime;
use super::workers::Losses;
use crate::api::view::{ExportOutcome, Problem, Progress};
use crate::api::{Refusal, RefusalKind, Reply, Response};
use crate::export::{Export, Exported, Kept};
use crate::index::IndexedFile;
use crate::ingest::real_path;

/// Problems that an outcome names one by one.
const PROBLEMS_MAX: usize = 100;

/// How long an export waits for the index before it goes on with what is known.
const SETTLED_DEADLINE: Duration = Duration::from_secs(10);

/// A file to write.
struct Job {
    /// Absent as long as it is not known here which chunk it is.
    manifest: Option<ChunkId>,
    name: FileName,
}

/// Where chunks come from, and who is told which of them are not readable any more.
struct Chunks {
    store: Arc<ChunkStore>,
    losses: Losses,
}

/// An export that waits for the index to take in what is here.
pub(super) struct WaitingExport {
    directory: PathBuf,
    reply: Reply,
    since: Instant,
}

impl WaitingExport {
    pub(super) fn new(directory: PathBuf, reply: Reply) -> Self {
        Self { directory, reply, since: Instant::now() }
    }
}

impl Runtime {
    /// Writes the originals of all listed photos into `directory` and answers when it is done. `files` are all that the index
    /// knows of.
    pub(super) fn export(
        &mut self,
        directory: PathBuf,
        destination: Destination,
        files: Vec<IndexedFile>,
        reply: Reply,
    ) {
        let passed_over_by = match destination {
            Destination::Apart => None,
            Destination::PassedOver(watched) => Some(watched),
            Destination::New(watched) => {
                // Before anything is written there, and for good.
                if let Err(refusal) = self.pass_over(real_path(&directory)) {
                    return reply.finish(Err(refusal));
                }
                Some(watched)
            }
        };
        let jobs = self.export_jobs(files);
        let outcome = ExportOutcome { directory, passed_over_by, ..ExportOutcome::default() };
        let chunks = Chunks { store: self.store.clone(), losses: self.losses.clone() };
        let sealer = self.sealer.clone();
        let started = std::thread::Builder::new().name("export".to_owned()).spawn(move || {
            let answer = match Export::new(&outcome.directory, sealer) {
                Ok(export) => Ok(Response::Export(run(export, outcome, &chunks, jobs, &reply))),
                Err(error) => {
                    let message = format!("cannot use {}: {error}", outcome.directory.display());
                    Err(Refusal::new(RefusalKind::Failed, message, "choose another folder"))
                }
            };
            reply.finish(answer);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "an export could not be started");
        }
    }
}

fn run(
    mut export: Export,
    mut outcome: ExportOutcome,
    chunks: &Chunks,
    jobs: Vec<Job>,
    reply: &Reply,
) -> ExportOutcome {
    let mut progress = Progress {
        files_total: jobs.len() as u64,
        bytes_total: jobs.iter().map(|job| job.name.size).sum(),
        ..Progress::default()
    };
    for job in jobs {
        if reply.is_abandoned() {
            break;
        }
        match write(&mut export, chunks, &job) {
            Ok(Exported::Written { bytes, kept, .. }) => {
                outcome.written += 1;
                outcome.bytes += bytes;
                outcome.undated += u64::from(kept == Kept::WithoutDate);
            }
            Ok(Exported::AlreadyThere { kept, .. }) => {
                outcome.unchanged += 1;
                outcome.repaired += u64::from(kept == Kept::Repaired);
                outcome.undated += u64::from(kept == Kept::WithoutDate);
            }
            Err(what) => {
                outcome.missing += 1;
                if outcome.problems.len() < PROBLEMS_MAX {
                    outcome.problems.push(Problem { what, next: None });
                }
            }
        }
        progress.files += 1;
        progress.bytes += job.name.size;
        reply.progress(progress);
    }
    outcome
}

fn write(export: &mut Export, chunks: &Chunks, job: &Job) -> Result<Exported, String> {
    let missing = || format!("{} was not exported: it is not here yet; connect a device that has it", job.name.path);
    let manifest = job.manifest.ok_or_else(missing)?;
    let read = |chunk: &ChunkId, sealed: &mut Vec<u8>| {
        // What an export finds damaged is fetched again from another device.
        chunks.store.read_into(chunk, sealed).inspect_err(|error| chunks.losses.report(chunk, error))
    };
    export.photo(&manifest, &job.name, read).map_err(|error| error.to_string())
}

impl Runtime {
    /// Starts the exports that wait, once the index has everything that is here: right after a start it may not.
    pub(super) fn start_exports(&mut self) {
        let is_settled = self.has_settled();
        let ready = |waiting: &mut WaitingExport| is_settled || waiting.since.elapsed() >= SETTLED_DEADLINE;
        for WaitingExport { directory, reply, .. } in self.exports.extract_if(.., ready).collect::<Vec<_>>() {
            let settings = Box::new(self.settings.clone());
            self.readers.ask(Question::Export { directory, settings }, reply);
        }
    }

    /// Every name of every listed photo; photos that no folder names any more, under their own. Those of which only
    /// the record is here are reported as missing: no export is complete without them.
    fn export_jobs(&self, files: Vec<IndexedFile>) -> Vec<Job> {
        let named: BTreeSet<PhotoId> = files.iter().map(|file| file.photo).collect();
        let photos = self.library.photos();
        let rows = (0..photos.len() as u32).map(|slot| photos.row(slot));
        let unnamed = rows.filter(|row| row.listed && !named.contains(&row.photo)).map(|row| {
            let path = format!("photo {}", row.photo.short()).into();
            let name =
                FileName { folder: String::new(), path, mtime_ns: 0, size: row.bytes, mode: None, created_ns: None };
            Job { manifest: None, name }
        });
        let unnamed: Vec<_> = unnamed.collect();
        let named = files.into_iter().map(|file| Job { manifest: self.manifest(&file.photo), name: file_name(file) });
        named.chain(unnamed).collect()
    }

    fn manifest(&self, photo: &PhotoId) -> Option<ChunkId> {
        let photos = self.library.photos();
        let run = photos.row(photos.slot(photo)?).run;
        let position = Position { author: run.author, index: run.start };
        self.library.replica().chunk_at(&position).map(|deposited| deposited.chunk)
    }
}

fn file_name(file: IndexedFile) -> FileName {
    let IndexedFile { path, modified_ns: mtime_ns, mode, bytes: size, .. } = file;
    FileName { folder: String::new(), path, mtime_ns, size, mode, created_ns: None }
}
