//! 9: no (generation, seq) of an inventory names two contents.
//!
//! Looked at is what the code of each node signs, the liar's too, before it is tampered with on its way out: whatever
//! crashes, restores and new disks it has been through.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::inventory::{Generation, SignedHead};
use holdfast_protocol::message::{Announcement, FRAME_HEADER_BYTES, Message, tag};

use super::Violation;
use crate::node::Node;

/// What was signed in each version.
#[derive(Debug, Default)]
pub struct Signed(BTreeMap<(DeviceId, Generation, u64), [u8; 32]>);

impl Signed {
    /// A node sends a frame.
    ///
    /// # Errors
    /// When it holds a head of the node itself whose version was another content before.
    pub fn check_frame(&mut self, node: &Node, frame: &Bytes) -> Result<(), Violation> {
        let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(()) };
        let tag = header[FRAME_HEADER_BYTES - 1];
        if tag != tag::HEADS && tag != tag::INVENTORY {
            return Ok(());
        }
        match Message::decode(tag, &frame.slice(FRAME_HEADER_BYTES..)) {
            Ok(Message::Heads(heads)) => heads.into_iter().try_for_each(|head| self.check(node, head)),
            Ok(Message::Inventory(part)) => self.check(node, part.head),
            _ => Ok(()),
        }
    }

    /// A node publishes a message.
    ///
    /// # Errors
    /// As [`Signed::check_frame`].
    pub fn check_gossip(&mut self, node: &Node, message: &Bytes) -> Result<(), Violation> {
        let Ok(Some(Announcement { inventory: Some(part), .. })) = Announcement::decode(message) else { return Ok(()) };
        self.check(node, part.head)
    }

    fn check(&mut self, node: &Node, wire: Bytes) -> Result<(), Violation> {
        let Ok(signed) = SignedHead::parse_unverified(wire) else { return Ok(()) };
        let head = signed.head();
        if head.peer != node.device_id() {
            return Ok(());
        }
        let known = self.0.entry((head.peer, head.generation, head.seq)).or_insert(head.root);
        if *known == head.root { Ok(()) } else { Err(Violation::VersionTwice { node: node.number, seq: head.seq }) }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::inventory::Head;
    use holdfast_protocol::time::WallTime;

    use super::*;
    use crate::options::Options;
    use crate::world::World;

    #[test]
    fn a_version_with_two_contents_is_found_in_frames_and_in_gossip() {
        let world = World::new(3, Options::calm(2)).unwrap();
        let node = &world.nodes[1];
        let library = node.library.as_ref().unwrap().replica().registry().library();
        let head = |root: u8, seq: u64| {
            let generation = Generation { counter: 1, nonce: 2 };
            let (peer, root) = (node.device_id(), [root; 32]);
            let head = Head { peer, generation, seq, root, held: 1, erased: 0, place: None, time: WallTime(0) };
            SignedHead::sign(head, &library, node.device()).wire().clone()
        };
        let frame = |head: Bytes| Message::Heads(vec![head]).to_frame();
        let mut signed = Signed::default();
        for (root, seq) in [(1, 1), (1, 1), (2, 2)] {
            assert_eq!(signed.check_frame(node, &frame(head(root, seq))), Ok(()));
        }
        assert_eq!(signed.check_frame(&world.nodes[0], &frame(head(9, 1))), Ok(()), "it only passes it on");
        let twice = Err(Violation::VersionTwice { node: 1, seq: 1 });
        assert_eq!(signed.check_frame(node, &frame(head(9, 1))), twice);
        let part =
            holdfast_protocol::message::InventoryPart { head: head(9, 1), base: None, more: true, changes: Vec::new() };
        let message = Announcement { points: Vec::new(), inventory: Some(part) }.encode().unwrap();
        assert_eq!(signed.check_gossip(node, &message), twice);
    }
}
