//! Carrying on what a log said behind its end: where it forked, or what the member did not know who removed its device.
//!
//! Whoever kept more of it says that again in its own log, deposits its photos' chunks once more and reads them
//! from there. So everybody learns all branches of a fork, whichever it knew, and nothing is lost; and what others built on
//! what a removed device said last does not wait for it for ever.
//!
//! Invariants: what was kept is carried on at least once, whatever instant this device is killed at, and twice at worst; what
//! is carried on is in documents what it was, word for word, so it does not matter how many carry it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use holdfast_crdt::{DocumentId, Patch};
use holdfast_protocol::carried;
use holdfast_protocol::codec;
use holdfast_protocol::deposit::{Deposit, DepositedChunk, NewRun, RunClass};
use holdfast_protocol::envelope::{Kind, SignedEnvelope};
use holdfast_protocol::id::{AuthorId, LibraryId, PhotoId};
use holdfast_protocol::membership::{Statement, decode_statements, encode_statements};
use holdfast_protocol::metadata::{Batch, Metadata, Table};
use holdfast_protocol::position::Run;
use holdfast_protocol::time::{Now, Timestamp};

use super::catalogue::{Edits, MIN_READER};
use super::record::PhotoRecord;
use super::{Effect, Library, LibraryError, REPLAY_PAGE};

const CARRIED_PREFIX: &[u8] = b"carried/";
const CARRIED_BYTES_MAX: usize = 32;
/// Photos of one deposit, and of one change.
const PHOTOS_MAX: usize = 100;

/// The envelopes that an envelope stands for: those that it carries on, or else itself.
pub(super) fn said_by(library: LibraryId, signed: &SignedEnvelope) -> Cow<'_, [SignedEnvelope]> {
    match signed.envelope().kind {
        // Of a malformed one it was told when it came.
        Kind::Carried => carried::decode(&library, &signed.envelope().body).unwrap_or_default().into(),
        _ => std::slice::from_ref(signed).into(),
    }
}

/// A part of what was kept of a log behind its end.
#[derive(Default)]
struct Rest {
    said: Vec<SignedEnvelope>,
    /// The chunks that it and the parts before it deposited, by position.
    deposited: BTreeMap<u32, DepositedChunk>,
    /// The runs that photos were given in it and the parts before it: where each begins and ends.
    given: BTreeMap<u32, u32>,
}

impl Rest {
    /// Whether no other photo was given any of these positions. No honest device gives them twice; a member that does must
    /// not have more deposited again than it deposited itself.
    fn give(&mut self, run: &Run) -> bool {
        let before = self.given.range(..run.end()).next_back();
        let is_free = before.is_none_or(|(_, end)| *end <= run.start);
        if is_free {
            self.given.insert(run.start, run.end());
        }
        is_free
    }
}

impl<M: Metadata> Library<M> {
    /// Looks whether logs have ended since the last time, or elsewhere: their rest is to be carried on, and positions behind
    /// the end count no more.
    pub(super) fn find_endings(&mut self) -> Result<(), LibraryError> {
        let endings: BTreeMap<AuthorId, u64> = self.replica.registry().endings().collect();
        if endings != self.endings {
            for (author, length) in &endings {
                let carried = self.replica.metadata().get(Table::Local, &carried_key(author))?;
                let carried = carried.and_then(|bytes| codec::decode::<(u64, u64)>(&bytes, CARRIED_BYTES_MAX).ok());
                let readable = self.applied.get(author).copied().unwrap_or(0);
                if carried.is_none_or(|(from, to)| from > *length || to < readable) {
                    self.to_carry.insert(*author, *length);
                }
            }
            let is_other = |author: &&AuthorId| endings.get(author) != self.endings.get(author);
            self.to_review.extend(endings.keys().chain(self.endings.keys()).filter(is_other));
            self.endings = endings;
        }
        Ok(())
    }

    /// When to look again whether there is something to carry on.
    pub(super) fn carrying_deadline(&self) -> Option<Timestamp> {
        self.has_to_carry().then(|| self.comparison.until()).flatten()
    }

    /// Whether there is something to carry on still, in a log of this device that counts: it waits until this device may
    /// write.
    #[must_use]
    pub fn has_to_carry(&self) -> bool {
        !self.to_carry.is_empty() && !self.is_removed() && self.replica.own_length() > 0
    }

    /// Carries on what was kept of logs behind their end, once this device may write.
    pub(super) fn carry(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        if !self.has_to_carry() || self.is_comparing(now) {
            return Ok(());
        }
        while let Some((author, length)) = self.to_carry.pop_first() {
            let is_own = self.replica.registry().device_of(&author) == Some(self.device);
            let to = self.applied.get(&author).copied().unwrap_or(0);
            let (mut rest, mut from) = (Rest::default(), length);
            while self.read_rest(&author, &mut from, to, &mut rest)? {
                // Deposits first: who hears of a photo through what is carried on can find its chunks.
                self.deposit_again(now, &author, &mut rest, is_own, out)?;
                if is_own {
                    self.say_again(now, &author, &rest, out)?;
                }
                for body in carried::encode(&rest.said) {
                    let epoch = self.bodies.epoch();
                    let (_, effects) = self.replica.append(now, Kind::Carried, epoch, MIN_READER, body)?;
                    self.pass(effects, out)?;
                }
            }
            let mut batch = Batch::new();
            batch.put(Table::Local, carried_key(&author), codec::encode(&(length, to)));
            self.replica.metadata_mut().commit(batch)?;
        }
        Ok(())
    }

