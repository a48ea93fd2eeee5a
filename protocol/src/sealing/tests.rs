use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use proptest::prelude::*;

use super::*;
use crate::id::{AuthorId, LibraryId};
use crate::limits::{CHUNK_BYTES_MAX, SEALED_CHUNK_BYTES_MAX};
use crate::secrets::{EpochKey, LibrarySecrets};

fn secrets() -> LibrarySecrets {
    LibrarySecrets::generate(LibraryId::from_bytes([9; 32]), &[1; 32])
}

/// A chunk sealed by the book, with any nonce, by the other implementation.
fn sealed_by_the_book(secrets: &LibrarySecrets, nonce: &[u8; 24], plaintext: &[u8]) -> Vec<u8> {
    let epoch = secrets.current_epoch();
    let mut sealed = vec![1];
    sealed.extend_from_slice(&epoch.counter.to_le_bytes());
    sealed.extend_from_slice(&epoch.nonce);
    let aad = [secrets.library().as_bytes().as_slice(), &sealed].concat();
    let key = EpochKey::derived("holdfast 1 chunk key", &secrets.epoch_keys()[&epoch]);
    let cipher = XChaCha20Poly1305::new(key.as_bytes().into());
    let ciphertext = cipher.encrypt(nonce.into(), Payload { msg: plaintext, aad: &aad }).unwrap();
    sealed.extend_from_slice(nonce);
    sealed.extend_from_slice(&ciphertext);
    sealed
}

fn nonce_by_the_book(secrets: &LibrarySecrets, plaintext: &[u8]) -> [u8; 24] {
    let key = EpochKey::derived("holdfast 1 chunk nonce", &secrets.epoch_keys()[&secrets.current_epoch()]);
    let hash = blake3::keyed_hash(key.as_bytes(), blake3::hash(plaintext).as_bytes());
    hash.as_bytes()[..24].try_into().unwrap()
}

