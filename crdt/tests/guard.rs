//! Attacks of a member on everyone's catalog, each of them measured against Automerge 0.12 without a guard.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod device;

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};
use device::{DEVICE, Device, MONTH, NOW, author, photo};
use holdfast_crdt::limits::{CHANGE_BYTES_MAX, VALUE_BYTES_MAX, WAITING_CHANGES_MAX};
use holdfast_crdt::{Catalog, ChangeRefused, DocumentId, Lifecycle, Name, NameId, Patch, State, TagId};
use holdfast_protocol::position::Run;
use holdfast_protocol::time::WallTime;

/// A device with two changes in its log, the second of which is to be forged: it sets `c/` over an earlier caption
/// and makes a new `f/`.
struct Attack {
    attacker: Device,
    forged: ExpandedChange,
}

impl Attack {
    fn begin() -> Self {
        let mut attacker = Device::new(66);
        attacker.edit(|edit| {
            edit.put_photo(photo(1), b"record");
            edit.set_caption(photo(1), Some(b"first"));
        });
        let second = attacker.edit(|edit| {
            edit.set_caption(photo(1), Some(b"second"));
            edit.set_favourite(photo(1), true);
        });
        let forged = expand(&second.unwrap());
        attacker.log.pop();
        Self { attacker, forged }
    }

    /// Forges the change through its decoded form.
    fn forge(mut self, forge: impl FnOnce(&mut ExpandedChange)) -> ChangeRefused {
        forge(&mut self.forged);
        let bytes = encode(self.forged);
        refused(&self.attacker, &bytes)
    }

    /// Forges the bytes of the change.
    fn forge_bytes(self, forge: impl FnOnce(Vec<u8>) -> Vec<u8>) -> ChangeRefused {
        let bytes = forge(encode(self.forged));
        refused(&self.attacker, &bytes)
    }
}

/// Feeds the attacker's log and then `bytes` to a victim; answers the refusal after checking that it cost the victim
/// nothing: its document is as before, opens again, and everyone else's changes are taken in the same call.
fn refused(attacker: &Device, bytes: &[u8]) -> ChangeRefused {
    let mut honest = Device::new(1);
    honest.follow(attacker);
    honest.edit(|edit| edit.set_favourite(photo(1), true));

    let mut expected = Device::new(2);
    expected.follow(attacker);
    expected.follow(&honest);

    let mut victim = Device::new(2);
    victim.follow(attacker);
    let changes = [
        (attacker.author, bytes),
        (attacker.author, attacker.log[0].as_slice()),
        (honest.author, honest.log[0].as_slice()),
    ];
    let applied = victim.catalog.apply(MONTH, &changes).unwrap();
    assert_eq!(applied.applied, 1, "the honest change is applied");
    assert_eq!(victim.heads(), expected.heads());
    assert_eq!(victim.contents(), expected.contents());
    assert_eq!(victim.catalog.refused(MONTH).into_iter().collect::<Vec<_>>(), vec![attacker.author]);
    victim.reopen();
    assert_eq!(victim.heads(), expected.heads());
    assert_eq!(victim.catalog.refused(MONTH).len(), 1, "who was refused stays so");

    let [(who, reason)] = applied.refused.try_into().expect("one refusal");
    assert_eq!(who, attacker.author);
    reason
}

fn expand(bytes: &[u8]) -> ExpandedChange {
    Change::try_from(bytes).expect("a change").decode()
}

fn encode(change: ExpandedChange) -> Vec<u8> {
    Change::from(change).raw_bytes().to_vec()
}

fn put(key: &str, value: ScalarValue, predecessors: Vec<OpId>) -> Op {
    Op {
        action: OpType::Put(value),
        obj: ObjectId::Root,
        key: Key::from(key),
        pred: predecessors.into(),
        insert: false,
    }
}

fn bytes(value: &[u8]) -> ScalarValue {
    ScalarValue::Bytes(value.to_vec())
}

#[test]
fn the_change_that_is_forged_below_is_a_good_one() {
    let Attack { attacker, forged } = Attack::begin();
    let mut victim = Device::new(2);
    victim.follow(&attacker);
    let applied = victim.apply(attacker.author, &[encode(forged)]);
    assert_eq!((applied.applied, applied.refused), (1, vec![]));
}

