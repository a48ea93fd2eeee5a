//! Links: dials, frames and gossip on their way.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::message::FRAME_HEADER_BYTES;
use holdfast_protocol::replica::{Input as ReplicaInput, LinkId};

use super::{Coming, World};

/// How soon both ends hear that a link is over.
const LINK_OVER_MS: u64 = 1;

impl World {
    pub(crate) fn gossip(&mut self, node: usize, message: &Bytes) {
        let from = self.nodes[node].device_id();
        let links = self.network.standing(Some(node));
        let linked: BTreeSet<usize> = links.into_iter().filter_map(|link| self.network.other_end(link, node)).collect();
        for to in linked {
            self.traffic.gossip_bytes += message.len() as u64;
            for _ in 0..self.copies_of_gossip() {
                let after = self.network.delay() + self.network.gossip_delay();
                self.push(after, Coming::Gossip { from, to, message: message.clone() });
            }
        }
    }

    pub(crate) fn frame_arrives(&mut self, link: u64, to: usize, frame: &Bytes) {
        let Some(of) = self.network.alive(link) else { return };
        let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return };
        let side = usize::from(of.ends[0] != to);
        match of.gates[side].admit(header) {
            Ok(header) => {
                let body = frame.slice(FRAME_HEADER_BYTES..);
                self.input(to, ReplicaInput::Received { link: LinkId(link), tag: header.tag, body });
            }
            Err(_) => self.cut(link),
        }
    }

    pub(crate) fn dialled(&mut self, from: usize, to: DeviceId) {
        if self.nodes[from].library.is_none() {
            return;
        }
        let target = self.nodes.iter().position(|node| node.device_id() == to && node.library.is_some());
        let Some(target) = target.filter(|target| self.network.is_reachable(from, *target)) else {
            return self.input(from, ReplicaInput::DialFailed { peer: to });
        };
        let link = LinkId(self.network.connect(from, target));
        let dialler = self.nodes[from].device_id();
        self.input(from, ReplicaInput::Connected { link, peer: to, outbound: true });
        self.input(target, ReplicaInput::Connected { link, peer: dialler, outbound: false });
    }

    /// Ends a link; both ends hear of it soon.
    pub(crate) fn cut(&mut self, link: u64) {
        for to in self.network.cut(link).into_iter().flatten() {
            self.push(LINK_OVER_MS, Coming::Closed { link, to });
        }
    }
}
