//! What logs say, come as they may: unreadable yet, too early, and behind their end.

use holdfast_protocol::certificate::AuthorCertificate;
use holdfast_protocol::deposit::{Deposit, DepositedChunk, RunClass, RunStart};
use holdfast_protocol::envelope::{Envelope, NO_ENVELOPE};
use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::membership::{Statement, encode_statements};
use holdfast_protocol::position::Run;

use super::*;
use crate::record::PhotoRecord;

#[test]
fn what_only_a_newer_version_can_read_is_left_alone_until_it_can_be_read() {
    let mut machine = Machine::new();
    let key = AuthorKey::from_seed(&[7; 32]);
    let mut writer = Catalog::new(key.author_id(), 1);
    writer.open(JULY, None).unwrap();
    let photo = PhotoId::from_bytes([5; 32]);
    let change = writer.edit(JULY, |edit| edit.set_favourite(photo, true)).unwrap().unwrap().change;
    keep_log(&mut machine, &key, READER_VERSION + 1, std::slice::from_ref(&change));
    let mut open = machine.open(None);
    open.library.opened(JULY).unwrap();
    assert_ne!(open.library.documents.catalog.heads(JULY), writer.heads(JULY));
    assert!(
        !open.events.iter().any(|event| matches!(event, Event::BodyUnreadable { .. } | Event::ChangeRefused { .. }))
    );
    let version = open.stop(&machine);
    // A version that can read it starts: as if it asked for no more than this one.
    keep_log(&mut machine, &key, READER_VERSION, &[change]);
    let mut open = machine.open(Some(version));
    open.library.opened(JULY).unwrap();
    assert_eq!(open.library.documents.catalog.heads(JULY), writer.heads(JULY));
}

/// Puts catalog envelopes of `key` into the log of `machine`, as its replica keeps them.
fn keep_log(machine: &mut Machine, key: &AuthorKey, min_reader: u16, changes: &[Vec<u8>]) {
    let body = |changes: &[Vec<u8>]| CatalogBody { document: JULY, changes: changes.to_vec() }.encode();
    keep(machine, key, min_reader, changes.chunks(1000).map(|changes| (Kind::Catalog, body(changes))));
}

fn keep(machine: &mut Machine, key: &AuthorKey, min_reader: u16, bodies: impl IntoIterator<Item = (Kind, Vec<u8>)>) {
    let sealer = BodySealer::new(&machine.secrets);
    let (library, author, epoch) = (machine.secrets.library(), key.author_id(), sealer.epoch());
    let mut prev = NO_ENVELOPE;
    let mut batch = Batch::new();
    for (seq, (kind, body)) in (0..).zip(bodies) {
        let body = if kind == Kind::Catalog { sealer.seal(&author, seq, &body) } else { body };
        let envelope = Envelope { library, author, seq, prev, epoch, min_reader, kind, body };
        let signed = SignedEnvelope::sign(envelope, key);
        prev = signed.hash();
        let at = [author.as_bytes().as_slice(), &seq.to_be_bytes()].concat();
        batch.put(Table::Log, at, signed.wire().as_ref());
    }
    machine.metadata.commit(batch).unwrap();
}

#[test]
fn changes_that_found_no_room_to_wait_are_read_from_the_log_again() {
    const CHANGES: usize = holdfast_crdt::limits::WAITING_CHANGES_MAX + 10;
    let mut machine = Machine::new();
    let mut keys = [AuthorKey::from_seed(&[7; 32]), AuthorKey::from_seed(&[8; 32])];
    // Logs are read in the order of their authors: what the first says builds on the second.
    keys.sort_by_key(AuthorKey::author_id);
    let [writer_key, other_key] = keys;
    let photo = PhotoId::from_bytes([5; 32]);
    let mut other = Catalog::new(other_key.author_id(), 1);
    other.open(JULY, None).unwrap();
    let footing = other.edit(JULY, |edit| edit.set_favourite(photo, true)).unwrap().unwrap().change;
    let mut writer = Catalog::new(writer_key.author_id(), 1);
    writer.open(JULY, None).unwrap();
    writer.apply(JULY, &[(other_key.author_id(), &footing)]).unwrap();
    let mut changes = Vec::new();
    for n in 0..CHANGES as u64 {
        let tag = TagId::from_bytes([n.to_le_bytes(), [0; 8]].concat().try_into().unwrap());
        changes.push(writer.edit(JULY, |edit| edit.set_tag(photo, tag, true)).unwrap().unwrap().change);
    }
    keep_log(&mut machine, &writer_key, 1, &changes);
    let open = machine.open(None);
    assert_ne!(open.library.documents.catalog.heads(JULY), writer.heads(JULY), "what they build on is not here");
    let version = open.stop(&machine);

    // It comes while the library runs, or in another run: no matter.
    keep_log(&mut machine, &other_key, 1, &[footing]);
    let mut open = machine.open(Some(version));
    assert_eq!(open.library.documents.catalog.heads(JULY), writer.heads(JULY));
    let tags = open.indexed.drain(..).filter(|change| matches!(change, IndexChange::Tag { .. })).count();
    assert_eq!(tags, CHANGES);
}

