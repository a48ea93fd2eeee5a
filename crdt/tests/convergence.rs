//! Equal sets of changes give equal documents, in whatever order and batches they arrive.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod device;

use automerge::legacy::OpType;
use automerge::{Change, ExpandedChange, ScalarValue};
use device::{DEVICE, Device, MONTH, NOW, photo};
use holdfast_crdt::{AlbumId, Edit, Lifecycle, NameId, Origin, TagId};
use holdfast_protocol::id::AuthorId;
use holdfast_protocol::time::WallTime;
use proptest::prelude::*;

const DEVICES: usize = 3;

/// What happens in a library of a few devices and photos.
#[derive(Debug, Clone)]
enum Step {
    /// A device edits a few things in one gesture.
    Edit { device: usize, touches: Vec<(u8, u8, u8)> },
    /// A device takes another's log, up to some point.
    Follow { device: usize, other: usize, share: u8 },
    /// A device closes its document and opens it again.
    Reopen { device: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..DEVICES;
    prop_oneof![
        4 => (device.clone(), prop::collection::vec((any::<u8>(), 0_u8..4, 0_u8..3), 1..6))
            .prop_map(|(device, touches)| Step::Edit { device, touches }),
        3 => (device.clone(), 0..DEVICES, any::<u8>())
            .prop_map(|(device, other, share)| Step::Follow { device, other, share }),
        1 => device.prop_map(|device| Step::Reopen { device }),
    ]
}

fn touch(edit: &mut Edit<'_>, (kind, target, value): (u8, u8, u8)) {
    let photo = photo(target);
    let text = [value; 9];
    match kind % 10 {
        0 => edit.put_photo(photo, &[value + 1; 20]),
        1 => edit.set_favourite(photo, value == 1),
        2 => edit.set_caption(photo, (value > 0).then_some(&text)),
        3 => edit.set_tag(photo, TagId::from_bytes([value; 16]), kind < 128),
        4 => edit.set_album_position(photo, AlbumId::from_bytes([7; 16]), (value > 0).then_some(&text)),
        5 => edit.set_date_override(photo, Some(&text)),
        6 => edit.set_state(
            photo,
            [Lifecycle::Live, Lifecycle::Trashed, Lifecycle::Erased][usize::from(value)],
            NOW,
            DEVICE,
        ),
        7 if kind < 128 => edit.put_name(photo, NameId::from_bytes([value; 16]), &text),
        7 => edit.mark_name_gone(photo, NameId::from_bytes([value; 16]), WallTime(kind.into())),
        8 => edit.set_successor(photo, (value > 0).then(|| device::photo(value))),
        _ => edit.set_caption(photo, Some(&[kind, target, value])),
    }
}

fn play(steps: &[Step]) -> Vec<Device> {
    let mut devices: Vec<_> = (0..DEVICES).map(|number| Device::new(number as u8 + 1)).collect();
    for step in steps {
        match step {
            Step::Edit { device, touches } => {
                devices[*device].edit(|edit| touches.iter().for_each(|one| touch(edit, *one)));
            }
            Step::Follow { device, other, share } => {
                let (author, log) = (devices[*other].author, devices[*other].log.clone());
                let applied = devices[*device].apply(author, &log[..log.len() * usize::from(*share) / 255]);
                assert_eq!(applied.refused, vec![], "nothing honest is refused");
            }
            Step::Reopen { device } => devices[*device].reopen(),
        }
    }
    devices
}

/// Feeds logs to a new device: `schedule` says whose log comes next and how much of it, and when to reopen.
fn deliver(logs: &[(AuthorId, Vec<Vec<u8>>)], schedule: &[(u8, u8, bool)]) -> Device {
    let mut reader = Device::new(99);
    let mut read = vec![0; logs.len()];
    let mut batch: Vec<(AuthorId, &[u8])> = Vec::new();
    for (who, share, flush) in schedule {
        let who = usize::from(*who) % logs.len();
        let (author, log) = &logs[who];
        let end = (read[who] + usize::from(*share) % 5).min(log.len());
        batch.extend(log[read[who]..end].iter().map(|change| (*author, change.as_slice())));
        read[who] = end;
        if *flush {
            reader.catalog.apply(MONTH, &batch).unwrap();
            batch.clear();
            if share % 4 == 0 {
                reader.reopen();
            }
        }
    }
    for ((author, log), read) in logs.iter().zip(read) {
        batch.extend(log[read..].iter().map(|change| (*author, change.as_slice())));
    }
    reader.catalog.apply(MONTH, &batch).unwrap();
    reader
}

fn schedule() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 0..60)
}

