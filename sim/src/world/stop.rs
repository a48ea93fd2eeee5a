//! Orderly stops, as the real node does them, and devices that never come back.

use holdfast_library::LibraryError;
use holdfast_protocol::replica::Input as ReplicaInput;

use super::{Coming, Completion, World};
use crate::disk::Death;

impl World {
    /// A person stops a node, and starts it again later: what is in memory only is written down first, so that the next
    /// start finds a checkpoint, and knows what peers hold. Whether it was up.
    pub(crate) fn restart(&mut self, node: usize, down_ms: u64) -> bool {
        if self.nodes[node].library.is_none() || self.hosts[node].held.is_some() {
            return false;
        }
        self.trace.note(self.now, Some(node), format_args!("is stopped"));
        self.input(node, ReplicaInput::Stopping);
        match self.write_down(node) {
            Ok(()) => {
                if self.nodes[node].library.is_some() {
                    self.end(node, Death::Killed, down_ms);
                }
            }
            Err(error) => self.library_failed(node, error),
        }
        true
    }

    fn write_down(&mut self, node: usize) -> Result<(), LibraryError> {
        if self.nodes[node].machine.is_short_of_space() {
            return Ok(());
        }
        if let Some(library) = &mut self.nodes[node].library {
            library.checkpoint();
        }
        // No new work: only the index is waited for.
        for update in self.updates_of_the_index(node) {
            self.completed(node, update);
        }
        let of = &mut self.nodes[node];
        let Some(library) = &mut of.library else { return Ok(()) };
        let unkept = library.replica().unkept_inventories();
        library.keep(unkept)?;
        Ok(of.machine.metadata.complete_flush(of.machine.metadata.begin_flush())?)
    }

    fn updates_of_the_index(&mut self, of: usize) -> Vec<Completion> {
        let run = self.nodes[of].run;
        let is_update = |coming: &Coming| match coming {
            Coming::Completed { node, run: at, completion } => {
                (*node, *at) == (of, run) && matches!(completion, Completion::Indexed { .. })
            }
            _ => false,
        };
        let updates: Vec<_> = self.queue.iter().filter(|(_, coming)| is_update(coming)).map(|(key, _)| *key).collect();
        let taken = updates.into_iter().filter_map(|key| match self.queue.remove(&key)? {
            Coming::Completed { completion, .. } => Some(completion),
            _ => None,
        });
        taken.collect()
    }

    /// A node's person throws its machine away. The first device stays, and so does one without which others could never
    /// meet. Whether it did.
    pub(crate) fn throw_away(&mut self, node: usize) -> bool {
        let is_gone = node > 0 && self.is_member(node) && self.part_with(node);
        if is_gone {
            self.trace.note(self.now, Some(node), format_args!("is thrown away"));
            self.vacate(node);
        }
        is_gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fault::FaultClass;
    use crate::options::Options;

    #[test]
    fn a_stopped_node_starts_with_its_checkpoint_and_with_what_its_peers_hold() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run_until(25_000).unwrap();
        world.restart(1, u64::MAX >> 1);
        let held = |world: &World| world.nodes[0].library.as_ref().map(|library| library.replica().own_length());
        assert!(world.nodes[1].library.is_none() && held(&world) > Some(2));
        let now = world.clock(1);
        let node = &world.nodes[1];
        let mut machine = node.machine.after_crash();
        let (library, _, _) = node.open_on(&mut machine, node.index.version(), [1; 32], now).unwrap();
        assert_eq!(machine.metadata.unflushed(), 1, "only the new generation");
        assert!(library.replica().holders().count() == 2 && !library.photos().is_empty());
    }

    #[test]
    fn nobody_waits_for_a_device_that_was_thrown_away() {
        let classes = BTreeSet::from([FaultClass::ThrownAway, FaultClass::Restart]);
        let mut thrown = 0;
        for seed in 1..5 {
            let options = Options { classes: classes.clone(), ..Options::calm(4) }.lasting(120_000);
            let mut world = World::new(seed, options).unwrap();
            world.run().unwrap();
            thrown += world.departed.len();
        }
        assert!(thrown > 1, "{thrown}");
    }
}