    /// Reads the next part of what is kept of a log, no further than it can be read here: who carried on what others cannot
    /// read would keep them from reading its own log. What it carried on of others is carried on as theirs. False when there
    /// is no more.
    fn read_rest(&self, author: &AuthorId, from: &mut u64, to: u64, rest: &mut Rest) -> Result<bool, LibraryError> {
        rest.said.clear();
        let page = if *from < to { self.replica.read_log(author, *from, REPLAY_PAGE)? } else { Vec::new() };
        *from += page.len() as u64;
        for signed in page.iter().filter(|signed| signed.envelope().seq < to) {
            let said = said_by(self.replica.registry().library(), signed);
            rest.said.extend(said.iter().filter(|said| carried::is_carried(said.envelope().kind)).cloned());
            if signed.envelope().kind == Kind::Deposit
                && let Ok(deposit) = Deposit::decode(&signed.envelope().body)
            {
                rest.deposited.extend((deposit.first..).zip(deposit.chunks));
            }
        }
        Ok(!page.is_empty())
    }

    /// Says again what this device said itself as `author`, and what counts only in a log that counts.
    fn say_again(
        &mut self,
        now: Now,
        author: &AuthorId,
        rest: &Rest,
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        let said = rest.said.iter().map(SignedEnvelope::envelope);
        let said = said.filter(|said| said.kind == Kind::Membership && said.author == *author);
        for statement in said.filter_map(|said| decode_statements(&said.body).ok()).flatten() {
            match statement {
                Statement::Place { device, place, label, .. } => {
                    let revision = self.replica.registry().next_place_revision(&device);
                    let again = Statement::Place { device, place, revision, label };
                    self.say_body(now, encode_statements(&[again]), out)?;
                }
                Statement::Keys { .. } => self.say_body(now, encode_statements(&[statement]), out)?,
                Statement::Introduce { .. }
                | Statement::Admit(_)
                | Statement::Remove(_)
                | Statement::Unknown { .. } => {}
            }
        }
        Ok(())
    }

    /// Deposits the chunks of the photos of a rest under positions that count: of those that no other run is known of,
    /// and of this device's own whatever others know.
    fn deposit_again(
        &mut self,
        now: Now,
        author: &AuthorId,
        rest: &mut Rest,
        is_own: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        let runs = self.runs_of(author, rest);
        let documents: BTreeSet<DocumentId> = runs.iter().map(|(document, ..)| *document).collect();
        self.continue_if_behind(now, documents, out)?;
        let mut by_document: BTreeMap<DocumentId, Vec<(PhotoId, Vec<DepositedChunk>)>> = BTreeMap::new();
        for (document, photo, run) in runs {
            // A photo that is not known yet is told of by a change that still waits for others.
            let is_lacking = self.photos.slot(&photo).is_none_or(|slot| self.is_void(&self.photos.row(slot).run));
            if !(is_own || is_lacking) || !rest.give(&run) {
                continue;
            }
            let chunks: Vec<_> = run.indices().map_while(|index| rest.deposited.get(&index).copied()).collect();
            if chunks.len() == run.count as usize {
                by_document.entry(document).or_default().push((photo, chunks));
            }
        }
        for (document, photos) in by_document {
            for photos in photos.chunks(PHOTOS_MAX) {
                let edits = Edits::of_runs(self.deposit_photos(now, photos, out)?);
                self.write_change(now, document, edits, out)?;
            }
        }
        Ok(())
    }

    /// The runs that a rest gave photos, with the documents they stand in.
    fn runs_of(&self, author: &AuthorId, rest: &Rest) -> Vec<(DocumentId, PhotoId, Run)> {
        let mut runs = BTreeMap::new();
        let said = rest.said.iter().map(SignedEnvelope::envelope);
        for said in said.filter(|said| said.author == *author && said.kind == Kind::Catalog) {
            let Ok(body) = self.documents.open_body(&self.bodies, said) else { continue };
            for patch in body.patches() {
                let found = match patch {
                    Patch::PhotoAdded { photo, record, .. } => {
                        PhotoRecord::decode(&record).map(|record| (photo, record.run))
                    }
                    Patch::Run { photo, run } => Some((photo, run)),
                    _ => None,
                };
                if let Some((photo, run)) = found.filter(|(_, run)| run.author == *author) {
                    runs.insert(photo, (body.document, run));
                }
            }
        }
        runs.into_iter().map(|(photo, (document, run))| (document, photo, run)).collect()
    }

    /// Deposits the chunks of photos, whether they are held here or not.
    fn deposit_photos(
        &mut self,
        now: Now,
        photos: &[(PhotoId, Vec<DepositedChunk>)],
        out: &mut Vec<Effect>,
    ) -> Result<Vec<(PhotoId, Run)>, LibraryError> {
        let chunks = photos.iter().flat_map(|(_, chunks)| chunks).map(|deposited| deposited.chunk);
        let lacked = chunks.filter(|chunk| !self.replica.holds(chunk)).collect();
        let runs: Vec<NewRun> =
            photos.iter().map(|(_, chunks)| NewRun { class: RunClass::PHOTO, chunks: chunks.clone() }).collect();
        let runs = self.deposit(now, &runs, lacked, out)?;
        Ok(photos.iter().map(|(photo, _)| *photo).zip(runs).collect())
    }
}

fn carried_key(author: &AuthorId) -> Vec<u8> {
    [CARRIED_PREFIX, author.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_position_is_deposited_again_for_two_photos() {
        let mut rest = Rest::default();
        let mut give = |start, count| rest.give(&Run { author: AuthorId::from_bytes([1; 32]), start, count });
        assert!(give(10, 4) && give(14, 2) && give(0, 10) && give(u32::MAX - 1, 1));
        assert!(!give(10, 4) && !give(13, 1) && !give(9, 3) && !give(15, 20) && !give(0, u32::MAX));
    }
}
