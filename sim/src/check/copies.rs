//! 6: whoever is counted as a holder of a photo holds it, or is one that lied or broke since it said so; and nobody is
//! shown more copies, or more places, than those that are counted.
//!
//! Looked at device by device, since a false holder hides in a number behind a true one that nobody knows of; and again
//! and again while faults strike. A node that is down is taken at its word: once it is up its store is looked at.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_library::{Library, PhotoRow};
use holdfast_protocol::id::{ChunkId, DeviceId, PlaceId};
use holdfast_protocol::inventory::Holdings;
use holdfast_protocol::position::Position;

use super::Violation;
use super::forks::forked;
use crate::disk::Machine;
use crate::metadata::VirtualMetadata;
use crate::node::Node;
use crate::world::World;

/// A device that says what it holds, as one library has heard it.
struct Holder<'a> {
    device: DeviceId,
    holdings: &'a Holdings,
    place: Option<PlaceId>,
    /// The machines that run as this device, several where one was copied; `None` when its word has to do.
    machines: Option<Vec<&'a Machine>>,
}

/// Compares whom a node counts as holders of each photo with what the stores of all nodes hold.
///
/// # Errors
/// The first photo of which it counts too many.
pub fn check(world: &World, node: usize) -> Result<(), Violation> {
    let Some(library) = world.nodes.get(node).and_then(|node| node.library.as_ref()) else { return Ok(()) };
    let holders = holders(world, library);
    for slot in 0..library.photos().len() as u32 {
        let row = library.photos().row(slot);
        let shown = library.copies_of(&row.photo);
        if shown.0 > 0 {
            let found = check_photo(world, node, (row, shown), &holders);
            // Of a log that has forked and was not cut yet everybody counts honestly, and not the same.
            if found.is_err() && !forked(world).contains(&row.run.author) {
                return found;
            }
        }
    }
    Ok(())
}

/// Everybody of whom a library knows what it holds.
fn holders<'a>(world: &'a World, library: &'a Library<VirtualMetadata>) -> Vec<Holder<'a>> {
    let mut running: BTreeMap<DeviceId, Vec<&Node>> = BTreeMap::new();
    // A copy that was taken off runs no more: the other is that device.
    for node in world.nodes.iter().filter(|node| node.number < world.options.nodes || world.is_member(node.number)) {
        running.entry(node.device_id()).or_default().push(node);
    }
    let registry = library.replica().registry();
    let holder = |(device, holdings)| {
        let nodes = running.get(&device).map_or(&[][..], Vec::as_slice);
        // Of a device that is no more only its word is left.
        let is_believed = world.departed.contains(&device) || nodes.iter().any(|node| is_believed(world, node));
        let machines = (!is_believed).then(|| nodes.iter().map(|node| &node.machine).collect());
        Holder { device, holdings, place: registry.place_of(&device), machines }
    };
    library.replica().holders().map(holder).collect()
}

/// Whether what a node has said cannot be held against it.
fn is_believed(world: &World, node: &Node) -> bool {
    // What a failing disk could not read is withdrawn only once that was noticed.
    node.library.is_none() || node.machine.has_failed_to_read() || world.may_claim_falsely(node.number)
}

