//! The worker processes: started when needed, bounded, replaced when a file kills them, stopped when idle.
//!
//! One thread per worker takes files from a bounded queue, so that at most `workers` files are examined at once and
//! [`MediaPool::examine`] blocks when ingest runs ahead. A second thread per worker process reads its answers, so that
//! waiting for them has a deadline on every system.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{collections::VecDeque, thread};

use holdfast_protocol::limits::THUMBNAIL_BYTES_MAX;
use holdfast_protocol::manifest::Facts;
use holdfast_protocol::media_type::MediaType;

use super::frame::{self, Answer, Bounds, FileFault, Request};
use super::{Examination, worker};

/// How long after its own deadline a worker is given to end by itself.
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5000 });
/// Files that wait for a worker before [`MediaPool::examine`] blocks, per worker.
const QUEUE_PER_WORKER: usize = 4;

/// How to start a worker.
#[derive(Debug, Clone)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl WorkerCommand {
    /// This very program as `holdfast worker`.
    ///
    /// # Errors
    /// Fails when the system does not tell where the program lies.
    pub fn this_program() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: vec!["worker".into()] })
    }
}

/// The bounds of a pool.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// How to start a worker.
    pub command: WorkerCommand,
    /// Worker processes at most.
    pub workers: usize,
    /// Address space of one worker, in bytes.
    pub memory_bytes_max: u64,
    /// Time for one file.
    pub time_max: Duration,
    /// A worker without work for this long is stopped.
    pub idle_max: Duration,
}

impl PoolConfig {
    /// The usual bounds: two workers, 1 GiB of address space, 20 s per file, stopped after 10 s without work.
    #[must_use]
    pub fn new(command: WorkerCommand) -> Self {
        Self {
            command,
            workers: thread::available_parallelism().map_or(1, |cores| cores.get().min(2)),
            memory_bytes_max: 1 << 30,
            time_max: Duration::from_secs(20),
            idle_max: Duration::from_secs(10),
        }
    }
}

/// Why a file was not examined. None of these is a property of the file's content.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The worker program does not start.
    #[error("cannot start {program}: {error}; reinstall holdfast or restart the node after an upgrade")]
    NoWorker {
        /// The program.
        program: String,
        /// The system's error.
        error: io::Error,
    },
    /// The file went away before it was examined.
    #[error("the file is gone: {0}")]
    Gone(String),
    /// The system refuses to let the file be read.
    #[error("not allowed to read the file: {0}; check its permissions")]
    NotAllowed(String),
    /// Reading the file failed otherwise.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// The pool was stopped.
    #[error("the node is stopping")]
    Stopped,
}

/// Examines files in worker processes. Dropping it lets running examinations end and stops the workers.
#[derive(Debug)]
pub struct MediaPool {
    queue: Arc<Queue>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    request: Request,
    result: SyncSender<Result<Examination, ExamineError>>,
}

/// An examination that is under way.
#[derive(Debug)]
pub struct PendingExamination {
    result: Receiver<Result<Examination, ExamineError>>,
}

impl PendingExamination {
    /// Waits for the result, at most about `time_max` once a worker has begun.
    ///
    /// # Errors
    /// Fails when the file can't be read or no worker can be started; broken content is not an error.
    pub fn wait(self) -> Result<Examination, ExamineError> {
        self.result.recv().unwrap_or(Err(ExamineError::Stopped))
    }
}

impl MediaPool {
    /// A pool that starts its workers when the first files come.
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        let workers = config.workers.max(1);
        let queue = Arc::new(Queue { jobs_max: workers * QUEUE_PER_WORKER, ..Queue::default() });
        let config = Arc::new(config);
        let threads = (0..workers)
            .map(|_| {
                let (queue, config) = (Arc::clone(&queue), Arc::clone(&config));
                thread::spawn(move || Slot { config, process: None }.run(&queue))
            })
            .collect();
        Self { queue, threads }
    }

    /// Begins to examine `path`, which is of the kind `media`; blocks while the queue is full.
    ///
    /// The worker opens the path itself: compare size and modification time afterwards, as with any read of a file that
    /// others may be changing.
    #[must_use]
    pub fn examine(&self, path: &Path, media: MediaType) -> PendingExamination {
        // Room for the one answer: an unbounded channel would set aside room for thirty with the first.
        let (result, pending) = sync_channel(1);
        self.queue.push(Job { request: Request::new(path, media), result });
        PendingExamination { result: pending }
    }
}