/// Makes a change that the guard must refuse, or at least could.
fn corrupt(change: &[u8], how: u8) -> Vec<u8> {
    let mut forged: ExpandedChange = Change::try_from(change).unwrap().decode();
    match how % 6 {
        0 => forged.seq += 1,
        1 => forged.operations[0].action = OpType::Put(ScalarValue::Bytes(vec![0xee; 77])),
        2 => forged.operations[0].action = OpType::Delete,
        3 => forged.operations[0].pred = vec![].into(),
        4 => forged.time = 5,
        _ => {
            forged.deps.pop();
        }
    }
    Change::from(forged).raw_bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn equal_changes_give_equal_documents(
        steps in prop::collection::vec(step(), 1..40),
        schedules in prop::collection::vec(schedule(), 2),
    ) {
        let mut devices = play(&steps);
        let logs: Vec<_> = devices.iter().map(|device| (device.author, device.log.clone())).collect();
        for device in &mut devices {
            for (author, log) in &logs {
                let applied = device.apply(*author, log);
                prop_assert_eq!(applied.refused, vec![]);
            }
        }
        let readers: Vec<_> = schedules.iter().map(|schedule| deliver(&logs, schedule)).collect();
        for reader in devices.iter().chain(&readers) {
            prop_assert_eq!(reader.heads(), devices[0].heads());
            prop_assert_eq!(reader.contents(), devices[0].contents());
            prop_assert!(reader.catalog.refused(MONTH).is_empty());
        }
    }

    /// One device is broken into and forges one of its changes: everyone else refuses the same part of its log.
    #[test]
    fn everyone_refuses_the_same_changes(
        steps in prop::collection::vec(step(), 4..40),
        forged in any::<prop::sample::Index>(),
        how in any::<u8>(),
        schedules in prop::collection::vec(schedule(), 3),
    ) {
        let mut logs: Vec<_> = play(&steps).into_iter().map(|device| (device.author, device.log)).collect();
        let log = &mut logs[0].1;
        prop_assume!(!log.is_empty());
        let at = forged.index(log.len());
        log[at] = corrupt(&log[at], how);
        let readers: Vec<_> = schedules.iter().map(|schedule| deliver(&logs, schedule)).collect();
        for reader in &readers {
            prop_assert_eq!(reader.heads(), readers[0].heads());
            prop_assert_eq!(reader.contents(), readers[0].contents());
            prop_assert_eq!(reader.catalog.refused(MONTH), readers[0].catalog.refused(MONTH));
        }
    }

    /// Patches are all an index needs: gathered as they come, they say what the document says.
    #[test]
    fn patches_add_up_to_the_contents(steps in prop::collection::vec(step(), 1..30), schedule in schedule()) {
        use std::collections::BTreeMap;
        let logs: Vec<_> = play(&steps).into_iter().map(|device| (device.author, device.log)).collect();
        let expected = deliver(&logs, &schedule);
        let mut reader = Device::new(98);
        let mut index = BTreeMap::new();
        for (author, log) in logs.iter().cycle().take(logs.len() * 4) {
            for change in log {
                for patch in reader.apply(*author, std::slice::from_ref(change)).patches {
                    index.insert(subject(&patch), patch);
                }
            }
        }
        let index: Vec<_> = index.into_values().collect();
        let mut contents = expected.contents();
        contents.sort_by_key(subject);
        prop_assert_eq!(index, contents);
    }
}

/// What a patch is about, without its value.
fn subject(patch: &holdfast_crdt::Patch) -> String {
    use holdfast_crdt::Patch;
    match patch {
        Patch::PhotoAdded { photo, .. } => format!("p{photo}"),
        Patch::Run { photo, run } => format!("r{photo}{}", run.author),
        Patch::Favourite { photo, .. } => format!("f{photo}"),
        Patch::Caption { photo, .. } => format!("c{photo}"),
        Patch::Tag { photo, tag, .. } => format!("t{photo}{tag:?}"),
        Patch::Album { photo, album, .. } => format!("a{photo}{album:?}"),
        Patch::Date { photo, .. } => format!("d{photo}"),
        Patch::State { photo, .. } => format!("x{photo}"),
        Patch::Name { photo, id, .. } => format!("n{photo}{id:?}"),
        Patch::Successor { photo, .. } => format!("s{photo}"),
        Patch::AlbumNamed { album, .. } => format!("b{album:?}"),
        Patch::TagNamed { tag, .. } => format!("g{tag:?}"),
        Patch::Setting { name, .. } => format!("o{name}"),
    }
}

