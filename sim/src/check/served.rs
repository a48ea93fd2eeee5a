//! 21: the bytes that an honest node serves are the chunk's, and what is wrong on its disk is found within a scrub.

use bytes::Bytes;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::sealing::chunk_id;

use super::Violation;
use crate::disk::deposited;
use crate::node::Node;

/// A node gives these bytes for a chunk.
///
/// # Errors
/// When they are another chunk's, or nobody's.
pub fn check(node: usize, chunk: &ChunkId, bytes: &Bytes) -> Result<(), Violation> {
    let is_right = chunk_id(bytes) == *chunk;
    if is_right { Ok(()) } else { Err(Violation::WrongBytes { node, chunk: chunk.short() }) }
}

/// A node has scrubbed its store: every chunk that it says it holds can be read.
///
/// # Errors
/// The first that cannot be.
pub fn check_scrubbed(node: &Node) -> Result<(), Violation> {
    let Some(library) = &node.library else { return Ok(()) };
    deposited(library).iter().filter(|chunk| node.machine.holds(chunk)).try_for_each(|chunk| {
        let unnoticed = |_| Violation::RotUnnoticed { node: node.number, chunk: chunk.short() };
        let read = node.machine.read(chunk).map_err(unnoticed)?;
        check(node.number, chunk, &read.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::world::World;

    #[test]
    fn other_bytes_are_found() {
        let bytes = Bytes::from_static(b"sealed");
        let chunk = chunk_id(&bytes);
        assert_eq!(check(1, &chunk, &bytes), Ok(()));
        let other = Bytes::from_static(b"Sealed");
        assert!(matches!(check(1, &chunk, &other), Err(Violation::WrongBytes { node: 1, .. })));
    }

    #[test]
    fn rot_that_no_scrub_has_seen_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check_scrubbed(&world.nodes[1]), Ok(()));
        let machine = &world.nodes[1].machine;
        for path in machine.disk.paths() {
            machine.disk.rot(&path, 700, 1);
        }
        assert!(matches!(check_scrubbed(&world.nodes[1]), Err(Violation::RotUnnoticed { node: 1, .. })));
        world.scrub(1);
        assert_eq!(check_scrubbed(&world.nodes[1]), Ok(()));
    }
}
