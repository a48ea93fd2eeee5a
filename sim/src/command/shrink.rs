//! `shrink`: what is left of a run when everything is gone that the finding does not need.
//!
//! Less time, fewer classes of faults, fewer nodes, fewer gestures, fewer strikes, plainer numbers: each is tried, and
//! kept when the same kind of violation is still found, until nothing more can go.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_sim::fault::FaultClass;
use holdfast_sim::options::Options;
use holdfast_sim::outcome::{self, Outcome};
use indicatif::ProgressBar;

use super::run::{Record, caught, in_words, tell};
use super::setting::{Shape, Skips, command_line, fields};
use super::{Failure, Found};

/// Options whose plain value would not make a run smaller, or which have a step of their own.
const LEFT_ALONE: [&str; 8] =
    ["nodes", "faults_ms", "heal_ms", "converge_ms", "gestures", "classes", "skipped_gestures", "skipped_strikes"];

#[derive(Debug, clap::Args)]
pub(crate) struct Shrink {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    skips: Skips,
    /// How many smaller runs are tried.
    #[arg(long, default_value_t = 2000)]
    tries: u32,
    /// Write the smallest run to a file that `replay` reads.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl Shrink {
    pub(crate) fn perform(self) -> Result<Found, Failure> {
        let options = self.skips.applied_to(self.shape.options(self.seed)?)?;
        let outcome = caught(|| outcome::run_unwatched(self.seed, &options));
        if outcome.verdict.is_clean() {
            say!("seed {} finds nothing: there is nothing to make smaller", self.seed);
            return Ok(Found::Nothing);
        }
        say!("found {}: {}", outcome.verdict.kind(), outcome.verdict.what());
        say!("before: {}", size(&options, &outcome));
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        let mut search = Search { seed: self.seed, best: options, outcome, left: self.tries, bar };
        search.run();
        search.bar.finish_and_clear();
        say!("after:  {}", size(&search.best, &search.outcome));
        say!("{}", in_words(&search.best));
        tell(&search.outcome);
        say!("{}", command_line("replay", self.seed, &search.best));
        let record = Record { seed: self.seed, options: search.best, outcome: search.outcome };
        if let Some(path) = &self.record {
            record.write(path)?;
        }
        Ok(Found::from(&record.outcome.verdict))
    }
}

fn size(options: &Options, outcome: &Outcome) -> String {
    let gestures = gestures(options).len();
    let strikes: u64 = outcome.struck.values().sum();
    let (nodes, classes) = (options.nodes, options.classes.len());
    let seconds = outcome.virtual_ms as f64 / 1000.0;
    format!(
        "{nodes} nodes, {seconds:.1} virtual s, {classes} classes of faults, {strikes} strikes, {gestures} gestures"
    )
}

/// The gestures that are not left out.
fn gestures(options: &Options) -> Vec<(usize, u64)> {
    let all = (0..options.nodes).flat_map(|node| (0..options.gestures).map(move |number| (node, number)));
    all.filter(|gesture| !options.skipped_gestures.contains(gesture)).collect()
}

struct Search {
    seed: u64,
    best: Options,
    outcome: Outcome,
    left: u32,
    bar: ProgressBar,
}

impl Search {
    fn run(&mut self) {
        loop {
            let before = self.best.clone();
            self.heal_earlier();
            self.drop_classes();
            self.drop_nodes();
            self.drop_gestures();
            self.drop_strikes();
            self.plain_values();
            if self.best == before || self.left == 0 {
                return;
            }
        }
    }

    /// Keeps `smaller` when it still finds the same.
    fn attempt(&mut self, smaller: Options) -> bool {
        if smaller == self.best || self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.bar.set_message(format!("{} tries left; {}", self.left, size(&self.best, &self.outcome)));
        let outcome = caught(|| outcome::run_unwatched(self.seed, &smaller));
        let is_same = outcome.verdict.kind() == self.outcome.verdict.kind();
        if is_same {
            (self.best, self.outcome) = (smaller, outcome);
        }
        is_same
    }

    fn heal_earlier(&mut self) {
        let (mut too_early, mut enough) = (0, self.best.heal_ms);
        let seen_at = self.outcome.virtual_ms;
        if seen_at < enough && self.attempt(Options { heal_ms: seen_at, ..self.best.clone() }) {
            enough = seen_at;
        }
        while enough - too_early > 500 {
            let middle = too_early.midpoint(enough);
            if self.attempt(Options { heal_ms: middle, ..self.best.clone() }) {
                enough = middle;
            } else {
                too_early = middle;
            }
        }
    }

    fn drop_classes(&mut self) {
        let classes: Vec<FaultClass> = self.best.classes.iter().copied().collect();
        self.thin(&classes, |options, without| {
            for class in without {
                options.classes.remove(class);
                options.skipped_strikes.retain(|(of, _)| of != class);
            }
        });
    }

    fn drop_nodes(&mut self) {
        for nodes in 2..self.best.nodes {
            let mut fewer = Options { nodes, ..self.best.clone() };
            fewer.skipped_gestures.retain(|(node, _)| *node < nodes);
            if self.attempt(fewer) {
                return;
            }
        }
    }

    fn drop_gestures(&mut self) {
        self.thin(&gestures(&self.best), |options, without| options.skipped_gestures.extend(without));
        // Those behind the last that is left need not be named.
        let count = gestures(&self.best).iter().map(|(_, number)| number + 1).max().unwrap_or(0);
        let mut fewer = Options { gestures: count, ..self.best.clone() };
        fewer.skipped_gestures.retain(|(_, number)| *number < count);
        self.attempt(fewer);
    }

    fn drop_strikes(&mut self) {
        let drawn = self.outcome.drawn.clone();
        let all = drawn.iter().flat_map(|(class, count)| (0..*count).map(|number| (*class, number)));
        let left: Vec<_> = all.filter(|strike| !self.best.skipped_strikes.contains(strike)).collect();
        self.thin(&left, |options, without| options.skipped_strikes.extend(without));
    }

    /// The values of a world without faults, one after the other.
    fn plain_values(&mut self) {
        let plain = fields(&Options::calm(self.best.nodes));
        for (option, value) in plain {
            let mut smaller = fields(&self.best);
            if !LEFT_ALONE.contains(&option.as_str()) {
                smaller.insert(option, value);
            }
            if let Ok(smaller) = serde_json::from_value(smaller.into_iter().collect()) {
                self.attempt(smaller);
            }
        }
    }

    /// Leaves out as many `items` as can go: all, then halves, quarters, in the end one by one.
    fn thin<T: Clone>(&mut self, items: &[T], leave_out: impl Fn(&mut Options, &[T])) {
        let mut left = items.to_vec();
        let mut size = left.len();
        while size > 0 && self.left > 0 {
            let mut at = 0;
            while at < left.len() {
                let end = (at + size).min(left.len());
                let mut smaller = self.best.clone();
                leave_out(&mut smaller, &left[at..end]);
                if self.attempt(smaller) {
                    left.drain(at..end);
                } else {
                    at = end;
                }
            }
            size /= 2;
        }
    }
}
