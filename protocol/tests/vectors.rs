//! The bytes of every format that is kept or sent, as they are today: what is written once is read by every later version.
//!
//! A file of `tests/vectors` holds one sample in hexadecimal. A sample that differs is a change of format: it needs a format
//! number of its own, and the old sample stays and is read. `HOLDFAST_WRITE_VECTORS=1` writes those that are not there yet.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;

use bytes::Bytes;
use holdfast_protocol::certificate::AuthorCertificate;
use holdfast_protocol::deposit::{Deposit, DepositedChunk, RunClass, RunStart};
use holdfast_protocol::envelope::{Envelope, Kind, SignedEnvelope};
use holdfast_protocol::id::{AuthorId, ChunkId, EnvelopeHash, PlaceId};
use holdfast_protocol::inventory::{Generation, Head, SignedHead, Span};
use holdfast_protocol::manifest::{ContentBuilder, Facts, Manifest, ManifestHead};
use holdfast_protocol::media_type::MediaType;
use holdfast_protocol::membership::{Recipient, Removal, Statement, decode_statements, encode_statements};
use holdfast_protocol::message::{Announcement, LogPoint};
use holdfast_protocol::release::Release;
use holdfast_protocol::sealing::{BodySealer, ChunkSealer, PhotoKey};
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::WallTime;
use support::keys::{EPOCH, author_key, certificate, device_key, root};

/// Compares `bytes` to the sample `name`.
#[track_caller]
fn is_as_ever(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(format!("{name}.hex"));
    let lines = data_encoding::HEXLOWER.encode(bytes).into_bytes();
    let text: String =
        lines.chunks(100).flat_map(|line| line.iter().map(|byte| char::from(*byte)).chain(['\n'])).collect();
    if !path.exists() && std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(kept, text, "{name} has other bytes than it had");
}

fn secrets() -> LibrarySecrets {
    LibrarySecrets::generate(root().library_id(), &[3; 32])
}

fn content() -> Vec<u8> {
    let mut content = vec![0; 1000];
    blake3::Hasher::new().update(b"a sample").finalize_xof().fill(&mut content);
    content
}

#[test]
fn sealed_bytes() {
    let (secrets, plaintext) = (secrets(), content());
    let chunks = ChunkSealer::new(&secrets);
    let sealed = chunks.seal(&plaintext);
    assert_eq!(chunks.open(&sealed.id, &sealed.bytes).unwrap(), plaintext);
    is_as_ever("chunk", &sealed.bytes);
    let (bodies, author) = (BodySealer::new(&secrets), author_key(1).author_id());
    let body = bodies.seal(&author, 7, b"a body");
    assert_eq!(bodies.open(bodies.epoch(), &author, 7, &body).unwrap(), b"a body");
    is_as_ever("sealed-body", &body);
    is_as_ever("sealed-fact", &PhotoKey::derive(&secrets, &[4; 32]).seal(b"name", b"IMG_0001.jpg"));
    is_as_ever("secrets", &secrets.to_bytes());
    is_as_ever("sealed-secrets", &secrets.seal_to(&device_key(1).exchange().public(), &[5; 32]));
}

#[test]
fn manifests() {
    let (secrets, file) = (secrets(), content());
    let sealer = ChunkSealer::new(&secrets);
    let mut builder = ContentBuilder::new(&sealer);
    builder.push(&file, holdfast_protocol::cutting::CutKind::Picture, &mut Vec::new());
    let facts = Facts { camera_make: Some("Holdfast".into()), ..Facts::default() };
    let manifest = Manifest { content: builder.finish(), media: MediaType::Jpeg, facts, thumbnails: Vec::new() };
    let sealed = manifest.seal(&sealer).unwrap().remove(0);
    let head = ManifestHead::open(&sealer, &sealed.id, &sealed.bytes).unwrap();
    assert_eq!((head.photo(&secrets), head.length), (manifest.photo(&secrets), 1000));
    is_as_ever("manifest", &sealer.open(&sealed.id, &sealed.bytes).unwrap());
    is_as_ever("photo-id", head.photo(&secrets).as_bytes());
    is_as_ever("picture-hash", &manifest.content.picture_hash);
}

#[test]
fn bodies_of_envelopes() {
    let chunk = |number| DepositedChunk { chunk: ChunkId::from_bytes([number; 32]), length: 1000 };
    let runs = vec![RunStart { at: 1, class: RunClass::PHOTO }, RunStart { at: 2, class: RunClass(7) }];
    let deposit = Deposit { first: 5, chunks: vec![chunk(1), chunk(2), chunk(3)], runs };
    assert_eq!(Deposit::decode(&deposit.encode()), Ok(deposit.clone()));
    is_as_ever("deposit", &deposit.encode());

    let positions = [(AuthorId::from_bytes([6; 32]), vec![Span { start: 3, count: 2 }, Span { start: 900, count: 1 }])];
    let release = Release { positions: positions.into() };
    assert_eq!(Release::decode(&release.encode()), Ok(release.clone()));
    is_as_ever("release", &release.encode());

    let (device, author) = (device_key(1), author_key(1));
    let statements = vec![
        Statement::Introduce {
            device: certificate(&root(), 1),
            author: AuthorCertificate::issue(root().library_id(), &device, &author),
        },
        Statement::Admit(certificate(&root(), 2)),
        Statement::Remove(Removal {
            device: device_key(3).device_id(),
            keep: vec![device.device_id()],
            logs: vec![(author_key(3).author_id(), 4)],
        }),
        Statement::Keys {
            epoch: EPOCH,
            recipient: Recipient::Device(device.device_id()),
            sealed: secrets().seal_to(&device.exchange().public(), &[5; 32]),
        },
        Statement::Place {
            device: device.device_id(),
            place: PlaceId::from_bytes([8; 32]),
            revision: 2,
            label: b"sealed".to_vec(),
        },
    ];
    let body = encode_statements(&statements);
    assert_eq!(decode_statements(&body).unwrap(), statements);
    is_as_ever("statements", &body);

    let envelope = Envelope {
        library: root().library_id(),
        author: author.author_id(),
        seq: 9,
        prev: EnvelopeHash::from_bytes([1; 32]),
        epoch: EPOCH,
        min_reader: 1,
        kind: Kind::Deposit,
        body: deposit.encode(),
    };
    let signed = SignedEnvelope::sign(envelope.clone(), &author);
    assert_eq!(SignedEnvelope::parse(signed.wire().clone()).unwrap().envelope(), &envelope);
    is_as_ever("envelope", signed.wire());
}

#[test]
fn what_peers_say() {
    let device = device_key(1);
    let head = Head {
        peer: device.device_id(),
        generation: Generation { counter: 2, nonce: 3 },
        seq: 4,
        root: [5; 32],
        held: 6,
        erased: 7,
        place: Some(PlaceId::from_bytes([8; 32])),
        time: WallTime(9),
    };
    let library = root().library_id();
    let signed = SignedHead::sign(head.clone(), &library, &device);
    assert_eq!(SignedHead::parse(signed.wire().clone(), &library).unwrap().head(), &head);
    is_as_ever("inventory-head", signed.wire());

    let author = author_key(1).author_id();
    let point = LogPoint { author, length: 3, head: EnvelopeHash::from_bytes([2; 32]), forked: false };
    let announcement = Announcement { points: vec![point], inventory: None };
    let bytes: Bytes = announcement.encode().unwrap();
    assert_eq!(Announcement::decode(&bytes).unwrap(), Some(announcement));
    is_as_ever("announcement", &bytes);
}
