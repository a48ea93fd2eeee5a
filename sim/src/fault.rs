//! Faults: every class plans itself with its own chance, until they stop and everything heals.

use crate::chance::Chance;
use crate::check::Violation;
use crate::world::{Coming, World};

/// A class of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    Cut,
    Separate,
    LoseIndex,
    /// Right behind an acknowledgement.
    CrashOf(usize),
}

/// The chance of each class.
#[derive(Debug)]
pub(crate) struct Faults {
    crash: Chance,
    behind_acknowledgement: Chance,
    cut: Chance,
    separate: Chance,
    index: Chance,
    gossip: Chance,
    has_stopped: bool,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let stream = |name: &str| Chance::new(seed, &format!("fault: {name}"));
        Self {
            crash: stream("crash"),
            behind_acknowledgement: stream("crash behind an acknowledgement"),
            cut: stream("cut"),
            separate: stream("separate"),
            index: stream("index"),
            gossip: stream("gossip"),
            has_stopped: false,
        }
    }

    /// How often a message arrives.
    pub(crate) fn copies_of_gossip(&mut self, is_lossy: bool) -> u64 {
        if is_lossy && !self.has_stopped { self.gossip.below(3) } else { 1 }
    }

    pub(crate) fn gossip_delay(&mut self) -> u64 {
        self.gossip.below(200)
    }
}

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let options = self.options;
        let classes = [
            (options.crashes, Fault::Crash),
            (options.cuts, Fault::Cut),
            (options.separations, Fault::Separate),
            (options.lost_indexes, Fault::LoseIndex),
        ];
        for (_, fault) in classes.into_iter().filter(|(is_on, _)| *is_on) {
            self.plan_fault(fault);
        }
    }

    fn plan_fault(&mut self, fault: Fault) {
        let after = match fault {
            Fault::Crash | Fault::CrashOf(_) => self.faults.crash.between(500, 25_000),
            Fault::Cut => self.faults.cut.between(200, 15_000),
            Fault::Separate => self.faults.separate.between(500, 30_000),
            Fault::LoseIndex => self.faults.index.between(5_000, 60_000),
        };
        self.push(after, Coming::Fault(fault));
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.faults.has_stopped {
            return;
        }
        let nodes = self.nodes.len() as u64;
        match fault {
            Fault::Crash => {
                let node = self.faults.crash.below(nodes) as usize;
                let down_ms = self.faults.crash.between(10, 20_000);
                self.crash(node, down_ms);
            }
            Fault::CrashOf(node) => {
                let down_ms = self.faults.behind_acknowledgement.between(10, 2_000);
                return self.crash(node, down_ms);
            }
            Fault::Cut => {
                let standing = self.network.standing(None);
                if let Some(link) = self.faults.cut.pick(&standing) {
                    self.cut(*link);
                }
            }
            Fault::Separate => {
                let (a, b) = (self.faults.separate.below(nodes), self.faults.separate.below(nodes));
                let (a, b) = (a as usize, b as usize);
                if a != b {
                    for link in self.network.separate(a, b, true) {
                        self.cut(link);
                    }
                    let after = self.faults.separate.between(1_000, 60_000);
                    self.push(after, Coming::Reunite { a, b });
                }
            }
            Fault::LoseIndex => {
                let node = self.faults.index.below(nodes) as usize;
                self.lose_index(node);
            }
        }
        self.plan_fault(fault);
    }

    pub(crate) fn fault_behind_acknowledgement(&mut self, node: usize) {
        if self.options.crashes_behind_acknowledgements && self.faults.behind_acknowledgement.one_in(6) {
            self.push(0, Coming::Fault(Fault::CrashOf(node)));
        }
    }

    /// Faults stop: every node is up and reaches every other.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.faults.has_stopped = true;
        let nodes = self.nodes.len();
        for node in 0..nodes {
            for other in 0..node {
                drop(self.network.separate(node, other, false));
            }
            self.start(node);
        }
        self.run_until(self.now)
    }
}
