//! 1: no acknowledged import becomes unreadable while a holder survives.
//!
//! Everyone holds everything in this version, and no holder is lost: so every node that is up must be able to put
//! every acknowledged file together, byte for byte.

use super::Violation;
use crate::world::World;

/// Every acknowledged photo is read at every node.
///
/// # Errors
/// The first that cannot be, or has other bytes.
pub fn check(world: &World) -> Result<(), Violation> {
    for acknowledged in world.nodes.iter().flat_map(|node| &node.acknowledged) {
        let bytes = acknowledged.content.bytes();
        for node in &world.nodes {
            let Some(library) = &node.library else { continue };
            if node.read_photo(library, &acknowledged.photo).as_ref() != Some(&bytes) {
                return Err(Violation::Unreadable { node: node.number, photo: acknowledged.photo.short() });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_lost_chunk_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        let chunk = *world.nodes[1].chunks.keys().next().unwrap();
        world.nodes[1].chunks.remove(&chunk);
        let found = check(&world);
        // A thumbnail's chunk is not part of the file.
        world.nodes[1].chunks.clear();
        assert!(found.is_err() || check(&world).is_err());
        assert!(matches!(check(&world), Err(Violation::Unreadable { node: 1, .. })));
    }
}