#[test]
fn a_device_whose_own_changes_cannot_be_applied_goes_on_under_another_author() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let retired = open.library.replica().author();
    let mut other = Catalog::new(retired, 1);
    other.open(JULY, None).unwrap();
    let tag = |n| TagId::from_bytes([n; 16]);
    let mut tagged = |n| other.edit(JULY, |edit| edit.set_tag(PhotoId::from_bytes([5; 32]), tag(n), true)).unwrap();
    let [_, second] = [tagged(1), tagged(2)];
    open.library.opened(JULY).unwrap().apply(JULY, &[(retired, &second.unwrap().change)]).unwrap();
    assert!(open.library.documents.catalog.is_behind(JULY));

    let photo = machine.photo("0.jpg", &[0; 1000]);
    open.import(&mut machine, &photo);
    let author = open.library.replica().author();
    assert!(open.events.contains(&Event::AuthorContinued { retired, author }));
    assert_eq!(open.listed(), [photo.photo].into());
    // The key that it goes on with outlives a crash.
    drop(open);
    let open = machine.open(None);
    assert_eq!((open.library.replica().author(), open.listed()), (author, [photo.photo].into()));
}

#[test]
fn a_photo_that_a_removed_device_told_of_too_early_is_deposited_again_all_the_same() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let device = admit(&mut open, &machine, 5).unwrap();
    let [writer_key, other_key] = [7, 8].map(|seed| AuthorKey::from_seed(&[seed; 32]));
    let author = AuthorCertificate::issue(machine.secrets.library(), &DeviceKey::from_seed(&[5; 32]), &writer_key);
    let introduction = encode_statements(&[Statement::Introduce { device: device.clone(), author }]);

    // Behind that it says more, of which nobody hears before it is removed: a photo that builds on what another said.
    let photo = machine.photo("a.jpg", &[3; 1000]);
    let mut other = Catalog::new(other_key.author_id(), 1);
    other.open(JULY, None).unwrap();
    let footing = other.edit(JULY, |edit| edit.set_favourite(photo.photo, true)).unwrap().unwrap().change;
    let mut writer = Catalog::new(writer_key.author_id(), 1);
    writer.open(JULY, None).unwrap();
    writer.apply(JULY, &[(other_key.author_id(), &footing)]).unwrap();
    let run = Run { author: writer_key.author_id(), start: 0, count: photo.chunks.len() as u32 };
    let record = PhotoRecord::new(run, 1000).encode();
    let change = writer.edit(JULY, |edit| edit.put_photo(photo.photo, &record)).unwrap().unwrap().change;
    let chunks = photo.chunks.iter().map(|(chunk, length)| DepositedChunk { chunk: *chunk, length: *length }).collect();
    let runs = vec![RunStart { at: 0, class: RunClass::PHOTO }];
    let said = [
        (Kind::Membership, introduction),
        (Kind::Deposit, Deposit { first: 0, chunks, runs }.encode()),
        (Kind::Catalog, CatalogBody { document: JULY, changes: vec![change] }.encode()),
    ];

    keep(&mut machine, &writer_key, 1, said[..1].to_vec());
    let mut open = machine.open(None);
    machine.elapsed += Duration::from_secs(16);
    let effects = open.library.remove_device(machine.now(), &device.device()).unwrap();
    open.perform(&machine, effects);
    keep(&mut machine, &writer_key, 1, said);
    let mut open = machine.open(None);
    open.give(&mut machine, Vec::new());
    assert!(!open.library.has_to_carry() && open.listed().is_empty());

    keep_log(&mut machine, &other_key, 1, &[footing]);
    let open = machine.open(None);
    assert_eq!(open.listed(), BTreeSet::from([photo.photo]));
    let row = open.library.photos.row(0);
    assert!(row.run.author == open.library.replica().author() && !open.library.replica().is_void(&row.run));
}
