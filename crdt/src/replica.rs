//! One open document: Automerge behind the guard.
//!
//! Invariants: `history` is the graph of `automerge`; every change in `automerge` passed the guard or was made here;
//! nothing of a refused author waits; a failed or panicking application leaves everything as it was.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ActorId, Automerge, Change, ROOT, ReadDoc, ScalarValue, ScalarValueRef, Value, ValueRef};
use holdfast_protocol::id::{AuthorId, PhotoId};

use crate::document::DocumentId;
use crate::edit::EditRefused;
use crate::genesis::{self, actor_of};
use crate::guard::overlay::{self, Overlay};
use crate::guard::screen::{Screened, encode, screen};
use crate::guard::wire::{WireChange, WirePut};
use crate::history::History;
use crate::key::Key;
use crate::limits::{BATCH_CHANGES_MAX, DEPENDENCIES_MAX};
use crate::origin::Origin;
use crate::patch::Patch;
use crate::photo::PhotoState;
use crate::refusal::ChangeRefused;
use crate::saved;
use crate::waiting::Waiting;

/// An open document.
#[derive(Debug)]
pub(crate) struct Replica {
    id: DocumentId,
    automerge: Automerge,
    history: History,
    waiting: Waiting,
    refused: BTreeSet<AuthorId>,
    /// Whether anything changed since the document was saved.
    pub(crate) unsaved: bool,
}

/// What became of applied changes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) applied: usize,
    pub(crate) keys: BTreeSet<String>,
    pub(crate) refused: Vec<(AuthorId, ChangeRefused)>,
}

/// A change that was made here.
#[derive(Debug)]
pub(crate) struct Written {
    /// Raw.
    pub(crate) change: Vec<u8>,
    pub(crate) keys: Vec<String>,
}

/// A change that passed the guard, on its way into Automerge.
#[derive(Debug)]
struct Admitted {
    origin: Origin,
    change: Change,
}

/// What to do with the next change of an author.
enum Verdict {
    /// It is in the document already.
    Known,
    /// Something it builds on has not arrived.
    Waits(Box<Screened>),
    /// It is in the history and the overlay now.
    Admitted(Box<Screened>),
}

fn judge(overlay: &mut Overlay<'_>, history: &mut History, screened: Box<Screened>) -> Result<Verdict, ChangeRefused> {
    if history.contains(&screened.hash) {
        return Ok(Verdict::Known);
    }
    if history.footing(screened.change.deps()).is_none() {
        return Ok(Verdict::Waits(screened));
    }
    overlay.admit(history, &screened)?;
    Ok(Verdict::Admitted(screened))
}

impl Replica {
    /// The document before anybody wrote to it.
    pub(crate) fn genesis(id: DocumentId) -> Self {
        let automerge = genesis::document(id);
        let history = History::read(&automerge).expect("the genesis is a history of one change");
        Self { id, automerge, history, waiting: Waiting::default(), refused: BTreeSet::new(), unsaved: false }
    }

    /// A document that [`Self::save`] wrote; `None` when the bytes are damaged or another document's.
    pub(crate) fn load(id: DocumentId, bytes: &[u8]) -> Option<Self> {
        let saved = saved::decode(bytes)?;
        let automerge = catch_unwind(|| Automerge::load(saved.automerge)).ok()?.ok()?;
        let history = History::read(&automerge)?;
        let genesis = genesis::document(id).get_heads();
        if !genesis.iter().all(|hash| history.contains(hash)) {
            return None;
        }
        Some(Self { id, automerge, history, waiting: saved.waiting, refused: saved.refused, unsaved: false })
    }

    /// The document's form on disk.
    pub(crate) fn save(&mut self) -> Vec<u8> {
        self.unsaved = false;
        saved::encode(&self.automerge.save(), &self.waiting, &self.refused)
    }

    pub(crate) fn id(&self) -> DocumentId {
        self.id
    }

    /// The hashes of the changes that no other change builds on.
    pub(crate) fn heads(&self) -> Vec<[u8; 32]> {
        self.automerge.get_heads().into_iter().map(|hash| hash.0).collect()
    }

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(crate) fn feed_again(&mut self) -> Option<AuthorId> {
        let origin = self.waiting.take_drained()?;
        self.unsaved = true;
        Some(origin.log)
    }

    /// Authors of whom a change was refused.
    pub(crate) fn refused(&self) -> &BTreeSet<AuthorId> {
        &self.refused
    }

    /// Whether an incarnation of `author` cannot write now.
    pub(crate) fn is_behind(&self, author: &AuthorId, incarnation: u32) -> bool {
        self.waiting.concerns(author)
            || self.refused.contains(author)
            || self.history.has_no_room_for(&actor_of(author, incarnation))
    }

