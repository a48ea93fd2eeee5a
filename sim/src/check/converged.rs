//! 24: after faults stop, everything converges within a bound.

use holdfast_library::Library;
use holdfast_protocol::id::{AuthorId, ChunkId, DeviceId, EnvelopeHash};
use holdfast_protocol::position::Position;

use super::Violation;
use crate::disk::deposited;
use crate::metadata::VirtualMetadata;
use crate::world::World;

/// Every node is up, has nothing outstanding, knows the same logs, holds everything, and knows that the others do.
///
/// # Errors
/// The first node of which that is not so.
pub fn check(world: &World) -> Result<(), Violation> {
    let first = world.nodes.first().and_then(|node| node.library.as_ref());
    // Nothing is asked of devices that are no more, but that all know the same of them.
    let gone = |library| world.departed.iter().map(|device| held_root(library, device)).collect::<Vec<_>>();
    let vector = first.map(logs);
    let root = world.nodes.first().and_then(|node| held_root(first?, &node.device_id()));
    if let Some(node) = world.nodes.iter().find(|node| world.is_waiting(node.number)) {
        return Err(Violation::NotConverged { node: node.number, what: "it has not joined yet".to_owned() });
    }
    for node in world.nodes.iter().filter(|node| world.is_member(node.number)) {
        let apart = |what: &str| Violation::NotConverged { node: node.number, what: what.to_owned() };
        let library = node.library.as_ref().ok_or_else(|| apart("it is down"))?;
        if !node.is_idle() {
            return Err(apart("an import is not acknowledged"));
        }
        if library.has_to_carry() {
            return Err(apart("what it knows of a log that has ended is not carried on"));
        }
        if node.index.version().unwrap_or(0) < node.index_asked {
            return Err(apart("its index is behind"));
        }
        if vector.as_ref() != Some(&logs(library)) {
            let first = vector.unwrap_or_default();
            let other = logs(library).into_iter().find(|point| !first.contains(point));
            let other = other.map_or_else(String::new, |(author, length, _)| {
                format!(", {length} envelopes of {} first", author.short())
            });
            return Err(apart(&format!("it knows other logs than the first node{other}")));
        }
        let replica = library.replica();
        let missing = replica.transfers().missing_chunks;
        if missing > 0
            && let Some(lacked) = first_lacked(world, library)
        {
            return Err(apart(&format!("{missing} chunks are missing, {lacked} first")));
        }
        for of in world.nodes.iter().filter(|of| world.is_member(of.number)) {
            if held_root(library, &of.device_id()) != root {
                return Err(apart(&format!("it does not know what node {} holds", of.number)));
            }
        }
        if first.map(gone) != Some(gone(library)) {
            return Err(apart("it knows something else of what a device held that is gone"));
        }
        let photos = library.photos();
        // What a photo is stands in its manifest; without that nobody can say it.
        let manifest = |slot: &u32| {
            let run = photos.row(*slot).run;
            Some(replica.chunk_at(&Position { author: run.author, index: run.start })?.chunk)
        };
        let is_gone = |slot: &u32| manifest(slot).is_some_and(|chunk| world.excused.chunks.contains(&chunk));
        let is_shown = |slot: &u32| {
            let row = photos.row(*slot);
            row.described && node.index.photos().get(&row.photo).is_some_and(|shown| shown.facts.is_some())
        };
        let hidden = (0..photos.len() as u32).filter(|slot| !is_gone(slot) && !is_shown(slot)).count();
        if hidden > 0 {
            return Err(apart(&format!("{hidden} of {} photos are not described or not shown", photos.len())));
        }
    }
    Ok(())
}

/// How long agreeing may take after faults stop, in milliseconds.
///
/// A peer that could not be reached is called again after at most 7.5 minutes (the limit of the backoff and its jitter), as
/// is one whose chunks could not be had; what a link was given before it broke is missed after 60 seconds without an answer;
/// a dial and an answer are given up within 30, a request for a chunk within 5 minutes. One such wait can stand behind
/// another: logs first, then inventories, then chunks. So the options grant 15 minutes, and behind them every byte of a
/// chunk that is sent may take its time on the slowest connection, at most twenty times that: a livelock is found.
#[must_use]
pub fn bound_ms(world: &World, chunk_bytes: u64) -> u64 {
    let sending_ms = chunk_bytes / world.network.slowest_rate();
    world.options.converge_ms + sending_ms.min(20 * world.options.converge_ms)
}

/// How far logs are known that count: who heard of a removal late knows more of a log than counts.
fn logs(library: &Library<VirtualMetadata>) -> Vec<(AuthorId, u64, Option<EnvelopeHash>)> {
    let replica = library.replica();
    let counting = replica.vector().into_iter().map(|point| {
        let ended = replica.registry().length_of(&point.author);
        let length = ended.map_or(point.length, |length| length.min(point.length));
        (point.author, length, ended.is_none().then_some(point.head))
    });
    counting.filter(|(_, length, _)| *length > 0).collect()
}

/// The first chunk that a node lacks and could be given.
fn first_lacked(world: &World, library: &Library<VirtualMetadata>) -> Option<String> {
    let replica = library.replica();
    let is_lacked = |chunk: &ChunkId| !replica.holds(chunk) && !world.excused.chunks.contains(chunk);
    Some(deposited(library).into_iter().find(is_lacked)?.short())
}

fn held_root(library: &Library<VirtualMetadata>, device: &DeviceId) -> Option<[u8; 32]> {
    library.replica().holdings(device).map(|holdings| holdings.clone().root())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn nodes_that_stay_apart_are_found() {
        let mut world = World::new(7, Options::calm(2)).unwrap();
        drop(world.network.separate(0, 1, u64::MAX));
        world.run_until(60_000).unwrap();
        assert!(matches!(check(&world), Err(Violation::NotConverged { .. })));
    }
}