#[test]
fn runs_that_expand_are_refused_before_they_are_expanded() {
    // 113 bytes that made Automerge allocate gigabytes: one run of 2^40 puts of nothing to one key.
    let run = |value: &[u8]| [&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20][..], value].concat();
    let key = run(&[3, b'f', b'/', b'x']);
    let insert = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let columns = [(21, key), (52, insert), (66, run(&[1])), (86, run(&[7])), (112, run(&[0]))];
    let Attack { attacker, forged } = Attack::begin();
    let change = chunk(1, &body(&forged, &columns));
    assert!(change.len() < 200);
    assert_eq!(refused(&attacker, &change), ChangeRefused::TooMany { what: "operations" });

    // The same in the overwritten operations of a single put.
    let key = [&[0x7f, 45][..], b"f/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"].concat();
    let one = |value: &[u8]| [&[0x7f][..], value].concat();
    let many = [&[0x7f][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]].concat();
    let columns = [(21, key), (52, vec![1]), (66, one(&[1])), (86, one(&[0x17])), (87, vec![1]), (112, many)];
    let change = chunk(1, &body(&forged, &columns));
    assert_eq!(refused(&attacker, &change), ChangeRefused::TooMany { what: "overwritten operations" });
}

#[test]
fn a_checksum_that_does_not_match_is_refused() {
    for at in 4..8 {
        let reason = Attack::begin().forge_bytes(|mut bytes| {
            bytes[at] ^= 1;
            bytes
        });
        assert_eq!(reason, ChangeRefused::NotCanonical);
    }
}

#[test]
fn encodings_that_are_not_canonical_are_refused() {
    // The count of dependencies, one byte, written as two.
    let reason = Attack::begin().forge_bytes(|bytes| {
        let body = &bytes[header(&bytes)..];
        chunk(1, &[&[body[0] | 0x80, 0][..], &body[1..]].concat())
    });
    assert_eq!(reason, ChangeRefused::NotCanonical);
    // A run of two insertions in two runs of one, and the like.
    let Attack { attacker, forged } = Attack::begin();
    let key = |literal: &[&[u8]]| literal.concat();
    let f = b"f/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let t = b"s/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let columns = [
        (21, key(&[&[0x7f, 45], f, &[0x7f, 45], t])),
        (52, vec![2]),
        (66, vec![2, 1]),
        (86, vec![0x7e, 0x17, 7]),
        (87, vec![1]),
        (112, vec![2, 0]),
    ];
    assert_eq!(refused(&attacker, &chunk(1, &body(&forged, &columns))), ChangeRefused::NotCanonical);
}

#[test]
fn cut_and_random_bytes_are_refused() {
    for cut in [0, 3, 4, 8, 9, 20, 60] {
        let reason = Attack::begin().forge_bytes(|bytes| bytes[..cut].to_vec());
        assert!(matches!(reason, ChangeRefused::Malformed { .. }), "{reason:?}");
    }
    let reason = Attack::begin().forge_bytes(|bytes| [bytes, vec![0]].concat());
    assert!(matches!(reason, ChangeRefused::Malformed { .. }));
    let reason = Attack::begin().forge_bytes(|_| vec![0x85; CHANGE_BYTES_MAX + 5000]);
    assert!(matches!(reason, ChangeRefused::TooLarge { .. }));
}

#[test]
fn a_compressed_change_is_refused_unopened() {
    let reason = Attack::begin().forge_bytes(|bytes| chunk(2, &bytes[header(&bytes)..]));
    assert_eq!(reason, ChangeRefused::Foreign { what: "compression" });
    for kind in [0, 3, 9] {
        let reason = Attack::begin().forge_bytes(|bytes| chunk(kind, &bytes[header(&bytes)..]));
        assert_eq!(reason, ChangeRefused::Foreign { what: "another kind of chunk" });
    }
}

#[test]
fn operations_that_are_numbered_wrong_are_refused() {
    for found in [1, 3, 5, 1 << 20] {
        let reason = Attack::begin().forge(|change| change.start_op = NonZeroU64::new(found).unwrap());
        assert_eq!(reason, ChangeRefused::WrongStart { expected: 4, found });
    }
    // Counters beyond 32 bits.
    let reason = Attack::begin().forge(|change| change.start_op = NonZeroU64::new(u64::from(u32::MAX)).unwrap());
    assert_eq!(reason, ChangeRefused::TooMany { what: "operations in all" });
}

#[test]
fn a_sequence_number_that_is_used_again_or_skipped_is_refused() {
    for found in [1, 3, 1 << 30] {
        let reason = Attack::begin().forge(|change| change.seq = found);
        assert_eq!(reason, ChangeRefused::WrongSequence { expected: 2, found });
    }
}

