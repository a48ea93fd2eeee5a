//! The life of a node: it joins, starts, changes its folder and crashes.

use std::time::Duration;

use holdfast_protocol::pairing::JoinRequest;

use super::{Coming, World};
use crate::chance::Chance;
use crate::check::{self, Violation};
use crate::disk::Death;
use crate::index::VirtualIndex;
use crate::node::Node;

impl World {
    /// The pairing of two devices, with the code that does it.
    pub(crate) fn join(&mut self, seed: u64, number: usize) -> Result<(), Violation> {
        let now = self.clock(0);
        let (key, mut chance) = Node::stranger(seed, number);
        let inviter = &mut self.nodes[0];
        let inviter_key = inviter.device().clone();
        let Some(library) = &mut inviter.library else { return Ok(()) };
        let failed = |error| Violation::failed(0, error);
        let hour = Duration::from_secs(3600);
        let ticket = library.invite(now, &inviter_key, &[], &chance.seed(), hour).map_err(failed)?;
        let request = JoinRequest::new(&ticket, &key, &format!("node {number}"));
        let admitted = library.admit(now, &inviter_key, &[], &request, &chance.seed()).map_err(failed)?;
        let (answer, effects) = admitted;
        // The driver flushes before it answers.
        let metadata = &inviter.machine.metadata;
        metadata.complete_flush(metadata.begin_flush()).map_err(|error| failed(error.into()))?;
        self.perform(0, effects);
        let refused = |what: String| Violation::Joining { node: number, what };
        let admission = answer.map_err(|error| refused(error.to_string()))?;
        let joined = ticket.accept(&key, &request, &admission).map_err(|error| refused(error.to_string()))?;
        let node = Node::admitted(number, (key, chance), &ticket, joined)
            .map_err(|error| Violation::failed(number, error.into()))?;
        self.settle(node);
        Ok(())
    }

    /// Starts a node that is down.
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].library.is_some() {
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

    /// A node's machine dies, and starts again later.
    pub(crate) fn crash(&mut self, node: usize, down_ms: u64) {
        if self.nodes[node].library.is_some() {
            let death = if self.nodes[node].chance.one_in(3) { Death::Killed } else { Death::PowerLoss };
            self.end(node, death, down_ms);
        }
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

    pub(crate) fn lose_index(&mut self, node: usize) {
        // Only a stopped node starts without its index.
        self.crash(node, 500);
        self.nodes[node].index = VirtualIndex::default();
    }

    pub(crate) fn gesture(&mut self, node: usize, number: u64) {
        let of = &self.nodes[node];
        // A folder that changes while the node is down is seen when it starts: as if it changed then.
        if of.library.is_none() {
            return self.hosts[node].unseen.push(number);
        }
        // A chance of its own: leaving out one gesture leaves the others as they were.
        let chance = Chance::new(self.seed, &format!("gesture {node} {number}"));
        self.act(node, number, chance);
    }
}
