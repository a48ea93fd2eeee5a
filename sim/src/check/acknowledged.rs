//! 5: an acknowledgement survives an immediate crash.

use holdfast_library::Library;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::position::Position;
use holdfast_protocol::time::Now;

use super::Violation;
use crate::disk::{Excused, Machine};
use crate::metadata::VirtualMetadata;
use crate::node::{Acknowledged, Node, Opened};

/// Photos whose bytes are read from what a crash would leave: the last that were acknowledged.
const READ_LAST: usize = 6;

/// A running node knows every photo that it ever acknowledged, and holds all its chunks but those that were destroyed
/// behind its back.
///
/// # Errors
/// The first photo for which that is not so.
pub fn check(node: &Node, excused: &Excused) -> Result<(), Violation> {
    node.library.as_ref().map_or(Ok(()), |library| check_on(node, excused, &node.machine, library))
}

/// The same for what a power failure of this moment would leave; the last photos are read.
///
/// # Errors
/// The first photo for which that is not so, or why the library cannot be opened.
pub fn check_after_crash(node: &Node, excused: &Excused, now: Now) -> Result<(), Violation> {
    let mut machine = node.machine.after_crash();
    let opened = node.open_on(&mut machine, None, [0; 32], now);
    let (library, _, _) = opened.map_err(|error| Violation::failed(node.number, error))?;
    check_on(node, excused, &machine, &library)?;
    if library.has_to_carry() {
        return Ok(());
    }
    let mut opened = Opened::default();
    for acknowledged in node.acknowledged.iter().rev().take(READ_LAST) {
        let is_spared = || {
            let chunks = chunks_of(&library, acknowledged).unwrap_or_default();
            chunks.iter().any(|chunk| machine.destroyed.contains_key(chunk) || excused.chunks.contains(chunk))
        };
        let read = node.read_photo_on(&machine, &library, &acknowledged.photo, &mut opened);
        if read.is_none_or(|read| read != acknowledged.content.bytes()) && !is_spared() {
            return Err(lost(node, acknowledged, "its bytes are not there"));
        }
    }
    Ok(())
}

fn check_on(
    node: &Node,
    excused: &Excused,
    machine: &Machine,
    library: &Library<VirtualMetadata>,
) -> Result<(), Violation> {
    // What stands behind a fork is known and not found until it is deposited again.
    if library.has_to_carry() {
        return Ok(());
    }
    for acknowledged in node.acknowledged.iter().filter(|of| !excused.photos.contains(&of.photo)) {
        let chunks = chunks_of(library, acknowledged);
        let chunks = chunks.ok_or_else(|| lost(node, acknowledged, "it is not in the catalog"))?;
        let is_spared = |chunk: &ChunkId| machine.destroyed.contains_key(chunk) || excused.chunks.contains(chunk);
        // What a failing disk could not read is withdrawn until it can.
        if !machine.has_failed_to_read() && chunks.iter().any(|chunk| !machine.holds(chunk) && !is_spared(chunk)) {
            return Err(lost(node, acknowledged, "not all its chunks are held"));
        }
    }
    Ok(())
}

fn chunks_of(library: &Library<VirtualMetadata>, acknowledged: &Acknowledged) -> Option<Vec<ChunkId>> {
    let slot = library.photos().slot(&acknowledged.photo)?;
    let run = library.photos().row(slot).run;
    let at = |index| library.replica().chunk_at(&Position { author: run.author, index });
    (run.start..run.start + run.count).map(|index| Some(at(index)?.chunk)).collect()
}

fn lost(node: &Node, acknowledged: &Acknowledged, what: &'static str) -> Violation {
    Violation::AcknowledgementLost { node: node.number, photo: acknowledged.photo.short(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::world::World;

    /// A world in which the nodes have acknowledged something.
    fn world(seed: u64) -> World {
        let mut world = World::new(seed, Options::calm(2)).unwrap();
        world.run_until(25_000).unwrap();
        for node in &world.nodes {
            assert!(!node.acknowledged.is_empty());
            assert_eq!(check_after_crash(node, &world.excused, world.clock(node.number)), Ok(()));
        }
        world
    }

    #[test]
    fn a_flush_that_lies_is_found_at_the_next_crash() {
        let mut world = world(1);
        let now = world.clock(0);
        // What the flush was asked for never reached the disk.
        world.nodes[0].machine.metadata = Node::founder(1, now).unwrap().machine.metadata;
        let found = check_after_crash(&world.nodes[0], &world.excused, now);
        assert!(matches!(found, Err(Violation::AcknowledgementLost { .. })));
    }

    #[test]
    fn a_segment_that_is_gone_is_found() {
        let world = world(2);
        let node = &world.nodes[1];
        for path in node.machine.disk.paths().into_iter().filter(|path| path.starts_with("/home")) {
            node.machine.disk.destroy(&path);
        }
        let found = check_after_crash(node, &world.excused, world.clock(node.number));
        assert!(matches!(found, Err(Violation::AcknowledgementLost { .. })));
    }

    #[test]
    fn an_original_with_other_bytes_is_found() {
        let world = world(3);
        for node in &world.nodes {
            for path in node.machine.disk.paths() {
                assert!(node.machine.disk.rot(&path, 2000, 1) || !path.starts_with("/pictures"));
            }
        }
        let broken = |node: &Node| check_after_crash(node, &world.excused, world.clock(node.number)).is_err();
        assert!(world.nodes.iter().any(broken));
    }
}
