//! A liar that signs other contents of its inventory than its own, under the same version or a later one, and tells each
//! peer something else.

use bytes::Bytes;
use holdfast_protocol::id::AuthorId;
use holdfast_protocol::inventory::{Head, HoldingChanges, Holdings, SignedHead, Span};
use holdfast_protocol::message::{FRAME_HEADER_BYTES, InventoryPart, Message, tag};
use holdfast_protocol::position::Position;

use crate::chance::Chance;
use crate::fault::FaultClass;
use crate::world::World;

/// How often a liar takes back at once what it said.
const FLICKERS_MAX: u64 = 200;

impl World {
    /// The liar says to everybody, again and again, that it holds every chunk and that it has lost it. Whether
    /// anybody hears it.
    pub(crate) fn flicker(&mut self, chance: &mut Chance) -> bool {
        let liar = self.liar();
        let Some(library) = self.nodes[liar].library.as_ref().filter(|_| self.may_lie(liar)) else { return false };
        let mut authors: Vec<AuthorId> = library.replica().vector().iter().map(|point| point.author).collect();
        authors.sort_unstable();
        let all = vec![Span { start: 0, count: 1 << 16 }];
        let lost = |author: &AuthorId| HoldingChanges { lost: all.clone(), ..HoldingChanges::none(*author) };
        let held = |author: &AuthorId| HoldingChanges { held: all.clone(), ..HoldingChanges::none(*author) };
        let lost = Message::Have(authors.iter().map(lost).collect()).to_frame();
        let held = Message::Have(authors.iter().map(held).collect()).to_frame();
        let flickers = chance.span(1, FLICKERS_MAX);
        let links = self.network.standing(Some(liar));
        for &link in &links {
            for frame in (0..flickers).flat_map(|_| [lost.clone(), held.clone()]) {
                self.tell(liar, link, frame);
            }
        }
        // Only who begins anew with it knows again what it has.
        self.has_withheld = true;
        !links.is_empty()
    }

    /// What the liar sends in place of a frame that tells of its own inventory.
    pub(super) fn inventory_told(&mut self, node: usize, frame: Bytes) -> Vec<Bytes> {
        let Some(head) = self.own_head_in(node, &frame) else { return vec![frame] };
        let Some(mut chance) = self.faults.strike(FaultClass::LieInventories) else { return vec![frame] };
        let Some(frames) = self.other_inventory(node, &head, &mut chance) else { return vec![frame] };
        // It is not believed again before it begins a new generation.
        self.has_lied = true;
        frames
    }

    fn own_head_in(&self, node: usize, frame: &Bytes) -> Option<Head> {
        let (header, _) = frame.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let tag = header[FRAME_HEADER_BYTES - 1];
        if tag != tag::HEADS && tag != tag::INVENTORY {
            return None;
        }
        let heads = match Message::decode(tag, &frame.slice(FRAME_HEADER_BYTES..)) {
            Ok(Message::Heads(heads)) => heads,
            Ok(Message::Inventory(part)) => vec![part.head],
            _ => return None,
        };
        let mut heads = heads.into_iter().filter_map(|head| SignedHead::parse_unverified(head).ok());
        heads.find(|head| head.head().peer == self.nodes[node].device_id()).map(|signed| signed.head().clone())
    }

    fn other_inventory(&self, node: usize, head: &Head, chance: &mut Chance) -> Option<Vec<Bytes>> {
        let of = &self.nodes[node];
        let replica = of.library.as_ref()?.replica();
        let holdings = other_holdings(replica.holdings(&of.device_id())?, &replica.vector(), chance);
        let mut head = Head { held: holdings.held_count(), root: holdings.clone().root(), ..head.clone() };
        match chance.below(6) {
            0 => head.seq += chance.between(1, 1_000),
            1 => head.generation.counter = head.generation.counter.saturating_add(1),
            _ => {}
        }
        let signed = SignedHead::sign(head, &replica.registry().library(), of.device());
        if chance.one_in(4) {
            // Its word alone: who asks for the content is given another one.
            return Some(vec![Message::Heads(vec![signed.wire().clone()]).to_frame()]);
        }
        let parts = InventoryPart::whole(&signed, &holdings.as_changes());
        Some(parts.into_iter().map(|part| Message::Inventory(part).to_frame()).collect())
    }
}

/// Holdings that lack some of what they held, and hold some of what they lacked or what is nobody's.
fn other_holdings(
    holdings: &Holdings,
    authors: &[holdfast_protocol::message::LogPoint],
    chance: &mut Chance,
) -> Holdings {
    let mut other = holdings.clone();
    for _ in 0..=chance.below(8) {
        let Some(point) = chance.pick(authors) else { break };
        let position = Position { author: point.author, index: chance.span(1, 200) as u32 - 1 };
        if !other.remove(&position) {
            other.insert(&position);
        }
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::equal;
    use crate::options::Options;

    #[test]
    fn peers_are_told_different_things_and_agree_once_the_liar_stops() {
        let classes = std::collections::BTreeSet::from([FaultClass::LieInventories]);
        let mut world = World::new(5, Options { classes, ..Options::calm(4) }).unwrap();
        let liar = world.nodes[3].device_id();
        let said = |world: &World, node: usize| {
            let library = world.nodes[node].library.as_ref().unwrap();
            library.replica().holdings(&liar).map(|holdings| holdings.clone().root())
        };
        let mut has_differed = false;
        world.run_watched(50, &mut |world| has_differed |= said(world, 0) != said(world, 1)).unwrap();
        assert!(has_differed);
        assert_eq!(equal::check(&world), Ok(()));
    }
}
