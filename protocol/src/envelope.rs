//! Envelopes: the signed, chained entries of a log.
//!
//! On the wire and on disk an envelope is `format u8 ‖ encoded envelope ‖ signature 64`. The signature covers all before
//! it, as it came in; the envelope's hash covers everything. Each envelope names the hash of the one before it, so a log is
//! one chain, and two different envelopes of one author with one number prove that it forked.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::id::{AuthorId, EnvelopeHash, LibraryId};
use crate::keys::{self, AuthorKey, Purpose, SIGNATURE_BYTES, Signature};
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::log::Extent;
use crate::secrets::EpochId;

/// The format of envelopes that this version writes and reads.
pub const ENVELOPE_FORMAT: u8 = 1;
/// Bytes of an envelope beside its body, at most: signature, header and lengths.
pub const ENVELOPE_OVERHEAD_MAX: usize = 256;
/// Bytes of a body at most.
pub const BODY_BYTES_MAX: usize = ENVELOPE_BYTES_MAX - ENVELOPE_OVERHEAD_MAX;

/// What an envelope says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Kind {
    /// Chunks that get positions. Clear.
    Deposit,
    /// Changes of one catalog document. Sealed.
    Catalog,
    /// The author's earlier catalog envelopes, merged. Sealed.
    Bundle,
    /// Positions that no live photo needs. Clear.
    Release,
    /// Devices, places, keys. Clear.
    Membership,
    /// Envelopes of a log that has ended, said again by who kept them. What is sealed in them stays so.
    Carried,
    /// A kind of a newer version: kept and relayed, not understood.
    Other(u8),
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Deposit,
            2 => Self::Catalog,
            3 => Self::Bundle,
            4 => Self::Release,
            5 => Self::Membership,
            6 => Self::Carried,
            other => Self::Other(other),
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Deposit => 1,
            Kind::Catalog => 2,
            Kind::Bundle => 3,
            Kind::Release => 4,
            Kind::Membership => 5,
            Kind::Carried => 6,
            Kind::Other(other) => other,
        }
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The library it belongs to.
    pub library: LibraryId,
    /// Whose log.
    pub author: AuthorId,
    /// Its number in the log, from 0.
    pub seq: u64,
    /// The hash of the envelope before it; zeros for the first.
    pub prev: EnvelopeHash,
    /// The epoch that the body is sealed in; the current one when the body is clear.
    pub epoch: EpochId,
    /// The oldest protocol version that can apply it; an older one stores and relays it, and says so.
    pub min_reader: u16,
    /// What the body is.
    pub kind: Kind,
    /// The body, sealed or clear according to the kind.
    #[serde(with = "codec::bytes")]
    pub body: Vec<u8>,
}

/// What [`Envelope::prev`] is for the first envelope of a log.
pub const NO_ENVELOPE: EnvelopeHash = EnvelopeHash::from_bytes([0; 32]);

/// Why bytes were not taken for an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeRefused {
    /// More bytes than an envelope may have.
    #[error("an envelope of {length} bytes is longer than the {ENVELOPE_BYTES_MAX} allowed")]
    TooLong {
        /// Bytes that came.
        length: usize,
    },
    /// Written in a format that this version does not know.
    #[error("an envelope of format {format}, which this version cannot read; update Holdfast")]
    NewerFormat {
        /// The format number found.
        format: u8,
    },
    /// The bytes are no envelope.
    #[error("the bytes are no envelope")]
    Malformed,
    /// The author did not sign these bytes.
    #[error("envelope {seq} of author {}: the signature does not match", .author.short())]
    Signature {
        /// The author it names.
        author: AuthorId,
        /// Its number.
        seq: u64,
    },
}

/// An envelope whose signature was made or verified by this node. There is no other way to get one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEnvelope {
    envelope: Envelope,
    hash: EnvelopeHash,
    wire: Bytes,
}

