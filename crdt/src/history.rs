//! The graph of a document's changes: who had seen what when they wrote.
//!
//! Invariants: changes of one actor are numbered from 1 without gaps and each has its predecessor among its
//! ancestors; a change comes after everything it depends on; a clock counts, for each actor, the changes that a
//! change has among its ancestors, itself included.

use automerge::{ActorId, Automerge, ChangeHash};
use indexmap::IndexMap;

use crate::genesis::have_one_owner;
use crate::limits::INCARNATIONS_MAX;

/// Number of an actor in one document, by first appearance.
pub(crate) type ActorIndex = usize;

/// For each actor, how many of its changes are known.
pub(crate) type Clock = Vec<u32>;

#[derive(Debug, Clone)]
struct Node {
    actor: ActorIndex,
    max_operation: u64,
    clock: Box<[u32]>,
}

/// All changes of a document, ancestors first.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    nodes: IndexMap<ChangeHash, Node>,
    actors: IndexMap<ActorId, Vec<usize>>,
}

/// A change that is about to be added.
#[derive(Debug)]
pub(crate) struct Footing {
    /// What the change's author had seen, without the change itself.
    pub(crate) clock: Clock,
    /// The highest operation counter among that.
    pub(crate) max_operation: u64,
}

impl History {
    /// Reads the graph of `automerge`; `None` when it is not one that this crate could have made.
    pub(crate) fn read(automerge: &Automerge) -> Option<Self> {
        let mut history = Self::default();
        for change in automerge.get_changes_meta(&[]) {
            let footing = history.footing(&change.deps)?;
            let sequence = u32::try_from(change.seq).ok()?;
            if history.changes_of(&change.actor) + 1 != sequence {
                return None;
            }
            history.push(change.hash, &change.actor, footing.clock, change.max_op);
        }
        Some(history)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn contains(&self, hash: &ChangeHash) -> bool {
        self.nodes.contains_key(hash)
    }

    /// How many changes of `actor` there are.
    pub(crate) fn changes_of(&self, actor: &ActorId) -> u32 {
        self.actors.get(actor).map_or(0, |changes| changes.len() as u32)
    }

    /// The last change of `actor`.
    pub(crate) fn last_of(&self, actor: &ActorId) -> Option<&ChangeHash> {
        let last = *self.actors.get(actor)?.last()?;
        self.nodes.get_index(last).map(|(hash, _)| hash)
    }

    /// Whether so many actors of its owner have written that there is no room for `actor` among them.
    pub(crate) fn has_no_room_for(&self, actor: &ActorId) -> bool {
        let is_new = !self.actors.contains_key(actor);
        is_new && self.actors.keys().filter(|other| have_one_owner(actor, other)).count() >= INCARNATIONS_MAX
    }

    /// The actor's number, if it has written.
    pub(crate) fn actor_index(&self, actor: &ActorId) -> Option<ActorIndex> {
        self.actors.get_index_of(actor)
    }

    /// What a change with these dependencies builds on; `None` while one of them is missing.
    pub(crate) fn footing(&self, dependencies: &[ChangeHash]) -> Option<Footing> {
        let mut footing = Footing { clock: Clock::new(), max_operation: 0 };
        for dependency in dependencies {
            let node = self.nodes.get(dependency)?;
            footing.max_operation = footing.max_operation.max(node.max_operation);
            if footing.clock.len() < node.clock.len() {
                footing.clock.resize(node.clock.len(), 0);
            }
            for (count, seen) in footing.clock.iter_mut().zip(&node.clock) {
                *count = (*count).max(*seen);
            }
        }
        Some(footing)
    }

    /// Adds a change whose author had seen `clock`.
    pub(crate) fn push(&mut self, hash: ChangeHash, actor: &ActorId, mut clock: Clock, max_operation: u64) {
        let at = self.nodes.len();
        let entry = self.actors.entry(actor.clone());
        let actor = entry.index();
        let changes = entry.or_default();
        changes.push(at);
        if clock.len() <= actor {
            clock.resize(actor + 1, 0);
        }
        clock[actor] = changes.len() as u32;
        self.nodes.insert(hash, Node { actor, max_operation, clock: clock.into_boxed_slice() });
    }

    /// Forgets all but the first `len` changes.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.nodes.len() > len {
            if let Some((_, node)) = self.nodes.pop()
                && let Some((_, changes)) = self.actors.get_index_mut(node.actor)
            {
                changes.pop();
            }
        }
        while self.actors.last().is_some_and(|(_, changes)| changes.is_empty()) {
            self.actors.pop();
        }
    }

    /// For each actor, how many changes lie among the first `len`.
    pub(crate) fn clock_of_first(&self, len: usize) -> Clock {
        self.actors.values().map(|changes| changes.partition_point(|at| *at < len) as u32).collect()
    }

    /// The last change of each actor that `clock` counts, among the first `len`: heads of what its owner had seen.
    pub(crate) fn frontier(&self, clock: &Clock, len: usize) -> Vec<ChangeHash> {
        let within = self.clock_of_first(len);
        self.actors
            .values()
            .zip(clock.iter().zip(&within))
            .filter_map(|(changes, (seen, within))| {
                let last = changes.get((*seen.min(within)).checked_sub(1)? as usize)?;
                self.nodes.get_index(*last).map(|(hash, _)| *hash)
            })
            .collect()
    }
}

/// Whether `clock` counts at least what `other` counts.
pub(crate) fn covers(clock: &Clock, other: &Clock) -> bool {
    other.iter().enumerate().all(|(actor, count)| clock.get(actor).copied().unwrap_or(0) >= *count)
}
