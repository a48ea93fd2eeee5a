//! Opening, editing, saving and evicting documents.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod device;

use device::{Device, MONTH, author, photo};
use holdfast_crdt::limits::{EDIT_BYTES_MAX, INCARNATIONS_MAX, VALUE_BYTES_MAX};
use holdfast_crdt::{
    AlbumId, Catalog, CatalogBody, DocumentId, EditRefused, Name, NameId, NotOpen, OpenError, Origin, Patch, TagId,
    bundle,
};
use holdfast_protocol::time::WallTime;

#[test]
fn an_edit_that_changes_nothing_makes_no_change() {
    let mut device = Device::new(1);
    assert!(device.edit(|edit| edit.set_favourite(photo(1), true)).is_some());
    assert_eq!(device.edit(|edit| edit.set_favourite(photo(1), true)), None);
    assert_eq!(device.edit(|edit| edit.set_tag(photo(1), TagId::from_bytes([1; 16]), false)), None);
    assert_eq!(device.edit(|_| {}), None);
}

#[test]
fn an_edit_that_does_not_fit_changes_nothing() {
    let mut device = Device::new(1);
    let before = device.heads();
    let long = vec![0; VALUE_BYTES_MAX + 1];
    let refused = device.catalog.edit(MONTH, |edit| edit.set_caption(photo(1), Some(&long)));
    assert!(matches!(refused, Err(EditRefused::WrongValue { .. })));
    let refused = device.catalog.edit(MONTH, |edit| {
        for number in 0..=(EDIT_BYTES_MAX / VALUE_BYTES_MAX) as u8 {
            edit.set_caption(photo(number), Some(&long[1..]));
        }
    });
    assert!(matches!(refused, Err(EditRefused::TooLarge { .. })));
    let refused = device.catalog.edit(MONTH, |edit| edit.set_album_name(AlbumId::from_bytes([1; 16]), Some(b"x")));
    assert!(matches!(refused, Err(EditRefused::WrongDocument { .. })));
    let refused = device.catalog.edit(DocumentId::Library, |edit| edit.set_setting("policy", Some(b"3")));
    assert_eq!(refused, Err(EditRefused::NotOpen { document: DocumentId::Library }));
    assert_eq!(
        device.catalog.apply::<Origin>(DocumentId::Library, &[]),
        Err(NotOpen { document: DocumentId::Library })
    );
    assert_eq!(device.heads(), before);
}

#[test]
fn the_library_document_names_albums_and_tags_and_keeps_settings() {
    let mut catalog = Catalog::new(author(1), 2);
    catalog.open(DocumentId::Library, None).unwrap();
    let album = AlbumId::from_bytes([1; 16]);
    let change = catalog.edit(DocumentId::Library, |edit| {
        edit.set_album_name(album, Some(b"sealed"));
        edit.set_tag_name(TagId::from_bytes([2; 16]), Some(b"sealed too"));
        edit.set_setting("policy.copies", Some(b"3"));
    });
    assert_eq!(change.unwrap().unwrap().patches.len(), 3);
    let removed = catalog.edit(DocumentId::Library, |edit| edit.set_album_name(album, None)).unwrap().unwrap();
    assert!(matches!(&removed.patches[..], [Patch::AlbumNamed { name, .. }] if name.value.is_none()));
    let refused = catalog.edit(DocumentId::Library, |edit| edit.set_setting("No Such", Some(b"3")));
    assert!(matches!(refused, Err(EditRefused::WrongDocument { .. })));
}

#[test]
fn a_name_that_went_stays_as_it_was_until_its_file_is_back() {
    let mut device = Device::new(1);
    let [known, unknown] = [1, 2].map(|number| NameId::from_bytes([number; 16]));
    let names = |device: &Device| device.catalog.photo(MONTH, &photo(1)).unwrap().names;
    device.edit(|edit| edit.put_photo(photo(1), b"record"));
    device.edit(|edit| edit.put_name(photo(1), known, b"a.jpg"));
    assert_eq!(device.edit(|edit| edit.mark_name_gone(photo(1), unknown, WallTime(5))), None);
    device.edit(|edit| edit.mark_name_gone(photo(1), known, WallTime(5)));
    let gone = Name { sealed: b"a.jpg".to_vec(), gone_since: Some(WallTime(5)) };
    assert_eq!(names(&device), [(known, gone)].into());
    assert_eq!(device.edit(|edit| edit.mark_name_gone(photo(1), known, WallTime(6))), None, "it is gone since then");
    device.edit(|edit| edit.put_name(photo(1), known, b"a.jpg, touched"));
    assert_eq!(names(&device), [(known, Name::here(b"a.jpg, touched"))].into());
}

