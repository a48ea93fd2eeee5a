//! Thousands of forged changes, half of them good ones with bytes exchanged and half well-formed with anything in them:
//! whatever a member sends, the document goes on, opens again, and is the same for everyone.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod device;

use std::num::NonZeroU64;

use automerge::legacy::{Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue};
use device::{DEVICE, Device, MONTH, NOW, photo};
use holdfast_crdt::{Catalog, Lifecycle, TagId};

/// A stream of choices that a seed repeats.
struct Choices(blake3::OutputReader);

impl Choices {
    fn from_seed(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % bound as u64) as usize
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// An attacker and an honest device that have seen each other's changes, but for the last of each.
struct World {
    attacker: Device,
    honest: Device,
    /// A good next change of the attacker.
    good: Vec<u8>,
    saved: Vec<u8>,
    known: Vec<Change>,
}

impl World {
    fn new() -> Self {
        let (mut attacker, mut honest) = (Device::new(66), Device::new(1));
        attacker.edit(|edit| {
            edit.put_photo(photo(1), b"record");
            edit.set_caption(photo(1), Some(b"caption"));
            edit.set_state(photo(1), Lifecycle::Trashed, NOW, DEVICE);
        });
        honest.edit(|edit| edit.set_caption(photo(1), Some(b"beside")));
        attacker.follow(&honest);
        attacker.edit(|edit| edit.set_tag(photo(2), TagId::from_bytes([2; 16]), true));
        honest.follow(&attacker);
        honest.edit(|edit| edit.set_favourite(photo(1), true));
        attacker.follow(&honest);
        let saved = attacker.catalog.save(MONTH).unwrap();
        let known = attacker.log.iter().chain(&honest.log).map(|change| expand(change)).collect();
        honest.edit(|edit| edit.set_favourite(photo(1), false));
        let good = attacker.edit(|edit| {
            edit.set_caption(photo(1), Some(b"next"));
            edit.set_favourite(photo(1), false);
            edit.set_state(photo(1), Lifecycle::Live, NOW, DEVICE);
        });
        Self { attacker, honest, good: good.unwrap(), saved, known }
    }

    fn reader(&self) -> Catalog {
        let mut catalog = Catalog::new(device::author(2), 1);
        catalog.open(MONTH, Some(&self.saved)).unwrap();
        catalog
    }

    /// Whether the change was applied, after checking that it did no harm.
    fn attack(&self, change: &[u8]) -> bool {
        let honest = self.honest.log.last().unwrap();
        let mut reader = self.reader();
        let before = reader.heads(MONTH);
        let attacked = reader.apply(MONTH, &[(self.attacker.author, change)]).unwrap();
        assert_eq!(attacked.applied == 0, reader.heads(MONTH) == before);
        let applied = reader.apply(MONTH, &[(self.honest.author, honest)]).unwrap();
        assert_eq!((applied.applied, applied.refused), (1, vec![]));
        let (heads, contents) = (reader.heads(MONTH), reader.contents(MONTH).collect::<Vec<_>>());
        let saved = reader.save(MONTH).unwrap();
        reader.close(MONTH);
        reader.open(MONTH, Some(&saved)).unwrap();
        assert_eq!(reader.heads(MONTH), heads);
        assert!(reader.contents(MONTH).eq(contents));
        // The other way round, and in one call, it is the same document.
        let mut other = self.reader();
        other.apply(MONTH, &[(self.honest.author, honest), (self.attacker.author, change)]).unwrap();
        assert_eq!(other.heads(MONTH), heads);
        attacked.applied == 1
    }

    fn forge(&self, choices: &mut Choices) -> Vec<u8> {
        if choices.once_in(2) { self.exchange_bytes(choices) } else { self.forge_fields(choices) }
    }

    fn exchange_bytes(&self, choices: &mut Choices) -> Vec<u8> {
        let mut change = self.good.clone();
        for _ in 0..=choices.below(4) {
            let at = choices.below(change.len());
            match choices.below(4) {
                0 => drop(change.remove(at)),
                1 => change.insert(at, choices.below(256) as u8),
                2 => change[at] ^= 1 << choices.below(8),
                _ => change[at] = choices.below(256) as u8,
            }
        }
        change
    }

