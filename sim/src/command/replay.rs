//! `replay`: a run with everything that happens in it.

use std::path::PathBuf;

use holdfast_sim::outcome;

use super::run::{Record, caught, in_words, printed, tell};
use super::setting::{Shape, Skips, command_line};
use super::{Failure, Found};

#[derive(Debug, clap::Args)]
pub(crate) struct Replay {
    /// What `run --record` or `shrink --record` wrote.
    #[arg(value_name = "FILE", conflicts_with_all = ["seed", "nodes", "hours", "faults", "changes", "skip_gestures", "skip_strikes"])]
    file: Option<PathBuf>,
    /// Which seed.
    #[arg(long, required_unless_present = "file")]
    seed: Option<u64>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    skips: Skips,
}

impl Replay {
    pub(crate) fn perform(self) -> Result<Found, Failure> {
        let record = self.file.as_deref().map(Record::read).transpose()?;
        let (seed, options) = match &record {
            Some(record) => (record.seed, record.options.clone()),
            None => {
                let seed = self.seed.unwrap_or_default();
                (seed, self.skips.applied_to(self.shape.options(seed)?)?)
            }
        };
        say!("{}", command_line("replay", seed, &options));
        say!("{}", in_words(&options));
        let outcome = caught(|| outcome::run(seed, &options, printed(), u64::MAX, &mut |_| ()));
        tell(&outcome);
        if let Some(record) = record
            && (record.outcome.trace != outcome.trace || record.outcome.verdict != outcome.verdict)
        {
            say!("This is not what was recorded: trace {}, {}.", record.outcome.trace, record.outcome.verdict.what());
            say!("The record was made by other code, or the run depends on more than its seed.");
        }
        Ok(Found::from(&outcome.verdict))
    }
}