#[test]
fn of_two_changes_with_one_number_the_first_in_the_log_is_the_one() {
    let Attack { attacker, forged } = Attack::begin();
    let mut other = forged.clone();
    other.operations[0].action = OpType::Put(bytes(b"other"));
    let log = [attacker.log[0].clone(), encode(forged), encode(other)];
    let mut at_once = Device::new(2);
    let applied = at_once.apply(attacker.author, &log);
    assert_eq!(applied.applied, 2);
    assert!(matches!(applied.refused[..], [(_, ChangeRefused::WrongSequence { expected: 3, found: 2 })]));
    let mut one_by_one = Device::new(3);
    for change in &log {
        one_by_one.apply(attacker.author, std::slice::from_ref(change));
    }
    assert_eq!(at_once.heads(), one_by_one.heads());
}

#[test]
fn a_change_under_another_actor_is_refused() {
    let reason = Attack::begin().forge(|change| change.actor_id = ActorId::from([7_u8; 20]));
    assert_eq!(reason, ChangeRefused::WrongActor);
    let reason = Attack::begin().forge(|change| change.actor_id = ActorId::from(vec![7_u8; 300]));
    assert_eq!(reason, ChangeRefused::Malformed { what: "actor" });

    // Someone else's change in the attacker's log, whether it is known already or not.
    let mut honest = Device::new(1);
    let stolen = honest.edit(|edit| edit.put_photo(photo(9), b"nine")).unwrap();
    for known in [false, true] {
        let mut victim = Device::new(2);
        if known {
            victim.follow(&honest);
        }
        let applied = victim.apply(author(66), std::slice::from_ref(&stolen));
        assert_eq!(applied.refused, vec![(author(66), ChangeRefused::WrongActor)]);
    }
}

#[test]
fn a_change_that_builds_on_nothing_or_not_on_its_authors_last_is_refused() {
    let reason = Attack::begin().forge(|change| change.deps.clear());
    assert_eq!(reason, ChangeRefused::NoDependencies);

    // It builds on the genesis, which is everyone's, and leaves out the author's own first change.
    let genesis = expand(&Device::new(3).edit(|edit| edit.put_photo(photo(3), b"three")).unwrap()).deps;
    let reason = Attack::begin().forge(|change| change.deps = genesis);
    assert_eq!(reason, ChangeRefused::NotOnOwnLast);
}

#[test]
fn nested_objects_are_refused() {
    for kind in [ObjType::Map, ObjType::List, ObjType::Text, ObjType::Table] {
        let reason = Attack::begin().forge(|change| {
            change.operations[0].action = OpType::Make(kind);
        });
        assert_eq!(reason, ChangeRefused::NotAPut);
    }
    let reason = Attack::begin().forge(|change| {
        let own = OpId(1, change.actor_id.clone());
        change.operations[0].obj = ObjectId::Id(own);
    });
    assert_eq!(reason, ChangeRefused::Foreign { what: "nested objects, marks or unknown columns" });
    let reason = Attack::begin().forge(|change| {
        change.operations[0].key = Key::head();
        change.operations[0].insert = true;
    });
    assert!(matches!(reason, ChangeRefused::Foreign { .. }), "{reason:?}");
}

#[test]
fn everything_but_a_put_is_refused() {
    let reason = Attack::begin().forge(|change| change.operations[0].action = OpType::Delete);
    assert_eq!(reason, ChangeRefused::NotAPut);
    let reason = Attack::begin().forge(|change| change.operations[0].action = OpType::Increment(1));
    assert_eq!(reason, ChangeRefused::NotAPut);
    let reason = Attack::begin().forge(|change| change.operations[0].action = OpType::MarkEnd(false));
    assert_eq!(reason, ChangeRefused::NotAPut);
    let reason = Attack::begin().forge(|change| change.operations[0].insert = true);
    assert_eq!(reason, ChangeRefused::NotAPut);
    let reason = Attack::begin().forge(|change| change.operations.clear());
    assert!(matches!(reason, ChangeRefused::Foreign { .. }), "{reason:?}");
}

#[test]
fn values_that_are_not_bytes_are_refused() {
    for value in [
        ScalarValue::Null,
        ScalarValue::Boolean(true),
        ScalarValue::Int(-1),
        ScalarValue::Uint(1),
        ScalarValue::F64(f64::NAN),
        ScalarValue::Str("text".into()),
        ScalarValue::counter(1),
        ScalarValue::Timestamp(0),
        ScalarValue::Unknown { type_code: 12, bytes: vec![1] },
    ] {
        let reason = Attack::begin().forge(|change| change.operations[0].action = OpType::Put(value));
        assert!(matches!(reason, ChangeRefused::Foreign { .. }), "{reason:?}");
    }
}

