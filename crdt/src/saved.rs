//! A document as it is cached on disk: Automerge's own form, and what the guard must remember beside it.
//!
//! `format 2 ‖ BLAKE3 of the rest, 16 bytes ‖ length u32 ‖ Automerge document ‖ waiting: count u32, (origin 64, length u32, change)… ‖
//! refused authors: count u32, author… ‖ overflowed origins: count u32, origin…`, integers little endian; an origin is an author
//! and a log. A local cache that can be rebuilt from the log; never sent, never taken from a peer.

use std::collections::BTreeSet;

use holdfast_protocol::id::AuthorId;

use crate::origin::Origin;
use crate::waiting::Waiting;

const FORMAT: u8 = 2;
const CHECKSUM_BYTES: usize = 16;

/// The parts of a saved document.
pub(crate) struct Saved<'a> {
    pub(crate) automerge: &'a [u8],
    pub(crate) waiting: Waiting,
    pub(crate) refused: BTreeSet<AuthorId>,
}

pub(crate) fn encode(automerge: &[u8], waiting: &Waiting, refused: &BTreeSet<AuthorId>) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.resize(1 + CHECKSUM_BYTES, 0);
    put_bytes(&mut out, automerge);
    put_length(&mut out, waiting.len());
    for (origin, change) in waiting.iter() {
        put_origin(&mut out, origin);
        put_bytes(&mut out, change);
    }
    put_length(&mut out, refused.len());
    refused.iter().for_each(|author| out.extend_from_slice(author.as_bytes()));
    put_length(&mut out, waiting.overflowed().len());
    waiting.overflowed().iter().for_each(|origin| put_origin(&mut out, origin));
    let checksum = checksum(&out[1 + CHECKSUM_BYTES..]);
    out[1..=CHECKSUM_BYTES].copy_from_slice(&checksum);
    out
}

/// `None` when the bytes are not what [`encode`] made.
pub(crate) fn decode(bytes: &[u8]) -> Option<Saved<'_>> {
    let (format, rest) = bytes.split_first()?;
    let (stored, mut rest) = rest.split_at_checked(CHECKSUM_BYTES)?;
    if *format != FORMAT || stored != checksum(rest) {
        return None;
    }
    let automerge = take_bytes(&mut rest)?;
    let mut waiting = Waiting::default();
    for _ in 0..take_length(&mut rest)? {
        let origin = take_origin(&mut rest)?;
        let change = take_bytes(&mut rest)?;
        if !waiting.push(origin, change) {
            return None;
        }
    }
    let refused = (0..take_length(&mut rest)?).map(|_| take_author(&mut rest)).collect::<Option<_>>()?;
    for _ in 0..take_length(&mut rest)? {
        waiting.overflow(take_origin(&mut rest)?);
    }
    rest.is_empty().then_some(Saved { automerge, waiting, refused })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
    checksum
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Documents and queues are bounded far below 4 GiB.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    out.extend_from_slice(origin.author.as_bytes());
    out.extend_from_slice(origin.log.as_bytes());
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(rest)?;
    take(rest, length)
}

fn take_author(rest: &mut &[u8]) -> Option<AuthorId> {
    Some(AuthorId::from_bytes(take(rest, 32)?.try_into().ok()?))
}

fn take_origin(rest: &mut &[u8]) -> Option<Origin> {
    Some(Origin { author: take_author(rest)?, log: take_author(rest)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_comes_back_and_damage_is_noticed() {
        let author = AuthorId::from_bytes([7; 32]);
        let carried = Origin { author, log: AuthorId::from_bytes([8; 32]) };
        let mut waiting = Waiting::default();
        assert!(waiting.push(carried, b"change"));
        waiting.overflow(author.into());
        let refused = BTreeSet::from([AuthorId::from_bytes([9; 32])]);
        let bytes = encode(b"automerge", &waiting, &refused);
        let saved = decode(&bytes).unwrap();
        assert_eq!(saved.automerge, b"automerge");
        assert_eq!(saved.waiting.iter().collect::<Vec<_>>(), vec![(&carried, &b"change"[..])]);
        assert_eq!(saved.waiting.overflowed(), waiting.overflowed());
        assert_eq!(saved.refused, refused);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_none(), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
        }
    }
}
