//! Questions to the index.

use std::path::Path;

use holdfast_protocol::id::PhotoId;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::sqlite::UNDATED_MS;
use super::{Captured, IndexError};

/// A connection that only reads. It belongs to one thread; open another for another.
#[derive(Debug)]
pub struct IndexReader {
    connection: Connection,
}

/// Which photos, and from where on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhotoQuery<'a> {
    /// Only photos that contain all these words (or words that begin with them) in paths, captions, tags, camera, media.
    pub search: Option<&'a str>,
    /// Continue behind the page that ended here.
    pub after: Option<&'a str>,
    /// At most this many photos.
    pub limit: usize,
}

/// A page of photos, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhotoPage {
    /// The photos.
    pub photos: Vec<PhotoRow>,
    /// What [`PhotoQuery::after`] continues with; `None` on the last page.
    pub next: Option<String>,
}

/// A file of a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedFile {
    /// The photo.
    pub photo: PhotoId,
    /// Its path, the watched folder's name first.
    pub path: String,
    /// When the file was last modified, in nanoseconds since the Unix epoch; 0 when unknown.
    pub modified_ns: i64,
    /// The length of the original.
    pub bytes: u64,
}

/// What the index knows of a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoRow {
    /// The photo.
    pub photo: PhotoId,
    /// The catalog document that it is in.
    pub document: String,
    /// Its paths in their folders, sorted; empty when no device names it any more.
    pub paths: Vec<String>,
    /// When it was taken: what a person set, else what the camera wrote.
    pub captured: Option<Captured>,
    /// What it is: `image/jpeg`.
    pub media: String,
    /// The length of the original.
    pub bytes: u64,
    /// Pixels from left to right, before orientation; 0 when unknown.
    pub width: u32,
    /// Pixels from top to bottom, before orientation; 0 when unknown.
    pub height: u32,
    /// The Exif orientation.
    pub orientation: u8,
    /// Latitude and longitude in units of 10⁻⁷ degrees.
    pub location: Option<(i32, i32)>,
    /// The camera, as one line.
    pub camera: Option<String>,
    /// Why the metadata could not be read.
    pub unreadable: Option<String>,
    /// Whether it is a favourite.
    pub favourite: bool,
    /// Its captions, the shown one first.
    pub captions: Vec<String>,
    /// The names of its tags, sorted.
    pub tags: Vec<String>,
}

/// How many live photos a month has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthCount {
    /// The year and the month; `None` for undated photos.
    pub month: Option<(i64, u8)>,
    /// How many.
    pub photos: u64,
}

const COLUMNS: &str = "slot, id, document, coalesce(dated_ms, captured_ms), \
    CASE WHEN dated_ms IS NULL THEN captured_offset ELSE dated_offset END, media, bytes, width, height, orientation, \
    latitude, longitude, camera, unreadable, favourite, sort_ms";