#[test]
fn both_sides_of_a_caption_are_kept_until_someone_chooses() {
    let (mut anna, mut ben) = (Device::new(1), Device::new(2));
    anna.edit(|edit| edit.put_photo(photo(1), b"record"));
    ben.follow(&anna);
    anna.edit(|edit| edit.set_caption(photo(1), Some(b"by Anna")));
    ben.edit(|edit| edit.set_caption(photo(1), Some(b"by Ben")));
    anna.follow(&ben);
    ben.follow(&anna);
    let caption = |device: &Device| device.catalog.photo(MONTH, &photo(1)).unwrap().caption;
    assert_eq!(caption(&anna), caption(&ben));
    let both = caption(&anna);
    let mut sides = vec![both.value.clone().unwrap(), both.conflicts[0].clone().unwrap()];
    sides.sort();
    assert_eq!(sides, [b"by Anna".to_vec(), b"by Ben".to_vec()]);

    // Choosing the side that holds already still settles it.
    ben.edit(|edit| edit.set_caption(photo(1), both.value.as_deref()));
    anna.follow(&ben);
    assert_eq!(caption(&anna), caption(&ben));
    assert_eq!((caption(&anna).value, caption(&anna).conflicts), (both.value, vec![]));
}

#[test]
fn an_undelete_holds_over_a_concurrent_deletion() {
    let (mut anna, mut ben) = (Device::new(1), Device::new(2));
    anna.edit(|edit| edit.put_photo(photo(1), b"record"));
    anna.edit(|edit| edit.set_state(photo(1), Lifecycle::Trashed, NOW, DEVICE));
    ben.follow(&anna);
    anna.edit(|edit| edit.set_state(photo(1), Lifecycle::Erased, NOW, DEVICE));
    ben.edit(|edit| edit.set_state(photo(1), Lifecycle::Live, NOW, DEVICE));
    anna.follow(&ben);
    ben.follow(&anna);
    let state = |device: &Device| device.catalog.photo(MONTH, &photo(1)).unwrap().state;
    assert_eq!(state(&anna), state(&ben));
    assert_eq!(state(&anna).lifecycle, Lifecycle::Live);
}

#[test]
fn a_photo_imported_twice_is_one_photo_with_both_records() {
    let (mut anna, mut ben) = (Device::new(1), Device::new(2));
    anna.edit(|edit| edit.put_photo(photo(1), b"by Anna"));
    ben.edit(|edit| edit.put_photo(photo(1), b"by Ben"));
    anna.follow(&ben);
    assert_eq!(anna.catalog.photos(MONTH).count(), 1);
    let photo_state = anna.catalog.photo(MONTH, &photo(1)).unwrap();
    assert_eq!(photo_state.other_records.len(), 1);
    // Whoever comes later does not write it again.
    assert_eq!(anna.edit(|edit| edit.put_photo(photo(1), b"again")), None);
}

/// A device and its copy, which do not know of each other and write as one author.
#[test]
fn what_two_incarnations_of_one_author_wrote_is_all_kept() {
    let (mut anna, mut copy, mut ben, mut eve) = (Device::new(1), Device::new(1), Device::new(2), Device::new(3));
    anna.edit(|edit| edit.put_photo(photo(1), b"record"));
    copy.follow(&anna);
    copy.catalog.set_incarnation(7);
    let shared = anna.log.len();
    anna.edit(|edit| edit.set_caption(photo(1), Some(b"by Anna")));
    copy.edit(|edit| edit.set_favourite(photo(1), true));
    copy.edit(|edit| edit.put_photo(photo(2), b"record"));
    // Ben knows the one, builds on it, and says again what the copy wrote; Eve hears that before anything else.
    ben.follow(&anna);
    ben.edit(|edit| edit.set_caption(photo(1), Some(b"by Ben")));
    let carried = Origin { author: anna.author, log: ben.author };
    let again: Vec<_> = copy.log.iter().map(|change| (carried, change.as_slice())).collect();
    for device in [&mut eve, &mut anna, &mut ben] {
        assert_eq!(device.catalog.apply(MONTH, &again).unwrap().refused, []);
    }
    assert_eq!(eve.follow(&ben).waiting, 3, "they wait for what Anna wrote first");
    eve.apply(anna.author, &anna.log[..shared]);
    eve.apply(anna.author, &anna.log[shared..]);
    anna.follow(&ben);
    assert_eq!(eve.heads(), anna.heads());
    assert_eq!(eve.heads(), ben.heads());
    let state = eve.catalog.photo(MONTH, &photo(1)).unwrap();
    assert_eq!((state.favourite, state.caption.value), (true, Some(b"by Ben".to_vec())));
}
