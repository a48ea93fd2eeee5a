//! The command line: every subcommand in its own file.

/// Prints a line on standard output.
macro_rules! say {
    ($($words:tt)*) => { crate::command::say(format_args!($($words)*)) };
}

mod faults;
mod panics;
mod replay;
mod run;
mod scale;
mod setting;
mod shrink;
mod summary;
mod swarm;

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use holdfast_sim::outcome::Verdict;

const EXIT_CODES: &str = "Exit codes: 0 nothing found; 1 an invariant was broken; 2 wrong usage, or a file that cannot be \
read or written; 3 the nodes did not come to agree; 101 the code panicked. Of several findings the gravest counts: 101, \
then 1, then 3.";

/// Runs Holdfast's own code on virtual networks, disks and time; every fault comes from one seed.
#[derive(Debug, clap::Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run one seed, twice, and say what came of it.
    Run(run::Run),
    /// Run one seed, or what `--record` wrote, and print everything that happens.
    Replay(replay::Replay),
    /// Run many seeds on all cores and sum up.
    Swarm(swarm::Swarm),
    /// Make a run that finds something as small as it gets while it still finds the same.
    Shrink(shrink::Shrink),
    /// Model pools of thousands of peers: gossip, time to learn a holding, memory.
    Scale(scale::Scale),
    /// List the classes of faults, and how often each strikes.
    Faults,
}

/// Why a command could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path}: not a record of a run, or one of another version: {error}")]
    Record { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Setting(#[from] setting::SettingRefused),
}

impl Failure {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::File { path: path.to_owned(), error }
    }
}

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> ExitCode {
    panics::keep_quiet();
    let found = match cli.command {
        Command::Run(run) => run.perform(),
        Command::Replay(replay) => replay.perform(),
        Command::Swarm(swarm) => swarm.perform(),
        Command::Shrink(shrink) => shrink.perform(),
        Command::Scale(scale) => scale.perform(),
        Command::Faults => {
            faults::list();
            Ok(Found::Nothing)
        }
    };
    match found {
        Ok(found) => ExitCode::from(found.exit_code()),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(2)
        }
    }
}

fn say(words: fmt::Arguments<'_>) {
    // Whoever reads has gone away: what is left to say is for nobody.
    if writeln!(io::stdout().lock(), "{words}").is_err() {
        std::process::exit(2);
    }
}

/// What was found, ascending in gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    Nothing,
    NoAgreement,
    BrokenInvariant,
    Panic,
}

impl Found {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::BrokenInvariant => 1,
            Self::NoAgreement => 3,
            Self::Panic => 101,
        }
    }
}

impl From<&Verdict> for Found {
    fn from(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Clean => Self::Nothing,
            Verdict::NotConverged { .. } => Self::NoAgreement,
            Verdict::Broken { .. } => Self::BrokenInvariant,
            Verdict::Crashed { .. } => Self::Panic,
        }
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0 as f64, "B");
        for larger in ["kB", "MB", "GB", "TB"] {
            if value < 1000.0 {
                break;
            }
            (value, unit) = (value / 1000.0, larger);
        }
        let decimals = usize::from(unit != "B" && value < 100.0);
        formatter.pad(&format!("{value:.decimals$} {unit}"))
    }
}
