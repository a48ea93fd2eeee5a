//! What each class does when it strikes, and how everything heals.

use holdfast_protocol::id::PhotoId;

use super::FaultClass;
use crate::chance::Chance;
use crate::check::Violation;
use crate::disk::Death;
use crate::node::Acknowledged;
use crate::options::Sabotage;
use crate::workload::Content;
use crate::world::{Coming, World};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

impl World {
    pub(crate) fn plan_faults(&mut self) {
        for class in FaultClass::ALL {
            self.plan_fault(*class);
        }
    }

    fn plan_fault(&mut self, class: FaultClass) {
        if let Some(after) = self.faults.gap_ms(class) {
            self.push(after, Coming::Fault(class));
        }
    }

    /// A class that plans itself strikes, and plans its next strike.
    pub(crate) fn fault(&mut self, class: FaultClass) {
        self.plan_fault(class);
        if let Some(chance) = self.faults.strike(class) {
            let number = self.faults.drawn().get(&class).map_or(0, |drawn| drawn - 1);
            self.trace.note(self.now, None, format_args!("{class}:{number} strikes"));
            if !self.strike(class, chance) {
                self.faults.missed(class);
            }
        }
    }

    /// Whether there was something to strike at.
    fn strike(&mut self, class: FaultClass, mut chance: Chance) -> bool {
        let nodes = self.options.nodes as u64;
        match class {
            FaultClass::Crash => {
                let (node, death) = (chance.below(nodes) as usize, Death::any(&mut chance));
                self.crash(node, death, chance.between(10, 20_000))
            }
            FaultClass::Cut => {
                let standing = self.network.standing(None);
                let hit = chance.pick(&standing);
                hit.into_iter().for_each(|link| self.cut(*link));
                hit.is_some()
            }
            FaultClass::Separate => {
                let (a, b) = (chance.below(nodes) as usize, chance.below(nodes) as usize);
                if a != b {
                    self.separate(a, b, chance.between(1_000, 60_000));
                }
                a != b
            }
            FaultClass::Flap | FaultClass::Split | FaultClass::OneWay | FaultClass::Clog => {
                self.strike_ways(class, chance)
            }
            FaultClass::Roam => self.roam(chance.below(nodes) as usize),
            FaultClass::Offline => {
                let (node, death) = (chance.below(nodes) as usize, Death::any(&mut chance));
                self.crash(node, death, chance.span(MINUTE_MS, 100 * DAY_MS))
            }
            FaultClass::Winter => {
                let by_ms = chance.span(60 * MINUTE_MS, 365 * DAY_MS);
                let mut were_up = 0;
                for node in 0..self.nodes.len() {
                    let death = Death::any(&mut chance);
                    were_up += u32::from(self.crash(node, death, by_ms));
                }
                self.trace.note(self.now, None, format_args!("nobody is there for {by_ms} ms"));
                self.leap(by_ms);
                for node in 0..self.nodes.len() {
                    let run = self.nodes[node].run;
                    self.push(chance.span(1_000, 10 * MINUTE_MS), Coming::Restart { node, run });
                }
                were_up > 0
            }
            FaultClass::Suspend => {
                let node = chance.below(nodes) as usize;
                self.suspend(node, chance.span(1_000, 180 * MINUTE_MS), chance.one_in(2))
            }
            FaultClass::ClockJump => {
                let node = chance.below(nodes) as usize;
                self.jump_clock(node, &mut chance);
                true
            }
            FaultClass::IndexLost => {
                let (node, death) = (chance.below(nodes) as usize, Death::any(&mut chance));
                self.lose_index(node, death);
                true
            }
            FaultClass::RotSegment
            | FaultClass::RotOriginal
            | FaultClass::ReadErrors
            | FaultClass::WriteErrors
            | FaultClass::SyncErrors
            | FaultClass::DiskFull
            | FaultClass::CrashWriting
            | FaultClass::BackupRestored => self.strike_disk(class, chance),
            FaultClass::LieHoldings => self.lie_about_holdings(&mut chance),
            FaultClass::LieFlickering => self.flicker(&mut chance),
            FaultClass::NewerVersion => self.say_something_newer(&mut chance),
            FaultClass::LieCatalog | FaultClass::LieForked => self.write_shadow(class, &mut chance),
            FaultClass::Stranger => self.stranger_knocks(&mut chance),
            FaultClass::Restart => {
                let node = chance.below(nodes) as usize;
                self.restart(node, chance.span(100, MINUTE_MS))
            }
            FaultClass::Removed => {
                let node = chance.below(nodes) as usize;
                self.plan_removal(node, &mut chance)
            }
            FaultClass::Cloned => {
                let node = chance.below(nodes) as usize;
                self.copy_machine(node, &mut chance)
            }
            FaultClass::ThrownAway => self.throw_away(chance.below(nodes) as usize),
            FaultClass::DiskLost => {
                let node = chance.below(nodes) as usize;
                self.lose_disk(node, &mut chance)
            }
            // They strike at occasions.
            FaultClass::CrashAcknowledged
            | FaultClass::GossipLost
            | FaultClass::GossipDoubled
            | FaultClass::GossipLate
            | FaultClass::HalfOpen
            | FaultClass::LinkSlow
            | FaultClass::UplinkSlow
            | FaultClass::Nat
            | FaultClass::ClockWrong
            | FaultClass::ClockDrift
            | FaultClass::LieReplayed
            | FaultClass::LieGarbled
            | FaultClass::LieGossip
            | FaultClass::LieFlood
            | FaultClass::JoinLate
            | FaultClass::LieUnanswered
            | FaultClass::LieWithheld
            | FaultClass::LieSlow
            | FaultClass::LieChunk
            | FaultClass::LieDeclined
            | FaultClass::LieInventories => false,
        }
    }

