use holdfast_library::index::{IndexChange, IndexedName, IndexedPhoto, IndexedState};

use super::super::Index;
use super::*;

fn id(number: u8) -> PhotoId {
    PhotoId::from_bytes([number; 32])
}

fn facts(number: u8, captured: Option<(i16, u8, u8)>) -> IndexChange {
    IndexChange::Photo(Box::new(IndexedPhoto {
        photo: id(number),
        document: "m/2021-07".into(),
        device: None,
        captured: captured.and_then(|date| Captured::from_civil(date, (12, 0, 0, 0), None)),
        media: "image/jpeg".into(),
        bytes: 1000,
        width: 40,
        height: 30,
        orientation: 1,
        duration_ms: 0,
        location: Some((481_371_000, -115_754_000)),
        camera: Some("Fujifilm X100V".into()),
        unreadable: None,
    }))
}

fn name(number: u8, path: &str) -> IndexChange {
    let name = IndexedName { path: path.into(), modified_ns: 5, mode: None, gone_since: None };
    IndexChange::Name { photo: id(number), key: [1; 16], name }
}

struct Fixture {
    directory: tempfile::TempDir,
    index: Index,
}

impl Fixture {
    fn new(changes: &[IndexChange]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut index = Index::open(&directory.path().join("index.sqlite")).unwrap();
        index.apply(changes, b"1").unwrap();
        Self { directory, index }
    }

    fn ids(&self, query: &PhotoQuery<'_>) -> Vec<u8> {
        let page = self.index.reader().unwrap().photos(query, |_| true).unwrap();
        page.photos.iter().map(|row| row.photo.as_bytes()[0]).collect()
    }

    fn all(&self) -> Vec<u8> {
        self.ids(&PhotoQuery { limit: 100, ..PhotoQuery::default() })
    }

    fn search(&self, text: &str) -> Vec<u8> {
        self.ids(&PhotoQuery { search: Some(text), limit: 100, ..PhotoQuery::default() })
    }
}

#[test]
fn photos_come_newest_first_and_page_by_page() {
    let fixture = Fixture::new(&[
        facts(1, Some((2021, 7, 4))),
        facts(2, None),
        facts(3, Some((2023, 1, 1))),
        facts(4, Some((2021, 7, 4))),
        facts(5, Some((1969, 7, 20))),
    ]);
    assert_eq!(fixture.all(), [3, 4, 1, 5, 2]);
    let reader = fixture.index.reader().unwrap();
    let (mut paged, mut after) = (Vec::new(), None::<String>);
    loop {
        let query = PhotoQuery { after: after.as_deref(), limit: 2, search: None };
        let page = reader.photos(&query, |photo| photo != &id(4)).unwrap();
        paged.extend(page.photos.iter().map(|row| row.photo.as_bytes()[0]));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, [3, 1, 5, 2]);
    assert_eq!(reader.totals().unwrap(), (5, 5000));
    let months: Vec<_> = reader.months().unwrap().iter().map(|count| (count.month, count.photos)).collect();
    assert_eq!(months, [(Some((2023, 1)), 1), (Some((2021, 7)), 2), (Some((1969, 7)), 1), (None, 1)]);
}

#[test]
fn words_of_names_captions_tags_and_cameras_find_photos() {
    let mut fixture = Fixture::new(&[
        facts(1, None),
        IndexChange::Caption { photo: id(1), captions: vec!["Zoë am Strand".into(), "Zoë on the beach".into()] },
        name(1, "2021/IMG_0412.HEIC"),
        facts(2, None),
        name(2, "2021/IMG_0413.HEIC"),
        IndexChange::Tag { photo: id(2), tag: "t1".into(), tagged: true },
        IndexChange::TagName { tag: "t1".into(), name: Some("family".into()) },
    ]);
    assert_eq!(fixture.search("zoe"), [1]);
    assert_eq!(fixture.search("beach stra"), [1]);
    assert_eq!(fixture.search("IMG_0412.HEIC"), [1]);
    assert_eq!(fixture.search("fujifilm IMG"), [2, 1]);
    assert_eq!(fixture.search("family"), [2]);
    assert_eq!(fixture.search("family beach"), [] as [u8; 0]);
    for hostile in ["\"", "* OR 1", "NEAR(", "words:x", "--", ""] {
        fixture.search(hostile);
    }
    let renamed = IndexChange::TagName { tag: "t1".into(), name: Some("relatives".into()) };
    let uncaptioned = IndexChange::Caption { photo: id(1), captions: vec![] };
    fixture.index.apply(&[renamed, uncaptioned], b"2").unwrap();
    assert_eq!(
        (fixture.search("family"), fixture.search("relatives"), fixture.search("zoe")),
        (vec![], vec![2], vec![])
    );
}

