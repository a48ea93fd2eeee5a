//! What surrounds a node on its machine: clocks, sleep, and what gossip it has heard.

use std::collections::{BTreeSet, VecDeque};

use super::joining::Waiting;
use super::{Coming, World};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::fault::FaultClass;
use crate::node::Node;

/// How long gossip is remembered, so that it is taken in once.
const HEARD_MS: u64 = 60_000;
/// A link whose other end does not answer for so long is given up.
pub(crate) const UNANSWERED_MS: u64 = 60_000;
/// Ten years.
const WALL_OFFSET_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

/// See the head of the module.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) clock: Clock,
    /// What has come in since the machine fell asleep; `None` while it is awake.
    pub(crate) held: Option<Vec<Coming>>,
    /// What happened in the folder while the node was down: seen when it starts.
    pub(crate) unseen: Vec<u64>,
    /// Until when the index is busy.
    pub(crate) index_until: u64,
    /// Its device is no member yet.
    pub(crate) waiting: Option<Waiting>,
    /// Its device was thrown away.
    pub(crate) is_gone: bool,
    /// Its device was removed from the library, and may not have heard of it.
    pub(crate) is_removed: bool,
    heard: BTreeSet<u64>,
    heard_at: VecDeque<(u64, u64)>,
}

impl Host {
    /// Whether a message of gossip is new here; it is remembered for a minute.
    pub(crate) fn hear(&mut self, now: u64, news: u64) -> bool {
        while let Some((at, old)) = self.heard_at.front().copied()
            && at + HEARD_MS < now
        {
            self.heard.remove(&old);
            self.heard_at.pop_front();
        }
        let is_new = self.heard.insert(news);
        if is_new {
            self.heard_at.push_back((now, news));
        }
        is_new
    }

    /// The process is gone, with all that it remembered.
    pub(crate) fn stop(&mut self) {
        self.held = None;
        self.index_until = 0;
        self.heard.clear();
        self.heard_at.clear();
    }
}

impl World {
    /// What the machine of a node is like from the start.
    pub(crate) fn equip(&mut self, node: usize) {
        let slow = self.faults.strike(FaultClass::UplinkSlow);
        let rate = slow.map_or(u64::MAX, |mut chance| chance.between(1 + self.options.rate / 8, 2 + self.options.rate));
        // The first node is always found, so that every two can meet through it.
        let is_behind_nat = node > 0 && self.faults.strike(FaultClass::Nat).is_some();
        self.network.place(node, rate, is_behind_nat);
        let clock = &mut self.hosts[node].clock;
        if let Some(mut chance) = self.faults.strike(FaultClass::ClockWrong) {
            clock.jump(far(&mut chance));
        }
        if let Some(mut chance) = self.faults.strike(FaultClass::ClockDrift) {
            clock.drift(chance.between(0, 1001) as i64 - 500);
        }
    }

    /// A node comes that was not there before, on a machine like another one's.
    pub(crate) fn accommodate(&mut self, like: usize, node: Node) {
        let clock = self.hosts[like].clock;
        self.hosts.push(Host { clock, ..Host::default() });
        self.network.place(node.number, u64::MAX, false);
        self.nodes.push(node);
    }

    /// A node will not come back.
    pub(crate) fn vacate(&mut self, node: usize) {
        self.hosts[node].is_gone = true;
        self.nodes[node].folder.clear();
    }

    /// The wall clock of a node is set to something else.
    pub(crate) fn jump_clock(&mut self, node: usize, chance: &mut Chance) {
        let by_ms = far(chance);
        self.trace.note(self.now, Some(node), format_args!("its wall clock jumps by {by_ms} ms"));
        self.hosts[node].clock.jump(by_ms);
    }

    /// A node's machine sleeps: it hears and does nothing, and its peers give it up after a while. Whether it was awake.
    pub(crate) fn suspend(&mut self, node: usize, for_ms: u64, does_clock_stand_still: bool) -> bool {
        if self.nodes[node].library.is_none() || self.hosts[node].held.is_some() {
            return false;
        }
        self.trace.note(self.now, Some(node), format_args!("sleeps for {for_ms} ms"));
        self.hosts[node].held = Some(Vec::new());
        if for_ms > UNANSWERED_MS {
            for link in self.network.standing(Some(node)) {
                self.push(UNANSWERED_MS, Coming::LinkOver { link });
            }
        }
        let clock_stood_still_ms = if does_clock_stand_still { for_ms } else { 0 };
        let run = self.nodes[node].run;
        self.push(for_ms, Coming::Resume { node, run, clock_stood_still_ms });
        true
    }

    /// A node's machine wakes up: everything that came in meanwhile happens now, in its order.
    pub(crate) fn resume(&mut self, node: usize, clock_stood_still_ms: u64) {
        let Some(held) = self.hosts[node].held.take() else { return };
        self.trace.note(self.now, Some(node), format_args!("wakes up"));
        self.hosts[node].clock.stand_still(clock_stood_still_ms);
        for coming in held {
            self.happen(coming);
        }
        self.schedule_tick(node);
    }
}

/// Seconds to ten years, forward or back.
fn far(chance: &mut Chance) -> i64 {
    let ms = chance.span(1_000, WALL_OFFSET_MS_MAX) as i64;
    if chance.one_in(2) { ms } else { -ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_is_heard_once_in_a_minute() {
        let mut host = Host::default();
        assert!(host.hear(0, 1) && !host.hear(59_000, 1) && host.hear(59_000, 2));
        assert!(host.hear(61_000, 1), "it was forgotten");
        assert!(!host.hear(61_000, 2));
    }
}
