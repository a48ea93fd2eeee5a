//! The checks that need nothing but the change, its author and its document.

use std::num::NonZeroU64;

use automerge::legacy::{Key as LegacyKey, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ScalarValue};
use holdfast_protocol::id::AuthorId;

use super::wire::{self, WireChange};
use crate::document::DocumentId;
use crate::genesis::is_actor_of;
use crate::key::Key;
use crate::refusal::ChangeRefused;
use crate::state::State;

/// A change that is well-formed on its own.
#[derive(Debug, Clone)]
pub(crate) struct Screened {
    pub(crate) change: Change,
    pub(crate) hash: ChangeHash,
    pub(crate) puts: Vec<Put>,
}

/// One of its operations; the first has the counter `start_op` of the change, and so on.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) rule: Rule,
    /// Ascending.
    pub(crate) predecessors: Vec<OperationId>,
}

/// What the key demands of the values that are overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing.
    Free,
    /// There are none.
    Once,
    /// They are states, and the highest generation among them is one below this.
    Generation(u32),
}

/// Counter and actor of an operation, in Automerge's order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OperationId {
    pub(crate) counter: u64,
    pub(crate) actor: ActorId,
}

/// Screens a change of `author` to `document`.
pub(crate) fn screen(document: DocumentId, author: &AuthorId, bytes: &[u8]) -> Result<Screened, ChangeRefused> {
    let wire = wire::read(bytes)?;
    if !is_actor_of(author, &wire.actor) {
        return Err(ChangeRefused::WrongActor);
    }
    if wire.puts.is_empty() {
        return Err(ChangeRefused::Foreign { what: "no operations" });
    }
    let puts = puts(document, author, &wire)?;
    let change = encode(&wire)?;
    if change.raw_bytes() != bytes {
        return Err(ChangeRefused::NotCanonical);
    }
    Ok(Screened { hash: change.hash(), change, puts })
}

fn puts(document: DocumentId, author: &AuthorId, wire: &WireChange<'_>) -> Result<Vec<Put>, ChangeRefused> {
    let mut puts: Vec<Put> = Vec::with_capacity(wire.puts.len());
    for put in &wire.puts {
        let text = || put.key.to_owned();
        if puts.last().is_some_and(|last| last.key.as_str() >= put.key) {
            return Err(ChangeRefused::KeyTwice { key: text() });
        }
        let key = Key::parse(put.key)
            .filter(|key| key.belongs_in(document))
            .filter(|key| !matches!(key, Key::Run(_, owner) if owner != author))
            .ok_or_else(|| ChangeRefused::UnknownKey { key: text() })?;
        if !key.admits(put.value) {
            return Err(ChangeRefused::WrongValue { key: text() });
        }
        let rule = match key {
            Key::Record(_) => Rule::Once,
            Key::State(_) => Rule::Generation(State::decode(put.value).unwrap_or_default().generation),
            _ => Rule::Free,
        };
        let predecessors: Vec<_> = put
            .predecessors
            .iter()
            .map(|(counter, actor)| OperationId { counter: *counter, actor: ActorId::from(*actor) })
            .collect();
        if !predecessors.is_sorted_by(|a, b| a < b) {
            return Err(ChangeRefused::NotCanonical);
        }
        puts.push(Put { key: text(), rule, predecessors });
    }
    Ok(puts)
}

/// The one encoding of a change: what was read is compared with it, and what is written has it.
pub(crate) fn encode(wire: &WireChange<'_>) -> Result<Change, ChangeRefused> {
    if !wire.dependencies.is_sorted_by(|a, b| a < b) {
        return Err(ChangeRefused::NotCanonical);
    }
    // Automerge keeps counters in 32 bits; leave room for this change's own operations.
    let last = wire.start_operation.checked_add(wire.puts.len() as u64);
    if last.is_none_or(|last| last > u64::from(u32::MAX)) || wire.sequence > u64::from(u32::MAX) {
        return Err(ChangeRefused::TooMany { what: "operations in all" });
    }
    let start_op = NonZeroU64::new(wire.start_operation).ok_or(ChangeRefused::WrongStart { expected: 1, found: 0 })?;
    let operations = wire
        .puts
        .iter()
        .map(|put| Op {
            action: OpType::Put(ScalarValue::Bytes(put.value.to_vec())),
            obj: ObjectId::Root,
            key: LegacyKey::from(put.key),
            pred: put
                .predecessors
                .iter()
                .map(|(counter, actor)| OpId(*counter, ActorId::from(*actor)))
                .collect::<SortedVec<_>>(),
            insert: false,
        })
        .collect();
    Ok(Change::from(ExpandedChange {
        operations,
        actor_id: ActorId::from(wire.actor),
        hash: None,
        seq: wire.sequence,
        start_op,
        time: 0,
        message: None,
        deps: wire.dependencies.iter().map(|hash| ChangeHash(*hash)).collect(),
        extra_bytes: Vec::new(),
        author: None,
    }))
}