impl SignedEnvelope {
    /// Signs `envelope`.
    ///
    /// # Panics
    /// When `key` is not the envelope's author or the body is longer than [`BODY_BYTES_MAX`].
    #[must_use]
    pub fn sign(envelope: Envelope, key: &AuthorKey) -> Self {
        assert_eq!(envelope.author, key.author_id(), "an envelope is signed by its author");
        assert!(envelope.body.len() <= BODY_BYTES_MAX, "a body of {} bytes is too long", envelope.body.len());
        let mut wire = vec![ENVELOPE_FORMAT];
        wire.append(&mut codec::encode(&envelope));
        let signature = key.sign(Purpose::Envelope, &wire);
        wire.extend_from_slice(&signature.to_bytes());
        let hash = envelope_hash(&wire);
        Self { envelope, hash, wire: wire.into() }
    }

    /// Parses and verifies the bytes of an envelope.
    ///
    /// # Errors
    /// When the bytes are too many, malformed, of a newer format or not signed by the author they name. Whether the
    /// author belongs to the library, and whether the envelope continues its log, is the caller's to check.
    pub fn parse(wire: Bytes) -> Result<Self, EnvelopeRefused> {
        if wire.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeRefused::TooLong { length: wire.len() });
        }
        let (signed, signature) = wire.split_last_chunk::<SIGNATURE_BYTES>().ok_or(EnvelopeRefused::Malformed)?;
        let (format, encoded) = signed.split_first().ok_or(EnvelopeRefused::Malformed)?;
        if *format != ENVELOPE_FORMAT {
            return Err(EnvelopeRefused::NewerFormat { format: *format });
        }
        let envelope: Envelope = codec::decode(encoded, ENVELOPE_BYTES_MAX).map_err(|_| EnvelopeRefused::Malformed)?;
        keys::verify(envelope.author.as_bytes(), Purpose::Envelope, signed, &Signature::from_bytes(signature))
            .map_err(|_| EnvelopeRefused::Signature { author: envelope.author, seq: envelope.seq })?;
        let hash = envelope_hash(&wire);
        Ok(Self { envelope, hash, wire })
    }

    /// Parses bytes that [`SignedEnvelope::parse`] accepted before and that this node has kept: the signature is not
    /// verified again.
    ///
    /// # Errors
    /// When the bytes are malformed or of a newer format.
    pub(crate) fn parse_kept(wire: Bytes) -> Result<Self, EnvelopeRefused> {
        let (signed, _) = wire.split_last_chunk::<SIGNATURE_BYTES>().ok_or(EnvelopeRefused::Malformed)?;
        let (format, encoded) = signed.split_first().ok_or(EnvelopeRefused::Malformed)?;
        if *format != ENVELOPE_FORMAT {
            return Err(EnvelopeRefused::NewerFormat { format: *format });
        }
        let envelope = codec::decode(encoded, ENVELOPE_BYTES_MAX).map_err(|_| EnvelopeRefused::Malformed)?;
        let hash = envelope_hash(&wire);
        Ok(Self { envelope, hash, wire })
    }

    /// What was signed.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The hash that the next envelope of the log names.
    #[must_use]
    pub const fn hash(&self) -> EnvelopeHash {
        self.hash
    }

    /// The bytes as received, signature included.
    #[must_use]
    pub const fn wire(&self) -> &Bytes {
        &self.wire
    }
}

/// The hash of an envelope's bytes, signature included.
#[must_use]
pub fn envelope_hash(wire: &[u8]) -> EnvelopeHash {
    EnvelopeHash::from_bytes(*blake3::hash(wire).as_bytes())
}

/// Two different envelopes that one author signed with one number behind the same envelope: where its log forked. What
/// it said before counts, and it may say nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    first: SignedEnvelope,
    second: SignedEnvelope,
}

/// Why two envelopes prove no fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoFork {
    /// One of them is no valid envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeRefused),
    /// They belong to different libraries, authors or numbers, or follow different envelopes: the fork is earlier then.
    #[error("the envelopes stand at different places")]
    DifferentPlaces,
    /// They say the same.
    #[error("the envelopes are the same")]
    Same,
}