    /// Takes in changes, each origin's in the order of its log, and applies what has everything it builds on.
    pub(crate) fn apply(&mut self, changes: &[(Origin, &[u8])]) -> Outcome {
        let mut outcome = Outcome::default();
        for (origin, change) in changes {
            if self.refused.contains(&origin.author) {
                continue;
            }
            if self.waiting.push(*origin, change) {
                continue;
            }
            // Make room by applying what came before, then try once more.
            self.drain(&mut outcome);
            if !self.refused.contains(&origin.author) && !self.waiting.push(*origin, change) {
                self.waiting.overflow(*origin);
            }
        }
        self.drain(&mut outcome);
        self.unsaved |= outcome.applied > 0 || !changes.is_empty();
        outcome
    }

    /// Applies batches until nothing that waits is ready.
    fn drain(&mut self, outcome: &mut Outcome) {
        loop {
            let before = self.history.len();
            let (batch, keys) = self.gather(outcome);
            if batch.is_empty() {
                return;
            }
            if self.commit(&batch) {
                outcome.applied += batch.len();
                outcome.keys.extend(keys);
            } else {
                self.history.truncate(before);
                self.apply_singly(batch, outcome);
            }
        }
    }

    /// Takes what is ready out of the queues, checked, ancestors first.
    fn gather(&mut self, outcome: &mut Outcome) -> (Vec<Admitted>, Vec<String>) {
        let mut overlay = Overlay::new(&self.automerge, &self.history);
        let mut batch: Vec<Admitted> = Vec::new();
        let mut progress = true;
        while progress && batch.len() < BATCH_CHANGES_MAX {
            progress = false;
            for origin in self.waiting.origins() {
                let author = origin.author;
                while batch.len() < BATCH_CHANGES_MAX
                    && let Some((bytes, head)) = self.waiting.head(&origin)
                {
                    let screened = match head.take() {
                        Some(screened) => Ok(screened),
                        None => screen(self.id, &author, bytes).map(Box::new),
                    };
                    match screened.and_then(|screened| judge(&mut overlay, &mut self.history, screened)) {
                        Ok(Verdict::Waits(screened)) => {
                            *head = Some(screened);
                            break;
                        }
                        Ok(Verdict::Known) => {}
                        Ok(Verdict::Admitted(screened)) => batch.push(Admitted { origin, change: screened.change }),
                        Err(reason) => {
                            self.waiting.forget(&author);
                            self.refused.insert(author);
                            outcome.refused.push((author, reason));
                            break;
                        }
                    }
                    self.waiting.pop(&origin);
                    progress = true;
                }
            }
        }
        (batch, overlay.into_keys().collect())
    }

