//! Devices that leave the library or are removed from it, and nodes that are switched off for good.

use holdfast_library::RemoveError;
use holdfast_protocol::id::ChunkId;

use super::{Coming, World};
use crate::chance::Chance;
use crate::fault::FaultClass;
use crate::node::Node;

/// How long a device that was removed goes on.
const GOES_ON_MS_MAX: u64 = 60_000;
/// How long the one that removes it has been away.
const AWAY_MS_MAX: u64 = 20_000;

impl World {
    /// A device is about to leave, or to be removed by one that may not have heard the latest of it.
    /// Whether anybody can do that.
    pub(crate) fn plan_removal(&mut self, node: usize, chance: &mut Chance) -> bool {
        let goes_on_ms = chance.span(100, GOES_ON_MS_MAX);
        let removers: Vec<usize> = (0..self.nodes.len()).filter(|by| self.may_remove(*by, node)).collect();
        let Some(&by) = chance.pick(&removers) else { return false };
        let after = chance.span(10, AWAY_MS_MAX);
        if by != node {
            (0..self.options.nodes).filter(|other| *other != by).for_each(|other| self.separate(by, other, after));
        }
        self.push(after, Coming::Removed { node, by, goes_on_ms });
        true
    }

    /// A device leaves, or is removed: it may not hear of that, and goes on for a while.
    pub(crate) fn remove(&mut self, node: usize, by: usize, goes_on_ms: u64) {
        let is_taken = !self.is_member(node) || self.copies.contains_key(&node) || self.hosts[node].is_removed;
        // The first device stays, for all others to be compared with.
        if node == 0 || is_taken || self.now >= self.heal_at || !self.may_remove(by, node) || !self.can_spare(node) {
            return self.faults.missed(FaultClass::Removed);
        }
        let (device, now) = (self.nodes[node].device_id(), self.clock(by));
        let Some(library) = self.nodes[by].library.as_mut() else { return };
        match library.remove_device(now, &device) {
            Ok(effects) => {
                self.trace.note(self.now, Some(node), format_args!("is removed by node {by}"));
                self.hosts[node].is_removed = true;
                if let Err(error) = self.make_durable(by) {
                    return self.library_failed(by, error);
                }
                self.perform(by, effects);
                self.push(goes_on_ms, Coming::TakenOff { node });
            }
            Err(RemoveError::Library(error)) => self.library_failed(by, error),
            Err(_) => self.faults.missed(FaultClass::Removed),
        }
    }

    /// Whether one node can remove another, and throws nobody out with it whom it does not know yet.
    fn may_remove(&self, by: usize, node: usize) -> bool {
        let Some(library) = self.nodes[by].library.as_ref() else { return false };
        let is_there = self.is_member(by) && !self.hosts[by].is_removed && self.hosts[by].held.is_none();
        let members = self.nodes.iter().filter(|of| self.is_member(of.number));
        let knows_all = |library: &holdfast_library::Library<_>| {
            members.map(|of| of.device_id()).all(|device| library.replica().registry().certificate(&device).is_some())
        };
        is_there && (by == node || library.may_invite()) && knows_all(library)
    }

    fn can_spare(&mut self, node: usize) -> bool {
        self.remains_without(node).is_some_and(|rest| self.can_meet(&rest))
    }

    /// A copy, or a device that was removed, is switched off for good: whatever only it had is asked of nobody.
    pub(crate) fn take_off(&mut self, node: usize) {
        if !self.is_member(node) {
            return;
        }
        self.trace.note(self.now, Some(node), format_args!("is taken off"));
        self.leave_to_original(node);
        if let Some(rest) = self.remains_without(node) {
            self.bury(node);
            self.excuse_what_is_gone(&rest);
        }
        self.vacate(node);
        self.copies.retain(|_, copy| *copy != node);
    }

    /// What a copy said that it holds counts for its original until that says something else.
    fn leave_to_original(&mut self, copy: usize) {
        let original = self.copies.iter().find(|(_, of)| **of == copy).map(|(original, _)| *original);
        if let Some(original) = original {
            let taken = self.nodes[copy].machine.taken.clone();
            let machine = &mut self.nodes[original].machine;
            let lacked: Vec<ChunkId> = taken.into_iter().filter(|chunk| !machine.holds(chunk)).collect();
            machine.destroyed.extend(lacked.into_iter().map(|chunk| (chunk, machine.batches)));
        }
    }

    /// The disk of who removed them failed behind the removal, and that counts all the same.
    pub(crate) fn take_off_who_was_removed_after_all(&mut self) {
        for node in 0..self.nodes.len() {
            let device = self.nodes[node].device_id();
            let is_removed =
                |of: &Node| of.library.as_ref().is_some_and(|library| library.replica().registry().is_removed(&device));
            if self.nodes.iter().any(is_removed) {
                self.take_off(node);
            }
        }
    }

    /// All of them are switched off.
    pub(crate) fn take_all_off(&mut self) {
        let is_due = |node: &usize| *node >= self.options.nodes || self.hosts[*node].is_removed;
        for node in (0..self.nodes.len()).filter(is_due).collect::<Vec<_>>() {
            self.take_off(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::options::Options;

    #[test]
    fn devices_leave_and_are_removed_and_what_they_said_stays() {
        let classes = BTreeSet::from([FaultClass::Removed]);
        let (mut removed, mut ended_early) = (0, 0);
        for seed in 1..9 {
            let options = Options { classes: classes.clone(), ..Options::calm(5) }.lasting(120_000);
            let mut world = World::new(seed, options).unwrap();
            world.run().unwrap();
            removed += world.departed.len();
            for library in world.nodes.iter().filter_map(|node| node.library.as_ref()) {
                let knows_more =
                    |(author, length): &(_, u64)| !library.replica().read_log(author, *length, 1).unwrap().is_empty();
                ended_early += library.replica().registry().endings().filter(knows_more).count();
            }
        }
        assert!(removed > 4 && ended_early > 0, "{removed} removed, {ended_early} ended before what was known");
    }
}