impl ForkProof {
    /// The proof that `a` and `b` give; the same proof whichever comes first.
    ///
    /// # Errors
    /// When they stand at different places or are the same bytes. (Another signature or encoding of the same
    /// content is a fork too: the hashes differ, so the log has two continuations. Nobody but the author can make
    /// one, since signatures are verified strictly.)
    pub fn new(a: SignedEnvelope, b: SignedEnvelope) -> Result<Self, NoFork> {
        let place = |SignedEnvelope { envelope, .. }: &SignedEnvelope| {
            (envelope.library, envelope.author, envelope.seq, envelope.prev)
        };
        if place(&a) != place(&b) {
            return Err(NoFork::DifferentPlaces);
        }
        if a.hash == b.hash {
            return Err(NoFork::Same);
        }
        let (first, second) = if a.hash < b.hash { (a, b) } else { (b, a) };
        Ok(Self { first, second })
    }

    /// Verifies a proof that came as the bytes of two envelopes.
    ///
    /// # Errors
    /// When either is no valid envelope or they prove nothing.
    pub fn parse(first: Bytes, second: Bytes) -> Result<Self, NoFork> {
        Self::new(SignedEnvelope::parse(first)?, SignedEnvelope::parse(second)?)
    }

    /// The author that forked.
    #[must_use]
    pub const fn author(&self) -> AuthorId {
        self.first.envelope.author
    }