    /// A good change in which a field or two are anything.
    fn forge_fields(&self, choices: &mut Choices) -> Vec<u8> {
        let mut forged = expand(&self.good).decode();
        for _ in 0..=choices.below(3) {
            match choices.below(8) {
                0 => forged.seq = [1, 2, 4, 1 << 33][choices.below(4)],
                1 => forged.start_op = NonZeroU64::new([1, 2, 7, 9, 1 << 31, 1 << 40][choices.below(6)]).unwrap(),
                2 => {
                    let mut hashes: Vec<_> = self.known.iter().map(Change::hash).collect();
                    hashes.extend([self.known[0].deps()[0], ChangeHash([7; 32])]);
                    let chosen = (0..choices.below(4)).map(|_| hashes[choices.below(hashes.len())]);
                    forged.deps = chosen.collect();
                }
                _ => {
                    let at = choices.below(forged.operations.len() + 1);
                    let operation = self.operation(choices, forged.operations.get(at));
                    match forged.operations.get_mut(at) {
                        Some(existing) => *existing = operation,
                        None => forged.operations.push(operation),
                    }
                }
            }
        }
        if !choices.once_in(4) {
            forged.operations.sort_by(|a, b| a.key.cmp(&b.key));
            forged.operations.dedup_by(|a, b| a.key == b.key);
        }
        Change::from(forged).raw_bytes().to_vec()
    }

    fn operation(&self, choices: &mut Choices, old: Option<&Op>) -> Op {
        let actors = [self.known[0].actor_id(), self.known[2].actor_id(), &ActorId::from([9_u8; 16])].map(Clone::clone);
        let id = |choices: &mut Choices| OpId(choices.below(12) as u64, actors[choices.below(3)].clone());
        let mut operation = old.cloned().unwrap_or_else(|| Op {
            action: OpType::Put(ScalarValue::Bytes(vec![1])),
            obj: ObjectId::Root,
            key: Key::from(format!("z/{}", choices.below(9))),
            pred: vec![].into(),
            insert: false,
        });
        match choices.below(6) {
            0 => operation.pred = (0..choices.below(4)).map(|_| id(choices)).collect(),
            1 => operation.key = key(choices, id),
            2 => operation.obj = ObjectId::Id(id(choices)),
            3 => operation.insert = true,
            _ => operation.action = action(choices),
        }
        operation
    }
}

fn key(choices: &mut Choices, id: impl Fn(&mut Choices) -> OpId) -> Key {
    let photo = ["AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE", "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM"];
    match choices.below(6) {
        0 => Key::from(&id(choices)),
        1 => Key::from("genesis"),
        2 => Key::from("later/key"),
        _ => Key::from(format!("{}/{}", char::from(b"pfcdxs"[choices.below(6)]), photo[choices.below(2)])),
    }
}

fn action(choices: &mut Choices) -> OpType {
    let number = choices.below(256) as i64;
    match choices.below(12) {
        0 => OpType::Delete,
        1 => OpType::Increment(number),
        2 => OpType::Make([ObjType::Map, ObjType::List, ObjType::Text, ObjType::Table][choices.below(4)]),
        3 => OpType::MarkEnd(choices.once_in(2)),
        4 => OpType::Put(ScalarValue::Int(number)),
        5 => OpType::Put(ScalarValue::Null),
        6 => OpType::Put(ScalarValue::Counter(number.into())),
        7 => OpType::Put(ScalarValue::Bytes(vec![number as u8, 0, 0, 0, 1])),
        8 => OpType::Put(ScalarValue::Bytes(vec![0; choices.below(5000)])),
        _ => OpType::Put(ScalarValue::Bytes(vec![choices.below(3) as u8])),
    }
}

fn expand(change: &[u8]) -> Change {
    Change::try_from(change).unwrap()
}

fn forge_many(count: u64) {
    let world = World::new();
    assert!(world.attack(&world.good));
    let applied = (0..count).filter(|seed| {
        let change = world.forge(&mut Choices::from_seed(*seed));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.attack(&change)));
        outcome.unwrap_or_else(|_| panic!("the forgery of seed {seed} did harm"))
    });
    let applied = applied.count() as u64;
    println!("{applied} of {count} forgeries were changes that a device could have made");
    // Some are: of those, nobody can say that they are forged. Most are not.
    assert!(applied > 0 && applied < count / 2);
    let none: ExpandedChange = expand(&world.good).decode();
    assert_eq!(Change::from(none).raw_bytes(), world.good, "decoding and encoding is the identity on good changes");
}

#[test]
fn a_thousand_forgeries_do_no_harm() {
    forge_many(1_000);
}

#[test]
#[ignore = "takes a minute, in release"]
fn a_hundred_thousand_forgeries_do_no_harm() {
    forge_many(100_000);
}
