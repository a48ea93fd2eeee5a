//! A well-formed change, canonically encoded, with anything in it.
#![no_main]

mod world;

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use world::{attack, world};

#[derive(Debug, Arbitrary)]
struct Forged {
    /// Which known changes it builds on; mostly the document's heads.
    dependencies: Option<u8>,
    sequence: Option<u32>,
    start: Option<u32>,
    time: Option<i64>,
    operations: Vec<Operation>,
    keep_order: bool,
}

#[derive(Debug, Arbitrary)]
struct Operation {
    key: KeyChoice,
    action: Action,
    /// `None`: what stands there.
    predecessors: Option<Vec<(u8, bool)>>,
    insert: Option<bool>,
    object: Option<(u8, bool)>,
}

#[derive(Debug, Arbitrary)]
enum KeyChoice {
    Known(u8, u8),
    Later(u8),
    Text(String),
    Element(u8),
}

#[derive(Debug, Arbitrary)]
enum Action {
    Fitting(u8),
    Bytes(Vec<u8>),
    Text(String),
    Number(i64),
    Delete,
    Increment(i64),
    Make(u8),
    Mark(bool),
}

fuzz_target!(|forged: Forged| {
    let known: Vec<Change> =
        world().attacker.iter().chain(&world().honest).map(|change| Change::try_from(change.as_slice()).unwrap()).collect();
    let genesis = known[0].deps()[0];
    let hashes = [known[0].hash(), known[1].hash(), known[2].hash(), known[3].hash(), genesis, ChangeHash([7; 32])];
    let (attacker, honest) = (known[0].actor_id().clone(), known[2].actor_id().clone());
    let deps = match forged.dependencies {
        None => vec![hashes[1], hashes[3]],
        Some(mask) => (0..6).filter(|bit| mask >> bit & 1 == 1).map(|bit| hashes[bit]).collect(),
    };
    let highest = known[..4].iter().map(Change::max_op).max().unwrap();
    let id = |(counter, own): (u8, bool)| OpId(u64::from(counter), if own { attacker.clone() } else { honest.clone() });
    let mut operations: Vec<Op> = forged
        .operations
        .into_iter()
        .map(|operation| Op {
            key: key(&operation.key, &attacker),
            action: action(operation.action),
            pred: operation.predecessors.unwrap_or_default().into_iter().map(id).collect(),
            insert: operation.insert.unwrap_or(false),
            obj: operation.object.map_or(ObjectId::Root, |object| ObjectId::Id(id(object))),
        })
        .collect();
    if !forged.keep_order {
        operations.sort_by(|a, b| a.key.cmp(&b.key));
        operations.dedup_by(|a, b| a.key == b.key);
    }
    let change = Change::from(ExpandedChange {
        operations,
        actor_id: attacker.clone(),
        hash: None,
        seq: forged.sequence.map_or(3, u64::from),
        start_op: NonZeroU64::new(forged.start.map_or(highest + 1, u64::from)).unwrap_or(NonZeroU64::MIN),
        time: forged.time.unwrap_or(0),
        message: None,
        deps,
        extra_bytes: Vec::new(),
        author: None,
    });
    attack(change.raw_bytes());
});

fn key(choice: &KeyChoice, attacker: &ActorId) -> Key {
    const PHOTOS: [&str; 3] = [
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI",
        "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM",
    ];
    match choice {
        KeyChoice::Known(family, photo) => {
            let family = char::from(b"pfcdxs"[usize::from(*family) % 6]);
            Key::from(format!("{family}/{}", PHOTOS[usize::from(*photo) % 3]))
        }
        KeyChoice::Later(number) => Key::from(format!("z/{number}")),
        KeyChoice::Text(text) => Key::from(text),
        KeyChoice::Element(counter) => Key::from(&OpId(u64::from(*counter), attacker.clone())),
    }
}

fn action(action: Action) -> OpType {
    match action {
        Action::Fitting(value) if value < 2 => OpType::Put(ScalarValue::Bytes(vec![value])),
        Action::Fitting(value) => OpType::Put(ScalarValue::Bytes(vec![value, 0, 0, 0, 0])),
        Action::Bytes(bytes) => OpType::Put(ScalarValue::Bytes(bytes)),
        Action::Text(text) => OpType::Put(ScalarValue::Str(text.into())),
        Action::Number(number) => OpType::Put(ScalarValue::Int(number)),
        Action::Delete => OpType::Delete,
        Action::Increment(number) => OpType::Increment(number),
        Action::Make(kind) => {
            OpType::Make([ObjType::Map, ObjType::List, ObjType::Text, ObjType::Table][usize::from(kind) % 4])
        }
        Action::Mark(expand) => OpType::MarkEnd(expand),
    }
}