impl IndexReader {
    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self { connection })
    }

    /// The next page of live photos for which `keep` says yes, newest first, undated ones last.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn photos(
        &self,
        query: &PhotoQuery<'_>,
        mut keep: impl FnMut(&PhotoId) -> bool,
    ) -> Result<PhotoPage, IndexError> {
        let (before_ms, before_slot) = query.after.and_then(parse_cursor).unwrap_or((i64::MAX, i64::MAX));
        let words = query.search.map(match_expression);
        if words.as_deref() == Some("") {
            return Ok(PhotoPage::default());
        }
        let found = if words.is_some() { "AND slot IN (SELECT rowid FROM search WHERE search MATCH ?3)" } else { "" };
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM photo WHERE shown AND (sort_ms, slot) < (?1, ?2) {found}
            ORDER BY sort_ms DESC, slot DESC"
        ))?;
        let mut rows = match words {
            Some(words) => statement.query(params![before_ms, before_slot, words])?,
            None => statement.query(params![before_ms, before_slot])?,
        };
        let mut page = PhotoPage::default();
        let mut last = None;
        while let Some(row) = rows.next()? {
            if !keep(&PhotoId::from_bytes(row.get(1)?)) {
                continue;
            }
            if page.photos.len() == query.limit {
                page.next = last;
                break;
            }
            last = Some(format!("{}.{}", row.get::<_, i64>(15)?, row.get::<_, i64>(0)?));
            page.photos.push(self.photo_row(row)?);
        }
        Ok(page)
    }

    /// Up to `limit` photos that `text` names: an identifier or the first digits of one (at least four), a path or the
    /// end of one, or a file name, with or without its extension. Photos in the trash are found as well.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn find(&self, text: &str, limit: usize) -> Result<Vec<PhotoRow>, IndexError> {
        let mut slots = Vec::new();
        if let Some((from, to)) = id_range(text) {
            let sql = "SELECT slot FROM photo WHERE id BETWEEN ? AND ? AND media IS NOT NULL ORDER BY id LIMIT ?";
            let mut statement = self.connection.prepare_cached(sql)?;
            for slot in statement.query_map(params![from, to, limit as i64], |row| row.get(0))? {
                slots.push(slot?);
            }
        }
        // Digits may name both a photo and a file; a file name counts when no identifier begins like it, and a name without
        // its extension when no file is called exactly so.
        let column = if text.contains('/') { "path" } else { "file" };
        let exactly = format!("{column} COLLATE NOCASE = ?1");
        // Every name that begins with `text.` lies between that and `text/`, the next character, which no name holds
        // there; only what has no further dot is an extension.
        let stem = format!(
            "{column} COLLATE NOCASE > ?1 || '.' AND {column} COLLATE NOCASE < ?1 || '/'
            AND instr(substr({column}, length(?1) + 2), '.') = 0 AND instr(substr({column}, length(?1) + 2), '/') = 0"
        );
        // A path may leave out the folders in front. This looks at every name, so it comes last.
        let tail = "substr(path, -length(?1) - 1) = '/' || ?1 COLLATE NOCASE".to_owned();
        for named in [exactly, stem, tail] {
            if !slots.is_empty() {
                break;
            }
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT DISTINCT slot FROM name JOIN photo USING (slot) WHERE {named}
                AND media IS NOT NULL AND successor IS NULL ORDER BY slot LIMIT ?2"
            ))?;
            for slot in statement.query_map(params![text, limit as i64], |row| row.get(0))? {
                slots.push(slot?);
            }
        }
        slots.into_iter().map(|slot: i64| self.photo_at(slot)).collect()
    }

    /// What is known of one photo; `None` when it is not in the index.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn photo(&self, photo: &PhotoId) -> Result<Option<PhotoRow>, IndexError> {
        let mut find = self.connection.prepare_cached("SELECT slot FROM photo WHERE id = ? AND media IS NOT NULL")?;
        let slot: Option<i64> = find.query_row([photo.as_bytes()], |row| row.get(0)).optional()?;
        slot.map(|slot| self.photo_at(slot)).transpose()
    }

    /// The files of all listed photos, in the order of their paths: every path that a photo lies under, or a name made
    /// of its identifier when it lies under none any more.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn files(&self) -> Result<Vec<IndexedFile>, IndexError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, path, modified_ns, bytes, media FROM photo LEFT JOIN name USING (slot) WHERE shown ORDER BY path, slot",
        )?;
        let files = statement.query_map([], |row| {
            let photo = PhotoId::from_bytes(row.get(0)?);
            let path: Option<String> = row.get(1)?;
            let media: String = row.get(4)?;
            Ok(IndexedFile {
                photo,
                path: path
                    .unwrap_or_else(|| format!("{}.{}", photo.short(), media.rsplit('/').next().unwrap_or("bin"))),
                modified_ns: row.get::<_, Option<i64>>(2)?.unwrap_or(0),
                bytes: row.get::<_, i64>(3)? as u64,
            })
        })?;
        Ok(files.collect::<Result<_, _>>()?)
    }

    /// Live photos and the bytes of their originals.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn totals(&self) -> Result<(u64, u64), IndexError> {
        let mut statement = self.connection.prepare_cached("SELECT count(*), total(bytes) FROM photo WHERE shown")?;
        Ok(statement.query_row([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, f64>(1)? as u64)))?)
    }

    /// Live photos by month, newest first, undated ones last.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn months(&self) -> Result<Vec<MonthCount>, IndexError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT min(sort_ms), count(*) FROM photo WHERE shown
            GROUP BY strftime('%Y-%m', sort_ms / 1000, 'unixepoch') ORDER BY 1 DESC",
        )?;
        let months = statement.query_map([], |row| {
            let (first_ms, photos): (i64, i64) = (row.get(0)?, row.get(1)?);
            let (year, month, _) = Captured::from_local_ms(first_ms, None).date();
            let month = (first_ms != UNDATED_MS).then_some((year, month));
            Ok(MonthCount { month, photos: photos.unsigned_abs() })
        })?;
        Ok(months.collect::<Result<_, _>>()?)
    }

    fn photo_at(&self, slot: i64) -> Result<PhotoRow, IndexError> {
        let mut statement = self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM photo WHERE slot = ?"))?;
        let mut rows = statement.query([slot])?;
        let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        self.photo_row(row)
    }

    fn photo_row(&self, row: &Row<'_>) -> Result<PhotoRow, IndexError> {
        let slot: i64 = row.get(0)?;
        let captured_ms: Option<i64> = row.get(3)?;
        let offset: Option<i16> = row.get(4)?;
        let latitude: Option<i32> = row.get(10)?;
        Ok(PhotoRow {
            photo: PhotoId::from_bytes(row.get(1)?),
            document: row.get(2)?,
            paths: self.texts("SELECT path FROM name WHERE slot = ? ORDER BY path", slot)?,
            captured: captured_ms.map(|ms| Captured::from_local_ms(ms, offset)),
            media: row.get(5)?,
            bytes: row.get::<_, i64>(6)? as u64,
            width: row.get(7)?,
            height: row.get(8)?,
            orientation: row.get(9)?,
            location: latitude.zip(row.get(11)?),
            camera: row.get(12)?,
            unreadable: row.get(13)?,
            favourite: row.get(14)?,
            captions: self.texts("SELECT text FROM caption WHERE slot = ? ORDER BY rank", slot)?,
            tags: self.texts("SELECT name FROM photo_tag JOIN tag USING (tag) WHERE slot = ? ORDER BY name", slot)?,
        })
    }

    fn texts(&self, sql: &str, slot: i64) -> Result<Vec<String>, rusqlite::Error> {
        self.connection.prepare_cached(sql)?.query_map([slot], |row| row.get(0))?.collect()
    }
}

