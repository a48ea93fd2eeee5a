//! 6: nobody is shown more copies of a photo than there are true holders, and those that lied or broke since they said so.
//!
//! Looked at again and again while faults strike. A node that is down is taken at its word: once it is up its store is
//! looked at.

use holdfast::library::Library;
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::position::{Position, Run};

use super::Violation;
use super::forks::forked;
use crate::metadata::VirtualMetadata;
use crate::node::Node;
use crate::world::World;

/// Compares the copies that a node shows of each photo with what the stores of all nodes hold.
///
/// # Errors
/// The first photo of which it shows too many.
pub fn check(world: &World, node: usize) -> Result<(), Violation> {
    let Some(library) = world.nodes.get(node).and_then(|node| node.library.as_ref()) else { return Ok(()) };
    for slot in 0..library.photos().len() as u32 {
        let row = library.photos().row(slot);
        let (shown, _) = library.copies_of(&row.photo);
        if shown > 0 {
            let most = holders_at_most(world, library, row.run);
            // Of a log that has forked and was not cut yet everybody counts honestly, and not the same.
            if shown > most && !forked(world).contains(&row.run.author) {
                return Err(too_many(node, &row.photo, shown, most));
            }
        }
    }
    Ok(())
}

fn too_many(node: usize, photo: &PhotoId, shown: u32, most: u32) -> Violation {
    Violation::CopiesOverstated { node, photo: photo.short(), shown, most }
}

/// How many devices hold a photo, have lost it behind their backs, or may lie about it.
fn holders_at_most(world: &World, library: &Library<VirtualMetadata>, run: Run) -> u32 {
    let at = |index| library.replica().chunk_at(&Position { author: run.author, index });
    let chunks: Vec<ChunkId> = (run.start..run.start + run.count).filter_map(|index| Some(at(index)?.chunk)).collect();
    let holders = world.nodes.iter().filter(|of| world.may_claim_falsely(of.number) || may_hold(world, of, &chunks));
    // Of a device that is no more only its word is left.
    (holders.count() + world.departed.len()) as u32
}

fn may_hold(world: &World, of: &Node, chunks: &[ChunkId]) -> bool {
    let machine = &of.machine;
    let is_spared = |chunk: &ChunkId| machine.destroyed.contains_key(chunk) || world.excused.chunks.contains(chunk);
    // What a failing disk could not read is withdrawn only once that was noticed.
    of.library.is_none()
        || machine.has_failed_to_read()
        || chunks.iter().all(|chunk| machine.holds(chunk) || is_spared(chunk))
}

#[cfg(test)]
mod tests {
    use holdfast::store::ScrubCursor;

    use super::*;
    use crate::options::Options;

    #[test]
    fn a_copy_that_is_gone_and_still_shown_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check(&world, 0), Ok(()));
        let machine = &world.nodes[1].machine;
        for path in machine.disk.paths() {
            machine.disk.tamper(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
        // Its library is not told what the scrub finds, so it does not take back what it said.
        machine.store().unwrap().scrub(ScrubCursor::default(), u64::MAX).unwrap();
        let found = check(&world, 0);
        assert!(matches!(found, Err(Violation::CopiesOverstated { node: 0, shown: 2, most: 1, .. })), "{found:?}");
    }
}
