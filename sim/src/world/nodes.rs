//! The life of a node: it starts, changes its folder and crashes.

use super::{Coming, World};
use crate::chance::Chance;
use crate::check;
use crate::disk::Death;
use crate::index::VirtualIndex;
use crate::workload::{Act, fresh_picture, next_act};

impl World {
    /// Starts a node that is down.
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].library.is_some() || !self.is_member(node) {
            return;
        }
        // The monotonic clock starts anew, somewhere.
        let origin_ms = self.nodes[node].chance.below(1_000_000);
        self.hosts[node].clock.restart(self.now, origin_ms);
        let now = self.clock(node);
        match self.nodes[node].start(now) {
            Ok(effects) => self.perform(node, effects),
            Err(error) => return self.library_failed(node, error),
        }
        self.trace.note(self.now, Some(node), format_args!("is up"));
        if let Err(violation) = check::acknowledged::check(&self.nodes[node], &self.excused) {
            return self.fail(violation);
        }
        self.walk(node);
        for number in std::mem::take(&mut self.hosts[node].unseen) {
            self.push(1, Coming::Gesture { node, number });
        }
    }

    /// A node's machine dies, and starts again later; whether it was up.
    pub(crate) fn crash(&mut self, node: usize, death: Death, down_ms: u64) -> bool {
        let is_up = self.nodes[node].library.is_some();
        if is_up {
            self.end(node, death, down_ms);
        }
        is_up
    }

    /// A node ends, and starts again later.
    pub(crate) fn end(&mut self, node: usize, death: Death, down_ms: u64) {
        self.trace.note(self.now, Some(node), format_args!("crashes ({death:?}), is down for {down_ms} ms"));
        self.nodes[node].die(death);
        self.hosts[node].stop();
        for link in self.network.standing(Some(node)) {
            self.cut(link);
        }
        let run = self.nodes[node].run;
        self.push(down_ms, Coming::Restart { node, run });
    }

    pub(crate) fn lose_index(&mut self, node: usize, death: Death) {
        // Only a stopped node starts without its index.
        self.crash(node, death, 500);
        self.nodes[node].index = VirtualIndex::default();
    }

    pub(crate) fn gesture(&mut self, node: usize, number: u64) {
        if !self.is_member(node) {
            return self.change_folder_unwatched(node, number);
        }
        let of = &self.nodes[node];
        // A folder that changes while the node is down is seen when it starts: as if it changed then.
        if of.library.is_none() {
            return self.hosts[node].unseen.push(number);
        }
        // A chance of its own: leaving out one gesture leaves the others as they were.
        let chance = self.chance_of_gesture(node, number);
        self.act(node, number, chance);
    }

    /// The folder of a device that is still to join changes: nobody looks before it has joined.
    fn change_folder_unwatched(&mut self, node: usize, number: u64) {
        if self.hosts[node].is_gone {
            return;
        }
        let mut chance = self.chance_of_gesture(node, number);
        let of = &mut self.nodes[node];
        let fresh = fresh_picture(node, number);
        if let Act::Folder(gesture) = next_act(&mut chance, &of.folder, &[], &mut self.pictures, fresh) {
            self.trace.note(self.now, Some(node), format_args!("gesture {node}:{number}, unwatched: {gesture:?}"));
            of.change_folder(gesture);
        }
    }

    fn chance_of_gesture(&self, node: usize, number: u64) -> Chance {
        Chance::new(self.seed, &format!("gesture {node} {number}"))
    }
}
