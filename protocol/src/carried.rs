//! What a log said behind its end, said again by a member who kept it.
//!
//! Two devices that are one and do not know it (one was restored from a backup, or copied) write two branches of one log. No
//! more of either counts than what they have in common. But what they say is not lost: whoever holds the rest of a branch
//! carries it on, envelope for envelope, in its own log. Their authors' signatures stay, so nobody can put words into
//! another's mouth. Only what people said is carried; chunks are deposited again by who carries. The same holds of what a
//! device said before all heard that it was removed.
//!
//! The body is `(length u32, envelope)…`, little endian, to the end.

use bytes::{Buf, Bytes};

use crate::envelope::{BODY_BYTES_MAX, Kind, SignedEnvelope};
use crate::id::LibraryId;

/// Bytes before each envelope.
const LENGTH_BYTES: usize = 4;

/// Bodies that carry `envelopes`, in their order, each as full as it may be. What is too long to be carried is left out:
/// no device of this version writes such envelopes.
#[must_use]
pub fn encode<'a>(envelopes: impl IntoIterator<Item = &'a SignedEnvelope>) -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for wire in envelopes.into_iter().map(SignedEnvelope::wire) {
        let bytes = LENGTH_BYTES + wire.len();
        if bytes > BODY_BYTES_MAX {
            continue;
        }
        if bodies.last().is_none_or(|body| body.len() + bytes > BODY_BYTES_MAX) {
            bodies.push(Vec::new());
        }
        if let Some(body) = bodies.last_mut() {
            body.extend_from_slice(&(wire.len() as u32).to_le_bytes());
            body.extend_from_slice(wire);
        }
    }
    bodies
}

/// The envelopes that a body carries: those of `library`, of kinds that may be carried, with good signatures. `None` when the
/// body is cut or one of them is not an envelope; then nothing of it counts.
#[must_use]
pub fn decode(library: &LibraryId, body: &[u8]) -> Option<Vec<SignedEnvelope>> {
    let mut rest = Bytes::copy_from_slice(body);
    let mut envelopes = Vec::new();
    while rest.has_remaining() {
        let length = rest.try_get_u32_le().ok()? as usize;
        if length > rest.len() {
            return None;
        }
        let signed = SignedEnvelope::parse(rest.split_to(length)).ok()?;
        let envelope = signed.envelope();
        if envelope.library != *library || !is_carried(envelope.kind) {
            return None;
        }
        envelopes.push(signed);
    }
    Some(envelopes)
}

/// Whether envelopes of a kind are carried as they are: those of later versions too, since nobody can know better.
#[must_use]
pub const fn is_carried(kind: Kind) -> bool {
    matches!(kind, Kind::Catalog | Kind::Membership | Kind::Other(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use crate::id::EnvelopeHash;
    use crate::keys::AuthorKey;
    use crate::secrets::EpochId;

    const LIBRARY: LibraryId = LibraryId::from_bytes([1; 32]);

    fn envelope(seq: u64, kind: Kind, bytes: usize) -> SignedEnvelope {
        let key = AuthorKey::from_seed(&[5; 32]);
        let envelope = Envelope {
            library: LIBRARY,
            author: key.author_id(),
            seq,
            prev: EnvelopeHash::from_bytes([2; 32]),
            epoch: EpochId { counter: 3, nonce: [4; 8] },
            min_reader: 1,
            kind,
            body: vec![7; bytes],
        };
        SignedEnvelope::sign(envelope, &key)
    }

    #[test]
    fn carried_envelopes_come_back_in_as_few_bodies_as_hold_them() {
        let longest = BODY_BYTES_MAX - 300;
        let some = [10, 20, longest, 30].map(|bytes| envelope(bytes as u64, Kind::Catalog, bytes));
        let too_long = envelope(9, Kind::Catalog, BODY_BYTES_MAX);
        let bodies = encode(some.iter().chain([&too_long]));
        assert!(bodies.iter().all(|body| body.len() <= BODY_BYTES_MAX));
        assert_eq!(bodies.len(), 3);
        let back: Vec<_> = bodies.iter().flat_map(|body| decode(&LIBRARY, body).unwrap()).collect();
        assert_eq!(back, some);
    }

    #[test]
    fn what_is_cut_changed_or_not_to_be_carried_is_refused() {
        let body = encode([&envelope(0, Kind::Catalog, 40), &envelope(1, Kind::Membership, 50)]).remove(0);
        let between = 4 + u32::from_le_bytes(body[..4].try_into().unwrap()) as usize;
        for at in (0..body.len()).filter(|at| *at != 0 && *at != between) {
            assert_eq!(decode(&LIBRARY, &body[..at]), None, "cut at {at}");
        }
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 0x21;
            assert_eq!(decode(&LIBRARY, &changed), None, "changed at {at}");
        }
        assert_eq!(decode(&LibraryId::from_bytes([9; 32]), &body), None);
        for kind in [Kind::Deposit, Kind::Bundle, Kind::Release, Kind::Carried] {
            assert_eq!(decode(&LIBRARY, &encode([&envelope(0, kind, 40)])[0]), None);
        }
        assert_eq!(decode(&LIBRARY, &[]), Some(vec![]));
    }
}