#[test]
fn what_is_described_again_keeps_nothing_of_before() {
    let caption = IndexChange::Caption { photo: id(1), captions: vec!["on the beach".into()] };
    let tag = IndexChange::Tag { photo: id(1), tag: "t1".into(), tagged: true };
    let tag_name = IndexChange::TagName { tag: "t1".into(), name: Some("family".into()) };
    let mut fixture = Fixture::new(&[facts(1, None), name(1, "a/IMG_1.jpg"), caption, tag, tag_name]);
    let read = |fixture: &Fixture| fixture.index.reader().unwrap().photo(&id(1)).unwrap().unwrap();
    let row = read(&fixture);
    assert_eq!((row.paths.len(), row.captions.len(), row.tags.len()), (1, 1, 1));
    // Renamed, and the rest taken back, while this index was not told.
    fixture.index.apply(&[facts(1, None), name(1, "a/IMG_2.jpg")], b"2").unwrap();
    let row = read(&fixture);
    assert_eq!(row.paths, ["a/IMG_2.jpg"]);
    assert_eq!((row.captions.len(), row.tags.len()), (0, 0));
    assert_eq!((fixture.search("beach"), fixture.search("family"), fixture.search("IMG_2")), (vec![], vec![], vec![1]));
}

#[test]
fn what_is_trashed_or_replaced_is_not_listed() {
    let state = |state| IndexChange::State { photo: id(2), state };
    let mut fixture = Fixture::new(&[
        state(IndexedState::Trashed),
        facts(1, None),
        facts(2, None),
        facts(3, None),
        IndexChange::Successor { photo: id(3), successor: Some(id(1)) },
    ]);
    assert_eq!(fixture.all(), [1]);
    let back = [state(IndexedState::Live), IndexChange::Successor { photo: id(3), successor: None }];
    fixture.index.apply(&back, b"2").unwrap();
    assert_eq!(fixture.all(), [3, 1, 2]);
}

#[test]
fn photos_are_found_by_the_beginning_of_their_id_by_file_and_by_path() {
    let named = |number, path| [facts(number, None), name(number, path)];
    let fixture = Fixture::new(
        &[named(0xab, "a/IMG_1.jpg"), named(0xac, "b/IMG_1.jpg"), named(0xad, "c/2021/IMG_1.jpg")].concat(),
    );
    let reader = fixture.index.reader().unwrap();
    let find =
        |text: &str| -> Vec<u8> { reader.find(text, 10).unwrap().iter().map(|row| row.photo.as_bytes()[0]).collect() };
    assert_eq!(find("abab"), [0xab]);
    assert_eq!(find(&"AC".repeat(32)), [0xac]);
    assert_eq!(find("img_1.jpg"), [0xab, 0xac, 0xad]);
    assert_eq!(find("b/IMG_1.jpg"), [0xac]);
    assert_eq!((find("2021/img_1.jpg"), find("g_1.jpg")), (vec![0xad], vec![]));
    assert_eq!((find("2021/img_1"), find("021/img_1"), find("c/2021")), (vec![0xad], vec![], vec![]));
    assert_eq!(
        (find("IMG_1"), find("b/img_1"), find("IMG"), find("b")),
        (vec![0xab, 0xac, 0xad], vec![0xac], vec![], vec![])
    );
    assert_eq!((find("aba"), find("ffff"), find("")), (vec![], vec![], vec![]));
    let row = reader.photo(&id(0xab)).unwrap().unwrap();
    assert_eq!((row.paths, row.location), (vec!["a/IMG_1.jpg".to_owned()], Some((481_371_000, -115_754_000))));
}

#[test]
fn a_photo_without_files_is_found_shown_and_exported_by_its_last_name() {
    let name =
        IndexedName { path: "a/IMG_1.jpg".into(), modified_ns: 5, mode: Some(0o640), gone_since: Some(WallTime(9)) };
    let fixture = Fixture::new(&[facts(1, None), IndexChange::Name { photo: id(1), key: [1; 16], name }]);
    let reader = fixture.index.reader().unwrap();
    let row = reader.photo(&id(1)).unwrap().unwrap();
    assert_eq!((row.name(), row.paths.len()), (Some("a/IMG_1.jpg"), 0));
    assert_eq!(row.last_name.unwrap().gone_since, WallTime(9));
    assert_eq!((fixture.all(), fixture.search("IMG_1")), (vec![1], vec![1]));
    assert_eq!(reader.find("IMG_1.jpg", 10).unwrap().len(), 1);
    let files: Vec<_> =
        reader.files().unwrap().into_iter().map(|file| (file.path, file.modified_ns, file.mode)).collect();
    assert_eq!(files, [("a/IMG_1.jpg".into(), 5, Some(0o640))]);
}

