//! A device that was removed counts for nobody: it is no member, nobody talks to it, and nothing is counted that it holds.

use holdfast_library::Library;
use holdfast_protocol::id::DeviceId;

use super::Violation;
use crate::metadata::VirtualMetadata;
use crate::node::Node;
use crate::world::World;

/// Asks all nodes that are up about all devices that were removed, as far as they know.
///
/// # Errors
/// The first node for which one of them counts.
pub fn check(world: &World) -> Result<(), Violation> {
    world.nodes.iter().try_for_each(|node| {
        let Some(library) = &node.library else { return Ok(()) };
        let registry = library.replica().registry();
        check_on(node, library, world.departed.iter().filter(|device| registry.is_removed(device)))
    })
}

fn check_on<'a>(
    node: &Node,
    library: &Library<VirtualMetadata>,
    removed: impl IntoIterator<Item = &'a DeviceId>,
) -> Result<(), Violation> {
    let replica = library.replica();
    for device in removed {
        let counts = |what| Violation::RemovedCounts { node: node.number, device: device.short(), what };
        if replica.registry().is_member(device) {
            return Err(counts("takes it for a member"));
        }
        if library.photos_held_by(device) > 0 || replica.holdings(device).is_some() {
            return Err(counts("counts what it holds"));
        }
        if replica.peers().iter().any(|peer| peer.device == *device) {
            return Err(counts("takes it for a peer"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fault::FaultClass;
    use crate::options::Options;

    #[test]
    fn a_device_that_still_counts_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        let (node, other) = (&world.nodes[0], world.nodes[1].device_id());
        let found = check_on(node, node.library.as_ref().unwrap(), [&other]);
        assert!(matches!(found, Err(Violation::RemovedCounts { node: 0, .. })), "{found:?}");
    }

    #[test]
    fn nobody_counts_a_device_that_was_removed() {
        let mut removed = 0;
        for seed in 1..6 {
            let options = Options { classes: BTreeSet::from([FaultClass::Removed]), ..Options::calm(4) };
            let mut world = World::new(seed, options.lasting(120_000)).unwrap();
            world.run().unwrap();
            assert_eq!(check(&world), Ok(()));
            let library = world.nodes[0].library.as_ref().unwrap();
            removed += world.departed.iter().filter(|of| library.replica().registry().is_removed(of)).count();
        }
        assert!(removed > 1, "{removed}");
    }
}
