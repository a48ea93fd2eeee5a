//! `swarm`: many seeds on all cores.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use holdfast_sim::check::replayed;
use holdfast_sim::options::Options;
use holdfast_sim::outcome::{self, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};

use super::run::caught;
use super::setting::{Shape, command_line};
use super::summary::Summary;
use super::{Failure, Found};

/// One seed in so many runs twice, to see that its trace is the seed's alone.
const TWICE_EVERY: u64 = 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Swarm {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many run at once: one for each core unless said otherwise.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    shape: Shape,
    /// Print the summary as JSON; failing seeds go to standard error.
    #[arg(long)]
    json: bool,
}

impl Swarm {
    pub(crate) fn perform(self) -> Result<Found, Failure> {
        // Refused before a thousand seeds say the same.
        self.shape.options(self.from)?;
        let seeds = self.from..self.from.saturating_add(self.seeds);
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let bar = bar(self.seeds);
        let mut summary = Summary::of(&seeds);
        // Said before anything runs: whoever reads a log that breaks off still knows which seeds it was about.
        let line = format!("seeds {}", summary.range());
        if self.json {
            eprintln!("{line}")
        } else {
            say!("{line}")
        };
        let mut gravest = Found::Nothing;
        let cpu_before = cpu();
        let next = AtomicU64::new(seeds.start);
        let (finished, results) = mpsc::sync_channel(jobs * 4);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let (finished, next, seeds, shape) = (finished.clone(), &next, &seeds, &self.shape);
                scope.spawn(move || {
                    while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end) {
                        let Ok(options) = shape.options(seed) else { continue };
                        let outcome = run(seed, &options);
                        if finished.send((seed, options, outcome)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(finished);
            for (seed, options, outcome) in results {
                gravest = gravest.max(Found::from(&outcome.verdict));
                if !outcome.verdict.is_clean() {
                    let line = failing(seed, &options, &outcome);
                    bar.suspend(|| if self.json { eprintln!("{line}") } else { say!("{line}") });
                }
                summary.add(seed, &outcome);
                bar.set_message(format!("{} failed", summary.failed()));
                bar.inc(1);
            }
        });
        bar.finish_and_clear();
        summary.cpu_seconds = (cpu() - cpu_before).as_secs_f64();
        if self.json {
            say!("{}", serde_json::to_string_pretty(&summary).unwrap_or_default());
        } else {
            say!("{}", summary.to_string().trim_end());
        }
        Ok(gravest)
    }
}

fn run(seed: u64, options: &Options) -> Outcome {
    let outcome = caught(|| outcome::run_unwatched(seed, options));
    if !seed.is_multiple_of(TWICE_EVERY) {
        return outcome;
    }
    replayed::check(outcome, &caught(|| outcome::run_unwatched(seed, options)))
}

fn failing(seed: u64, options: &Options, outcome: &Outcome) -> String {
    let command = command_line("replay", seed, options);
    format!("seed {seed}: {}: {}\n    {command}", outcome.verdict.kind(), outcome.verdict.what())
}

/// Shown on a terminal alone.
fn bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} seeds, {per_sec}, {eta} left, {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Time that all threads of this process have had on a processor.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
