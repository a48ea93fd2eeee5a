//! Links: dials, frames, and what ends them.

use bytes::Bytes;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::message::FRAME_HEADER_BYTES;
use holdfast_protocol::replica::{Input as ReplicaInput, LinkId};

use super::host::UNANSWERED_MS;
use super::{Coming, World};
use crate::fault::FaultClass;
use crate::network::Quality;

/// How soon both ends hear that a link is over.
const LINK_OVER_MS: u64 = 1;
/// How long a dial waits for an answer.
const DIAL_MS: u64 = 15_000;

impl World {
    pub(crate) fn frame_arrives(&mut self, link: u64, to: usize, frame: &Bytes) {
        let Some(of) = self.network.alive(link) else { return };
        let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return };
        let side = of.side(to);
        match of.gates[side].admit(header) {
            Ok(header) => {
                let body = frame.slice(FRAME_HEADER_BYTES..);
                if self.asks_for_shadow(link, to, header.tag, &body) {
                    return;
                }
                self.input(to, ReplicaInput::Received { link: LinkId(link), tag: header.tag, body });
            }
            Err(_) => self.cut(link),
        }
    }

    pub(crate) fn dialled(&mut self, from: usize, run: u32, to: DeviceId) {
        let Some(target) = self.numbers.get(&to).copied() else { return self.dial_failed(from, run, to) };
        if self.nodes[from].run != run || self.nodes[from].library.is_none() {
            return;
        }
        let target = self.original_or_copy(target);
        let is_awake = self.hosts[target].held.is_none();
        if !self.network.is_reachable(from, target, self.now) || !is_awake {
            return self.push(DIAL_MS, Coming::DialFailed { from, run, to });
        }
        if self.nodes[target].library.is_none() || !self.network.has_room(from, target) {
            return self.dial_failed(from, run, to);
        }
        let quality = self.faults.strike(FaultClass::LinkSlow).map(|_| Quality::MODEM);
        let link = LinkId(self.network.connect(from, target, quality));
        let dialler = self.nodes[from].device_id();
        self.input(from, ReplicaInput::Connected { link, peer: to, outbound: true });
        self.input(target, ReplicaInput::Connected { link, peer: dialler, outbound: false });
    }

    pub(crate) fn dial_failed(&mut self, from: usize, run: u32, to: DeviceId) {
        if self.nodes[from].run == run {
            self.input(from, ReplicaInput::DialFailed { peer: to });
        }
    }

    /// Ends a link. Both ends hear of it soon; or one believes for a while that it stands, and talks to nobody.
    pub(crate) fn cut(&mut self, link: u64) {
        let Some(of) = self.network.cut(link) else { return };
        let half_open = self.faults.strike(FaultClass::HalfOpen);
        let deaf = half_open.map(|mut chance| (chance.below(2) as usize, chance.span(1_000, UNANSWERED_MS)));
        for (side, to) in of.ends.into_iter().enumerate() {
            let after = deaf.filter(|(deaf, _)| *deaf == side).map_or(LINK_OVER_MS, |(_, after)| after);
            self.push(after, Coming::Closed { link, to });
        }
    }

    /// Neither of two nodes reaches the other for a while, and their links break.
    pub(crate) fn separate(&mut self, a: usize, b: usize, for_ms: u64) {
        if self.now < self.heal_at {
            for link in self.network.separate(a, b, self.now + for_ms) {
                self.cut(link);
            }
        }
    }

    /// A node gets other addresses: its links break, and it knows. Whether it was up.
    pub(crate) fn roam(&mut self, node: usize) -> bool {
        if self.nodes[node].library.is_none() || self.hosts[node].held.is_some() {
            return false;
        }
        self.trace.note(self.now, Some(node), format_args!("has other addresses"));
        for link in self.network.standing(Some(node)) {
            self.cut(link);
        }
        self.input(node, ReplicaInput::NetworkChanged);
        true
    }

    /// Nothing moves from one node to the other for a while: links that wait too long break.
    pub(crate) fn stall(&mut self, from: usize, to: usize, for_ms: u64) {
        self.trace.note(self.now, Some(from), format_args!("does not reach node {to} for {for_ms} ms"));
        self.network.stall(from, to, self.now + for_ms);
        if for_ms > UNANSWERED_MS {
            for link in self.network.between(from, to) {
                self.push(UNANSWERED_MS, Coming::LinkOver { link });
            }
        }
    }
}