proptest! {
    #[test]
    fn chunks_are_sealed_by_the_book_and_open_again(plaintext in proptest::collection::vec(any::<u8>(), 0..3000), head in 0_usize..9) {
        let secrets = secrets();
        let sealer = ChunkSealer::new(&secrets);
        let sealed = sealer.seal(&plaintext);
        let expected = sealed_by_the_book(&secrets, &nonce_by_the_book(&secrets, &plaintext), &plaintext);
        prop_assert_eq!(&sealed.bytes, &expected);
        prop_assert_eq!(sealed.bytes.len(), sealed_length(plaintext.len()));
        prop_assert_eq!(sealed.id, chunk_id(&sealed.bytes));
        prop_assert_eq!(sealed_epoch(&sealed.bytes), Some(sealer.epoch()));
        prop_assert_eq!(sealer.open(&sealed.id, &sealed.bytes), Ok(plaintext.clone()));

        let mut out = vec![5; head];
        prop_assert_eq!(sealer.seal_into(&plaintext, &mut out), sealed.id);
        prop_assert_eq!(&out[..head], vec![5; head]);
        prop_assert_eq!(&out[head..], &sealed.bytes);
    }

    #[test]
    fn a_changed_chunk_opens_under_no_id(plaintext in proptest::collection::vec(any::<u8>(), 0..200), at: proptest::sample::Index, bit in 0_u8..8) {
        let sealer = ChunkSealer::new(&secrets());
        let mut sealed = sealer.seal(&plaintext);
        let at = at.index(sealed.bytes.len());
        sealed.bytes[at] ^= 1 << bit;
        prop_assert_eq!(sealer.open(&sealed.id, &sealed.bytes), Err(OpenError::WrongId));
        let refused = sealer.open(&chunk_id(&sealed.bytes), &sealed.bytes).unwrap_err();
        let expected = match at {
            0 => matches!(refused, OpenError::NewerFormat { .. }),
            1..13 => matches!(refused, OpenError::UnknownEpoch { .. }),
            _ => refused == OpenError::NotAuthentic,
        };
        prop_assert!(expected, "{:?} at {}", refused, at);
    }

    #[test]
    fn random_bytes_are_no_chunk(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ChunkSealer::new(&secrets()).open(&chunk_id(&bytes), &bytes).is_err());
    }

    #[test]
    fn bodies_open_at_their_place_only(plaintext in proptest::collection::vec(any::<u8>(), 0..300), author: [u8; 32], seq: u64, at: proptest::sample::Index, bit in 0_u8..8) {
        let sealer = BodySealer::new(&secrets());
        let author = AuthorId::from_bytes(author);
        let mut sealed = sealer.seal(&author, seq, &plaintext);
        prop_assert_eq!(sealed.len(), plaintext.len() + BodySealer::OVERHEAD);
        prop_assert_eq!(sealer.open(sealer.epoch(), &author, seq, &sealed), Ok(plaintext));
        let elsewhere = sealer.open(sealer.epoch(), &author, seq.wrapping_add(1), &sealed);
        prop_assert_eq!(elsewhere, Err(OpenError::NotAuthentic));
        let other = AuthorId::from_bytes([0xcc; 32]);
        prop_assert_eq!(sealer.open(sealer.epoch(), &other, seq, &sealed), Err(OpenError::NotAuthentic));
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(sealer.open(sealer.epoch(), &author, seq, &sealed).is_err());
    }

    #[test]
    fn facts_open_in_their_context_only(plaintext in proptest::collection::vec(any::<u8>(), 0..300), context: Vec<u8>, at: proptest::sample::Index, bit in 0_u8..8) {
        let key = PhotoKey::derive(&secrets(), &[4; 32]);
        let mut sealed = key.seal(&context, &plaintext);
        prop_assert_eq!(sealed.len(), plaintext.len() + PHOTO_SEAL_OVERHEAD);
        prop_assert_eq!(key.open(&context, &sealed), Ok(plaintext.clone()));
        prop_assert_eq!(&key.seal(&context, &plaintext), &sealed);
        let mut other = context.clone();
        other.push(0);
        prop_assert_eq!(key.open(&other, &sealed), Err(OpenError::NotAuthentic));
        let stranger = PhotoKey::derive(&secrets(), &[5; 32]);
        prop_assert_eq!(stranger.open(&context, &sealed), Err(OpenError::NotAuthentic));
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert_eq!(key.open(&context, &sealed), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn a_chunk_under_any_other_nonce_is_refused() {
    let secrets = secrets();
    let sealed = sealed_by_the_book(&secrets, &[0x55; 24], b"picture");
    let sealer = ChunkSealer::new(&secrets);
    assert_eq!(sealer.open(&chunk_id(&sealed), &sealed), Err(OpenError::NotAuthentic));
}

#[test]
fn lengths_out_of_bounds_are_refused() {
    let sealer = ChunkSealer::new(&secrets());
    for length in [0, 1, SEAL_OVERHEAD - 1, SEALED_CHUNK_BYTES_MAX + 1] {
        let bytes = vec![1; length];
        assert_eq!(sealer.open(&chunk_id(&bytes), &bytes), Err(OpenError::Length { length }));
        assert!(length > SEAL_OVERHEAD || sealed_epoch(&bytes).is_none());
    }
    let bodies = BodySealer::new(&secrets());
    let author = AuthorId::from_bytes([1; 32]);
    for length in [0, 40] {
        let refused = bodies.open(bodies.epoch(), &author, 0, &vec![1; length]);
        assert_eq!(refused, Err(OpenError::Length { length }));
    }
    let photo = PhotoKey::derive(&secrets(), &[4; 32]);
    for length in [0, 23, 39] {
        assert_eq!(photo.open(b"", &vec![1; length]), Err(OpenError::Length { length }));
    }
}

#[test]
fn the_longest_chunk_fits_and_a_longer_one_is_the_callers_mistake() {
    let sealer = ChunkSealer::new(&secrets());
    let sealed = sealer.seal(&vec![7; CHUNK_BYTES_MAX]);
    assert!(sealed.bytes.len() <= SEALED_CHUNK_BYTES_MAX);
    assert_eq!(sealer.open(&sealed.id, &sealed.bytes).map(|plaintext| plaintext.len()), Ok(CHUNK_BYTES_MAX));
    let longer = std::panic::catch_unwind(|| sealer.seal(&vec![7; CHUNK_BYTES_MAX + 1]));
    assert!(longer.is_err());
}

#[test]
fn after_a_removal_the_old_keys_open_nothing_new() {
    let mut secrets = secrets();
    let removed = secrets.clone();
    let old = ChunkSealer::new(&removed).seal(b"before");
    secrets.renew(&[6; 32]);
    let sealer = ChunkSealer::new(&secrets);
    let new = sealer.seal(b"after");
    let epoch = secrets.current_epoch();
    assert_eq!(ChunkSealer::new(&removed).open(&new.id, &new.bytes), Err(OpenError::UnknownEpoch { epoch }));
    assert_eq!(sealer.open(&old.id, &old.bytes), Ok(b"before".to_vec()));

    let author = AuthorId::from_bytes([1; 32]);
    let body = BodySealer::new(&secrets).seal(&author, 3, b"caption");
    let refused = BodySealer::new(&removed).open(epoch, &author, 3, &body);
    assert_eq!(refused, Err(OpenError::UnknownEpoch { epoch }));
}

#[test]
fn a_chunk_of_an_earlier_epoch_can_be_sealed_again() {
    let mut secrets = secrets();
    let first = secrets.current_epoch();
    let old = ChunkSealer::new(&secrets).seal(b"in place");
    secrets.renew(&[6; 32]);
    let sealer = ChunkSealer::new(&secrets);
    assert_ne!(sealer.seal(b"in place").id, old.id);
    assert_eq!(sealer.reseal(b"in place", first), Some(old));
    let unknown = EpochId { counter: 77, nonce: [0; 8] };
    assert_eq!(sealer.reseal(b"in place", unknown), None);
}

#[test]
fn libraries_share_no_sealed_bytes() {
    let (ours, theirs) = (secrets(), LibrarySecrets::generate(LibraryId::from_bytes([8; 32]), &[2; 32]));
    let (ours, theirs) = (ChunkSealer::new(&ours), ChunkSealer::new(&theirs));
    let sealed = ours.seal(b"the same picture");
    assert_ne!(theirs.seal(b"the same picture").id, sealed.id);
    assert!(matches!(theirs.open(&sealed.id, &sealed.bytes), Err(OpenError::UnknownEpoch { .. })));
}

#[test]
fn who_lacks_an_epoch_cannot_confirm_what_was_sealed_in_it() {
    const NONCE: std::ops::Range<usize> = 13..37;
    let mut secrets = secrets();
    let (chunk, author) = (ChunkSealer::new(&secrets).seal(b"a known picture"), AuthorId::from_bytes([1; 32]));
    let body = BodySealer::new(&secrets).seal(&author, 3, b"a known body");
    secrets.renew(&[6; 32]);
    assert_ne!(ChunkSealer::new(&secrets).seal(b"a known picture").bytes[NONCE], chunk.bytes[NONCE]);
    assert_ne!(BodySealer::new(&secrets).seal(&author, 3, b"a known body")[1..25], body[1..25]);
}

#[test]
fn keys_do_not_print() {
    let shown = format!("{:?} {:?}", PhotoKey::derive(&secrets(), &[4; 32]), ChunkSealer::new(&secrets()));
    assert_eq!(shown, "PhotoKey(secret) ChunkSealer(09090909)");
}
