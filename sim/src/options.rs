//! What a run is like: drawn from its seed, so that a batch of seeds is a swarm of different worlds.
//!
//! Every number is drawn from a stream of its own name: a new one leaves the others as they were. Everything a run does
//! is named here and can be left out: classes of faults, single strikes of them, single operations, nodes, time.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::fault::FaultClass;

/// Runs up to this long have faults at their full rate; longer ones have them rarer, about as many in all.
const FULL_PACE_MS: u64 = 1_000_000;
/// In longer runs work comes in bursts of about so many gestures, each within an hour.
const GESTURES_IN_BURST: u64 = 30;
const BURST_MS_MAX: u64 = 3_600_000;

/// See the head of the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Devices of the library.
    pub nodes: usize,
    /// Virtual milliseconds over which work is spread.
    pub faults_ms: u64,
    /// After so many virtual milliseconds faults and work stop, and everything heals.
    pub heal_ms: u64,
    /// Virtual milliseconds from then until everything has to agree.
    pub converge_ms: u64,
    /// How often something happens in each folder.
    pub gestures: u64,
    /// The delay of a link at least; at most about twice that.
    pub delay_ms: u64,
    /// Sealed bytes per millisecond and direction of a link.
    pub rate: u64,
    /// How long a flush of metadata takes at most.
    pub flush_ms: u64,
    /// How long an update of the index takes at most.
    pub index_ms: u64,
    /// The classes of faults that strike.
    pub classes: BTreeSet<FaultClass>,
    /// Strikes that are left out: which class, and which of its strikes, counted from 0.
    #[serde(default)]
    pub skipped_strikes: BTreeSet<(FaultClass, u64)>,
    /// What people do is left out: which node, and which of its gestures, counted from 0.
    #[serde(default)]
    pub skipped_gestures: BTreeSet<(usize, u64)>,
    /// What the world itself does wrong, to show that it would be found.
    #[serde(default)]
    pub sabotage: Option<Sabotage>,
}

/// Something wrong on purpose, when faults stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// The first node says that it acknowledged a photo that nobody imported.
    FalseAcknowledgement,
    /// Code panics.
    Panic,
}

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let between = |name: &str, start, end| Chance::new(seed, &format!("option {name}")).between(start, end);
        let faults_ms = between("faults_ms", 40_000, 150_000);
        let is_large = between("large", 0, 12) == 0;
        let strikes = |class: &FaultClass| Chance::new(seed, &format!("class {class}")).one_in(class.one_world_in());
        Self {
            nodes: if is_large { between("nodes", 6, 11) } else { between("nodes", 2, 6) } as usize,
            faults_ms,
            heal_ms: faults_ms,
            converge_ms: 900_000,
            gestures: between("gestures", 6, 18),
            delay_ms: between("delay_ms", 1, 120),
            rate: between("rate", 40, 4000),
            flush_ms: between("flush_ms", 2, 800),
            index_ms: between("index_ms", 2, 4000),
            classes: FaultClass::ALL.iter().copied().filter(strikes).collect(),
            skipped_strikes: BTreeSet::new(),
            skipped_gestures: BTreeSet::new(),
            sabotage: None,
        }
    }

    /// A world of `nodes` without faults.
    #[must_use]
    pub const fn calm(nodes: usize) -> Self {
        Self {
            nodes,
            faults_ms: 30_000,
            heal_ms: 30_000,
            converge_ms: 300_000,
            gestures: 8,
            delay_ms: 5,
            rate: 10_000,
            flush_ms: 10,
            index_ms: 10,
            classes: BTreeSet::new(),
            skipped_strikes: BTreeSet::new(),
            skipped_gestures: BTreeSet::new(),
            sabotage: None,
        }
    }

    /// Work and faults for `faults_ms`, with as much to do in each span of time as before.
    #[must_use]
    pub fn lasting(self, faults_ms: u64) -> Self {
        let per_full_pace = self.gestures as f64 / (self.faults_ms.max(1) as f64 / self.pace());
        let longer = Self { faults_ms, heal_ms: faults_ms, ..self };
        let gestures = per_full_pace * (faults_ms as f64 / longer.pace());
        Self { gestures: gestures.ceil() as u64, ..longer }
    }

    /// When something happens in a folder, in milliseconds from the start: at any time in a short run; in a longer one
    /// people come back from somewhere with a card full of photos, then nothing happens for days.
    pub fn moment(&self, chance: &mut Chance) -> u64 {
        if self.faults_ms <= FULL_PACE_MS {
            return chance.below(self.faults_ms);
        }
        let bursts = 1 + self.gestures / GESTURES_IN_BURST;
        let start = chance.below(bursts) * (self.faults_ms / bursts);
        start + chance.span(1_000, BURST_MS_MAX)
    }

    /// By how much the gaps between strikes are longer than their class says.
    #[must_use]
    pub fn pace(&self) -> f64 {
        (self.faults_ms as f64 / FULL_PACE_MS as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_has_more_to_do_than_a_minute_but_not_ten_thousand_times_more() {
        let minute = Options { gestures: 10, faults_ms: 60_000, ..Options::calm(3) };
        let week = minute.clone().lasting(7 * 24 * 3_600_000);
        assert!((100..1000).contains(&week.gestures), "{}", week.gestures);
        assert!(week.pace() > 100.0 && minute.pace() == 1.0);
    }

    #[test]
    fn every_class_is_part_of_some_worlds_and_not_of_others() {
        for class in FaultClass::ALL {
            let with = (0..200).filter(|seed| Options::of(*seed).classes.contains(class)).count();
            assert!((1..200).contains(&with), "{class}: {with} of 200");
        }
    }
}