/// One photo, of which so many copies in so many places are shown.
fn check_photo(
    world: &World,
    node: usize,
    (row, shown): (&PhotoRow, (u32, u32)),
    holders: &[Holder<'_>],
) -> Result<(), Violation> {
    let (photo, run) = (row.photo.short(), row.run);
    let counted: Vec<&Holder<'_>> = holders.iter().filter(|holder| holder.holdings.holds_run(&run)).collect();
    let places: BTreeSet<Option<PlaceId>> = counted.iter().map(|holder| holder.place).collect();
    let there = (counted.len() as u32, places.len() as u32);
    for (what, shown, most) in [("copies", shown.0, there.0), ("places", shown.1, there.1)] {
        if shown > most {
            return Err(Violation::CopiesOverstated { node, photo, what, shown, most });
        }
    }
    let Some(library) = &world.nodes[node].library else { return Ok(()) };
    let at = |index| library.replica().chunk_at(&Position { author: run.author, index });
    let chunks: Vec<ChunkId> = run.indices().filter_map(|index| Some(at(index)?.chunk)).collect();
    let may_hold = |machine: &&Machine| {
        let is_spared = |chunk: &ChunkId| machine.destroyed.contains_key(chunk) || world.excused.chunks.contains(chunk);
        chunks.iter().all(|chunk| machine.holds(chunk) || is_spared(chunk))
    };
    let is_false = |holder: &&&Holder<'_>| holder.machines.as_ref().is_some_and(|of| !of.iter().any(may_hold));
    match counted.iter().find(is_false) {
        None => Ok(()),
        Some(holder) => Err(Violation::FalseHolder { node, photo, device: holder.device.short() }),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::ScrubCursor;

    use super::*;
    use crate::options::Options;

    /// Its store loses everything, and its library is not told, so that it does not take back what it said.
    fn lose_store(world: &World, node: usize) {
        let machine = &world.nodes[node].machine;
        for path in machine.disk.paths() {
            machine.disk.tamper(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
        machine.store().unwrap().scrub(ScrubCursor::default(), u64::MAX).unwrap();
    }

    #[test]
    fn a_copy_that_is_gone_and_still_shown_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check(&world, 0), Ok(()));
        lose_store(&world, 1);
        let (found, false_one) = (check(&world, 0), world.nodes[1].device_id().short());
        assert!(
            matches!(&found, Err(Violation::FalseHolder { node: 0, device, .. }) if *device == false_one),
            "{found:?}"
        );
    }

    #[test]
    fn a_false_holder_is_found_behind_a_true_one_that_nobody_knows_of() {
        let mut world = World::new(3, Options::calm(3)).unwrap();
        // Two copies are shown, and the third node has just got one and has not said so.
        let photo = std::iter::from_fn(|| {
            world.run_until(world.now + 20).unwrap();
            let library = world.nodes[0].library.as_ref()?;
            let rows: Vec<PhotoRow> =
                (0..library.photos().len() as u32).map(|slot| *library.photos().row(slot)).collect();
            let is_unsaid = |row: &&PhotoRow| {
                let says = |node: usize| {
                    let said = library.replica().holdings(&world.nodes[node].device_id());
                    said.is_some_and(|said| said.holds_run(&row.run))
                };
                says(1) && !says(2) && holds(&world, 2, row)
            };
            Some(rows.iter().find(is_unsaid).copied())
        });
        let row = photo.take(2_000).flatten().next().unwrap();
        let library = world.nodes[0].library.as_ref().unwrap();
        let shown = library.copies_of(&row.photo);
        assert_eq!(shown.0, 2);
        assert_eq!(check_photo(&world, 0, (&row, shown), &holders(&world, library)), Ok(()));
        lose_store(&world, 1);
        let true_ones = (0..3).filter(|node| holds(&world, *node, &row)).count();
        assert_eq!(true_ones, 2, "as many as are shown");
        let found = check_photo(&world, 0, (&row, shown), &holders(&world, library));
        assert!(matches!(found, Err(Violation::FalseHolder { node: 0, .. })), "{found:?}");
    }

    fn holds(world: &World, node: usize, row: &PhotoRow) -> bool {
        let library = world.nodes[0].library.as_ref().unwrap();
        let at = |index| library.replica().chunk_at(&Position { author: row.run.author, index });
        row.run.indices().all(|index| at(index).is_some_and(|of| world.nodes[node].machine.holds(&of.chunk)))
    }

    #[test]
    fn more_copies_or_places_than_holders_are_found() {
        let mut world = World::new(3, Options::calm(3)).unwrap();
        world.run().unwrap();
        let library = world.nodes[0].library.as_ref().unwrap();
        let mut rows = (0..library.photos().len() as u32).map(|slot| library.photos().row(slot));
        let (row, holders) = (rows.find(|row| row.listed).unwrap(), holders(&world, library));
        let found = |shown| check_photo(&world, 0, (row, shown), &holders);
        assert_eq!((library.copies_of(&row.photo), found((3, 2))), ((3, 2), Ok(())));
        assert!(matches!(found((4, 2)), Err(Violation::CopiesOverstated { what: "copies", shown: 4, most: 3, .. })));
        assert!(matches!(found((3, 3)), Err(Violation::CopiesOverstated { what: "places", shown: 3, most: 2, .. })));
    }

    #[test]
    fn a_device_that_runs_twice_holds_what_either_does() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        world.copy_machine(1, &mut crate::chance::Chance::new(1, "copied"));
        assert_eq!(world.nodes[2].device_id(), world.nodes[1].device_id());
        lose_store(&world, 1);
        assert_eq!(check(&world, 0), Ok(()));
        lose_store(&world, 2);
        assert!(matches!(check(&world, 0), Err(Violation::FalseHolder { node: 0, .. })));
    }

    #[test]
    fn a_device_whose_copy_is_gone_is_looked_at_again() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        world.copy_machine(1, &mut crate::chance::Chance::new(1, "copied"));
        world.take_off(2);
        assert_eq!(check(&world, 0), Ok(()));
        lose_store(&world, 1);
        assert!(matches!(check(&world, 0), Err(Violation::FalseHolder { node: 0, .. })));
    }
}