#[test]
fn the_document_used_longest_ago_is_evicted_with_what_changed() {
    let mut catalog = Catalog::new(author(1), 2);
    let documents: Vec<_> = (0..4).map(DocumentId::Undated).collect();
    for document in &documents {
        catalog.open(*document, None).unwrap();
    }
    catalog.edit(documents[1], |edit| edit.set_favourite(photo(1), true)).unwrap();
    catalog.open(documents[0], None).unwrap();
    let evicted = catalog.evict().unwrap();
    assert_eq!((evicted.document, evicted.saved), (documents[2], None));
    assert_eq!(catalog.unsaved().collect::<Vec<_>>(), vec![documents[1]]);
    assert_eq!(catalog.evict().map(|evicted| evicted.document), Some(documents[3]));
    assert_eq!(catalog.evict(), None);
    catalog.open(documents[2], None).unwrap();
    let evicted = catalog.evict().unwrap();
    assert_eq!(evicted.document, documents[1]);
    let saved = evicted.saved.expect("an unsaved change");
    catalog.open(documents[1], Some(&saved)).unwrap();
    assert!(catalog.contents(documents[1]).eq([Patch::Favourite { photo: photo(1), favourite: true }]));
}

#[test]
fn damaged_saved_bytes_are_reported_and_another_documents_too() {
    let mut device = Device::new(1);
    device.edit(|edit| edit.put_photo(photo(1), b"record"));
    let saved = device.catalog.save(MONTH).unwrap();
    let other = DocumentId::Month { year: 2021, month: 8 };
    assert_eq!(device.catalog.open(other, Some(&saved)), Err(OpenError::Damaged { document: other }));
    let mut damaged = saved;
    damaged[40] ^= 1;
    device.catalog.close(MONTH);
    assert_eq!(device.catalog.open(MONTH, Some(&damaged)), Err(OpenError::Damaged { document: MONTH }));
    assert!(!device.catalog.is_open(MONTH));
    // It comes back from the log, own changes too, and goes on with the next number.
    device.catalog.open(MONTH, None).unwrap();
    let log = device.log.clone();
    assert_eq!(device.apply(device.author, &log).applied, 1);
    device.edit(|edit| edit.set_favourite(photo(1), true));
    let mut reader = Device::new(2);
    assert_eq!(reader.follow(&device).applied, 2);
}

#[test]
fn nothing_is_edited_while_own_changes_are_on_their_way() {
    let mut device = Device::new(1);
    let mut other = Device::new(2);
    other.edit(|edit| edit.set_favourite(photo(2), true));
    device.follow(&other);
    device.edit(|edit| edit.set_favourite(photo(1), true));
    let mut restored = Device::new(1);
    let applied = restored.apply(device.author, &device.log);
    assert_eq!((applied.applied, applied.waiting), (0, 1));
    let refused = restored.catalog.edit(MONTH, |edit| edit.set_favourite(photo(3), true));
    assert_eq!(refused, Err(EditRefused::Behind { document: MONTH }));
    restored.reopen();
    restored.follow(&other);
    assert_eq!(restored.heads(), device.heads());
    assert!(restored.edit(|edit| edit.set_favourite(photo(3), true)).is_some());
}

#[test]
fn a_bundle_brings_back_the_same_document() {
    let mut device = Device::new(1);
    for number in 0..50 {
        device.edit(|edit| edit.put_photo(photo(number), &[number; 150]));
    }
    let envelopes: Vec<_> =
        device.log.iter().map(|change| CatalogBody { document: MONTH, changes: vec![change.clone()] }).collect();
    let bytes = bundle::merge((7..).zip(&envelopes));
    let separate: usize = envelopes.iter().map(|body| body.encode().len()).sum();
    assert!(bytes.len() * 2 < separate, "{} of {separate}", bytes.len());
    let bundle = bundle::Bundle::open(&bytes).unwrap();
    assert_eq!(bundle.replaces(), [7..=56]);
    let mut reader = Device::new(2);
    for record in bundle {
        let (document, change) = record.unwrap();
        reader.catalog.apply(document, &[(device.author, &change)]).unwrap();
    }
    assert_eq!(reader.heads(), device.heads());
    // Who has the envelopes already learns nothing new from the bundle, and nothing is refused.
    let again = reader.follow(&device);
    assert_eq!((again.applied, again.patches, again.refused), (0, vec![], vec![]));
}

#[test]
fn one_author_has_a_bounded_number_of_incarnations_in_a_document() {
    let mut device = Device::new(1);
    device.edit(|edit| edit.put_photo(photo(1), b"record"));
    for incarnation in 1..INCARNATIONS_MAX as u32 {
        device.catalog.set_incarnation(incarnation);
        device.edit(|edit| edit.set_favourite(photo(1), incarnation % 2 == 1));
    }
    assert!(!device.catalog.is_behind(MONTH), "an incarnation that has written goes on");
    device.catalog.set_incarnation(u32::MAX);
    assert!(device.catalog.is_behind(MONTH));
    let refused = device.catalog.edit(MONTH, |edit| edit.set_favourite(photo(1), false));
    assert_eq!(refused, Err(EditRefused::Behind { document: MONTH }));
    device.catalog.continue_as(author(2));
    assert!(device.catalog.edit(MONTH, |edit| edit.set_favourite(photo(1), false)).is_ok());
}