#[test]
fn names_are_found_however_they_are_spelt_and_come_back_in_their_bytes() {
    let (composed, decomposed) = ("a/K\u{f6}ln.jpg", "a/Ko\u{308}ln.jpg");
    let broken = IndexedName { path: b"a/caf\xe9.jpg".to_vec().into(), modified_ns: 5, mode: None, gone_since: None };
    let broken = IndexChange::Name { photo: id(3), key: [1; 16], name: broken };
    let fixture = Fixture::new(&[
        facts(1, None),
        name(1, composed),
        facts(2, None),
        name(2, decomposed),
        facts(3, None),
        broken,
        IndexChange::Caption { photo: id(3), captions: vec!["Im Cafe\u{301}".into()] },
    ]);
    let reader = fixture.index.reader().unwrap();
    let found = |text: &str| reader.find(text, 10).unwrap().len();
    for text in ["K\u{f6}ln", "Ko\u{308}ln", "a/Ko\u{308}ln.jpg", "K\u{f6}ln.jpg"] {
        assert_eq!(found(text), 2, "{text:?}");
    }
    assert_eq!((fixture.search("K\u{f6}ln"), fixture.search("Ko\u{308}ln")), (vec![2, 1], vec![2, 1]));
    assert_eq!((fixture.search("Caf\u{e9}"), found(r"caf\xE9.jpg")), (vec![3], 1));
    assert_eq!(reader.photo(&id(3)).unwrap().unwrap().paths, [r"a/caf\xE9.jpg"]);
    let files: Vec<_> = reader.files().unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(files, [composed.into(), decomposed.into(), b"a/caf\xe9.jpg".to_vec().into()]);
}

#[test]
fn a_path_on_several_devices_is_one_file_with_the_oldest_date() {
    let on = |device, modified_ns| {
        let name = IndexedName { path: "a/b.jpg".into(), modified_ns, mode: None, gone_since: None };
        IndexChange::Name { photo: id(1), key: [device; 16], name }
    };
    let fixture = Fixture::new(&[facts(1, None), on(1, 9), on(2, 5), on(3, 7)]);
    let files = fixture.index.reader().unwrap().files().unwrap();
    assert_eq!(files.iter().map(|file| file.modified_ns).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_date_that_a_person_set_wins_until_it_is_taken_back() {
    let mut fixture = Fixture::new(&[facts(1, Some((2021, 7, 4))), facts(2, Some((2020, 1, 1)))]);
    let date = |captured| IndexChange::Date { photo: id(1), captured };
    fixture.index.apply(&[date(Captured::from_civil((2019, 5, 1), (0, 0, 0, 0), Some(60)))], b"2").unwrap();
    assert_eq!(fixture.all(), [2, 1]);
    let row = fixture.index.reader().unwrap().photo(&id(1)).unwrap().unwrap();
    assert_eq!(row.captured.unwrap().to_string(), "2019-05-01T00:00:00+01:00");
    fixture.index.apply(&[date(None)], b"3").unwrap();
    assert_eq!(fixture.all(), [1, 2]);
}

#[test]
fn an_index_remembers_what_it_covers_and_a_damaged_one_starts_empty() {
    let fixture = Fixture::new(&[facts(1, None)]);
    let path = fixture.directory.path().join("index.sqlite");
    drop(fixture.index);
    assert_eq!(Index::open(&path).unwrap().covers().unwrap().as_deref(), Some(&b"1"[..]));
    for damage in ["not a database at all, but long enough to be looked at as one", ""] {
        std::fs::write(&path, damage.repeat(100)).unwrap();
        assert_eq!(Index::open(&path).unwrap().covers().unwrap(), None);
    }
}

#[test]
fn the_index_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new(&[facts(1, None)]);
    for file in std::fs::read_dir(fixture.directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
    }
}

#[test]
fn an_index_that_found_no_room_takes_the_same_changes_later() {
    let mut fixture = Fixture::new(&[facts(1, None), name(1, "a.jpg")]);
    let more: Vec<_> = (2..=250).flat_map(|number| [facts(number, None), name(number, &"x".repeat(500))]).collect();
    fixture.index.limit_pages(1); // no fewer than it has
    assert!(fixture.index.apply(&more, b"2").unwrap_err().is_full());
    assert_eq!((fixture.all(), fixture.index.covers().unwrap().unwrap()), (vec![1], b"1".to_vec()));
    fixture.index.limit_pages(1_000_000);
    fixture.index.apply(&more, b"2").unwrap();
    assert_eq!((fixture.all().len(), fixture.index.covers().unwrap().unwrap()), (100, b"2".to_vec()));
}
