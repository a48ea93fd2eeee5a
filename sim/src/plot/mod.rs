//! A run as a picture: copies of each photo, bytes sent and agreement over virtual time.
//!
//! Samples are the truth of the world, not what any node says. The picture is a few lines of SVG written by hand: a
//! library for it would be larger than the simulator's command.

mod svg;

use std::collections::BTreeSet;

use holdfast_protocol::id::PhotoId;

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
}

impl Plot {
    /// A plot without samples.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a sample.
    pub fn look(&mut self, world: &World) {
        self.held.resize_with(world.nodes.len(), BTreeSet::new);
        let acknowledged: BTreeSet<PhotoId> =
            world.nodes.iter().flat_map(|node| &node.acknowledged).map(|of| of.photo).collect();
        for (node, held) in world.nodes.iter().zip(&mut self.held) {
            // A node that is down holds what it held, and what it acknowledged since somebody looked; whether a crash
            // took something shows when it is up again.
            let Some(library) = &node.library else {
                held.extend(node.acknowledged.iter().map(|of| of.photo));
                continue;
            };
            let own = library.replica().holdings(&node.device_id());
            let photos = library.photos();
            let is_whole = |photo: &&PhotoId| {
                let run = photos.slot(photo).map(|slot| photos.row(slot).run);
                own.zip(run).is_some_and(|(own, run)| own.holds_run(&run))
            };
            *held = acknowledged.iter().filter(is_whole).copied().collect();
        }
        let mut photos_by_copies = vec![0; world.nodes.len() + 1];
        for photo in &acknowledged {
            photos_by_copies[self.held.iter().filter(|held| held.contains(photo)).count()] += 1;
        }
        let whole = self.held.iter().filter(|held| held.len() == acknowledged.len()).count();
        self.samples.push(Sample {
            at_ms: world.now,
            photos_by_copies,
            up: world.nodes.iter().filter(|node| node.library.is_some()).count() as u64,
            whole: whole as u64,
            traffic: world.traffic,
        });
    }

    /// The picture; `title` stands above it, a line at `heal_ms` says that faults stop.
    #[must_use]
    pub fn to_svg(&self, title: &str, heal_ms: u64) -> String {
        svg::draw(&self.samples, title, heal_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let svg = plot.to_svg("a < b", 30_000);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt; b"));
    }

    #[test]
    fn a_run_without_samples_is_a_picture_too() {
        assert!(Plot::new().to_svg("nothing", 0).contains("nothing"));
    }
}
