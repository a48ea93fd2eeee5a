//! Going on under another author: after this device was restored from a backup, or was copied.
//!
//! Invariants:
//! - the new author's key is in the metadata before anything it has signed, so whatever a crash leaves can be continued;
//! - after a start nothing but a changed place is written until every other member has said how far it knows this
//!   device's log, for a while: a device that was restored hears of it before it says anything twice;
//! - nothing is written while a connected peer knows more of this device's log, for a while;
//! - what is written by a device that knows nothing of its copy, or of what it said before it was restored, fits beside
//!   that in every document.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_crdt::DocumentId;
use holdfast_protocol::certificate::DeviceCertificate;
use holdfast_protocol::codec;
use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError, Table};
use holdfast_protocol::time::{Now, Timestamp};
use zeroize::Zeroizing;

use super::{Effect, Event, Library, LibraryError, Membership};

/// How long imports wait after a start for peers to compare logs with; without them they go on then.
const COMPARED_WITHIN: Duration = Duration::from_secs(15);
/// How long imports wait for what a peer says it knows of this device's log: it may lie, or the rest may never come.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

const INCARNATION_KEY: &[u8] = b"library/incarnation";
const INCARNATION_BYTES_MAX: usize = 32;

/// How this device's log stands to what peers know of it.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Until when to wait for peers to compare with; `None` once all have, or there are none.
    until: Option<Timestamp>,
    /// Since when some peer has known more.
    behind_since: Option<Timestamp>,
}

/// As which incarnation of its author this device writes in documents.
///
/// Two that write one log and do not know all of each other, a device before and after it was restored, or one and its
/// copy, must not be the same. So each start is a new one, unless the machine has been running since the last and
/// everybody has named this log and knows no more of it: actors are not for nothing.
#[derive(Debug)]
pub(super) struct Incarnation {
    boot: [u8; 16],
    fresh: u32,
    is_settled: bool,
}

impl Incarnation {
    pub(super) fn new(boot: [u8; 16], seed: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = blake3::derive_key("holdfast 1 incarnation of a run", seed);
        Self { boot, fresh: u32::from_le_bytes([a, b, c, d]), is_settled: false }
    }
}

impl Comparison {
    /// When it may be over at the latest.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.behind_since.map(|since| since + CAUGHT_UP_WITHIN).max(self.until)
    }
}

impl<M: Metadata> Library<M> {
    /// Settles as which incarnation this device writes until it stops, before the first time it does.
    fn settle_incarnation(&mut self) -> Result<(), LibraryError> {
        if std::mem::replace(&mut self.incarnation.is_settled, true) {
            return Ok(());
        }
        let kept = self.replica.metadata().get(Table::Local, INCARNATION_KEY)?;
        let kept = kept.and_then(|bytes| codec::decode::<([u8; 16], u32)>(&bytes, INCARNATION_BYTES_MAX).ok());
        // Who knows nobody yet may have known others before it was restored.
        let is_other = |of: &DeviceCertificate| of.device() != self.device;
        let is_known = self.replica.registry().members().any(is_other) && self.replica.is_known_to_all();
        let goes_on = kept.filter(|(boot, _)| *boot == self.incarnation.boot && is_known);
        let incarnation = goes_on.map_or(self.incarnation.fresh, |(_, kept)| kept);
        let mut batch = Batch::new();
        batch.put(Table::Local, INCARNATION_KEY, codec::encode(&(self.incarnation.boot, incarnation)));
        self.replica.metadata_mut().commit(batch)?;
        self.documents.catalog.set_incarnation(incarnation);
        Ok(())
    }

    /// Imports wait until logs were compared, when there is anyone to compare them with.
    pub(super) fn hold_imports(&mut self, now: Now) {
        // A log that has not begun has nothing to be compared with; one that only introduces this device may be a backup's.
        let is_begun = self.replica.own_length() > 0;
        self.comparison.until = is_begun.then(|| now.elapsed + COMPARED_WITHIN);
    }

    /// Lets imports that wait go on once logs were compared, and keeps them waiting while a peer knows more.
    pub(super) fn compare_before_importing(&mut self, now: Now) {
        if self.imports.has_pending() {
            let until = self.compare(now);
            self.imports.hold(until);
        } else if self.comparison.behind_since.is_some() {
            // Since when is forgotten as soon as nobody knows more.
            self.compare(now);
        }
    }

    /// Whether this device should not write now: it may have been restored from a backup and not know it yet.
    pub(super) fn is_comparing(&mut self, now: Now) -> bool {
        self.compare(now).is_some_and(|until| now.elapsed < until)
    }

    /// Until when nothing should be written.
    fn compare(&mut self, now: Now) -> Option<Timestamp> {
        if self.comparison.until.is_some() && self.replica.has_compared() {
            self.comparison.until = None;
        }
        let behind_since = self.comparison.behind_since.unwrap_or(now.elapsed);
        self.comparison.behind_since = self.replica.is_behind().then_some(behind_since);
        self.comparison.until()
    }

    /// Goes on under another author when this one must not be used.
    pub(super) fn continue_if_retired(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        if self.replica.is_retired() { self.continue_as_another(now, out) } else { Ok(()) }
    }

    /// Before documents are edited: goes on under another author when changes of this one are not in one of them, because
    /// what they build on is on its way, or for good. Waiting for it could stop imports for ever.
    pub(super) fn continue_if_behind(
        &mut self,
        now: Now,
        documents: BTreeSet<DocumentId>,
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        self.settle_incarnation()?;
        for document in documents {
            if self.opened(document)?.is_behind(document) {
                return self.continue_as_another(now, out);
            }
        }
        Ok(())
    }

    fn continue_as_another(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        let missing = || StorageError::Damaged { what: "this device's membership".to_owned() };
        let kept = Membership::load(self.replica.metadata())?.ok_or_else(missing)?;
        self.authors_begun += 1;
        let mut hasher = blake3::Hasher::new_derive_key("holdfast 1 author after a retired one");
        hasher.update(&*self.author_seed).update(&self.authors_begun.to_le_bytes());
        let author = AuthorKey::from_seed(&Zeroizing::new(*hasher.finalize().as_bytes()));
        let library = self.replica.registry().library();
        let membership = Membership::new(library, &self.key, author, kept.certificate, Vec::new());
        let mut batch = Batch::new();
        membership.save(&mut batch);
        self.replica.metadata_mut().commit(batch)?;
        let retired = self.replica.author();
        self.replica.adopt_author(membership.author);
        let author = self.replica.author();
        self.documents.catalog.continue_as(author);
        // Nobody can know more of a log that begins now.
        self.comparison = Comparison::default();
        self.say_body(now, membership.first_body, out)?;
        out.push(Effect::Event(Event::AuthorContinued { retired, author }));
        Ok(())
    }
}
