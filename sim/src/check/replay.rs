//! 19: messages of strangers, replayed or made up, change nothing.
//!
//! What a member replays or sends to the wrong one is mixed with what it rightly says: whatever that changed for the
//! worse, 7, 10 and 24 see once faults have stopped.

use holdfast_protocol::id::DeviceId;

use super::Violation;
use crate::node::Node;

/// Everything that messages of members may change.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    logs: String,
    holdings: Vec<(DeviceId, [u8; 32])>,
    photos: usize,
}

/// What a node knows; `None` when it is down.
#[must_use]
pub fn known(node: &Node) -> Option<Known> {
    let library = node.library.as_ref()?;
    let holders = library.replica().holders();
    let holdings = holders.map(|(device, holdings)| (device, holdings.clone().root())).collect();
    Some(Known { logs: format!("{:?}", library.replica().vector()), holdings, photos: library.photos().len() })
}

/// A node knows what it knew before.
///
/// # Errors
/// When it does not.
pub fn check(node: &Node, before: Option<&Known>) -> Result<(), Violation> {
    let after = known(node);
    // A node that stopped says so itself.
    let is_same = before.is_none() || after.is_none() || before == after.as_ref();
    if is_same { Ok(()) } else { Err(Violation::StrangerHeard { node: node.number }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::world::World;

    #[test]
    fn a_node_that_learns_something_meanwhile_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        let before = known(&world.nodes[0]);
        assert_eq!(check(&world.nodes[0], before.as_ref()), Ok(()));
        world.run_until(25_000).unwrap();
        let found = check(&world.nodes[0], before.as_ref());
        assert_eq!(found, Err(Violation::StrangerHeard { node: 0 }));
    }
}
