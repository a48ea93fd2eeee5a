//! Faults of disks: each strike hits one node, and those that last end by themselves.

use std::path::Path;

use holdfast_library::Input;
use holdfast_protocol::replica::Input as ReplicaInput;
use holdfast_store::ScrubCursor;
use holdfast_store::disk::Disk as _;
use holdfast_store::simulated::Failing;

use super::{Death, HOME};
use crate::chance::Chance;
use crate::fault::FaultClass;
use crate::world::{Coming, World};

/// What a scrub reads at a time.
const SCRUB_BYTES: u64 = 4 << 20;

impl World {
    /// A fault of a class that is about disks strikes; whether there was something to strike at.
    pub(crate) fn strike_disk(&mut self, class: FaultClass, mut chance: Chance) -> bool {
        let node = chance.below(self.options.nodes as u64) as usize;
        match class {
            FaultClass::RotSegment | FaultClass::RotOriginal => {
                let mut hits = 0;
                for _ in 0..chance.between(1, 4) {
                    let is_original = class == FaultClass::RotOriginal;
                    let hit = self.nodes[node].machine.rot(&mut chance, is_original);
                    self.trace.note(
                        self.now,
                        Some(node),
                        format_args!("{class}: {:?}", hit.map(|chunk| chunk.short())),
                    );
                    hits += u64::from(hit.is_some());
                    self.destroyed(node, hit);
                }
                hits > 0
            }
            FaultClass::ReadErrors => {
                self.fail_for_a_while(node, Failing { reads: chance.between(2, 60), ..Failing::default() }, &mut chance)
            }
            FaultClass::WriteErrors => self.fail_for_a_while(
                node,
                Failing { writes: chance.between(2, 60), ..Failing::default() },
                &mut chance,
            ),
            FaultClass::SyncErrors => {
                self.fail_for_a_while(node, Failing { syncs: chance.between(1, 20), ..Failing::default() }, &mut chance)
            }
            FaultClass::DiskFull => {
                let free = chance.below(120 << 20);
                self.trace.note(self.now, Some(node), format_args!("has {} MB left", free >> 20));
                self.nodes[node].machine.set_free_bytes(Some(free));
                self.push(chance.between(1_000, 60_000), Coming::DiskWorks { node });
                self.nodes[node].library.is_some()
            }
            FaultClass::CrashWriting => {
                let disk = &self.nodes[node].machine.disk;
                disk.crash_at(disk.operations() + chance.below(40));
                // Whoever writes nothing is caught by this.
                let death = Death::any(&mut chance);
                self.push(
                    chance.between(500, 5_000),
                    Coming::Crash { node, death, down_ms: chance.between(10, 5_000) },
                );
                self.nodes[node].library.is_some()
            }
            FaultClass::BackupRestored if self.is_member(node) => {
                let backup = Box::new(self.back_up(node));
                self.push(chance.between(5_000, 60_000), Coming::Restore { node, backup });
                true
            }
            _ => false,
        }
    }

    fn fail_for_a_while(&mut self, node: usize, failing: Failing, chance: &mut Chance) -> bool {
        self.trace.note(self.now, Some(node), format_args!("its disk fails: {failing:?}"));
        self.nodes[node].machine.set_failing(failing);
        self.push(chance.between(500, 20_000), Coming::DiskWorks { node });
        self.nodes[node].library.is_some()
    }

    /// A disk works again and has space.
    pub(crate) fn disk_works(&mut self, node: usize) {
        let machine = &mut self.nodes[node].machine;
        machine.set_failing(Failing::default());
        machine.set_free_bytes(None);
        debug_assert!(machine.disk.free_bytes(Path::new(HOME)).is_ok());
    }

    /// Faults have stopped: every disk works, and a node whose store takes nothing more is started again.
    pub(crate) fn heal_disks(&mut self) {
        for node in 0..self.nodes.len() {
            self.disk_works(node);
            let machine = &self.nodes[node].machine;
            if machine.is_doomed || machine.disk.has_crashed() {
                self.end(node, Death::Killed, 0);
            }
        }
    }

    /// A node reads its whole store and folder, and reports what is not as it should be.
    pub(crate) fn scrub(&mut self, node: usize) {
        let mut next = Some(ScrubCursor::default());
        while let Some(cursor) = next {
            let Some(store) = self.nodes[node].machine.store() else { return };
            let scrub = match store.scrub(cursor, SCRUB_BYTES) {
                Ok(scrub) => scrub,
                Err(error) => return self.store_failed(node, error),
            };
            next = scrub.next;
            if !scrub.found.is_empty() {
                self.handle(node, Input::Replica(ReplicaInput::ChunksStored(scrub.found)));
            }
            if !scrub.lost.is_empty() {
                self.handle(node, Input::Replica(ReplicaInput::ChunksLost(scrub.lost)));
            }
        }
    }
}
