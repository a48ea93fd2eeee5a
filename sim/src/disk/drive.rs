//! What a node's driver does with its disk: ingest, fetched chunks, flushes, and what follows when one of them fails.
//!
//! A disk that fails or is full is no violation; a node that stops although its disk never failed is one.

use bytes::Bytes;
use holdfast_library::{ImportId, Input, LibraryError};
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::replica::{FetchOutcome, Input as ReplicaInput, LinkId, RequestId};
use holdfast_store::simulated::Failing;

use super::{Death, Ingested};
use crate::check::Violation;
use crate::metadata::FlushPoint;
use crate::workload::Gesture;
use crate::world::{Coming, Completion, STORE_MS, World};

/// How long a file that was read waits for others to share its sync.
const ADOPT_MS: u64 = 100;
/// When ingest tries again after the store failed.
const WALK_AGAIN_MS: u64 = 30_000;
/// When a node that stopped is started again, at the latest.
const STARTED_AGAIN_MS: u64 = 20_000;

impl World {
    /// A person changes a node's folder.
    pub(crate) fn folder_changes(&mut self, node: usize, gesture: Gesture) {
        let at_risk = self.nodes[node].machine.only_in(gesture.path());
        let outcome = self.nodes[node].take_gesture(gesture);
        // What a person overwrites or deletes before anyone else has it is gone.
        self.destroyed(node, at_risk);
        self.ingested(node, outcome);
    }

    /// Ingest has something for the library, or could not do its work.
    pub(crate) fn ingested(&mut self, node: usize, outcome: Result<Ingested, StorageError>) {
        match outcome {
            Ok(ingested) => {
                for chunk in &ingested.chunks {
                    // What was destroyed after it was read for this batch is not there because of it.
                    let machine = &self.nodes[node].machine;
                    if machine.destroyed.get(chunk).is_none_or(|batches| batches + 1 < machine.batches) {
                        self.excused.chunks.remove(chunk);
                    }
                }
                self.destroyed(node, ingested.stale);
                for input in ingested.inputs {
                    self.handle(node, input);
                }
                if ingested.is_to_walk_again {
                    self.walk_later(node);
                }
                if self.nodes[node].machine.has_read() {
                    self.complete(node, ADOPT_MS, Completion::Adopt);
                }
            }
            Err(error) => {
                self.walk_later(node);
                self.store_failed(node, error);
            }
        }
    }

    pub(crate) fn adopt(&mut self, node: usize) {
        if self.nodes[node].machine.has_read() {
            let outcome = self.nodes[node].adopt();
            self.ingested(node, outcome);
        }
    }

    fn walk_later(&mut self, node: usize) {
        self.nodes[node].machine.is_walk_due = true;
        self.complete(node, WALK_AGAIN_MS, Completion::Walk);
    }

    pub(crate) fn walk(&mut self, node: usize) {
        self.nodes[node].machine.is_walk_due = false;
        let outcome = self.nodes[node].walk();
        self.ingested(node, outcome);
    }

    pub(crate) fn catalogued(&mut self, node: usize, imports: &[ImportId]) {
        match self.nodes[node].take_acknowledgement(imports) {
            Ok(inputs) => inputs.into_iter().for_each(|input| self.handle(node, input)),
            Err(error) => {
                self.walk_later(node);
                self.store_failed(node, error);
            }
        }
    }

    /// The bytes of a chunk have arrived and are what was asked for: they are appended now and committed a little later.
    pub(crate) fn chunk_arrived(&mut self, node: usize, link: u64, request: RequestId, chunk: ChunkId, sealed: &Bytes) {
        let completion = match self.nodes[node].machine.append(chunk, sealed) {
            Ok(()) => Completion::Stored { link, request, chunk },
            Err(error) => {
                self.store_failed(node, error.clone());
                let outcome = FetchOutcome::StorageFailed(error);
                let fetched = ReplicaInput::Fetched { link: LinkId(link), request, chunk, outcome };
                Completion::Done(Box::new(Input::Replica(fetched)))
            }
        };
        self.complete(node, STORE_MS, completion);
    }

    pub(crate) fn chunk_stored(&mut self, node: usize, link: u64, request: RequestId, chunk: ChunkId) {
        let outcome = match self.nodes[node].machine.commit() {
            Ok(()) => {
                // It may have rotted since it was appended.
                if self.nodes[node].machine.destroyed.contains_key(&chunk) && self.can_serve(node, &chunk) {
                    self.nodes[node].machine.destroyed.remove(&chunk);
                }
                FetchOutcome::Stored
            }
            Err(error) => {
                self.store_failed(node, error.clone());
                FetchOutcome::StorageFailed(error)
            }
        };
        let fetched = ReplicaInput::Fetched { link: LinkId(link), request, chunk, outcome };
        self.handle(node, Input::Replica(fetched));
    }