    /// The number that was used twice: how many envelopes count.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.first.envelope.seq
    }

    /// How far the log goes that both envelopes follow.
    #[must_use]
    pub const fn shared(&self) -> Extent {
        Extent { length: self.first.envelope.seq, head: self.first.envelope.prev }
    }

    /// Both envelopes, the one with the lesser hash first.
    #[must_use]
    pub const fn envelopes(&self) -> (&SignedEnvelope, &SignedEnvelope) {
        (&self.first, &self.second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(key: &AuthorKey, seq: u64, kind: u8, body: Vec<u8>) -> Envelope {
        Envelope {
            library: LibraryId::from_bytes([1; 32]),
            author: key.author_id(),
            seq,
            prev: EnvelopeHash::from_bytes([2; 32]),
            epoch: EpochId { counter: 3, nonce: [4; 8] },
            min_reader: 1,
            kind: Kind::from(kind),
            body,
        }
    }

    fn signed(seq: u64, body: &[u8]) -> SignedEnvelope {
        let key = AuthorKey::from_seed(&[5; 32]);
        SignedEnvelope::sign(envelope(&key, seq, 1, body.to_vec()), &key)
    }

    proptest! {
        #[test]
        fn envelopes_round_trip(seed: [u8; 32], seq: u64, kind: u8, body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let key = AuthorKey::from_seed(&seed);
            let signed = SignedEnvelope::sign(envelope(&key, seq, kind, body), &key);
            prop_assert_eq!(u8::from(signed.envelope().kind), kind);
            prop_assert_eq!(SignedEnvelope::parse(signed.wire().clone()), Ok(signed));
        }

        #[test]
        fn changed_envelopes_are_refused(at: proptest::sample::Index, bit in 0_u8..8) {
            let mut wire = signed(300, b"a body of some length").wire().to_vec();
            let at = at.index(wire.len());
            wire[at] ^= 1 << bit;
            prop_assert!(SignedEnvelope::parse(wire.into()).is_err());
        }

        #[test]
        fn cut_envelopes_are_refused(length: proptest::sample::Index) {
            let wire = signed(300, b"a body of some length").wire().clone();
            prop_assert!(SignedEnvelope::parse(wire.slice(..length.index(wire.len()))).is_err());
        }

        #[test]
        fn random_bytes_are_no_envelope(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SignedEnvelope::parse(bytes.clone().into()).is_err());
            prop_assert!(SignedEnvelope::parse([vec![ENVELOPE_FORMAT], bytes].concat().into()).is_err());
        }
    }

    #[test]
    fn the_longest_body_fits() {
        let signed = signed(u64::MAX, &vec![7; BODY_BYTES_MAX]);
        assert!(signed.wire().len() <= ENVELOPE_BYTES_MAX);
        assert!(SignedEnvelope::parse(signed.wire().clone()).is_ok());
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let length = ENVELOPE_BYTES_MAX + 1;
        assert_eq!(SignedEnvelope::parse(vec![1; length].into()), Err(EnvelopeRefused::TooLong { length }));
        assert_eq!(SignedEnvelope::parse(vec![9; 200].into()), Err(EnvelopeRefused::NewerFormat { format: 9 }));
        assert_eq!(SignedEnvelope::parse(Bytes::new()), Err(EnvelopeRefused::Malformed));
        assert_eq!(SignedEnvelope::parse(vec![1; SIGNATURE_BYTES].into()), Err(EnvelopeRefused::Malformed));

        let signed = signed(3, b"body");
        let author = signed.envelope().author;
        let mut wire = signed.wire().to_vec();
        *wire.last_mut().unwrap() ^= 1;
        assert_eq!(SignedEnvelope::parse(wire.into()), Err(EnvelopeRefused::Signature { author, seq: 3 }));
    }

    #[test]
    fn bytes_between_body_and_signature_are_refused_even_when_signed() {
        let key = AuthorKey::from_seed(&[5; 32]);
        let mut wire = vec![ENVELOPE_FORMAT];
        wire.append(&mut codec::encode(&envelope(&key, 0, 1, vec![])));
        wire.push(0);
        let signature = key.sign(Purpose::Envelope, &wire);
        wire.extend_from_slice(&signature.to_bytes());
        assert_eq!(SignedEnvelope::parse(wire.into()), Err(EnvelopeRefused::Malformed));
    }

    #[test]
    fn two_envelopes_with_one_number_prove_a_fork() {
        let (one, two) = (signed(3, b"one"), signed(3, b"two"));
        let proof = ForkProof::new(one.clone(), two.clone()).unwrap();
        assert_eq!(ForkProof::parse(two.wire().clone(), one.wire().clone()).as_ref(), Ok(&proof));
        assert_eq!((proof.author(), proof.seq()), (one.envelope().author, 3));
        assert!(proof.envelopes().0.hash() < proof.envelopes().1.hash());

        assert_eq!(ForkProof::new(one.clone(), one.clone()), Err(NoFork::Same));
        assert_eq!(ForkProof::new(one.clone(), signed(4, b"one")), Err(NoFork::DifferentPlaces));
        let key = AuthorKey::from_seed(&[5; 32]);
        let mut elsewhere = envelope(&key, 3, 1, b"two".to_vec());
        elsewhere.prev = EnvelopeHash::from_bytes([3; 32]);
        let elsewhere = SignedEnvelope::sign(elsewhere, &key);
        assert_eq!(ForkProof::new(one.clone(), elsewhere), Err(NoFork::DifferentPlaces), "the fork is earlier");
        let stranger = AuthorKey::from_seed(&[6; 32]);
        let other = SignedEnvelope::sign(envelope(&stranger, 3, 1, vec![]), &stranger);
        assert_eq!(ForkProof::new(one.clone(), other), Err(NoFork::DifferentPlaces));
        let forged = ForkProof::parse(one.wire().clone(), Bytes::from_static(b"nothing"));
        assert_eq!(forged, Err(NoFork::Envelope(EnvelopeRefused::Malformed)));
    }

    #[test]
    fn what_stands_on_the_wire_does_not_change_by_accident() {
        assert_eq!(
            signed(300, b"body").hash().to_string(),
            "ef0efa1d4ae97fe93eb68438b1b5285cf2a1d8465d4fba87fcb5dc65503584be"
        );
    }

    #[test]
    fn kinds_keep_their_numbers() {
        let kinds = [Kind::Deposit, Kind::Catalog, Kind::Bundle, Kind::Release, Kind::Membership, Kind::Carried];
        assert_eq!(kinds.map(u8::from), [1, 2, 3, 4, 5, 6]);
        for number in 0..=255 {
            assert_eq!(u8::from(Kind::from(number)), number);
        }
    }
}
