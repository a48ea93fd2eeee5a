//! A run as a picture: copies of each photo, bytes sent and agreement over virtual time.
//!
//! Samples are the truth of the world, not what any node says: a copy is there when a machine durably holds every chunk,
//! as far as its store has noticed. A device that left for good, or has not joined yet, holds nothing. The picture is a
//! few lines of SVG written by hand: a library for it would be larger than the simulator's command.

mod svg;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::position::Position;

use crate::node::Node;
use crate::outcome::Traffic;
use crate::world::World;

/// The world at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    at_ms: u64,
    /// How many acknowledged photos are whole on so many nodes, from none to all.
    photos_by_copies: Vec<u64>,
    /// How many nodes are up.
    up: u64,
    /// How many nodes hold every acknowledged photo.
    whole: u64,
    traffic: Traffic,
}

/// Samples of one run.
#[derive(Debug, Default)]
pub struct Plot {
    samples: Vec<Sample>,
    /// What a node held when it was last up.
    held: Vec<BTreeSet<PhotoId>>,
    /// What was ever acknowledged: a photo that nobody has any more, or knows of, is one without copies.
    acknowledged: BTreeSet<PhotoId>,
    /// The chunks of photos, which stay what they are: asked of a library once.
    chunks: BTreeMap<PhotoId, Vec<ChunkId>>,
    /// When faults stop, as the world said last: time may leap until then.
    faults_stop_at: u64,
}

impl Plot {
    /// A plot without samples.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a sample. Costs a look into a table in memory for each chunk of each photo on each node.
    pub fn look(&mut self, world: &World) {
        self.faults_stop_at = world.faults_stop_at();
        self.acknowledged.extend(world.nodes.iter().flat_map(|node| &node.acknowledged).map(|of| of.photo));
        self.learn_chunks(world);
        self.held.resize_with(world.nodes.len(), BTreeSet::new);
        let is_member = |node: &&Node| world.is_member(node.number);
        for node in &world.nodes {
            let held = &mut self.held[node.number];
            if !is_member(&node) {
                held.clear();
            } else if node.machine.store().is_some() {
                let is_whole = |photo: &&PhotoId| {
                    self.chunks.get(photo).is_some_and(|chunks| chunks.iter().all(|chunk| node.machine.holds(chunk)))
                };
                *held = self.acknowledged.iter().filter(is_whole).copied().collect();
            } else {
                // A node that is down holds what it held, and what it acknowledged since somebody looked; whether a crash
                // took something shows when it is up again.
                held.extend(node.acknowledged.iter().map(|of| of.photo));
            }
        }
        let mut photos_by_copies = vec![0; world.nodes.len() + 1];
        for photo in &self.acknowledged {
            photos_by_copies[self.held.iter().filter(|held| held.contains(photo)).count()] += 1;
        }
        let holds_all = |node: &&Node| self.held[node.number].len() == self.acknowledged.len();
        let whole = world.nodes.iter().filter(is_member).filter(holds_all).count();
        self.samples.push(Sample {
            at_ms: world.now,
            photos_by_copies,
            up: world.nodes.iter().filter(|node| node.library.is_some()).count() as u64,
            whole: whole as u64,
            traffic: world.traffic,
        });
    }

    /// Asks any library that knows all chunks of a photo which they are.
    fn learn_chunks(&mut self, world: &World) {
        let is_unknown = |photo: &&PhotoId| !self.chunks.contains_key(photo);
        for photo in self.acknowledged.iter().filter(is_unknown).copied().collect::<Vec<_>>() {
            let mut libraries = world.nodes.iter().filter_map(|node| node.library.as_ref());
            let chunks = libraries.find_map(|library| {
                let run = library.photos().row(library.photos().slot(&photo)?).run;
                let at = |index| library.replica().chunk_at(&Position { author: run.author, index });
                run.indices().map(|index| Some(at(index)?.chunk)).collect::<Option<Vec<ChunkId>>>()
            });
            self.chunks.extend(chunks.map(|chunks| (photo, chunks)));
        }
    }

    /// The picture; `title` stands above it, and a line says when faults stopped.
    #[must_use]
    pub fn to_svg(&self, title: &str) -> String {
        svg::draw(&self.samples, title, self.faults_stop_at)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::ScrubCursor;

    use super::*;
    use crate::disk::Death;
    use crate::options::Options;
    use crate::outcome::run;
    use crate::trace::Trace;

    #[test]
    fn in_the_end_every_photo_is_everywhere() {
        let mut plot = Plot::new();
        let outcome = run(3, &Options::calm(3), Trace::silent(), 500, &mut |world| plot.look(world));
        assert!(outcome.verdict.is_clean());
        let (first, last) = (&plot.samples[0], &plot.samples[plot.samples.len() - 1]);
        assert!(first.photos_by_copies.iter().sum::<u64>() < last.photos_by_copies.iter().sum());
        assert_eq!(last.photos_by_copies[..3], [0, 0, 0]);
        assert_eq!((last.up, last.whole), (3, 3));
        let svg = plot.to_svg("a < b");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b"));
        assert!(svg.contains("faults stop"));
    }

    #[test]
    fn what_a_liar_claims_and_what_lies_on_lost_disks_is_no_copy() {
        let mut world = World::new(3, Options::calm(3)).unwrap();
        world.run().unwrap();
        let mut plot = Plot::new();
        let mut seen = |world: &World| {
            plot.look(world);
            plot.samples.remove(0)
        };
        let sample = seen(&world);
        let photos = sample.photos_by_copies[3];
        assert_eq!((&sample.photos_by_copies[..3], sample.whole, photos > 0), (&[0, 0, 0][..], 3, true));
        // It says on that it holds everything.
        let machine = &world.nodes[2].machine;
        for path in machine.disk.paths() {
            machine.disk.tamper(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
        machine.store().unwrap().scrub(ScrubCursor::default(), u64::MAX).unwrap();
        let sample = seen(&world);
        assert_eq!((&sample.photos_by_copies[..], sample.whole), (&[0, 0, photos, 0][..], 2));
        world.throw_away(1);
        let sample = seen(&world);
        assert_eq!((sample.photos_by_copies[1], sample.whole), (photos, 1), "{sample:?}");
    }

    #[test]
    fn a_node_that_is_down_holds_what_it_held() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run().unwrap();
        let mut plot = Plot::new();
        plot.look(&world);
        world.crash(1, Death::PowerLoss, 1_000);
        plot.look(&world);
        assert_eq!(plot.samples[0].photos_by_copies, plot.samples[1].photos_by_copies);
        assert_eq!((plot.samples[1].up, plot.samples[1].whole), (1, 2));
    }

    #[test]
    fn faults_stop_in_the_picture_when_they_stopped_in_the_world() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        let mut plot = Plot::new();
        plot.look(&world);
        assert_eq!(plot.faults_stop_at, 31_000, "a world begins at its first second");
        world.leap(3_600_000);
        world.run_watched(500, &mut |world| plot.look(world)).unwrap();
        assert_eq!(plot.faults_stop_at, 3_631_000);
        assert!(plot.samples.iter().any(|sample| sample.at_ms == plot.faults_stop_at));
    }

    #[test]
    fn a_run_without_samples_is_a_picture_too() {
        assert!(Plot::new().to_svg("nothing").contains("nothing"));
    }
}
