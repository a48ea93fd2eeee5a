//! Questions to the index.

use std::path::Path;

use holdfast_library::FilePath;
use holdfast_library::index::Captured;
use holdfast_protocol::id::PhotoId;
use holdfast_protocol::time::WallTime;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::IndexError;
use super::sqlite::{UNDATED_MS, composed};

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
    pub path: FilePath,
    /// When the file was last modified, in nanoseconds since the Unix epoch; 0 when unknown.
    pub modified_ns: i64,
    /// Who may read, write and execute it: nine bits; `None` when unknown.
    pub mode: Option<u16>,
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
    /// Its paths in their folders, sorted; empty when no device has a file of it any more.
    pub paths: Vec<String>,
    /// What it was called last, when no device has a file of it any more.
    pub last_name: Option<LastName>,
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

/// What a photo without files was called last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastName {
    /// The path in its folder.
    pub path: String,
    /// When its device saw that the file was gone.
    pub gone_since: WallTime,
}

impl PhotoRow {
    /// What the photo is called: the first path of its files, or its last name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.paths.first().or_else(|| self.last_name.as_ref().map(|last| &last.path)).map(String::as_str)
    }
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
        let words = query.search.map(|search| match_expression(&composed(search)));
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
        let text = composed(text);
        let mut slots = Vec::new();
        if let Some((from, to)) = id_range(&text) {
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
        // A path may leave out the folders in front. These look at every name, so they come last.
        let tail = "substr(path, -length(?1) - 1) = '/' || ?1 COLLATE NOCASE".to_owned();
        let behind = "substr(path, instr(lower(path), lower('/' || ?1 || '.')) + length(?1) + 2)";
        let tail_stem = format!(
            "instr(lower(path), lower('/' || ?1 || '.')) > 0
            AND instr({behind}, '.') = 0 AND instr({behind}, '/') = 0"
        );
        for named in [exactly, stem, tail, tail_stem] {
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

    /// The files of all listed photos, in the order of their paths: every path that a photo lies under, else the one that
    /// it lay under last, or a name made of its identifier when it has none that can be read. Of files of several devices at
    /// one path the one that was modified first counts: copying makes dates younger.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn files(&self) -> Result<Vec<IndexedFile>, IndexError> {
        // Columns without an aggregate are those of the row that has the minimum.
        let mut statement = self.connection.prepare_cached(
            "SELECT id, bytes, media, path, raw, min(modified_ns), mode FROM photo LEFT JOIN name USING (slot) WHERE shown
            GROUP BY slot, path, raw ORDER BY path, slot",
        )?;
        let files = statement.query_map([], |row| {
            let photo = PhotoId::from_bytes(row.get(0)?);
            let media: String = row.get(2)?;
            let unnamed = || format!("{}.{}", photo.short(), media.rsplit('/').next().unwrap_or("bin")).into();
            Ok(IndexedFile {
                photo,
                path: path(row.get(3)?, row.get(4)?).unwrap_or_else(unnamed),
                modified_ns: row.get::<_, Option<i64>>(5)?.unwrap_or(0),
                mode: row.get(6)?,
                bytes: row.get::<_, i64>(1)? as u64,
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
        let (paths, last_name) = self.names(slot)?;
        Ok(PhotoRow {
            photo: PhotoId::from_bytes(row.get(1)?),
            document: row.get(2)?,
            paths,
            last_name,
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

    /// The paths of a photo's files, sorted, and what it was called last.
    fn names(&self, slot: i64) -> Result<(Vec<String>, Option<LastName>), IndexError> {
        let mut find =
            self.connection.prepare_cached("SELECT path, raw, gone_ms FROM name WHERE slot = ? ORDER BY path")?;
        let (mut paths, mut last_name) = (Vec::new(), None);
        let mut rows = find.query([slot])?;
        while let Some(row) = rows.next()? {
            let path = path(row.get(0)?, row.get(1)?).unwrap_or_default().to_string();
            match row.get::<_, Option<i64>>(2)? {
                None => paths.push(path),
                Some(gone_ms) => last_name = Some(LastName { path, gone_since: WallTime(gone_ms) }),
            }
        }
        Ok((paths, last_name))
    }

    fn texts(&self, sql: &str, slot: i64) -> Result<Vec<String>, rusqlite::Error> {
        self.connection.prepare_cached(sql)?.query_map([slot], |row| row.get(0))?.collect()
    }
}

/// The path of a name: the bytes that are kept beside it, where its own are others.
fn path(path: Option<String>, raw: Option<Vec<u8>>) -> Option<FilePath> {
    raw.map(FilePath::from).or_else(|| path.map(FilePath::from))
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
mod tests;
