//! 8: what a node says it holds is what its store holds.

use holdfast_protocol::inventory::Holdings;
use holdfast_protocol::position::Position;

use super::Violation;
use crate::node::Node;
use crate::world::World;

/// Compares every node's inventory with its store, once nothing is on its way any more.
///
/// # Errors
/// The first node of which they differ.
pub fn check(world: &World) -> Result<(), Violation> {
    world.nodes.iter().try_for_each(check_node)
}

fn check_node(node: &Node) -> Result<(), Violation> {
    let Some(library) = &node.library else { return Ok(()) };
    let replica = library.replica();
    let mut stored = Holdings::new();
    for point in replica.vector() {
        let positions = (0..).map(|index| Position { author: point.author, index });
        let deposited = positions.map_while(|position| Some((position, replica.chunk_at(&position)?)));
        for (position, _) in deposited.filter(|(_, deposited)| node.machine.holds(&deposited.chunk)) {
            stored.insert(&position);
        }
    }
    let said = replica.holdings(&node.device_id()).map(|holdings| holdings.clone().root());
    if said == Some(stored.root()) { Ok(()) } else { Err(Violation::FalseInventory { node: node.number }) }
}

#[cfg(test)]
mod tests {
    use holdfast_store::ScrubCursor;

    use super::*;
    use crate::options::Options;

    #[test]
    fn a_chunk_that_the_store_has_forgotten_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check(&world), Ok(()));
        let machine = &world.nodes[1].machine;
        for path in machine.disk.paths() {
            machine.disk.tamper(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
        // Nobody tells the library what the scrub finds.
        machine.store().unwrap().scrub(ScrubCursor::default(), u64::MAX).unwrap();
        assert_eq!(check(&world), Err(Violation::FalseInventory { node: 1 }));
    }
}
