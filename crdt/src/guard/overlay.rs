//! The checks that need the document: each operation overwrites exactly what its author saw.
//!
//! Changes of a batch are checked before any of them is applied, so what a change's author saw is put together from
//! the document as it was and from the batch's own earlier operations on the same key.

use std::collections::BTreeMap;

use automerge::{Automerge, ObjId, ROOT, ReadDoc, ScalarValue, Value};

use super::screen::{OperationId, Put, Rule, Screened};
use crate::history::{ActorIndex, Clock, Footing, History, covers};
use crate::refusal::ChangeRefused;
use crate::state::State;

/// What stands under a key for someone who has seen a part of the history.
#[derive(Debug, Clone)]
struct Visible {
    id: OperationId,
    /// Of states; 0 for other keys.
    generation: u32,
}

#[derive(Debug)]
struct Written {
    actor: ActorIndex,
    sequence: u32,
    predecessors: Vec<OperationId>,
    visible: Visible,
}

/// What the author of a change had seen.
struct Seen<'a> {
    clock: &'a Clock,
    /// The document and the whole batch so far.
    all: bool,
    /// The whole document as it was before the batch.
    applied: bool,
}

#[derive(Debug, Default)]
struct Entry {
    /// Visible in the document before the batch.
    before: Vec<Visible>,
    /// Visible to one who has seen the document and the whole batch so far.
    now: Vec<Visible>,
    /// The batch's operations.
    batch: Vec<Written>,
}

/// The keys that a batch touches.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    automerge: &'a Automerge,
    /// Changes of the history that are in `automerge`.
    applied: usize,
    applied_clock: Clock,
    entries: BTreeMap<String, Entry>,
}

impl<'a> Overlay<'a> {
    /// An overlay without a batch yet; `history` is that of `automerge`.
    pub(crate) fn new(automerge: &'a Automerge, history: &History) -> Self {
        let applied = history.len();
        Self { automerge, applied, applied_clock: history.clock_of_first(applied), entries: BTreeMap::new() }
    }

    /// Checks a change all of whose dependencies are in `history`, and takes it into the batch and the history.
    pub(crate) fn admit(&mut self, history: &mut History, screened: &Screened) -> Result<(), ChangeRefused> {
        let change = &screened.change;
        let actor = change.actor_id();
        if history.has_no_room_for(actor) {
            return Err(ChangeRefused::TooMany { what: "incarnations of its author" });
        }
        let expected = u64::from(history.changes_of(actor)) + 1;
        if change.seq() != expected {
            return Err(ChangeRefused::WrongSequence { expected, found: change.seq() });
        }
        if change.deps().is_empty() {
            return Err(ChangeRefused::NoDependencies);
        }
        if history.last_of(actor).is_some_and(|last| !change.deps().contains(last)) {
            return Err(ChangeRefused::NotOnOwnLast);
        }
        let Some(footing) = history.footing(change.deps()) else {
            return Err(ChangeRefused::Malformed { what: "dependencies" });
        };
        let start = change.start_op().get();
        if start != footing.max_operation + 1 {
            return Err(ChangeRefused::WrongStart { expected: footing.max_operation + 1, found: start });
        }
        let seen = self.seen(history, &footing.clock);
        for put in &screened.puts {
            self.check(history, &seen, put)?;
        }
        history.push(screened.hash, actor, footing.clock, change.max_op());
        let index = history.actor_index(actor).unwrap_or(0);
        for (counter, put) in (start..).zip(&screened.puts) {
            let id = OperationId { counter, actor: actor.clone() };
            self.write(index, change.seq() as u32, id, put);
        }
        Ok(())
    }

