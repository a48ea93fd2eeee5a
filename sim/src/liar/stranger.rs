//! A stranger knocks: it has no key of a member and says what it overheard of members.

use holdfast_protocol::id::DeviceId;
use holdfast_protocol::message::{FRAME_HEADER_BYTES, FrameHeader, Gate};
use holdfast_protocol::replica::{Input as ReplicaInput, LinkId};

use super::{Overheard, garbled_frame};
use crate::chance::Chance;
use crate::check;
use crate::world::{Coming, World};

/// Numbers of the links of strangers: no others come so far.
const LINKS_FROM: u64 = 1 << 40;

impl World {
    /// A stranger connects to a node, says something, and is gone after a while. Whether the node is there.
    pub(crate) fn stranger_knocks(&mut self, chance: &mut Chance) -> bool {
        let to = chance.below(self.nodes.len() as u64) as usize;
        if self.nodes[to].library.is_none() || self.hosts[to].held.is_some() {
            return false;
        }
        let link = LinkId(LINKS_FROM + chance.below(LINKS_FROM));
        // Who it says to be is proven by the transport: it can be nobody but itself.
        let peer = DeviceId::from_bytes(chance.seed());
        // What is due of the node's own is nothing that it takes from a stranger.
        self.input(to, ReplicaInput::Tick);
        let before = check::replay::known(&self.nodes[to]);
        self.input(to, ReplicaInput::Connected { link, peer, outbound: false });
        let mut gate = Gate::default();
        for _ in 0..chance.between(1, 20) {
            let Some(mut frame) = Overheard::any(&self.overheard.frames, chance) else { break };
            if chance.one_in(4) {
                frame = garbled_frame(&frame, chance);
            }
            if let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() {
                let Ok(FrameHeader { tag, .. }) = gate.admit(header) else { break };
                let body = frame.slice(FRAME_HEADER_BYTES..);
                self.input(to, ReplicaInput::Received { link, tag, body });
            }
        }
        if let Err(violation) = check::replay::check(&self.nodes[to], before.as_ref()) {
            self.fail(violation);
        }
        self.push(chance.between(10, 20_000), Coming::Closed { link: link.0, to });
        true
    }
}
