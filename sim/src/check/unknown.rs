//! 25: what a newer version says is kept and passed on byte for byte by versions that do not know it.

use holdfast_library::Library;
use holdfast_protocol::envelope::SignedEnvelope;
use holdfast_protocol::id::AuthorId;

use super::Violation;
use crate::fault::FaultClass;
use crate::metadata::VirtualMetadata;
use crate::world::World;

/// Compares what every node keeps of the log that a newer version wrote with what it wrote: whatever one of them keeps, all
/// do, and what was said to somebody again and again somebody keeps.
///
/// # Errors
/// The first envelope that is another, or the first node that keeps less than others.
pub fn check(world: &World) -> Result<(), Violation> {
    let Some(shadow) = world.shadows.get(&FaultClass::NewerVersion) else { return Ok(()) };
    let written = shadow.written();
    let mut all_kept = Vec::new();
    for node in &world.nodes {
        let Some(library) = &node.library else { continue };
        let kept = counting(library, &shadow.author(), written.len());
        all_kept.push((node.number, kept.map_err(|error| Violation::failed(node.number, error.into()))?));
    }
    // Of a device that is gone nobody needs to have heard anything.
    let is_heard = shadow.is_surely_heard() && !world.departed.contains(&shadow.device());
    let most = all_kept.iter().map(|(_, kept)| kept.len()).max().unwrap_or(0).max(usize::from(is_heard));
    all_kept.iter().try_for_each(|(node, kept)| check_kept(*node, kept, written, most))
}

/// What a node keeps of a log: who heard late that it has ended keeps more of it than counts.
fn counting(
    library: &Library<VirtualMetadata>,
    author: &AuthorId,
    written: usize,
) -> Result<Vec<SignedEnvelope>, holdfast_protocol::metadata::StorageError> {
    let ended = library.replica().registry().length_of(author);
    // One more than was written would be somebody else's.
    let limit = ended.map_or(written + 1, |length| length as usize);
    library.replica().read_log(author, 0, limit)
}

fn check_kept(node: usize, kept: &[SignedEnvelope], written: &[SignedEnvelope], most: usize) -> Result<(), Violation> {
    let is_other =
        |seq: &usize| written.get(*seq).map(SignedEnvelope::wire) != kept.get(*seq).map(SignedEnvelope::wire);
    if let Some(seq) = (0..kept.len()).find(is_other) {
        return Err(Violation::UnknownAltered { node, seq });
    }
    if kept.len() < most {
        return Err(Violation::UnknownLost { node, kept: kept.len(), most });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_protocol::metadata::{Batch, Metadata as _, Table};

    use super::*;
    use crate::options::Options;

    fn world() -> World {
        let classes = BTreeSet::from([FaultClass::NewerVersion, FaultClass::Crash, FaultClass::IndexLost]);
        let options = Options { classes, ..Options::calm(4) }.lasting(90_000);
        let mut world = World::new(5, options).unwrap();
        world.run().unwrap();
        world
    }

    #[test]
    fn what_a_newer_version_says_reaches_everybody_and_any_other_byte_is_found() {
        let world = world();
        let shadow = &world.shadows[&FaultClass::NewerVersion];
        let library = world.nodes[3].library.as_ref().unwrap();
        let kept = library.replica().read_log(&shadow.author(), 0, 100).unwrap();
        assert_eq!(kept.len(), shadow.written().len());
        assert!(kept.len() > 3 && shadow.is_surely_heard(), "{}", kept.len());
        let found = |kept: &[SignedEnvelope]| check_kept(3, kept, shadow.written(), kept.len());
        assert_eq!(found(&kept), Ok(()));
        let mut forged = kept.clone();
        forged.swap(1, 2);
        assert_eq!(found(&forged), Err(Violation::UnknownAltered { node: 3, seq: 1 }));
        let longer = [&kept[..], &kept[..1]].concat();
        assert_eq!(found(&longer), Err(Violation::UnknownAltered { node: 3, seq: kept.len() }));
    }

    #[test]
    fn a_node_that_keeps_less_than_others_is_found_and_so_are_all_when_none_keeps_anything() {
        let world = world();
        assert_eq!(check(&world), Ok(()));
        let author = world.shadows[&FaultClass::NewerVersion].author();
        let forget = |node: usize, from: usize| {
            let mut metadata = world.nodes[node].machine.metadata.clone();
            let mut batch = Batch::new();
            for (key, _) in metadata.scan(Table::Log, author.as_bytes(), &[], 1_000).unwrap().split_off(from) {
                batch.remove(Table::Log, key);
            }
            metadata.commit(batch).unwrap();
        };
        forget(2, 3);
        assert!(matches!(check(&world), Err(Violation::UnknownLost { node: 2, kept: 3, .. })));
        forget(2, 0);
        assert!(matches!(check(&world), Err(Violation::UnknownLost { node: 2, kept: 0, .. })));
        (0..4).for_each(|node| forget(node, 0));
        assert_eq!(check(&world), Err(Violation::UnknownLost { node: 0, kept: 0, most: 1 }));
    }
}