impl Drop for MediaPool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Files that wait for a worker, in the order they came.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    jobs_max: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

enum Next {
    Job(Job),
    Idle,
    Closed,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, then adds the job.
    fn push(&self, job: Job) {
        let is_full = |state: &mut QueueState| state.jobs.len() >= self.jobs_max && !state.is_closed;
        let mut state = self.changed.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        state.jobs.push_back(job);
        self.changed.notify_all();
    }

    /// Waits for a job, for ever or for at most `idle_max`.
    fn pop(&self, idle_max: Option<Duration>) -> Next {
        let is_empty = |state: &mut QueueState| state.jobs.is_empty() && !state.is_closed;
        let mut state = match idle_max {
            Some(idle_max) => {
                let waited = self.changed.wait_timeout_while(self.lock(), idle_max, is_empty);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(self.lock(), is_empty).unwrap_or_else(PoisonError::into_inner),
        };
        let next = match state.jobs.pop_front() {
            Some(job) => Next::Job(job),
            None if state.is_closed => Next::Closed,
            None => Next::Idle,
        };
        self.changed.notify_all();
        next
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }
}

/// One worker's place in the pool.
struct Slot {
    config: Arc<PoolConfig>,
    process: Option<Process>,
}

impl Slot {
    fn run(mut self, queue: &Queue) {
        loop {
            match queue.pop(self.process.is_some().then_some(self.config.idle_max)) {
                Next::Job(job) => {
                    let result = self.examine(&job.request);
                    let _ = job.result.send(result);
                }
                Next::Idle => self.process = None,
                Next::Closed => return,
            }
        }
    }

    fn examine(&mut self, request: &Request) -> Result<Examination, ExamineError> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => Process::start(&self.config)?,
        };
        if process.ask(request).is_err() {
            // It ended while idle, for no fault of this file.
            process = Process::start(&self.config)?;
            process.ask(request).map_err(|error| self.no_worker(error))?;
        }
        let deadline = self.config.time_max + GRACE;
        let mut facts = None;
        loop {
            match process.answers.recv_timeout(deadline) {
                Ok(Answer::Facts(read)) => facts = Some(read),
                Ok(Answer::Picture { thumbnail, facts: changed }) => {
                    self.process = Some(process);
                    let thumbnail = thumbnail.filter(|thumbnail| thumbnail.bytes.len() <= THUMBNAIL_BYTES_MAX);
                    let facts = changed.or(facts).unwrap_or_default().normalized();
                    return Ok(Examination { facts, thumbnail });
                }
                Ok(Answer::NoFile { kind, message }) => {
                    self.process = Some(process);
                    return Err(match kind {
                        FileFault::Gone => ExamineError::Gone(message),
                        FileFault::NotAllowed => ExamineError::NotAllowed(message),
                        FileFault::Other => ExamineError::Unreadable(message),
                    });
                }
                Err(silence) => {
                    return match process.end(silence) {
                        Ended::NeverServed => Err(self.no_worker(io::Error::other("it ended before it served"))),
                        Ended::Overdue => {
                            let seconds = self.config.time_max.as_secs();
                            Ok(without_picture(facts, format!("examining it took longer than {seconds} s")))
                        }
                        Ended::Crashed => {
                            let reason = "examining it needed too much memory or crashed its reader";
                            Ok(without_picture(facts, reason.to_owned()))
                        }
                    };
                }
            }
        }
    }

    fn no_worker(&self, error: io::Error) -> ExamineError {
        ExamineError::NoWorker { program: self.config.command.program.display().to_string(), error }
    }
}

