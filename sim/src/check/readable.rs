//! 1: no acknowledged import becomes unreadable while a holder survives.
//!
//! Everyone holds everything in this version: once all agree, every node must be able to put every acknowledged file
//! together from its own store, byte for byte. Spared is only what the faults of this run have destroyed everywhere.

use holdfast_protocol::id::PhotoId;
use holdfast_protocol::position::Position;

use super::Violation;
use crate::node::{Node, Opened};
use crate::world::World;

/// Every acknowledged photo is read at every node.
///
/// # Errors
/// The first that cannot be, or has other bytes.
pub fn check(world: &World) -> Result<(), Violation> {
    let promised = world.nodes.iter().flat_map(|node| &node.acknowledged).chain(&world.excused.entrusted);
    let mut opened = Opened::default();
    for acknowledged in promised {
        let bytes = acknowledged.content.bytes();
        for node in &world.nodes {
            let Some(library) = &node.library else { continue };
            let read = node.read_photo(library, &acknowledged.photo, &mut opened);
            let is_read = read.is_some_and(|read| read == bytes);
            if !is_read && !is_spared(world, node, &acknowledged.photo) {
                return Err(Violation::Unreadable { node: node.number, photo: acknowledged.photo.short() });
            }
        }
    }
    Ok(())
}

/// Whether any chunk of the photo was destroyed everywhere, or every log that knew it.
fn is_spared(world: &World, node: &Node, photo: &PhotoId) -> bool {
    let Some(library) = &node.library else { return true };
    let Some(slot) = library.photos().slot(photo) else { return world.excused.photos.contains(photo) };
    let run = library.photos().row(slot).run;
    let mut positions = (run.start..run.start + run.count).map(|index| Position { author: run.author, index });
    positions.any(|position| {
        let deposited = library.replica().chunk_at(&position);
        deposited.is_some_and(|deposited| world.excused.chunks.contains(&deposited.chunk))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_lost_chunk_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check(&world), Ok(()));
        for path in world.nodes[1].machine.disk.paths() {
            world.nodes[1].machine.disk.destroy(&path);
        }
        assert!(matches!(check(&world), Err(Violation::Unreadable { node: 1, .. })));
    }
}
