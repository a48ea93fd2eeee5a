//! 7 and 10: who knows the same says the same. Equal logs and holdings give equal documents, photos, counts and lists,
//! whatever the order in which they came and however often a node was started.

use std::collections::BTreeMap;

use holdfast_library::Library;
use holdfast_protocol::id::PhotoId;
use holdfast_protocol::metadata::StorageError;

use super::{Violation, is_nameless};
use crate::metadata::VirtualMetadata;
use crate::node::Node;
use crate::world::World;

/// Compares every node with the first.
///
/// # Errors
/// The first difference.
pub fn check(world: &World) -> Result<(), Violation> {
    let Some(first) = world.nodes.first() else { return Ok(()) };
    let Some(library) = &first.library else { return Ok(()) };
    let said = photos(library);
    let heads = library.document_heads().map_err(failed(0))?;
    for node in &world.nodes {
        let Some(other) = &node.library else { continue };
        let unequal = |what: String| Violation::Unequal { node: node.number, what };
        compare(&said, &photos(other), PhotoId::short).map_err(unequal)?;
        let others = other.document_heads().map_err(failed(node.number))?;
        compare(&heads, &others, ToString::to_string).map_err(unequal)?;
        if library.summary() != other.summary() {
            return Err(unequal(format!("{:?} and {:?}", library.summary(), other.summary())));
        }
        let named = |of: &Node| -> BTreeMap<_, _> {
            let photos = of.index.photos().iter().filter(|(photo, _)| !is_nameless(world, library, photo));
            photos.map(|(photo, shown)| (*photo, shown.clone())).collect()
        };
        compare(&named(first), &named(node), PhotoId::short).map_err(unequal)?;
        compare(first.index.labels(), node.index.labels(), Clone::clone).map_err(unequal)?;
    }
    Ok(())
}

fn failed(node: usize) -> impl Fn(StorageError) -> Violation {
    move |error| Violation::failed(node, error.into())
}

/// What is said of a photo: its run, bytes, whether it is listed, its copies and places.
type Said = (holdfast_protocol::position::Run, u64, bool, (u32, u32));

fn photos(library: &Library<VirtualMetadata>) -> BTreeMap<PhotoId, Said> {
    let rows = (0..library.photos().len() as u32).map(|slot| library.photos().row(slot));
    rows.map(|row| (row.photo, (row.run, row.bytes, row.listed, library.copies_of(&row.photo)))).collect()
}

/// The first key for which two maps differ, in words.
fn compare<K: Ord, T: PartialEq + std::fmt::Debug>(
    first: &BTreeMap<K, T>,
    second: &BTreeMap<K, T>,
    name: fn(&K) -> String,
) -> Result<(), String> {
    let differs = first.keys().chain(second.keys()).find(|key| first.get(key) != second.get(key));
    differs.map_or(Ok(()), |key| Err(format!("{}: {:?} and {:?}", name(key), first.get(key), second.get(key))))
}

#[cfg(test)]
mod tests {
    use holdfast_library::index::{IndexChange, IndexedState};

    use super::*;
    use crate::options::Options;

    #[test]
    fn an_index_that_missed_a_change_is_found() {
        let mut world = World::new(4, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check(&world), Ok(()));
        let photo = *world.nodes[1].index.photos().keys().next().unwrap();
        world.nodes[1].index.apply(u64::MAX, vec![IndexChange::State { photo, state: IndexedState::Trashed }]);
        assert!(matches!(check(&world), Err(Violation::Unequal { node: 1, .. })));
    }

    #[test]
    fn counts_of_a_node_that_stands_apart_are_found() {
        let mut world = World::new(5, Options::calm(2)).unwrap();
        drop(world.network.separate(0, 1, u64::MAX));
        world.run_until(31_000).unwrap();
        assert!(matches!(check(&world), Err(Violation::Unequal { node: 1, .. })));
    }

    #[test]
    fn a_document_that_lacks_a_change_is_found() {
        let mut world = World::new(4, Options::calm(2)).unwrap();
        world.run().unwrap();
        let heads = |world: &World, node: usize| world.nodes[node].library.as_ref().unwrap().document_heads().unwrap();
        let (first, mut second) = (heads(&world, 0), heads(&world, 1));
        assert!(!first.is_empty() && compare(&first, &second, ToString::to_string).is_ok());
        drop(second.pop_last());
        assert!(compare(&first, &second, ToString::to_string).is_err());
    }
}