/// What is known of a file that ended its worker.
fn without_picture(facts: Option<Facts>, reason: String) -> Examination {
    let mut facts = facts.unwrap_or_default();
    facts.unreadable.get_or_insert(reason);
    Examination { facts: facts.normalized(), thumbnail: None }
}

enum Ended {
    Overdue,
    Crashed,
    NeverServed,
}

/// A running worker.
struct Process {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<Answer>,
}

impl Process {
    fn start(config: &PoolConfig) -> Result<Self, ExamineError> {
        let no_worker = |error| ExamineError::NoWorker { program: config.command.program.display().to_string(), error };
        let mut child = Command::new(&config.command.program)
            .args(&config.command.arguments)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(no_worker)?;
        let (Some(requests), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(no_worker(io::Error::other("no pipes to it")));
        };
        let (sender, answers) = sync_channel(2);
        thread::spawn(move || forward_answers(output, &sender));
        let mut process = Self { child, requests: Some(requests), answers };
        let time_ms_max = config.time_max.as_millis() as u64;
        process.write(&Bounds { memory_bytes_max: config.memory_bytes_max, time_ms_max }).map_err(no_worker)?;
        Ok(process)
    }

    fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.write(request)
    }

    fn write(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let requests = self.requests.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        frame::write(requests, value)
    }

    /// Ends a worker that gave no answer, and says why it gave none.
    fn end(&mut self, silence: RecvTimeoutError) -> Ended {
        let _ = self.child.kill();
        let code = self.child.wait().ok().and_then(|status| status.code());
        match code {
            _ if silence == RecvTimeoutError::Timeout => Ended::Overdue,
            Some(worker::EXIT_OVERDUE) => Ended::Overdue,
            // No signal and no panic: the program isn't one that serves.
            Some(0..=100) => Ended::NeverServed,
            _ => Ended::Crashed,
        }
    }
}

impl Drop for Process {
    /// Closing its input ends an idle worker; the kill is for a busy one.
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands on what the worker answers until it ends or says something that is no answer.
fn forward_answers(mut output: ChildStdout, answers: &SyncSender<Answer>) {
    while let Ok(Some(answer)) = frame::read(&mut output) {
        if answers.send(answer).is_err() {
            return;
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pool(program: &str, script: &str, time_max: Duration) -> MediaPool {
        let command = WorkerCommand { program: program.into(), arguments: vec!["-c".into(), script.into()] };
        MediaPool::new(PoolConfig { workers: 1, time_max, ..PoolConfig::new(command) })
    }

    fn unreadable(pool: &MediaPool) -> String {
        let examination = pool.examine(Path::new("photo.jpg"), MediaType::Jpeg).wait().unwrap();
        assert_eq!(examination.thumbnail, None);
        examination.facts.unreadable.unwrap()
    }

    #[test]
    fn a_worker_that_hangs_costs_its_file_a_bounded_time() {
        let pool = pool("/bin/sh", "sleep 600", Duration::from_millis(200));
        assert!(unreadable(&pool).contains("took longer"));
        assert!(unreadable(&pool).contains("took longer"), "the next file gets a worker of its own");
    }

    #[test]
    fn a_worker_that_crashes_costs_its_file_only() {
        let pool = pool("/bin/sh", "head -c 12 > /dev/null; kill -9 $$", LONG);
        assert!(unreadable(&pool).contains("crashed"));
        assert!(unreadable(&pool).contains("crashed"));
    }

    #[test]
    fn a_worker_that_babbles_is_not_believed() {
        let pool = pool("/bin/sh", "head -c 12 > /dev/null; printf '\\377\\377\\377\\177'; sleep 600", LONG);
        assert!(unreadable(&pool).contains("crashed"));
    }

    #[test]
    fn no_program_or_the_wrong_one_is_not_the_photos_fault() {
        for pool in [pool("/nonexistent/holdfast", "", LONG), pool("/bin/sh", "head -c 12 > /dev/null; exit 3", LONG)] {
            let error = pool.examine(Path::new("photo.jpg"), MediaType::Jpeg).wait().unwrap_err();
            assert!(matches!(error, ExamineError::NoWorker { .. }), "{error}");
        }
    }
}
