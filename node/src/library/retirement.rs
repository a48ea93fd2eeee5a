//! Going on under another author: after this device was restored from a backup, or was copied.
//!
//! Invariants:
//! - the new author's key is in the metadata before anything it has signed, so whatever a crash leaves can be continued;
//! - after a start nothing is written until every other member has said how far it knows this device's log, for a
//!   while: a device that was restored hears of it before it says anything twice;
//! - nothing is written while a connected peer knows more of this device's log, for a while.

use std::time::Duration;

use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError};
use holdfast_protocol::time::{Now, Timestamp};
use zeroize::Zeroizing;

use super::import::Pending;
use super::{Effect, Event, Library, LibraryError, Membership};

/// How long imports wait after a start for peers to compare logs with; without them they go on then.
const COMPARED_WITHIN: Duration = Duration::from_secs(15);
/// How long imports wait for what a peer says it knows of this device's log: it may lie, or the rest may never come.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// How this device's log stands to what peers know of it.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Until when to wait for peers to compare with; `None` once all have, or there are none.
    until: Option<Timestamp>,
    /// Since when some peer has known more.
    behind_since: Option<Timestamp>,
}

impl<M: Metadata> Library<M> {
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
        let caught_up_by = self.comparison.behind_since.map(|since| since + CAUGHT_UP_WITHIN);
        caught_up_by.max(self.comparison.until)
    }

    /// Goes on under another author when this one must not be used.
    pub(super) fn continue_if_retired(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        if self.replica.is_retired() { self.continue_as_another(now, out) } else { Ok(()) }
    }

    /// Goes on under another author when changes of this one are not in a document that `batch` edits, because what they
    /// build on is on its way, or for good: waiting for it could stop imports for ever.
    pub(super) fn continue_if_behind(
        &mut self,
        now: Now,
        batch: &[Pending],
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        for document in self.documents_of(batch) {
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
