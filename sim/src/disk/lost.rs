//! Machines that lose everything, and devices that are thrown away: what only they had is gone.

use std::collections::BTreeSet;

use holdfast_library::Library;
use holdfast_protocol::deposit::Deposit;
use holdfast_protocol::envelope::Kind;
use holdfast_protocol::id::{AuthorId, ChunkId};
use holdfast_protocol::position::Position;

use super::{Death, Machine};
use crate::chance::Chance;
use crate::check::Violation;
use crate::metadata::VirtualMetadata;
use crate::node::Node;
use crate::workload::Folder;
use crate::world::World;

/// What a crash of this moment would leave of a device.
pub(crate) struct Remains {
    node: usize,
    machine: Machine,
    library: Library<VirtualMetadata>,
}

impl World {
    /// A node's disk is lost with everything on it; its folder lay elsewhere now and then. Its person gets a new disk, and
    /// joins again as a new device.
    ///
    /// Not the disk of a device without which others could never meet: in the world too they would have to join again. False
    /// then.
    pub(crate) fn lose_disk(&mut self, node: usize, chance: &mut Chance) -> bool {
        let is_folder_kept = chance.one_in(2);
        let after = chance.span(500, 60_000);
        if !self.is_member(node) || !self.part_with(node) {
            return false;
        }
        let words = if is_folder_kept { "all but its folder" } else { "everything" };
        self.trace.note(self.now, Some(node), format_args!("its machine has lost {words}"));
        let incarnation = self.nodes[node].incarnation + 1;
        let mut fresh = Node::waiting(self.seed(), node, incarnation);
        let before = &mut self.nodes[node];
        if !is_folder_kept {
            before.folder = Folder::new();
        }
        fresh.inherit(before);
        self.nodes[node] = fresh;
        self.wait_to_join(node, incarnation, after);
        true
    }

    /// A device is no more: whatever only it had is asked of nobody. False when it cannot be spared.
    pub(crate) fn part_with(&mut self, node: usize) -> bool {
        // Its copy would go on in its name; and who was removed is on its way out.
        if self.copies.contains_key(&node) || self.hosts[node].is_removed {
            return false;
        }
        let rest = self.remains_without(node).filter(|rest| self.can_meet(rest));
        if let Some(rest) = &rest {
            self.bury(node);
            self.excuse_what_is_gone(rest);
        }
        rest.is_some()
    }

    /// A device ends for good: nobody answers for what it has said but those who know it.
    pub(crate) fn bury(&mut self, node: usize) {
        if self.nodes[node].library.is_some() {
            self.end(node, Death::Killed, 0);
        }
        let of = &mut self.nodes[node];
        let (device, folder, of_itself) = (of.device_id(), of.folder_name(), of.home == node);
        self.excused.entrusted.append(&mut of.acknowledged);
        of.edited.clear();
        self.excused.taken_along.append(&mut of.machine.taken);
        // Nobody takes back the names of its files.
        self.excused.folders.insert(folder);
        if of_itself {
            self.depart(device);
        }
    }

    /// What crashes of this moment would leave of all devices but one; `None` when one of them could not be opened, which is
    /// a finding.
    pub(crate) fn remains_without(&mut self, node: usize) -> Option<Vec<Remains>> {
        let others = self.nodes.iter().filter(|of| of.number != node && self.is_member(of.number));
        let opened = others.map(|of| {
            let mut machine = of.machine.after_crash();
            let opened = of.open_on(&mut machine, None, [0; 32], self.clock(of.number));
            let (library, _, _) = opened.map_err(|error| Violation::failed(of.number, error))?;
            Ok(Remains { node: of.number, machine, library })
        });
        let opened: Result<_, Violation> = opened.collect();
        opened.map_err(|violation| self.fail(violation)).ok()
    }

    /// Whether all of them know one device that they can dial, and some device can be dialled that may invite.
    pub(crate) fn can_meet(&self, rest: &[Remains]) -> bool {
        // Neither copies stay nor who was removed.
        let is_staying = |node: usize| node < self.options.nodes && !self.hosts[node].is_removed;
        let may_stay = |of: &Remains| is_staying(of.node) && self.network.is_dialable(of.node);
        let is_hub = |hub: &Remains| {
            let device = hub.library.replica().device();
            let knows = |of: &Remains| of.node == hub.node || of.library.replica().registry().is_member(&device);
            may_stay(hub) && rest.iter().all(knows)
        };
        let is_inviting = |of: &Remains| may_stay(of) && of.library.may_invite();
        rest.iter().any(is_hub) && rest.iter().any(is_inviting)
    }

