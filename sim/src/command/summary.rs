//! What came of many runs.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use holdfast_sim::fault::FaultClass;
use holdfast_sim::outcome::{Outcome, Traffic};
use holdfast_sim::trace::clock;
use serde::Serialize;

use super::Bytes;

/// Seeds that are named for each kind of finding.
const SEEDS_NAMED_MAX: usize = 8;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    seeds: u64,
    /// The seeds that were to be run; nothing when there was none.
    first_seed: Option<u64>,
    last_seed: Option<u64>,
    virtual_ms: u64,
    pub(crate) cpu_seconds: f64,
    acknowledged: u64,
    traffic: Traffic,
    struck: BTreeMap<FaultClass, u64>,
    /// How many seeds found each kind of violation, and the first of them.
    violations: BTreeMap<String, Finding>,
}

#[derive(Debug, Default, Serialize)]
struct Finding {
    count: u64,
    seeds: Vec<u64>,
}

impl Summary {
    /// A summary of no run yet, of those from the first seed to the last.
    pub(crate) fn of(seeds: &Range<u64>) -> Self {
        let is_any = !seeds.is_empty();
        let (first_seed, last_seed) = (is_any.then_some(seeds.start), is_any.then_some(seeds.end.saturating_sub(1)));
        Self { first_seed, last_seed, ..Self::default() }
    }

    /// Which seeds these are, in words.
    pub(crate) fn range(&self) -> String {
        let ends = self.first_seed.zip(self.last_seed);
        ends.map_or_else(|| "none".to_owned(), |(first, last)| format!("{first} to {last}"))
    }

    pub(crate) fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.virtual_ms += outcome.virtual_ms;
        self.acknowledged += outcome.acknowledged;
        self.traffic.control_bytes += outcome.traffic.control_bytes;
        self.traffic.gossip_bytes += outcome.traffic.gossip_bytes;
        self.traffic.chunk_bytes += outcome.traffic.chunk_bytes;
        for (class, times) in &outcome.struck {
            *self.struck.entry(*class).or_default() += times;
        }
        if !outcome.verdict.is_clean() {
            let finding = self.violations.entry(outcome.verdict.kind().to_owned()).or_default();
            finding.count += 1;
            finding.seeds.push(seed);
            finding.seeds.sort_unstable();
            finding.seeds.truncate(SEEDS_NAMED_MAX);
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.violations.values().map(|finding| finding.count).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |formatter: &mut fmt::Formatter<'_>, name: &str, value: String| {
            writeln!(formatter, "{name:<28} {value:>16}")
        };
        let speed = self.virtual_ms as f64 / 1000.0 / self.cpu_seconds.max(0.001);
        row(formatter, "seeds", self.seeds.to_string())?;
        row(formatter, "first and last", self.range())?;
        row(formatter, "failed", self.failed().to_string())?;
        row(formatter, "virtual time", clock(self.virtual_ms))?;
        row(formatter, "CPU time", format!("{:.1} s", self.cpu_seconds))?;
        row(formatter, "virtual s per CPU s", format!("{speed:.0}"))?;
        row(formatter, "imports acknowledged", self.acknowledged.to_string())?;
        row(formatter, "control bytes", Bytes(self.traffic.control_bytes).to_string())?;
        row(formatter, "gossip bytes", Bytes(self.traffic.gossip_bytes).to_string())?;
        row(formatter, "chunk bytes", Bytes(self.traffic.chunk_bytes).to_string())?;
        for (class, times) in &self.struck {
            row(formatter, &format!("struck {class}"), times.to_string())?;
        }
        for (kind, finding) in &self.violations {
            let seeds: Vec<String> = finding.seeds.iter().map(ToString::to_string).collect();
            let more = if finding.count as usize > seeds.len() { ", …" } else { "" };
            row(formatter, kind, finding.count.to_string())?;
            writeln!(formatter, "    seeds {}{more}", seeds.join(", "))?;
        }
        Ok(())
    }
}
