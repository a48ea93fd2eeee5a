//! `run`: one seed.

use std::path::{Path, PathBuf};

use holdfast_sim::check::replayed;
use holdfast_sim::options::Options;
use holdfast_sim::outcome::{self, Outcome, Verdict};
use holdfast_sim::plot::Plot;
use holdfast_sim::trace::{Trace, clock};
use holdfast_sim::world::World;
use serde::{Deserialize, Serialize};

use super::setting::{Shape, Skips, command_line};
use super::{Bytes, Failure, Found, panics};

/// Samples of a plot before faults stop.
const SAMPLES: u64 = 300;

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    skips: Skips,
    /// Print everything that happens, as `replay` does.
    #[arg(long)]
    trace: bool,
    /// Run it once only, without comparing the traces of two runs.
    #[arg(long)]
    once: bool,
    /// Write the run and what came of it to a file that `replay` reads.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Draw copies of each photo, bytes sent and agreement over virtual time, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the record as JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// A run and what came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    pub(crate) outcome: Outcome,
}

impl Run {
    pub(crate) fn perform(self) -> Result<Found, Failure> {
        let options = self.skips.applied_to(self.shape.options(self.seed)?)?;
        if !self.json {
            say!("{}", command_line("run", self.seed, &options));
            say!("{}", in_words(&options));
        }
        let trace = if self.trace { printed() } else { Trace::silent() };
        let mut plot = Plot::new();
        let step_ms = if self.plot.is_some() { (options.heal_ms / SAMPLES).max(50) } else { u64::MAX };
        let mut watch = |world: &World| {
            if step_ms < u64::MAX {
                plot.look(world)
            }
        };
        let mut outcome = caught(|| outcome::run(self.seed, &options, trace, step_ms, &mut watch));
        if let Some(path) = &self.plot {
            let title = command_line("run", self.seed, &options);
            std::fs::write(path, plot.to_svg(&title)).map_err(Failure::file(path))?;
        }
        if !self.once {
            outcome = replayed::check(outcome, &caught(|| outcome::run_unwatched(self.seed, &options)));
        }
        let record = Record { seed: self.seed, options, outcome };
        if let Some(path) = &self.record {
            record.write(path)?;
        }
        if self.json {
            say!("{}", serde_json::to_string_pretty(&record).unwrap_or_default());
        } else {
            tell(&record.outcome);
        }
        Ok(Found::from(&record.outcome.verdict))
    }
}

impl Record {
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        std::fs::write(path, text + "\n").map_err(Failure::file(path))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(Failure::file(path))?;
        serde_json::from_str(&text).map_err(|error| Failure::Record { path: path.to_owned(), error })
    }
}

/// What came of a run that may panic.
pub(crate) fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    panics::catch(run).unwrap_or_else(|what| Outcome::without_world(Verdict::Crashed { what }))
}

/// A trace that is printed.
pub(crate) fn printed() -> Trace {
    Trace::read_by(Box::new(|line| say!("{line}")))
}

pub(crate) fn in_words(options: &Options) -> String {
    let classes: Vec<&str> = options.classes.iter().map(|class| class.name()).collect();
    let classes = if classes.is_empty() { "none".to_owned() } else { classes.join(", ") };
    let heal = clock(options.heal_ms);
    format!("{} nodes, {} gestures each, faults until {heal}: {classes}", options.nodes, options.gestures)
}

pub(crate) fn tell(outcome: &Outcome) {
    let struck: Vec<String> = outcome.struck.iter().map(|(class, times)| format!("{class} {times}")).collect();
    if !struck.is_empty() {
        say!("struck: {}", struck.join(", "));
    }
    let (time, sent) = (clock(outcome.virtual_ms), Bytes(outcome.traffic.total()));
    say!("{} imports acknowledged, {sent} sent, {time} virtual, trace {}", outcome.acknowledged, outcome.trace);
    match &outcome.verdict {
        Verdict::Clean => say!("clean"),
        verdict => say!("FAILED: {}: {}", verdict.kind(), verdict.what()),
    }
}