    fn seen<'c>(&self, history: &History, clock: &'c Clock) -> Seen<'c> {
        Seen {
            all: covers(clock, &history.clock_of_first(history.len())),
            applied: covers(clock, &self.applied_clock),
            clock,
        }
    }

    /// The operations whose values stand under `key` for one who builds on `footing`, in ascending order.
    pub(crate) fn operations_seen(&mut self, history: &History, footing: &Footing, key: &str) -> Vec<OperationId> {
        let seen = self.seen(history, &footing.clock);
        self.visible(history, &seen, key).into_iter().map(|visible| visible.id).collect()
    }

    fn check(&mut self, history: &History, seen: &Seen<'_>, put: &Put) -> Result<(), ChangeRefused> {
        let key = || put.key.clone();
        let visible = self.visible(history, seen, &put.key);
        let matches = visible.len() == put.predecessors.len()
            && visible.iter().zip(&put.predecessors).all(|(visible, named)| visible.id == *named);
        if !matches {
            return Err(ChangeRefused::WrongPredecessors { key: key() });
        }
        match put.rule {
            Rule::Free => Ok(()),
            Rule::Once if visible.is_empty() => Ok(()),
            Rule::Once => Err(ChangeRefused::RecordRewritten { key: key() }),
            Rule::Generation(generation) => {
                let highest = visible.iter().map(|visible| visible.generation).max().unwrap_or(0);
                if highest.checked_add(1) == Some(generation) {
                    Ok(())
                } else {
                    Err(ChangeRefused::WrongGeneration { key: key() })
                }
            }
        }
    }

    /// What one who has seen `seen` finds under `key`, in ascending order.
    fn visible(&mut self, history: &History, seen: &Seen<'_>, key: &str) -> Vec<Visible> {
        let automerge = self.automerge;
        if !self.entries.contains_key(key) {
            let before = read(automerge, key);
            self.entries.insert(key.to_owned(), Entry { now: before.clone(), before, batch: Vec::new() });
        }
        let entry = &self.entries[key];
        if seen.all {
            return entry.now.clone();
        }
        // Keys are never deleted: what is not there now was never there.
        let mut visible = if entry.before.is_empty() || seen.applied {
            entry.before.clone()
        } else {
            read_at(automerge, key, history, seen.clock, self.applied)
        };
        let among = |written: &&Written| seen.clock.get(written.actor).is_some_and(|count| *count >= written.sequence);
        for written in entry.batch.iter().filter(among) {
            visible.retain(|visible| !written.predecessors.contains(&visible.id));
            visible.push(written.visible.clone());
        }
        visible.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        visible
    }

    fn write(&mut self, actor: ActorIndex, sequence: u32, id: OperationId, put: &Put) {
        let generation = match put.rule {
            Rule::Generation(generation) => generation,
            Rule::Free | Rule::Once => 0,
        };
        let visible = Visible { id, generation };
        let entry = self.entries.entry(put.key.clone()).or_default();
        entry.now.retain(|visible| !put.predecessors.contains(&visible.id));
        entry.now.push(visible.clone());
        entry.now.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        entry.batch.push(Written { actor, sequence, predecessors: put.predecessors.clone(), visible });
    }

    /// The keys that the batch touches.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = String> {
        self.entries.into_iter().filter(|(_, entry)| !entry.batch.is_empty()).map(|(key, _)| key)
    }
}

/// The operations whose values stand under `key` now, in ascending order.
pub(crate) fn operations(automerge: &Automerge, key: &str) -> Vec<OperationId> {
    read(automerge, key).into_iter().map(|visible| visible.id).collect()
}

fn read(automerge: &Automerge, key: &str) -> Vec<Visible> {
    automerge.get_all(ROOT, key).map(visibles).unwrap_or_default()
}

fn read_at(automerge: &Automerge, key: &str, history: &History, seen: &Clock, applied: usize) -> Vec<Visible> {
    automerge.get_all_at(ROOT, key, &history.frontier(seen, applied)).map(visibles).unwrap_or_default()
}

fn visibles(values: Vec<(Value<'_>, ObjId)>) -> Vec<Visible> {
    let mut visible: Vec<_> = values
        .into_iter()
        .filter_map(|(value, id)| {
            let ObjId::Id(counter, actor, _) = id else { return None };
            let generation = match &value {
                Value::Scalar(scalar) => match scalar.as_ref() {
                    ScalarValue::Bytes(bytes) => State::decode(bytes).unwrap_or_default().generation,
                    _ => 0,
                },
                Value::Object(_) => 0,
            };
            Some(Visible { id: OperationId { counter, actor }, generation })
        })
        .collect();
    visible.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    visible
}

#[cfg(test)]
mod tests {
    use automerge::ActorId;

    use super::*;

    #[test]
    fn operations_order_by_counter_and_then_by_actor() {
        let id = |counter, actor: u8| OperationId { counter, actor: ActorId::from(&[actor; 16][..]) };
        let mut ids = vec![id(2, 1), id(1, 9), id(2, 0)];
        ids.sort();
        assert_eq!(ids, vec![id(1, 9), id(2, 0), id(2, 1)]);
    }
}