#[test]
fn times_messages_and_extra_data_are_refused() {
    let reason = Attack::begin().forge(|change| change.time = 1);
    assert_eq!(reason, ChangeRefused::Foreign { what: "a time" });
    let reason = Attack::begin().forge(|change| change.message = Some("hello".to_owned()));
    assert_eq!(reason, ChangeRefused::Foreign { what: "a message" });
    let reason = Attack::begin().forge(|change| change.extra_bytes = vec![1, 1, 7]);
    assert_eq!(reason, ChangeRefused::Foreign { what: "extra data" });
}

#[test]
fn overwriting_other_values_than_the_author_saw_is_refused() {
    let wrong =
        |reason: ChangeRefused| assert!(matches!(reason, ChangeRefused::WrongPredecessors { .. }), "{reason:?}");
    // Nothing, where there is a caption: it would stand beside it for ever.
    wrong(Attack::begin().forge(|change| change.operations[0].pred = vec![].into()));
    // An operation that does not exist, one of another key, and one of nobody.
    wrong(Attack::begin().forge(|change| change.operations[0].pred = vec![OpId(77, change.actor_id.clone())].into()));
    wrong(Attack::begin().forge(|change| {
        let record = vec![OpId(3, change.actor_id.clone())];
        change.operations[1].pred = record.into();
    }));
    wrong(Attack::begin().forge(|change| change.operations[0].pred = vec![OpId(2, ActorId::from([9_u8; 20]))].into()));
    // Its own operation.
    wrong(Attack::begin().forge(|change| change.operations[1].pred = vec![OpId(4, change.actor_id.clone())].into()));
    // The right one, and one more.
    wrong(Attack::begin().forge(|change| {
        let actor = change.actor_id.clone();
        change.operations[0].pred = vec![OpId(2, actor.clone()), OpId(3, actor)].into();
    }));
    // The same one twice.
    let reason = Attack::begin().forge(|change| {
        let id = change.operations[0].pred.get(0).unwrap().clone();
        change.operations[0].pred = vec![id.clone(), id].into();
    });
    assert_eq!(reason, ChangeRefused::NotCanonical);
}

#[test]
fn keys_outside_the_schema_are_refused() {
    let long = format!("z/{}", "x".repeat(300));
    for key in ["genesis", "", "f/short", "Z/upper", "z/", "b/AAAAAAAAAAAAAAAAAAAAAA", &long] {
        let reason = Attack::begin().forge(|change| change.operations = vec![put(key, bytes(b"x"), vec![])]);
        let refused = matches!(reason, ChangeRefused::UnknownKey { .. } | ChangeRefused::TooMany { what: "keys" });
        assert!(refused, "{key}: {reason:?}");
    }
    let reason = Attack::begin().forge(|change| change.operations.swap(0, 1));
    assert!(matches!(reason, ChangeRefused::KeyTwice { .. }), "{reason:?}");
    let reason = Attack::begin().forge(|change| change.operations = vec![put("z/a", bytes(b"x"), vec![]); 2]);
    assert!(matches!(reason, ChangeRefused::KeyTwice { .. }), "{reason:?}");
}

#[test]
fn keys_of_later_versions_survive() {
    let Attack { attacker, mut forged } = Attack::begin();
    forged.operations = vec![put("face/AAAA/nose", bytes(b"later"), vec![]), put("z/1", bytes(b""), vec![])];
    let mut old = Device::new(2);
    old.follow(&attacker);
    let applied = old.apply(attacker.author, &[encode(forged)]);
    assert_eq!((applied.applied, applied.refused, applied.patches), (1, vec![], vec![]));
    // The old version edits beside it, and a later one finds both.
    old.edit(|edit| edit.set_favourite(photo(1), true));
    old.reopen();
    let saved = old.catalog.save(MONTH).unwrap();
    let found = |needle: &[u8]| saved.windows(needle.len()).any(|window| window == needle);
    assert!(found(b"face/AAAA/nose") && found(b"later"));
}

