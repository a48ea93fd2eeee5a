//! What logs said of devices behind their end, and others carry on: their authors have signed it, so it goes on being known.
//!
//! What it says counts as if it were said last of all: an author whose device is removed could else name any number, have it
//! carried, and remove whom it likes. And it introduces nobody whose device does not stand.

use std::collections::BTreeMap;

use super::{BodyRefusal, READER_VERSION, Replica};
use crate::carried;
use crate::envelope::{Envelope, Kind, SignedEnvelope};
use crate::id::{AuthorId, EnvelopeHash};
use crate::membership::SEQ_CARRIED;
use crate::metadata::Metadata;

/// Bytes of envelopes of authors that have not introduced themselves, kept until they do: of each log that carries them.
const EARLY_BYTES_MAX: usize = 512 << 10;

/// Carried envelopes of authors that are not known yet.
#[derive(Debug, Default)]
pub(super) struct Early {
    envelopes: BTreeMap<(AuthorId, u64, EnvelopeHash), SignedEnvelope>,
    /// How many bytes of them each log has brought, over all time: nobody fills memory again and again.
    brought: BTreeMap<AuthorId, usize>,
}

impl Early {
    fn keep(&mut self, carrier: AuthorId, signed: SignedEnvelope) {
        let brought = self.brought.entry(carrier).or_default();
        if *brought + signed.wire().len() <= EARLY_BYTES_MAX {
            *brought += signed.wire().len();
            let Envelope { author, seq, .. } = *signed.envelope();
            self.envelopes.insert((author, seq, signed.hash()), signed);
        }
    }

    fn take(&mut self, author: &AuthorId) -> Vec<SignedEnvelope> {
        let [first, last] = [0, 0xff].map(|byte| EnvelopeHash::from_bytes([byte; 32]));
        let of_author = self.envelopes.extract_if((*author, 0, first)..=(*author, u64::MAX, last), |_, _| true);
        of_author.map(|(_, signed)| signed).collect()
    }
}

impl<M: Metadata> Replica<M> {
    /// Lets what `carrier` carries count.
    pub(super) fn fold_carried(&mut self, carrier: &AuthorId, body: &[u8]) -> Result<(), BodyRefusal> {
        let carried = carried::decode(&self.config.library, body).ok_or(BodyRefusal::Carried)?;
        let is_read = |of: &Envelope| of.kind == Kind::Membership && of.min_reader <= READER_VERSION;
        let mut outcome = Ok(());
        for signed in carried.into_iter().filter(|signed| is_read(signed.envelope())) {
            let of = signed.envelope();
            if self.registry.device_of(&of.author).is_some() || (of.seq == 0 && self.stands(&signed)) {
                outcome = self.fold_membership(&of.author, SEQ_CARRIED, &of.body).and(outcome);
            } else {
                self.early.keep(*carrier, signed);
            }
        }
        outcome
    }

    /// An author has introduced itself: what was carried of it before counts now.
    pub(super) fn fold_early_of(&mut self, author: &AuthorId) {
        for signed in self.early.take(author) {
            // Nobody is to blame for what is refused: it was said before a fork, or by who is removed.
            let _ = self.fold_membership(author, SEQ_CARRIED, &signed.envelope().body);
        }
    }

    /// A device has become a member: whom it let in may stand now.
    pub(super) fn fold_early_standing(&mut self) {
        let first = self.early.envelopes.iter().filter(|((_, seq, _), _)| *seq == 0);
        let standing: Vec<AuthorId> =
            first.filter(|(_, signed)| self.stands(signed)).map(|((author, ..), _)| *author).collect();
        standing.iter().for_each(|author| self.fold_early_of(author));
    }
}
