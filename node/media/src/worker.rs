//! The program of a worker process: reads files' names from its standard input, writes what they say and show.
//!
//! It bounds itself: its address space by the system's limit, its time per file by a watchdog thread that ends the
//! process, so that it doesn't outlive a node that was killed.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use holdfast_protocol::manifest::Facts;

use super::frame::{self, Answer, Bounds, FileFault, Request};
use super::source::Source;
use super::{Examination, facts, thumbnail};

/// The exit code of a worker whose file took too long.
pub(super) const EXIT_OVERDUE: i32 = 101 + 23;
/// The exit code of a worker that was not spoken to as a worker.
const EXIT_MISUSED: u8 = 2;

/// Serves until standard input ends.
#[must_use]
pub fn run() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_MISUSED),
    }
}

fn serve() -> io::Result<()> {
    let (mut requests, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let Some(bounds) = frame::read::<Bounds>(&mut requests)? else { return Ok(()) };
    bound_memory(bounds.memory_bytes_max);
    let (begun_or_done, watched) = channel();
    let time_max = Duration::from_millis(bounds.time_ms_max);
    thread::Builder::new().stack_size(64 << 10).spawn(move || watch(&watched, time_max))?;
    while let Some(request) = frame::read::<Request>(&mut requests)? {
        answer(&request, &begun_or_done, &mut answers)?;
    }
    Ok(())
}

enum Watch {
    Begun,
    Done,
}

/// Ends the process when something has begun and is not done in time.
fn watch(begun_or_done: &Receiver<Watch>, time_max: Duration) {
    while begun_or_done.recv().is_ok() {
        if let Err(RecvTimeoutError::Timeout) = begun_or_done.recv_timeout(time_max) {
            std::process::exit(EXIT_OVERDUE);
        }
    }
}

fn answer(request: &Request, watched: &Sender<Watch>, answers: &mut impl Write) -> io::Result<()> {
    let _ = watched.send(Watch::Begun);
    let last = match examine(request, answers) {
        Ok((facts, Examination { facts: completed, thumbnail })) => {
            Answer::Picture { thumbnail, facts: (completed != facts).then_some(completed) }
        }
        Err(Fault::Pipe(error)) => return Err(error),
        Err(Fault::File(error)) => {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => FileFault::Gone,
                io::ErrorKind::PermissionDenied => FileFault::NotAllowed,
                _ => FileFault::Other,
            };
            Answer::NoFile { kind, message: error.to_string() }
        }
    };
    let _ = watched.send(Watch::Done);
    frame::write(answers, &last)
}

/// Whose fault it is that no examination came out.
enum Fault {
    File(io::Error),
    Pipe(io::Error),
}

/// Answers with the facts at once; returns them and the completed examination.
fn examine(request: &Request, answers: &mut impl Write) -> Result<(Facts, Examination), Fault> {
    let mut source = Source::open(&request.path(), request.media).map_err(Fault::File)?;
    let facts = catch_unwind(AssertUnwindSafe(|| facts::read_facts(&mut source)))
        .unwrap_or_else(|_| Ok(Facts::unreadable("the metadata's reader gave up on it")))
        .map_err(Fault::File)?;
    frame::write(answers, &Answer::Facts(facts.clone())).map_err(Fault::Pipe)?;
    let completed = catch_unwind(AssertUnwindSafe(|| thumbnail::complete(&mut source, facts.clone())))
        .unwrap_or_else(|_| Ok(thumbnail::broken(facts.clone(), "its decoder gave up on it")))
        .map_err(Fault::File)?;
    Ok((facts, completed))
}

/// Limits the process's address space; where the system has no such limit, only time bounds a worker.
fn bound_memory(bytes_max: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let bound = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        let _ = setrlimit(Resource::As, bound(bytes_max));
        // A crash on a private photo leaves no copy of it behind.
        let _ = setrlimit(Resource::Core, bound(0));
    }
    #[cfg(not(unix))]
    let _ = bytes_max;
}
