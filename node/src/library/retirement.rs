//! Going on under another author: after this device was restored from a backup, or was copied.
//!
//! Invariants:
//! - the new author's key is in the metadata before anything it has signed, so whatever a crash leaves can be continued;
//! - after a start nothing is catalogued until a peer has said how far it knows this device's log, for a while: a device
//!   that was restored hears of it before it says anything twice.

use std::time::Duration;

use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError};
use holdfast_protocol::time::Now;
use zeroize::Zeroizing;

use super::{Effect, Event, Library, LibraryError, Membership};

/// How long imports wait after a start for a peer to compare logs with; without one they go on then.
const COMPARED_WITHIN: Duration = Duration::from_secs(15);
/// A log of so many envelopes may be one that nobody else has seen yet.
const LENGTH_TO_COMPARE: u64 = 2;

impl<M: Metadata> Library<M> {
    /// Imports wait until logs were compared, when there is anyone to compare them with.
    pub(super) fn hold_imports(&mut self, now: Now) {
        let others = self.replica.registry().members().filter(|member| member.device() != self.device).count();
        // A log that only introduces this device has nothing to be compared with.
        let is_begun = self.replica.own_length() > LENGTH_TO_COMPARE;
        self.imports.hold((others > 0 && is_begun).then(|| now.elapsed + COMPARED_WITHIN));
    }

    /// Lets imports go on once logs were compared, and goes on under another author when this one must not be used.
    pub(super) fn continue_if_retired(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        if self.replica.has_compared() {
            self.imports.hold(None);
        }
        if !self.replica.is_retired() {
            return Ok(());
        }
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
        self.say_body(now, membership.first_body, out)?;
        out.push(Effect::Event(Event::AuthorContinued { retired, author }));
        Ok(())
    }
}