#[test]
fn malformed_values_of_known_keys_are_refused() {
    let reason = Attack::begin().forge(|change| change.operations[1].action = OpType::Put(bytes(&[2])));
    assert!(matches!(reason, ChangeRefused::WrongValue { .. }), "{reason:?}");
    let long = vec![0; VALUE_BYTES_MAX + 1];
    let reason = Attack::begin().forge(|change| change.operations[0].action = OpType::Put(bytes(&long)));
    assert_eq!(reason, ChangeRefused::TooMany { what: "bytes in a value" });
}

#[test]
fn more_operations_than_any_device_writes_are_refused() {
    let reason = Attack::begin().forge(|change| {
        change.operations = (0..10_001).map(|n| put(&format!("z/{n:05}"), bytes(b""), vec![])).collect();
    });
    assert_eq!(reason, ChangeRefused::TooMany { what: "operations" });
    let reason = Attack::begin().forge(|change| {
        change.deps = (0_u16..300).map(|n| ChangeHash([n.to_le_bytes(); 16].concat().try_into().unwrap())).collect();
    });
    assert_eq!(reason, ChangeRefused::TooMany { what: "dependencies" });
}

#[test]
fn a_record_is_written_once_and_a_state_goes_one_generation_at_a_time() {
    let mut attacker = Device::new(66);
    attacker.edit(|edit| edit.put_photo(photo(1), b"record"));
    let template = attacker.edit(|edit| edit.set_state(photo(1), Lifecycle::Trashed, NOW, DEVICE)).unwrap();
    attacker.log.pop();
    let forge = |key: String, value: &[u8], predecessors: bool| {
        let mut change = expand(&template);
        let own = predecessors.then(|| OpId(2, change.actor_id.clone()));
        change.operations = vec![put(&key, bytes(value), own.into_iter().collect())];
        refused(&attacker, &encode(change))
    };
    let id = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    assert!(matches!(forge(format!("p/{id}"), b"other", true), ChangeRefused::RecordRewritten { .. }));
    // The last generation there is would make an erasure final: nobody could undo it.
    for generation in [0, 2, u32::MAX] {
        let value = [&generation.to_le_bytes()[..], &[2], &[0; 40]].concat();
        assert!(matches!(forge(format!("x/{id}"), &value, false), ChangeRefused::WrongGeneration { .. }));
    }
    // A run in another author's name.
    let other = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
    assert!(matches!(forge(format!("r/{id}/{other}"), &[0; 8], false), ChangeRefused::UnknownKey { .. }));
}

#[test]
fn a_change_of_one_document_finds_no_footing_in_another() {
    let attacker = Attack::begin().attacker;
    let other = DocumentId::Month { year: 1999, month: 12 };
    let mut catalog = Catalog::new(author(2), 4);
    catalog.open(other, None).unwrap();
    let applied = catalog.apply(other, &[(attacker.author, &attacker.log[0])]).unwrap();
    assert_eq!((applied.applied, applied.waiting), (0, 1));
}

#[test]
fn what_waits_is_bounded_and_is_fed_again_when_it_can_be_taken() {
    let (mut other, mut writer) = (Device::new(3), Device::new(1));
    other.edit(|edit| edit.set_favourite(photo(1), true));
    writer.follow(&other);
    for number in 0..WAITING_CHANGES_MAX + 10 {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&number.to_le_bytes());
        writer.edit(|edit| edit.set_tag(photo(1), TagId::from_bytes(tag), true));
    }
    let mut victim = Device::new(2);
    let applied = victim.follow(&writer);
    assert_eq!((applied.applied, applied.waiting), (0, WAITING_CHANGES_MAX));
    assert_eq!(applied.overflowed, vec![writer.author]);
    victim.reopen();
    assert_eq!(victim.catalog.feed_again(MONTH), None, "what they build on has not come");
    assert_eq!(victim.follow(&writer).overflowed, vec![writer.author], "nothing more is taken until it is fed again");

    let applied = victim.follow(&other);
    assert_eq!((applied.applied, applied.waiting), (1 + WAITING_CHANGES_MAX, 0));
    assert_eq!(victim.catalog.feed_again(MONTH), Some(writer.author));
    let applied = victim.follow(&writer);
    assert_eq!((applied.applied, applied.waiting, applied.overflowed), (10, 0, vec![]));
    assert_eq!(victim.catalog.feed_again(MONTH), None);
    assert_eq!(victim.heads(), writer.heads());
}

