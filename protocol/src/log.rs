//! The state of one author's log, and what a new envelope means for it.
//!
//! Invariants: envelope `n` names the hash of envelope `n - 1`; a log only grows, and a forked one no further than all its
//! branches are the same, to where it is cut; nothing past the durable length is shown to others, so that after a crash
//! nobody knows more of a log than its author, who alone is told of it earlier.

use crate::envelope::{ForkProof, NO_ENVELOPE, SignedEnvelope};
use crate::id::{AuthorId, EnvelopeHash};
use crate::message::LogPoint;

/// How far a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How many envelopes.
    pub length: u64,
    /// The hash of the last one; [`NO_ENVELOPE`] when there is none.
    pub head: EnvelopeHash,
}

impl Extent {
    /// A log without envelopes.
    pub const EMPTY: Self = Self { length: 0, head: NO_ENVELOPE };

    /// What an envelope means for a log that goes this far.
    #[must_use]
    pub fn judge(&self, envelope: &SignedEnvelope) -> Continuation {
        let (seq, prev) = (envelope.envelope().seq, envelope.envelope().prev);
        match seq.cmp(&self.length) {
            std::cmp::Ordering::Less => Continuation::Past,
            std::cmp::Ordering::Greater => Continuation::Gap,
            std::cmp::Ordering::Equal if prev == self.head => Continuation::Next,
            std::cmp::Ordering::Equal => Continuation::OtherBranch,
        }
    }

    /// The extent with `envelope` added, which must be judged [`Continuation::Next`].
    #[must_use]
    pub fn with(&self, envelope: &SignedEnvelope) -> Self {
        debug_assert_eq!(self.judge(envelope), Continuation::Next);
        Self { length: self.length + 1, head: envelope.hash() }
    }
}

/// How an envelope stands to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// It is the next one.
    Next,
    /// Its number is taken: the same envelope again, or a fork.
    Past,
    /// Envelopes before it are missing.
    Gap,
    /// It has the next number and follows another envelope than the one known: someone has another version of the log.
    OtherBranch,
}

/// The log of one author.
#[derive(Debug, Clone)]
pub struct Log {
    author: AuthorId,
    known: Extent,
    durable: Extent,
    fork: Option<ForkProof>,
}

impl Log {
    /// A log without envelopes.
    #[must_use]
    pub const fn new(author: AuthorId) -> Self {
        Self { author, known: Extent::EMPTY, durable: Extent::EMPTY, fork: None }
    }

    /// Whose log.
    #[must_use]
    pub const fn author(&self) -> AuthorId {
        self.author
    }

    /// How far it goes, durable or not.
    #[must_use]
    pub const fn known(&self) -> Extent {
        self.known
    }

    /// How far it is durable.
    #[must_use]
    pub const fn durable(&self) -> Extent {
        self.durable
    }

    /// The proof that the author forked, if there is one.
    #[must_use]
    pub const fn fork(&self) -> Option<&ForkProof> {
        self.fork.as_ref()
    }

    /// Adds the next envelope.
    pub fn push(&mut self, envelope: &SignedEnvelope) {
        self.known = self.known.with(envelope);
    }

    /// Notes that everything up to `extent` is durable.
    pub const fn set_durable(&mut self, extent: Extent) {
        // A flush may have begun before the log was cut.
        if extent.length > self.durable.length && extent.length <= self.known.length {
            self.durable = extent;
        }
    }

    /// Cuts the log to where it forked, which must be on it, or further than it goes.
    pub fn cut(&mut self, proof: ForkProof) {
        debug_assert_eq!(proof.author(), self.author);
        let shared = proof.shared();
        for extent in [&mut self.known, &mut self.durable] {
            if extent.length > shared.length {
                *extent = shared;
            }
        }
        self.fork = Some(proof);
    }

    /// What others are told.
    #[must_use]
    pub const fn point(&self, extent: Extent) -> LogPoint {
        LogPoint { author: self.author, length: extent.length, head: extent.head, forked: self.fork.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, Kind};
    use crate::id::LibraryId;
    use crate::keys::AuthorKey;
    use crate::secrets::EpochId;

    fn envelope(seq: u64, prev: EnvelopeHash, body: u8) -> SignedEnvelope {
        let key = AuthorKey::from_seed(&[1; 32]);
        let envelope = Envelope {
            library: LibraryId::from_bytes([2; 32]),
            author: key.author_id(),
            seq,
            prev,
            epoch: EpochId::from_bytes([0; EpochId::BYTES]),
            min_reader: 1,
            kind: Kind::Catalog,
            body: vec![body],
        };
        SignedEnvelope::sign(envelope, &key)
    }

    #[test]
    fn envelopes_are_judged_by_number_and_predecessor() {
        let first = envelope(0, NO_ENVELOPE, 1);
        let mut log = Log::new(first.envelope().author);
        assert_eq!(log.known().judge(&first), Continuation::Next);
        log.push(&first);
        assert_eq!(log.known().judge(&first), Continuation::Past);
        assert_eq!(log.known().judge(&envelope(1, first.hash(), 2)), Continuation::Next);
        assert_eq!(log.known().judge(&envelope(1, NO_ENVELOPE, 2)), Continuation::OtherBranch);
        assert_eq!(log.known().judge(&envelope(2, first.hash(), 2)), Continuation::Gap);
        assert_eq!(log.durable(), Extent::EMPTY);
        log.set_durable(log.known());
        assert_eq!(log.durable().length, 1);
    }
}