fn parse_cursor(text: &str) -> Option<(i64, i64)> {
    let (sort_ms, slot) = text.split_once('.')?;
    Some((sort_ms.parse().ok()?, slot.parse().ok()?))
}

/// All words, each as the beginning of one, quoted so that nothing of them is an operator.
fn match_expression(search: &str) -> String {
    let words = search.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric));
    words.map(|word| format!("\"{}\"*", word.replace('"', "\"\""))).collect::<Vec<_>>().join(" ")
}

/// The smallest and the largest identifier that begin with `text`.
fn id_range(text: &str) -> Option<([u8; 32], [u8; 32])> {
    if !(4..=64).contains(&text.len()) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let fill = |digit: &str| format!("{text}{}", digit.repeat(64 - text.len())).parse::<PhotoId>().ok();
    Some((*fill("0")?.as_bytes(), *fill("f")?.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::{Index, IndexChange, IndexedName, IndexedPhoto, IndexedState};
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
        let name = IndexedName { path: path.into(), modified_ns: 5 };
        IndexChange::Name { photo: id(number), key: [1; 16], name: Some(name) }
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
        let renamed = IndexedName { path: "a/IMG_2.jpg".into(), modified_ns: 5 };
        let renamed = IndexChange::Name { photo: id(1), key: [2; 16], name: Some(renamed) };
        fixture.index.apply(&[facts(1, None), renamed], b"2").unwrap();
        let row = read(&fixture);
        assert_eq!(row.paths, ["a/IMG_2.jpg"]);
        assert_eq!((row.captions.len(), row.tags.len()), (0, 0));
        assert_eq!(
            (fixture.search("beach"), fixture.search("family"), fixture.search("IMG_2")),
            (vec![], vec![], vec![1])
        );
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
        let find = |text: &str| -> Vec<u8> {
            reader.find(text, 10).unwrap().iter().map(|row| row.photo.as_bytes()[0]).collect()
        };
        assert_eq!(find("abab"), [0xab]);
        assert_eq!(find(&"AC".repeat(32)), [0xac]);
        assert_eq!(find("img_1.jpg"), [0xab, 0xac, 0xad]);
        assert_eq!(find("b/IMG_1.jpg"), [0xac]);
        assert_eq!((find("2021/img_1.jpg"), find("g_1.jpg")), (vec![0xad], vec![]));
        assert_eq!(
            (find("IMG_1"), find("b/img_1"), find("IMG"), find("b")),
            (vec![0xab, 0xac, 0xad], vec![0xac], vec![], vec![])
        );
        assert_eq!((find("aba"), find("ffff"), find("")), (vec![], vec![], vec![]));
        let row = reader.photo(&id(0xab)).unwrap().unwrap();
        assert_eq!((row.paths, row.location), (vec!["a/IMG_1.jpg".to_owned()], Some((481_371_000, -115_754_000))));
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
}
