use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cutting::{CutKind, cuts};
use crate::id::LibraryId;

fn secrets() -> LibrarySecrets {
    LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32])
}

fn content(file: &[u8], sealer: &ChunkSealer) -> Content {
    let (mut builder, mut sealed, mut position) = (ContentBuilder::new(sealer), Vec::new(), 0);
    for cut in cuts(file) {
        builder.push(&file[position..position + cut.length], cut.kind, &mut sealed);
        position += cut.length;
    }
    builder.finish()
}

fn jpeg(exif: &[u8], picture: &[u8]) -> Vec<u8> {
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&b"\xff\xd8\xff\xe1"[..], &length, exif, b"\xff\xda\0\x02", picture].concat()
}

fn manifest(chunks: Vec<ManifestChunk>) -> Manifest {
    Manifest {
        content: Content {
            hash: [1; 32],
            length: chunks.iter().map(|chunk| u64::from(chunk.length)).sum(),
            picture_hash: [2; 32],
            cutter: 1,
            chunks,
        },
        media: MediaType::Jpeg,
        facts: Facts::default(),
        thumbnails: vec![],
    }
}

fn open(sealer: &ChunkSealer, sealed: &[SealedChunk]) -> Result<Manifest, ManifestRefused> {
    let chunks: BTreeMap<ChunkId, &SealedChunk> = sealed.iter().map(|chunk| (chunk.id, chunk)).collect();
    Manifest::open(sealer, &sealed[0].id, &sealed[0].bytes, |id| Some(chunks.get(id)?.bytes.clone()))
}

#[test]
fn equal_content_makes_equal_manifests_and_the_picture_hash_looks_past_metadata() {
    let sealer = ChunkSealer::new(&secrets());
    let picture = vec![0x5a; 100_000];
    let first = content(&jpeg(b"2021", &picture), &sealer);
    let again = content(&jpeg(b"2021", &picture), &sealer);
    let edited = content(&jpeg(b"2022, in Rome", &picture), &sealer);
    let other = content(&jpeg(b"2021", &picture[1..]), &sealer);
    assert_eq!(first, again);
    assert_eq!(first.hash, *blake3::hash(&jpeg(b"2021", &picture)).as_bytes());
    assert_ne!(first.hash, edited.hash);
    assert_eq!(first.picture_hash, edited.picture_hash);
    assert_ne!(first.picture_hash, other.picture_hash);
    assert_eq!(first.chunks[1..], edited.chunks[1..]);
    let mut renewed = secrets();
    renewed.renew(&[6; 32]);
    let renewed = content(&jpeg(b"2021", &picture), &ChunkSealer::new(&renewed));
    assert_eq!(first.picture_hash, renewed.picture_hash, "in another epoch it is the same picture");
    assert_ne!(first.chunks, renewed.chunks);
}

#[test]
fn a_long_manifest_says_everything_but_its_chunks_in_the_first_one() {
    let sealer = ChunkSealer::new(&secrets());
    let chunk = ManifestChunk { chunk: ChunkId::from_bytes([1; 32]), length: 4 << 20, kind: CutKind::Picture };
    let long = manifest(vec![chunk; CHUNKS_PER_PART_MAX + 1]);
    let sealed = long.seal(&sealer).unwrap();
    assert_eq!(sealed.len(), 2);
    let head = ManifestHead::open(&sealer, &sealed[0].id, &sealed[0].bytes).unwrap();
    assert_eq!((head.photo(&secrets()), head.length), (long.photo(&secrets()), long.content.length));
    assert!(ManifestHead::open(&sealer, &sealed[1].id, &sealed[1].bytes).is_err());
}

#[test]
fn a_long_manifest_continues_in_further_chunks() {
    let sealer = ChunkSealer::new(&secrets());
    let chunk = |number: u32| ManifestChunk {
        chunk: ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes()),
        length: 4 << 20,
        kind: CutKind::Picture,
    };
    let long = manifest((0..150_000).map(chunk).collect());
    let sealed = long.seal(&sealer).unwrap();
    assert_eq!(sealed.len(), 3);
    assert_eq!(open(&sealer, &sealed), Ok(long));
    let missing = Manifest::open(&sealer, &sealed[0].id, &sealed[0].bytes, |_| None);
    assert_eq!(missing, Err(ManifestRefused::Incomplete { chunk: sealed[1].id }));
}

#[test]
fn manifests_that_members_make_up_are_refused() {
    let sealer = ChunkSealer::new(&secrets());
    let chunk = |length| ManifestChunk { chunk: ChunkId::from_bytes([3; 32]), length, kind: CutKind::Picture };
    let valid = manifest(vec![chunk(5)]);
    assert_eq!(open(&sealer, &valid.seal(&sealer).unwrap()), Ok(valid.clone()));
    let thumbnail = |length| Thumbnail {
        chunk: ChunkId::from_bytes([4; 32]),
        length,
        dimensions: Dimensions { width: 1, height: 1 },
        media: MediaType::Jpeg,
    };
    let wrong = [
        manifest(vec![chunk(0)]),
        manifest(vec![chunk(CHUNK_BYTES_MAX as u32 + 1)]),
        Manifest { content: Content { length: 6, ..valid.content.clone() }, ..valid.clone() },
        Manifest { thumbnails: vec![thumbnail(9); THUMBNAILS_MAX + 1], ..valid.clone() },
        Manifest { thumbnails: vec![thumbnail(u32::MAX)], ..valid.clone() },
    ];
    for manifest in wrong {
        let opened = open(&sealer, &manifest.seal(&sealer).unwrap());
        assert!(matches!(opened, Err(ManifestRefused::Wrong { .. })), "{opened:?}");
    }
    let newer = sealer.seal(b"\x09whatever");
    assert_eq!(open(&sealer, &[newer]), Err(ManifestRefused::Newer { format: 9 }));
    let loud = Manifest { facts: Facts { lens: Some("L".repeat(5000)), ..Facts::default() }, ..valid };
    let opened = open(&sealer, &loud.seal(&sealer).unwrap()).unwrap();
    assert_eq!(opened.facts.lens.map(|lens| lens.len()), Some(FACT_TEXT_CHARS_MAX));
}

proptest! {
    #[test]
    fn parsing_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), start in any::<bool>()) {
        if start {
            bytes = [vec![FORMAT], bytes].concat();
        }
        let _ = Manifest::parse(&bytes, |chunk| Err(ManifestRefused::Incomplete { chunk: *chunk }));
    }

    #[test]
    fn damaged_manifests_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = formatted(&Root { manifest: manifest(vec![]), further: vec![] });
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Manifest::parse(&bytes, |chunk| Err(ManifestRefused::Incomplete { chunk: *chunk }));
    }
}
