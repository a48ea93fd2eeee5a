//! 20: every fork that reaches two nodes is proven, and everybody has the proof.
//!
//! Logs that differ where both reach are a fork. Once all agree, nobody takes such a log for whole; and of a log that is
//! proven to be forked anywhere everybody knows so. Nobody is said to have forked who has not.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_library::Library;
use holdfast_protocol::envelope::SignedEnvelope;
use holdfast_protocol::id::{AuthorId, EnvelopeHash};
use holdfast_protocol::message::LogPoint;

use super::Violation;
use crate::fault::FaultClass;
use crate::metadata::VirtualMetadata;
use crate::node::Node;
use crate::world::World;

/// Compares the logs of all nodes that are up.
///
/// # Errors
/// The first node that does not know of a fork.
pub fn check(world: &World) -> Result<(), Violation> {
    // Nobody compares what lies behind the end of a log.
    let counting = knowing(world, |library, point| {
        let end = library.replica().registry().length_of(&point.author);
        end.map_or(point.length, |end| end.min(point.length))
    });
    // Who is put back as it was may write again what it has forgotten; who was copied does not know what the copy writes.
    let mut forking = [FaultClass::BackupRestored, FaultClass::Cloned].iter();
    let may_fork = forking.any(|class| world.options.classes.contains(class));
    for (author, knowing) in counting {
        let accused = knowing.iter().find(|(_, point)| point.forked);
        if let Some((node, _)) = accused.filter(|_| !may_fork && !world.excused.forked.contains(&author)) {
            return Err(Violation::HonestForked { node: node.number, author: author.short() });
        }
        if is_forked(&knowing) {
            let unaware = knowing.iter().find(|(_, point)| !point.forked);
            if let Some((node, _)) = unaware {
                return Err(Violation::ForkUnproven { node: node.number, author: author.short() });
            }
        }
    }
    Ok(())
}

/// The authors whose logs have forked, whether anybody has proven that or not: what they call a position may be two chunks.
pub(super) fn forked(world: &World) -> BTreeSet<AuthorId> {
    knowing(world, |_, point| point.length)
        .into_iter()
        .filter(|(_, knowing)| is_forked(knowing))
        .map(|(author, _)| author)
        .collect()
}

/// How far every node that is up knows every log, those that know least of it first: of two versions of a log, one that
/// ends before they part is like both, and must not stand between them.
fn knowing(
    world: &World,
    length: impl Fn(&Library<VirtualMetadata>, &LogPoint) -> u64,
) -> BTreeMap<AuthorId, Vec<(&Node, LogPoint)>> {
    let mut knowing: BTreeMap<AuthorId, Vec<(&Node, LogPoint)>> = BTreeMap::new();
    for node in &world.nodes {
        let Some(library) = &node.library else { continue };
        for point in library.replica().vector() {
            let length = length(library, &point);
            knowing.entry(point.author).or_default().push((node, LogPoint { length, ..point }));
        }
    }
    knowing.values_mut().for_each(|knowing| knowing.sort_by_key(|(_, point)| point.length));
    knowing
}

fn is_forked(knowing: &[(&Node, LogPoint)]) -> bool {
    let mut pairs = knowing.windows(2);
    knowing.iter().any(|(_, point)| point.forked) || pairs.any(|pair| differ(&pair[0], &pair[1]))
}

/// Whether two nodes know different envelopes under one number: then the last that both know are different.
fn differ((a, point): &(&Node, LogPoint), (b, other): &(&Node, LogPoint)) -> bool {
    let Some(last) = point.length.min(other.length).checked_sub(1) else { return false };
    hash_at(a, &point.author, last) != hash_at(b, &point.author, last)
}

fn hash_at(node: &Node, author: &AuthorId, seq: u64) -> Option<EnvelopeHash> {
    let read = node.library.as_ref()?.replica().read_log(author, seq, 1).ok()?;
    read.first().map(SignedEnvelope::hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn two_versions_of_a_log_are_found_until_they_are_proven() {
        let classes = BTreeSet::from([FaultClass::LieForked]);
        let mut world = World::new(5, Options { classes, ..Options::calm(4) }).unwrap();
        let (mut has_differed, mut is_proven) = (false, false);
        let mut watch = |world: &World| {
            has_differed |= matches!(check(world), Err(Violation::ForkUnproven { .. }));
            let forked =
                |node: &Node| node.library.as_ref().is_some_and(|of| of.replica().vector().iter().any(|of| of.forked));
            is_proven = world.nodes.iter().all(forked);
        };
        world.run_watched(1, &mut watch).unwrap();
        assert!(has_differed && is_proven);
        assert_eq!(check(&world), Ok(()));
    }

    #[test]
    fn an_honest_author_who_is_proven_to_have_forked_is_found() {
        let classes = BTreeSet::from([FaultClass::LieForked]);
        let mut world = World::new(5, Options { classes, ..Options::calm(4) }).unwrap();
        world.run().unwrap();
        world.excused.forked.clear();
        assert!(matches!(check(&world), Err(Violation::HonestForked { .. })));
    }
}
