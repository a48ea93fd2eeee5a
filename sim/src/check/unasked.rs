//! 24, while faults strike: what a node wants and an honest peer next to it holds is asked for.
//!
//! Two nodes that are awake and joined by a link on which everything moves have no reason to stand still. What a peer holds is
//! looked up in its store: an inventory that does not come is as much a stall as a request that is not made.

use std::collections::BTreeMap;

use super::Violation;
use crate::world::World;

/// How often the world is looked at.
pub(crate) const LOOK_MS: u64 = 5_000;
/// How long a node may ask a peer for nothing that only waits to be asked for: a rest takes up to 90 seconds, and an answer that
/// does not come is given up after 30.
const UNASKED_MS_MAX: u64 = 150_000;

/// Since when each node asks which peer for nothing on which link.
#[derive(Debug, Default)]
pub(crate) struct Unasked {
    since: BTreeMap<(usize, usize, u64), u64>,
}

impl Unasked {
    /// Notes which nodes stand still now.
    ///
    /// # Errors
    /// The first that has done so for too long.
    pub(crate) fn look(&mut self, now: u64, idle: Vec<Idle>) -> Result<(), Violation> {
        let before = std::mem::take(&mut self.since);
        for Idle { node, peer, link, chunk } in idle {
            let since = before.get(&(node, peer, link)).copied().unwrap_or(now);
            if now - since > UNASKED_MS_MAX {
                return Err(Violation::Unasked { node, peer, chunk, for_ms: now - since });
            }
            self.since.insert((node, peer, link), since);
        }
        Ok(())
    }
}

/// A node that asks a peer for nothing, and a chunk that it could have from it.
#[derive(Debug)]
pub(crate) struct Idle {
    node: usize,
    peer: usize,
    link: u64,
    chunk: String,
}

/// Every node that asks an honest peer for nothing although it could.
pub(crate) fn idle(world: &World) -> Vec<Idle> {
    let mut idle = Vec::new();
    for link in world.network.standing(None) {
        let Some(ends) = world.network.moving(link, world.now) else { continue };
        for [node, peer] in [ends, [ends[1], ends[0]]] {
            idle.extend(could_ask(world, node, peer, link));
        }
    }
    idle
}

fn could_ask(world: &World, node: usize, peer: usize, link: u64) -> Option<Idle> {
    let takes_part = |node: usize| {
        let host = &world.hosts[node];
        let is_up = host.held.is_none() && world.nodes[node].library.is_some();
        is_up && !host.is_removed && world.is_member(node) && !world.is_liar(node)
    };
    if !takes_part(node) || !takes_part(peer) {
        return None;
    }
    let unasked = world.nodes[node].library.as_ref()?.replica().unasked(&world.nodes[peer].device_id());
    let chunk = unasked.iter().find(|chunk| world.nodes[peer].machine.holds(chunk))?;
    Some(Idle { node, peer, link, chunk: chunk.short() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(link: u64) -> Vec<Idle> {
        vec![Idle { node: 1, peer: 2, link, chunk: "c".to_owned() }]
    }

    #[test]
    fn who_stands_still_for_long_is_found() {
        let mut unasked = Unasked::default();
        assert_eq!(unasked.look(0, idle(7)), Ok(()));
        assert_eq!(unasked.look(UNASKED_MS_MAX, idle(7)), Ok(()));
        assert!(matches!(unasked.look(UNASKED_MS_MAX + 1, idle(7)), Err(Violation::Unasked { node: 1, peer: 2, .. })));
    }

    #[test]
    fn who_moved_in_between_or_has_another_link_begins_anew() {
        let mut unasked = Unasked::default();
        for (at, idle) in
            [(0, idle(7)), (100_000, Vec::new()), (100_001, idle(7)), (200_000, idle(8)), (350_000, idle(8))]
        {
            assert_eq!(unasked.look(at, idle), Ok(()));
        }
    }
}