#[test]
fn honest_changes_of_every_kind_pass() {
    let mut writer = Device::new(1);
    let name = NameId::from_bytes([4; 16]);
    writer.edit(|edit| {
        edit.put_photo(photo(1), &[9; 300]);
        edit.put_run(photo(1), Run { author: author(1), start: 7, count: 3 });
        edit.set_favourite(photo(1), true);
        edit.set_caption(photo(1), Some(b"caption"));
        edit.set_tag(photo(1), TagId::from_bytes([2; 16]), true);
        edit.set_album_position(photo(1), holdfast_crdt::AlbumId::from_bytes([3; 16]), Some(b"m"));
        edit.set_date_override(photo(1), Some(b"date"));
        edit.set_state(photo(1), Lifecycle::Trashed, NOW, DEVICE);
        edit.put_name(photo(1), name, b"IMG_0412.HEIC");
        edit.set_successor(photo(1), Some(photo(2)));
    });
    writer.edit(|edit| {
        edit.set_state(photo(1), Lifecycle::Live, NOW, DEVICE);
        edit.mark_name_gone(photo(1), name, WallTime(5));
    });
    let mut reader = Device::new(2);
    let applied = reader.follow(&writer);
    assert_eq!((applied.applied, applied.patches.len(), applied.refused), (2, 10, vec![]));
    let state = reader.catalog.photo(MONTH, &photo(1)).unwrap();
    assert_eq!(Some(&state), writer.catalog.photo(MONTH, &photo(1)).as_ref());
    assert_eq!(state.record, [9; 300]);
    assert_eq!(state.runs[&author(1)].start, 7);
    assert!(state.favourite && state.tags.len() == 1 && state.albums.len() == 1);
    assert_eq!(state.state, State { generation: 2, lifecycle: Lifecycle::Live, since: NOW, by: Some(DEVICE) });
    assert_eq!(state.names[&name], Name { sealed: b"IMG_0412.HEIC".to_vec(), gone_since: Some(WallTime(5)) });
    assert_eq!(state.successor, Some(photo(2)));
    assert!(applied.patches.iter().any(|patch| matches!(patch, Patch::PhotoAdded { others, .. } if others.is_empty())));
}

/// Where the body of a change begins.
fn header(bytes: &[u8]) -> usize {
    9 + bytes[9..].iter().position(|byte| byte & 0x80 == 0).expect("a length") + 1
}

/// A chunk with a checksum of zeros: it is only compared once the rest was read.
fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, kind];
    number(&mut chunk, body.len() as u64);
    chunk.extend_from_slice(body);
    chunk
}

/// The body of a change like `change`, with other columns.
fn body(change: &ExpandedChange, columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    number(&mut body, change.deps.len() as u64);
    for dependency in &change.deps {
        body.extend_from_slice(&dependency.0);
    }
    body.push(20);
    body.extend_from_slice(change.actor_id.to_bytes());
    number(&mut body, change.seq);
    number(&mut body, change.start_op.get());
    body.extend([0, 0, 0]);
    number(&mut body, columns.len() as u64);
    for (specification, column) in columns {
        number(&mut body, *specification);
        number(&mut body, column.len() as u64);
    }
    for (_, column) in columns {
        body.extend_from_slice(column);
    }
    body
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[test]
fn a_member_that_leaves_more_heads_than_a_change_may_name_keeps_nobody_from_writing() {
    let mut honest = Device::new(1);
    honest.edit(|edit| edit.set_favourite(photo(1), true));
    let mut log = Vec::new();
    for (attacker, incarnation) in (0..600).map(|number| (author(60 + (number / 200) as u8), number % 200)) {
        let mut catalog = Catalog::new(attacker, 1);
        catalog.set_incarnation(incarnation);
        catalog.open(MONTH, None).unwrap();
        let edit = catalog.edit(MONTH, |edit| edit.set_caption(photo(1), Some(&incarnation.to_le_bytes())));
        log.push((attacker, edit.unwrap().unwrap().change));
    }
    let changes: Vec<_> = log.iter().map(|(author, change)| (*author, change.as_slice())).collect();
    assert_eq!(honest.catalog.apply(MONTH, &changes).unwrap().applied, 600);
    for number in 2..5 {
        honest.edit(|edit| {
            edit.put_photo(photo(number), b"record");
            edit.set_caption(photo(1), Some(&[number]));
        });
    }
    assert!(honest.heads().len() < 10, "what was not named is by later changes");
    let mut other = Device::new(2);
    assert_eq!(other.follow(&honest).waiting, 3);
    other.catalog.apply(MONTH, &changes).unwrap();
    assert_eq!((other.heads(), other.contents()), (honest.heads(), honest.contents()));
}
