//! Machines that are copied: for a while two run that are one device, and neither knows of the other.

use crate::chance::Chance;
use crate::world::{Coming, World};

/// How long a copy runs before its person takes it off.
const LIFE_MS_MAX: u64 = 120_000;
/// What its person does with its folder meanwhile.
const GESTURES_MAX: u64 = 12;

impl World {
    /// A node's machine is copied, as it runs, and the copy starts. Whether it ran.
    pub(crate) fn copy_machine(&mut self, node: usize, chance: &mut Chance) -> bool {
        let life_ms = chance.span(2_000, LIFE_MS_MAX);
        let is_taken = self.copies.contains_key(&node) || self.hosts[node].is_removed;
        if self.nodes[node].library.is_none() || is_taken {
            return false;
        }
        let number = self.nodes.len();
        self.trace.note(self.now, Some(node), format_args!("its machine is copied: node {number}"));
        let copy = self.nodes[node].copied(number, Chance::new(self.seed(), &format!("node {number}, a copy")));
        self.accommodate(node, copy);
        self.copies.insert(node, number);
        self.excused.copied_folders.insert(self.nodes[node].folder_name());
        // Mostly it stands elsewhere: of the others some reach the one, some the other, some both.
        for other in (0..self.options.nodes).filter(|other| *other != node) {
            let separated = [Some(node), Some(number), None][chance.below(3) as usize];
            let for_ms = chance.span(1_000, life_ms);
            if let Some(separated) = separated {
                self.separate(separated, other, for_ms);
            }
        }
        for gesture in 0..chance.between(1, GESTURES_MAX) {
            self.push(chance.below(life_ms), Coming::Gesture { node: number, number: gesture });
        }
        self.push(life_ms, Coming::TakenOff { node: number });
        self.start(number);
        true
    }

    /// Whom a call of a device reaches: one of two that are that device.
    pub(crate) fn original_or_copy(&mut self, node: usize) -> usize {
        let Some(&copy) = self.copies.get(&node) else { return node };
        if self.nodes[copy].chance.one_in(2) { copy } else { node }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fault::FaultClass;
    use crate::options::Options;

    #[test]
    fn what_a_device_and_its_copy_wrote_comes_together() {
        let (mut copies, mut forks) = (0, 0);
        for seed in 1..9 {
            let options = Options { classes: BTreeSet::from([FaultClass::Cloned]), ..Options::calm(3) };
            let mut world = World::new(seed, options.lasting(120_000)).unwrap();
            world.run().unwrap();
            copies += world.nodes.len() - 3;
            forks += world.nodes[0]
                .library
                .as_ref()
                .map_or(0, |library| library.replica().vector().iter().filter(|point| point.forked).count());
            assert!(world.copies.is_empty());
        }
        assert!(copies > 4 && forks > 1, "{copies} copies, {forks} forks");
    }
}