    /// Applies a batch whose changes are in the history already; false, and nothing changed, when Automerge does
    /// not keep them as they are.
    fn commit(&mut self, batch: &[Admitted]) -> bool {
        let heads = self.automerge.get_heads();
        let current = &self.automerge;
        let changed = catch_unwind(AssertUnwindSafe(|| {
            let mut copy = current.clone();
            copy.apply_changes(batch.iter().map(|admitted| admitted.change.clone()).collect::<Vec<_>>()).ok()?;
            let mut kept = copy.get_changes(&heads);
            if kept.len() != batch.len() {
                return None;
            }
            kept.sort_unstable_by_key(Change::hash);
            let identical = batch.iter().all(|admitted| {
                kept.binary_search_by_key(&admitted.change.hash(), Change::hash)
                    .is_ok_and(|at| kept[at].raw_bytes() == admitted.change.raw_bytes())
            });
            identical.then_some(copy)
        }));
        match changed {
            Ok(Some(copy)) => {
                self.automerge = copy;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// The batch failed as a whole, which the guard should have made impossible: finds whose change it is, and lets
    /// what builds on it wait.
    fn apply_singly(&mut self, batch: Vec<Admitted>, outcome: &mut Outcome) {
        let mut back = Vec::new();
        for admitted in batch {
            let author = admitted.origin.author;
            if self.refused.contains(&author) {
                continue;
            }
            if self.history.footing(admitted.change.deps()).is_none() {
                back.push(admitted);
                continue;
            }
            let before = self.history.len();
            match self.apply_one(&author, admitted) {
                Ok(keys) => {
                    outcome.applied += 1;
                    outcome.keys.extend(keys);
                }
                Err(reason) => {
                    self.history.truncate(before);
                    self.waiting.forget(&author);
                    self.refused.insert(author);
                    outcome.refused.push((author, reason));
                }
            }
        }
        for Admitted { origin, change } in back.into_iter().rev() {
            if !self.refused.contains(&origin.author) {
                self.waiting.push_front(origin, change.raw_bytes().to_vec());
            }
        }
    }

    fn apply_one(&mut self, author: &AuthorId, admitted: Admitted) -> Result<Vec<String>, ChangeRefused> {
        let screened = screen(self.id, author, admitted.change.raw_bytes())?;
        let mut overlay = Overlay::new(&self.automerge, &self.history);
        overlay.admit(&mut self.history, &screened)?;
        let keys = overlay.into_keys().collect();
        if self.commit(&[admitted]) { Ok(keys) } else { Err(ChangeRefused::NotKept) }
    }

    /// Writes `puts` as one change of an incarnation of `author`, and answers with it; `None` when they change nothing.
    pub(crate) fn write(
        &mut self,
        author: &AuthorId,
        incarnation: u32,
        puts: Vec<(String, Vec<u8>)>,
    ) -> Result<Option<Written>, EditRefused> {
        let puts: Vec<_> = puts
            .into_iter()
            .filter(|(key, value)| {
                let values = self.values(key);
                values.len() != 1 || values[0] != *value
            })
            .collect();
        if puts.is_empty() {
            return Ok(None);
        }
        // Not through a transaction of Automerge's: that settles a conflict in favour of the side that holds by deleting
        // the others, and a deletion loses against a put that does not know of it.
        let failed = || EditRefused::Failed { document: self.id };
        let change = self.draft(&actor_of(author, incarnation), &puts).ok_or_else(failed)?;
        let bytes = change.raw_bytes().to_vec();
        let before = self.history.len();
        match self.apply_one(author, Admitted { origin: (*author).into(), change }) {
            Ok(keys) => {
                self.unsaved = true;
                Ok(Some(Written { change: bytes, keys }))
            }
            Err(_) => {
                self.history.truncate(before);
                Err(EditRefused::Failed { document: self.id })
            }
        }
    }

    /// The change that sets `puts` over everything that stands there now, as far as it can name it.
    fn draft(&self, actor: &ActorId, puts: &[(String, Vec<u8>)]) -> Option<Change> {
        let mut dependencies = self.automerge.get_heads();
        // A member can leave more heads than a change may name, by writing as many incarnations. What it does not name it
        // does not overwrite.
        let mut named = (dependencies.len() >= DEPENDENCIES_MAX).then(|| Overlay::new(&self.automerge, &self.history));
        dependencies.truncate(DEPENDENCIES_MAX - 1);
        if let Some(last) = self.history.last_of(actor)
            && !dependencies.contains(last)
        {
            dependencies.push(*last);
            dependencies.sort_unstable();
        }
        let footing = self.history.footing(&dependencies)?;
        let mut operations = |key: &str| match &mut named {
            None => overlay::operations(&self.automerge, key),
            Some(named) => named.operations_seen(&self.history, &footing, key),
        };
        let draft = WireChange {
            sequence: u64::from(self.history.changes_of(actor)) + 1,
            start_operation: footing.max_operation + 1,
            dependencies: dependencies.iter().map(|hash| hash.0).collect(),
            actor: actor.to_bytes().try_into().ok()?,
            puts: puts
                .iter()
                .map(|(key, value)| {
                    let predecessors = operations(key)
                        .into_iter()
                        .map(|id| Some((id.counter, id.actor.to_bytes().try_into().ok()?)))
                        .collect::<Option<_>>()?;
                    Some(WirePut { key, value, predecessors })
                })
                .collect::<Option<_>>()?,
        };
        encode(&draft).ok()
    }

    /// All values under a key, in ascending order of their operations: the last one holds.
    pub(crate) fn values(&self, key: &str) -> Vec<Vec<u8>> {
        let values = self.automerge.get_all(ROOT, key).unwrap_or_default();
        values.into_iter().filter_map(|(value, _)| bytes(value)).collect()
    }

    /// The patch that says what stands under `key` now.
    pub(crate) fn patch(&self, key: &str) -> Option<Patch> {
        let values = self.values(key);
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        Patch::of(Key::parse(key)?, &values)
    }

    /// Everything the document says whose key starts with `prefix`, in the order of the keys.
    pub(crate) fn scan<'a>(&'a self, prefix: &str) -> impl Iterator<Item = Patch> + use<'a> {
        let (from, to) = (prefix.to_owned(), after(prefix));
        self.automerge.map_range(ROOT, from..to).filter_map(|item| {
            if item.conflict {
                return self.patch(&item.key);
            }
            match &item.value {
                ValueRef::Scalar(ScalarValueRef::Bytes(value)) => Patch::of(Key::parse(&item.key)?, &[value.as_ref()]),
                _ => None,
            }
        })
    }

    /// One photo.
    pub(crate) fn photo(&self, photo: &PhotoId) -> Option<PhotoState> {
        let single = [
            Key::Record(*photo),
            Key::Favourite(*photo),
            Key::Caption(*photo),
            Key::Date(*photo),
            Key::State(*photo),
            Key::Successor(*photo),
        ];
        let single = single.into_iter().filter_map(|key| self.patch(&key.text()));
        let several = ['r', 't', 'a', 'n'].into_iter().flat_map(|family| self.scan(&Key::prefix(family, photo)));
        PhotoState::gather(single.chain(several))
    }
}

fn bytes(value: Value<'_>) -> Option<Vec<u8>> {
    match value {
        Value::Scalar(scalar) => match scalar.into_owned() {
            ScalarValue::Bytes(bytes) => Some(bytes),
            _ => None,
        },
        Value::Object(_) => None,
    }
}

/// The first text after all that start with `prefix`; keys are ASCII.
fn after(prefix: &str) -> String {
    format!("{prefix}\u{7f}")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use automerge::ExpandedChange;
    use automerge::legacy::OpId;

    use super::*;

    const MONTH: DocumentId = DocumentId::Month { year: 2021, month: 7 };
    const GOOD: AuthorId = AuthorId::from_bytes([1; 32]);
    const EVIL: AuthorId = AuthorId::from_bytes([66; 32]);

    fn put(key: &str, value: &[u8]) -> Vec<(String, Vec<u8>)> {
        vec![(key.to_owned(), value.to_vec())]
    }

    /// A document, and a good next change of the evil author.
    fn document() -> (Replica, Change) {
        let mut replica = Replica::genesis(MONTH);
        replica.write(&GOOD, 0, put("z/1", b"one")).unwrap();
        let mut evil = Replica::genesis(MONTH);
        let change = evil.write(&EVIL, 0, put("z/1", b"two")).unwrap().unwrap().change;
        (replica, Change::try_from(change.as_slice()).unwrap())
    }

    /// Puts a forged change right before Automerge, as if the guard had a hole: whether it was kept, and whether the
    /// document opens again then.
    fn past_the_guard(forge: impl FnOnce(&mut ExpandedChange)) -> (bool, bool) {
        let (mut replica, change) = document();
        let mut forged = change.decode();
        forge(&mut forged);
        let before = (replica.heads(), replica.values("z/1"));
        let kept = replica.commit(&[Admitted { origin: EVIL.into(), change: Change::from(forged) }]);
        if !kept {
            assert_eq!((replica.heads(), replica.values("z/1")), before, "a failure changes nothing");
        }
        (kept, Automerge::load(&replica.automerge.save()).is_ok())
    }

    #[test]
    fn what_automerge_does_not_keep_as_it_is_changes_nothing() {
        assert_eq!(past_the_guard(|_| {}), (true, true), "a good change is kept");
        // A panic, an error, a change that waits for ever, and operations that come back different.
        assert_eq!(past_the_guard(|change| change.seq = 7), (false, true));
        let pred = |id| move |change: &mut ExpandedChange| change.operations[0].pred = vec![id].into();
        assert_eq!(past_the_guard(pred(OpId(9, ActorId::from([9; 16])))), (false, true));
        assert_eq!(past_the_guard(pred(OpId(900, actor_of(&EVIL, 0)))), (false, true));
        let missing = automerge::ChangeHash([7; 32]);
        assert_eq!(past_the_guard(|change| change.deps = vec![missing]), (false, true));
    }

    /// Why applying and reading back is not enough: this change passes both, and then nobody can open the document.
    #[test]
    fn automerge_alone_would_be_poisoned_by_operations_that_are_numbered_wrong() {
        let (mut replica, change) = document();
        let mut forged = change.decode();
        forged.start_op = NonZeroU64::MIN;
        assert_eq!(past_the_guard(|change| *change = forged.clone()), (true, false));
        let forged = Change::from(forged);
        let outcome = replica.apply(&[(EVIL.into(), forged.raw_bytes())]);
        assert_eq!(outcome.refused, vec![(EVIL, ChangeRefused::WrongStart { expected: 2, found: 1 })]);
        assert!(Automerge::load(&replica.automerge.save()).is_ok());
    }

    #[test]
    fn when_a_batch_fails_only_its_culprit_is_refused() {
        let (mut replica, change) = document();
        let mut forged = change.decode();
        forged.time = 1;
        let mut good = Replica::genesis(MONTH);
        good.write(&GOOD, 0, put("z/1", b"one")).unwrap();
        let next = good.write(&GOOD, 0, put("z/2", b"next")).unwrap().unwrap().change;
        let batch = vec![
            Admitted { origin: EVIL.into(), change: Change::from(forged) },
            Admitted { origin: GOOD.into(), change: Change::try_from(next.as_slice()).unwrap() },
        ];
        let mut outcome = Outcome::default();
        replica.apply_singly(batch, &mut outcome);
        assert_eq!(outcome.applied, 1);
        assert_eq!(outcome.keys.into_iter().collect::<Vec<_>>(), ["z/2"]);
        assert_eq!(outcome.refused, vec![(EVIL, ChangeRefused::Foreign { what: "a time" })]);
        assert_eq!(replica.heads(), good.heads());
    }
}