    /// Strikes at the ways between nodes; whether it found one.
    fn strike_ways(&mut self, class: FaultClass, mut chance: Chance) -> bool {
        let nodes = self.options.nodes;
        let (a, b) = (chance.below(nodes as u64) as usize, chance.below(nodes as u64) as usize);
        match class {
            FaultClass::Flap if a != b => {
                let mut after = 0;
                for _ in 0..chance.between(3, 20) {
                    let for_ms = chance.between(100, 4_000);
                    self.push(after, Coming::Separated { a, b, for_ms });
                    after += for_ms + chance.between(100, 6_000);
                }
                true
            }
            FaultClass::Split => {
                let for_ms = chance.span(2_000, 15 * MINUTE_MS);
                let is_apart: Vec<bool> = (0..nodes).map(|_| chance.one_in(2)).collect();
                for from in 0..nodes {
                    for to in (0..nodes).filter(|to| is_apart[from] != is_apart[*to]) {
                        self.stall(from, to, for_ms);
                    }
                }
                is_apart.contains(&true) && is_apart.contains(&false)
            }
            FaultClass::OneWay if a != b => {
                self.stall(a, b, chance.span(1_000, 10 * MINUTE_MS));
                true
            }
            FaultClass::Clog => {
                let standing = self.network.standing(None);
                let ends = chance.pick(&standing).and_then(|link| Some(self.network.alive(*link)?.ends));
                if let Some([a, b]) = ends {
                    let (from, to) = if chance.one_in(2) { (a, b) } else { (b, a) };
                    self.stall(from, to, chance.span(1_000, 5 * MINUTE_MS));
                }
                ends.is_some()
            }
            _ => false,
        }
    }

    pub(crate) fn fault_behind_acknowledgement(&mut self, node: usize) {
        if let Some(mut chance) = self.faults.strike(FaultClass::CrashAcknowledged) {
            let death = Death::any(&mut chance);
            self.push(0, Coming::Crash { node, death, down_ms: chance.between(10, 2_000) });
        }
    }

    /// How often a message of gossip arrives at one node.
    pub(crate) fn copies_of_gossip(&mut self) -> u64 {
        if self.faults.strike(FaultClass::GossipLost).is_some() {
            return 0;
        }
        1 + u64::from(self.faults.strike(FaultClass::GossipDoubled).is_some())
    }

    /// By how much a message of gossip is late.
    pub(crate) fn gossip_late_ms(&mut self) -> u64 {
        self.faults.strike(FaultClass::GossipLate).map_or(0, |mut chance| chance.span(100, 2 * MINUTE_MS))
    }

    /// Faults stop: every node is up and reaches every other.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.faults.stop();
        self.stop_lying();
        self.take_all_off();
        for link in self.network.heal() {
            self.cut(link);
        }
        self.heal_disks();
        match self.options.sabotage {
            None => {}
            Some(Sabotage::Panic) => panic!("as the options ask for"),
            Some(Sabotage::FalseAcknowledgement) => {
                let photo = PhotoId::from_bytes([0; 32]);
                let content = Content { picture: u32::MAX, revision: 0 };
                self.nodes[0].acknowledged.push(Acknowledged { photo, content });
            }
        }
        let nodes = self.nodes.len();
        for node in 0..nodes {
            self.resume(node, 0);
            self.start(node);
        }
        self.take_off_who_was_removed_after_all();
        for node in 0..nodes {
            self.join_at_last(node);
            self.scrub(node);
        }
        self.excuse_only_what_is_gone();
        self.run_until(self.now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::options::Options;

    #[test]
    fn every_class_strikes_something_and_alone_breaks_nothing() {
        let mut found = Vec::new();
        // Slow enough that somebody lacks something now and then.
        let world = Options { rate: 100, converge_ms: 900_000, ..Options::calm(3) }.lasting(100_000);
        for &class in FaultClass::ALL {
            let options = Options { classes: BTreeSet::from([class]), ..world.clone() };
            let mut struck = 0;
            for seed in 21..27 {
                let mut world = World::new(seed, options.clone()).unwrap();
                found.extend(world.run().err().map(|violation| format!("{class}, seed {seed}: {violation}")));
                struck += world.faults.struck().get(&class).copied().unwrap_or_default();
                if struck > 0 {
                    break;
                }
            }
            found.extend((struck == 0).then(|| format!("{class} never struck")));
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