    pub(crate) fn flushed(&mut self, node: usize, point: FlushPoint, input: Input) {
        match self.nodes[node].machine.metadata.complete_flush(point) {
            Ok(()) => self.handle(node, input),
            Err(error) => self.library_failed(node, error.into()),
        }
    }

    /// The library stopped: so does the node, and someone starts it again.
    pub(crate) fn library_failed(&mut self, node: usize, error: LibraryError) {
        let machine = &self.nodes[node].machine;
        let is_storage =
            matches!(&error, LibraryError::Storage(error) if !matches!(error, StorageError::Damaged { .. }));
        let is_storage =
            is_storage || matches!(&error, LibraryError::Append(holdfast_protocol::replica::AppendError::Storage(_)));
        if !is_storage || !machine.has_failed() {
            return self.fail(Violation::failed(node, error));
        }
        let death = if machine.disk.has_crashed() { Death::PowerLoss } else { Death::Killed };
        let down_ms = self.nodes[node].chance.between(1_000, STARTED_AGAIN_MS);
        self.end(node, death, down_ms);
    }

    /// The store did not take something. When only space is missing it goes on by itself; otherwise it takes nothing more
    /// until the node was started again, which someone does.
    pub(crate) fn store_failed(&mut self, node: usize, error: StorageError) {
        let machine = &self.nodes[node].machine;
        let is_patient = matches!(error, StorageError::Full | StorageError::ReadOnly { .. });
        if !machine.has_failed() || matches!(error, StorageError::Damaged { .. }) {
            return self.fail(Violation::failed(node, error.into()));
        }
        if machine.disk.has_crashed() {
            self.push(0, Coming::Crash { node, death: Death::PowerLoss, down_ms: 1_000 });
        } else if !is_patient {
            let of = &mut self.nodes[node];
            if !std::mem::replace(&mut of.machine.is_doomed, true) {
                let (death, after) = (Death::any(&mut of.chance), of.chance.between(0, STARTED_AGAIN_MS));
                self.push(after, Coming::Crash { node, death, down_ms: 500 });
            }
        }
    }

    /// Copies of chunks were destroyed on a node. What no other has now cannot be asked of anyone.
    pub(crate) fn destroyed(&mut self, node: usize, chunks: impl IntoIterator<Item = ChunkId>) {
        for chunk in chunks {
            let machine = &mut self.nodes[node].machine;
            machine.destroyed.insert(chunk, machine.batches);
            let others = (0..self.nodes.len()).filter(|other| *other != node);
            if !others.into_iter().any(|other| self.can_serve(other, &chunk)) {
                self.excused.chunks.insert(chunk);
            }
        }
    }

    /// Whether a node can read a chunk when its disk works. What it finds out by that, it reports as ever.
    pub(super) fn can_serve(&mut self, node: usize, chunk: &ChunkId) -> bool {
        let disk = self.nodes[node].machine.disk.clone();
        disk.set_failing(Failing::default());
        let (served, lost) = self.nodes[node].serve_chunk(chunk);
        disk.set_failing(self.nodes[node].machine.failing());
        if let Some(lost) = lost.filter(|_| self.nodes[node].machine.store().is_some()) {
            self.complete(node, 1, Completion::Done(Box::new(lost)));
        }
        served.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_library_that_stops_although_no_disk_has_failed_is_found() {
        let mut world = World::new(3, Options::calm(2)).unwrap();
        // The machine is not told that its disk fails: so nothing excuses the node.
        world.nodes[1].machine.disk.set_failing(Failing { writes: 1, syncs: 1, ..Failing::default() });
        let found = world.run();
        assert!(matches!(found, Err(Violation::Failed { node: 1, error: LibraryError::Storage(_) })), "{found:?}");
    }

    #[test]
    fn a_failing_disk_excuses_a_node_that_stops_and_not_one_that_cannot_read_what_it_wrote() {
        let damaged = || StorageError::Damaged { what: "an envelope of the log".to_owned() };
        let found = |error| {
            let mut world = World::new(3, Options::calm(2)).unwrap();
            world.nodes[1].machine.set_failing(Failing { writes: 2, ..Failing::default() });
            world.library_failed(1, LibraryError::Storage(error));
            world.run_until(world.now)
        };
        assert_eq!(found(StorageError::Poisoned), Ok(()));
        assert!(matches!(found(damaged()), Err(Violation::Failed { node: 1, .. })));
    }
}