    /// After a device was lost or forgot something: what nobody durably has cannot be asked of anyone. What no such device ever
    /// had and nobody destroyed is a finding when it is missing.
    pub(crate) fn excuse_what_is_gone(&mut self, rest: &[Remains]) {
        // What nodes that are up have heard, they may go on with.
        let heard = self.nodes.iter().filter_map(|of| of.library.as_ref());
        let libraries = rest.iter().map(|of| &of.library).chain(heard);
        let mut told: BTreeSet<ChunkId> = libraries.flat_map(deposited_anywhere).collect();
        // An import that waits to be catalogued will tell of chunks whose file is gone meanwhile.
        told.extend(self.nodes.iter().flat_map(|of| of.machine.destroyed.keys()));
        let is_left = |chunk: &ChunkId| rest.iter().any(|of| of.machine.holds(chunk) && of.machine.read(chunk).is_ok());
        let is_destroyed = |chunk: &ChunkId| self.nodes.iter().any(|of| of.machine.destroyed.contains_key(chunk));
        told.retain(|chunk| self.excused.taken_along.contains(chunk) || is_destroyed(chunk));
        told.retain(|chunk| !is_left(chunk));
        self.excused.chunks.append(&mut told);
        let (entrusted, forgotten): (Vec<_>, Vec<_>) = std::mem::take(&mut self.excused.entrusted)
            .into_iter()
            .partition(|of| rest.iter().any(|left| left.library.photos().slot(&of.photo).is_some()));
        self.excused.entrusted = entrusted;
        self.excused.photos.extend(forgotten.into_iter().map(|of| of.photo));
    }

    /// The same, when a node was put back as it was before it took in what only it knew, or it and a lost device.
    pub(crate) fn excuse_what_was_forgotten(&mut self) {
        if let Some(rest) = self.remains_without(usize::MAX) {
            self.excuse_what_is_gone(&rest);
        }
    }

    /// Faults have stopped: what somebody who stays can give after all is asked for like everything else.
    pub(crate) fn excuse_only_what_is_gone(&mut self) {
        for chunk in std::mem::take(&mut self.excused.chunks) {
            if !(0..self.nodes.len()).any(|node| self.is_member(node) && self.can_serve(node, &chunk)) {
                self.excused.chunks.insert(chunk);
            }
        }
    }
}

/// Every chunk of a deposit that a library keeps, also behind the end of a log: whoever kept that will deposit it again.
fn deposited_anywhere(library: &Library<VirtualMetadata>) -> Vec<ChunkId> {
    let replica = library.replica();
    let ended = replica.registry().endings().map(|(author, _)| author);
    let logs: BTreeSet<AuthorId> = replica.vector().into_iter().map(|point| point.author).chain(ended).collect();
    let envelopes = logs.into_iter().flat_map(|author| replica.read_log(&author, 0, usize::MAX).unwrap_or_default());
    let deposits = envelopes.filter(|signed| signed.envelope().kind == Kind::Deposit);
    let deposits = deposits.filter_map(|signed| Deposit::decode(&signed.envelope().body).ok());
    deposits.flat_map(|deposit| deposit.chunks).map(|deposited| deposited.chunk).collect()
}

/// Every chunk that was ever deposited, as far as a library knows, at a position that means something.
pub(crate) fn deposited(library: &Library<VirtualMetadata>) -> Vec<ChunkId> {
    let replica = library.replica();
    let chunks = replica.vector().into_iter().flat_map(|point| {
        let positions = (0..).map(move |index| Position { author: point.author, index });
        positions.map_while(|position| Some(replica.chunk_at(&position)?.chunk))
    });
    chunks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultClass;
    use crate::options::Options;

    fn world(seed: u64) -> World {
        let classes = BTreeSet::from([FaultClass::DiskLost]);
        World::new(seed, Options { classes, ..Options::calm(3) }.lasting(90_000)).unwrap()
    }

    #[test]
    fn who_joins_again_gets_every_photo_back_and_the_lost_device_is_counted_as_it_said() {
        let mut world = world(1);
        world.run().unwrap();
        assert!(!world.departed.is_empty());
        for node in &world.nodes {
            let library = node.library.as_ref().unwrap();
            let replica = library.replica();
            let is_missed = |chunk: &&ChunkId| replica.position_of(chunk).is_some() && !replica.holds(chunk);
            let gone = world.excused.chunks.iter().filter(is_missed).count();
            assert_eq!(replica.transfers().missing_chunks, gone as u64);
            for gone in &world.departed {
                assert!(library.replica().peers().iter().any(|peer| peer.device == *gone && !peer.connected));
            }
        }
    }

    #[test]
    fn what_somebody_can_give_after_all_is_excused_no_more() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        world.run_until(15_000).unwrap();
        let held = deposited(world.nodes[1].library.as_ref().unwrap());
        let held = *held.iter().find(|chunk| world.nodes[1].machine.holds(chunk)).unwrap();
        let gone = ChunkId::from_bytes([7; 32]);
        world.excused.chunks.extend([held, gone]);
        world.run().unwrap();
        assert_eq!(world.excused.chunks, BTreeSet::from([gone]));
    }

    #[test]
    fn what_only_a_lost_disk_had_is_asked_of_nobody_and_the_rest_is() {
        let mut world = world(1);
        world.run_until(25_000).unwrap();
        let promised = |world: &World| {
            let said = world.nodes.iter().flat_map(|node| &node.acknowledged).chain(&world.excused.entrusted);
            said.map(|of| of.photo).chain(world.excused.photos.iter().copied()).collect::<BTreeSet<_>>()
        };
        let before = promised(&world);
        world.lose_disk(2, &mut Chance::new(1, "lost"));
        assert_eq!((promised(&world), world.departed.len()), (before, 1));
        assert!(!world.excused.entrusted.is_empty() && !world.is_member(2));
        // The last two: neither can lose its disk while nobody else may invite or has joined.
        world.lose_disk(1, &mut Chance::new(1, "lost"));
        world.lose_disk(0, &mut Chance::new(1, "lost"));
        assert!(world.is_member(0) && world.departed.len() <= 2);
    }
}
