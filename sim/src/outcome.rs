//! What came of a run, in a form that can be recorded, compared and summed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::Violation;
use crate::fault::FaultClass;
use crate::options::Options;
use crate::trace::Trace;
use crate::world::World;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// Every invariant held, and everything agreed in the end.
    Clean,
    /// An invariant was broken.
    Broken {
        /// The name of the violation, the same for all violations of its kind.
        invariant: String,
        /// What was seen.
        what: String,
    },
    /// Faults had stopped, and the nodes did not come to agree.
    NotConverged {
        /// What was seen.
        what: String,
    },
    /// The code panicked.
    Crashed {
        /// Where and why.
        what: String,
    },
}

impl Verdict {
    /// What a violation is.
    #[must_use]
    pub fn of(violation: &Violation) -> Self {
        let what = violation.to_string();
        if matches!(violation, Violation::NotConverged { .. }) {
            return Self::NotConverged { what };
        }
        // A variant's `Debug` begins with its name.
        let debug = format!("{violation:?}");
        let invariant = debug.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned();
        Self::Broken { invariant, what }
    }

    /// Whether nothing was found.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self, Self::Clean)
    }

    /// What kind of finding it is: two runs found the same when their kinds are equal.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Clean => "clean",
            Self::Broken { invariant, .. } => invariant,
            Self::NotConverged { .. } => "NotConverged",
            // The place, which comes first; the words after it may name what differs between runs.
            Self::Crashed { what } => what.split(": ").next().unwrap_or(what),
        }
    }

    /// What was seen, in a line.
    #[must_use]
    pub fn what(&self) -> &str {
        match self {
            Self::Clean => "clean",
            Self::Broken { what, .. } | Self::NotConverged { what } | Self::Crashed { what } => what,
        }
    }
}

/// What the nodes sent each other, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames of the control streams.
    pub control_bytes: u64,
    /// Gossip, once for each node that it was sent to.
    pub gossip_bytes: u64,
    /// Sealed chunks.
    pub chunk_bytes: u64,
}

impl Traffic {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.control_bytes + self.gossip_bytes + self.chunk_bytes
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The first bytes of the hash of its trace.
    pub trace: String,
    /// Virtual milliseconds that passed.
    pub virtual_ms: u64,
    /// Imports that were acknowledged.
    pub acknowledged: u64,
    /// How often each class of faults struck.
    pub struck: BTreeMap<FaultClass, u64>,
    /// How many strikes of each class there would have been with none left out.
    pub drawn: BTreeMap<FaultClass, u64>,
    /// What was sent.
    pub traffic: Traffic,
}

impl Outcome {
    /// What came of a world that has run.
    #[must_use]
    pub fn of(world: &World, violation: Option<&Violation>) -> Self {
        let acknowledged: usize = world.nodes.iter().map(|node| node.acknowledged.len()).sum();
        Self {
            verdict: violation.map_or(Verdict::Clean, Verdict::of),
            trace: world.trace_hash()[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
            virtual_ms: world.now,
            acknowledged: acknowledged as u64,
            struck: world.faults.struck().clone(),
            drawn: world.faults.drawn().clone(),
            traffic: world.traffic,
        }
    }

    /// A run that ended before there was a world to look at.
    #[must_use]
    pub const fn without_world(verdict: Verdict) -> Self {
        Self {
            verdict,
            trace: String::new(),
            virtual_ms: 0,
            acknowledged: 0,
            struck: BTreeMap::new(),
            drawn: BTreeMap::new(),
            traffic: Traffic { control_bytes: 0, gossip_bytes: 0, chunk_bytes: 0 },
        }
    }
}

/// Runs a seed with these options; `watch` sees the world after every `step_ms` of virtual time.
pub fn run(seed: u64, options: &Options, trace: Trace, step_ms: u64, watch: &mut dyn FnMut(&World)) -> Outcome {
    match World::traced(seed, options.clone(), trace) {
        Err(violation) => Outcome::without_world(Verdict::of(&violation)),
        Ok(mut world) => {
            let violation = world.run_watched(step_ms, watch).err();
            Outcome::of(&world, violation.as_ref())
        }
    }
}

/// Runs a seed with nobody watching.
#[must_use]
pub fn run_unwatched(seed: u64, options: &Options) -> Outcome {
    run(seed, options, Trace::silent(), u64::MAX, &mut |_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_has_the_name_of_its_kind() {
        let broken = Verdict::of(&Violation::Circle { node: 1, at: 5 });
        assert_eq!(broken.kind(), "Circle");
        let apart = Verdict::of(&Violation::NotConverged { node: 1, what: "3 chunks are missing".to_owned() });
        assert!(matches!(apart, Verdict::NotConverged { .. }));
    }

    #[test]
    fn two_panics_at_one_place_are_one_kind() {
        let crashed = |what: &str| Verdict::Crashed { what: what.to_owned() };
        assert_eq!(crashed("a.rs:1:2: index 3").kind(), crashed("a.rs:1:2: index 4").kind());
        assert_ne!(crashed("a.rs:1:2: index 3").kind(), crashed("b.rs:1:2: index 3").kind());
    }

    #[test]
    fn watching_changes_nothing() {
        let options = Options::calm(2).lasting(10_000);
        let mut looked = 0;
        let watched = run(3, &options, Trace::silent(), 250, &mut |_| looked += 1);
        assert_eq!(watched, run_unwatched(3, &options));
        assert!(looked >= 40, "{looked}");
        assert!(watched.verdict.is_clean() && watched.acknowledged > 0 && watched.traffic.total() > 0);
    }
}
