//! 5: an acknowledgement survives an immediate crash.

use holdfast::library::Library;
use holdfast_protocol::time::Now;

use super::Violation;
use crate::metadata::VirtualMetadata;
use crate::node::Node;

/// A running node knows every photo that it ever acknowledged, and holds all its chunks.
///
/// # Errors
/// The first photo for which that is not so.
pub fn check(node: &Node) -> Result<(), Violation> {
    node.library.as_ref().map_or(Ok(()), |library| check_library(node, library))
}

/// The same for what a crash of this moment would leave.
///
/// # Errors
/// The first photo for which that is not so, or why the library cannot be opened.
pub fn check_after_crash(node: &Node, now: Now) -> Result<(), Violation> {
    let opened = node.open_from(node.metadata.after_crash(), None, [0; 32], now);
    let (library, _, _) = opened.map_err(|error| Violation::failed(node.number, error))?;
    check_library(node, &library)
}

fn check_library(node: &Node, library: &Library<VirtualMetadata>) -> Result<(), Violation> {
    for acknowledged in &node.acknowledged {
        let lost = |what| Violation::AcknowledgementLost { node: node.number, photo: acknowledged.photo.short(), what };
        let Some(copies) = library.photo_copies(&acknowledged.photo) else {
            return Err(lost("it is not in the catalog"));
        };
        let held = copies.holders.iter().find(|(device, _)| *device == node.device_id());
        if held.is_none_or(|(_, chunks)| *chunks != copies.run.count) {
            return Err(lost("not all its chunks are held"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::world::World;

    #[test]
    fn a_flush_that_lies_is_found_at_the_next_crash() {
        let mut world = World::new(1, Options::calm(2)).unwrap();
        world.run_until(25_000).unwrap();
        let now = world.clock();
        let node = &mut world.nodes[0];
        assert!(!node.acknowledged.is_empty());
        assert_eq!(check_after_crash(node, now), Ok(()));
        // What the flush was asked for never reached the disk.
        node.metadata = Node::founder(1, now).unwrap().metadata;
        assert!(matches!(check_after_crash(node, now), Err(Violation::AcknowledgementLost { .. })));
    }

    #[test]
    fn a_chunk_that_is_gone_is_found() {
        let mut world = World::new(2, Options::calm(2)).unwrap();
        world.run_until(25_000).unwrap();
        let now = world.clock();
        let node = &mut world.nodes[1];
        assert_eq!(check_after_crash(node, now), Ok(()));
        node.chunks.clear();
        assert!(matches!(check_after_crash(node, now), Err(Violation::AcknowledgementLost { .. })));
    }
}
