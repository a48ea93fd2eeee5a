//! The index on disk, and how changes reach it.
//!
//! Invariants: a batch of changes and the marker of what they cover are one transaction. A photo has a row as soon as
//! any change names it, and is shown once its facts are known. `path` and `file` of a name are composed (Unicode's form C), as
//! what is asked for is, so that a name is found however it is spelt; `raw` has the path's bytes where those are others.
//! `search` holds exactly the words of the photo's row: its
//! slots are rewritten in the transaction that changed them.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_library::index::{Captured, IndexChange, IndexedPhoto, IndexedState};
use holdfast_protocol::id::PhotoId;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, params};
use unicode_normalization::UnicodeNormalization as _;

use super::query::IndexReader;

/// Changes whenever the tables do; an index of another version is rebuilt.
const SCHEMA_VERSION: i64 = 1;

/// Undated photos sort behind all others.
pub(super) const UNDATED_MS: i64 = i64::MIN / 2;

const SCHEMA: &str = "
CREATE TABLE marker (covers BLOB NOT NULL);
CREATE TABLE photo (
    slot INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    document TEXT,
    device BLOB,
    captured_ms INTEGER,
    captured_offset INTEGER,
    dated_ms INTEGER,
    dated_offset INTEGER,
    sort_ms INTEGER AS (coalesce(dated_ms, captured_ms, -4611686018427387904)) STORED,
    media TEXT,
    bytes INTEGER NOT NULL DEFAULT 0,
    width INTEGER NOT NULL DEFAULT 0,
    height INTEGER NOT NULL DEFAULT 0,
    orientation INTEGER NOT NULL DEFAULT 1,
    duration_ms INTEGER NOT NULL DEFAULT 0,
    latitude INTEGER,
    longitude INTEGER,
    camera TEXT,
    unreadable TEXT,
    state INTEGER NOT NULL DEFAULT 0,
    favourite INTEGER NOT NULL DEFAULT 0,
    successor BLOB,
    shown INTEGER AS (media IS NOT NULL AND state = 0 AND successor IS NULL) STORED
);
CREATE INDEX timeline ON photo (sort_ms) WHERE shown;
CREATE TABLE name (
    slot INTEGER NOT NULL,
    key BLOB NOT NULL,
    path TEXT NOT NULL,
    raw BLOB,
    file TEXT NOT NULL,
    modified_ns INTEGER NOT NULL,
    mode INTEGER,
    gone_ms INTEGER,
    PRIMARY KEY (slot, key)
) WITHOUT ROWID;
CREATE INDEX name_path ON name (path COLLATE NOCASE);
CREATE INDEX name_file ON name (file COLLATE NOCASE);
CREATE TABLE caption (slot INTEGER NOT NULL, rank INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (slot, rank)) WITHOUT ROWID;
CREATE TABLE photo_tag (slot INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (slot, tag)) WITHOUT ROWID;
CREATE INDEX tag_photo ON photo_tag (tag);
CREATE TABLE tag (tag TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE photo_album (slot INTEGER NOT NULL, album TEXT NOT NULL, position TEXT NOT NULL, PRIMARY KEY (slot, album)) WITHOUT ROWID;
CREATE INDEX album_photo ON photo_album (album, position);
CREATE TABLE album (album TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE search USING fts5 (
    words, content = '', contentless_delete = 1, detail = 'full', tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);
";

/// Why the index failed. It holds nothing of its own: [`Index::open`] after [`Index::remove`] gives an empty one to feed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite refused.
    #[error("the index failed: {0}; if that stays, remove index.sqlite and restart Holdfast, which rebuilds it")]
    Sqlite(#[from] rusqlite::Error),
    /// The file cannot be created.
    #[error("cannot use the index {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl IndexError {
    /// Whether the disk has no room: what failed can be tried again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        // The second is what SQLite says when it finds no room for the memory that its connections share.
        error.sqlite_error_code() == Some(ErrorCode::DiskFull)
            || error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }
}

/// The one writer of an index.
#[derive(Debug)]
pub struct Index {
    connection: Connection,
    path: PathBuf,
}

impl Index {
    /// Opens the index, or creates an empty one when it is missing, damaged, or of another schema version. Then
    /// [`Index::covers`] is `None` and everything has to be fed again.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        match Self::open_existing(path) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => tracing::info!("the index is missing or of another version; it is built anew"),
            Err(IndexError::Sqlite(error)) if is_damage(&error) => {
                tracing::warn!(%error, "the index is damaged; it is built anew");
            }
            Err(error) => return Err(error),
        }
        Self::remove(path)?;
        create_private(path)?;
        let connection = Connection::open(path)?;
        configure(&connection)?;
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    fn open_existing(path: &Path) -> Result<Option<Self>, IndexError> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = Connection::open(path)?;
        configure(&connection)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((version == SCHEMA_VERSION).then(|| Self { connection, path: path.to_owned() }))
    }

    /// Removes the index and what SQLite keeps beside it.
    ///
    /// # Errors
    /// When a file is there and cannot be removed.
    pub fn remove(path: &Path) -> Result<(), IndexError> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(IndexError::File { path: file.into(), error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the index covers, as given to the last [`Index::apply`]; `None` when it is empty.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn covers(&self) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.connection.query_row("SELECT covers FROM marker", [], |row| row.get(0)).optional()?)
    }

    /// Applies `changes` in order and remembers that the index now covers `covers`: all, or nothing.
    ///
    /// # Errors
    /// When the index cannot be written; then nothing has changed.
    pub fn apply(&mut self, changes: &[IndexChange], covers: &[u8]) -> Result<(), IndexError> {
        let transaction = self.connection.transaction()?;
        let mut reworded = BTreeSet::new();
        for change in changes {
            apply_change(&transaction, change, &mut reworded)?;
        }
        for slot in reworded {
            reword(&transaction, slot)?;
        }
        transaction.execute("DELETE FROM marker", [])?;
        transaction.execute("INSERT INTO marker (covers) VALUES (?)", params![covers])?;
        transaction.commit()?;
        Ok(())
    }

    /// Lets the index grow to so many pages: a disk that fills up.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    }

    /// A reader on a connection of its own, for another thread. It sees whole batches only.
    ///
    /// # Errors
    /// When the index cannot be opened again.
    pub fn reader(&self) -> Result<IndexReader, IndexError> {
        IndexReader::open(&self.path)
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Captions and paths stand in the index in the clear, so it is the owner's alone; SQLite gives the files that it keeps
/// beside it the same permissions.
fn create_private(path: &Path) -> Result<(), IndexError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map(drop).map_err(|error| IndexError::File { path: path.to_owned(), error })
}

fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What a power cut takes from a rebuildable index is fed again: `covers` goes with it.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn apply_change(
    transaction: &Transaction<'_>,
    change: &IndexChange,
    reworded: &mut BTreeSet<i64>,
) -> Result<(), rusqlite::Error> {
    let run = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql).and_then(|mut statement| statement.execute(parameters))
    };
    let slot_of = |photo: &PhotoId| slot(transaction, photo);
    match change {
        IndexChange::Photo(photo) => {
            let slot = slot_of(&photo.photo)?;
            for table in ["name", "caption", "photo_tag", "photo_album"] {
                run(&format!("DELETE FROM {table} WHERE slot = ?"), &[&slot])?;
            }
            put_facts(transaction, slot, photo)?;
            reworded.insert(slot);
        }
        IndexChange::State { photo, state } => {
            let state = match state {
                IndexedState::Live => 0,
                IndexedState::Trashed => 1,
                IndexedState::Erased => 2,
            };
            run("UPDATE photo SET state = ? WHERE slot = ?", &[&state, &slot_of(photo)?])?;
        }
        IndexChange::Name { photo, key, name } => {
            let slot = slot_of(photo)?;
            let path = composed(&name.path.to_string());
            let raw = Some(name.path.as_bytes()).filter(|bytes| *bytes != path.as_bytes());
            let file = path.rsplit('/').next().unwrap_or_default();
            let gone_ms = name.gone_since.map(|since| since.0);
            run(
                "INSERT OR REPLACE INTO name (slot, key, path, raw, file, modified_ns, mode, gone_ms)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                &[&slot, key, &path, &raw, &file, &name.modified_ns, &name.mode, &gone_ms],
            )?;
            reworded.insert(slot);
        }
        IndexChange::Favourite { photo, favourite } => {
            run("UPDATE photo SET favourite = ? WHERE slot = ?", &[favourite, &slot_of(photo)?])?;
        }
        IndexChange::Caption { photo, captions } => {
            let slot = slot_of(photo)?;
            run("DELETE FROM caption WHERE slot = ?", &[&slot])?;
            for (rank, caption) in (0_i64..).zip(captions) {
                run("INSERT INTO caption (slot, rank, text) VALUES (?, ?, ?)", &[&slot, &rank, caption])?;
            }
            reworded.insert(slot);
        }
        IndexChange::Tag { photo, tag, tagged } => {
            let slot = slot_of(photo)?;
            let sql = if *tagged {
                "INSERT OR IGNORE INTO photo_tag (slot, tag) VALUES (?, ?)"
            } else {
                "DELETE FROM photo_tag WHERE slot = ? AND tag = ?"
            };
            run(sql, &[&slot, tag])?;
            reworded.insert(slot);
        }
        IndexChange::TagName { tag, name } => {
            match name {
                Some(name) => run("INSERT OR REPLACE INTO tag (tag, name) VALUES (?, ?)", &[tag, name])?,
                None => run("DELETE FROM tag WHERE tag = ?", &[tag])?,
            };
            let mut tagged = transaction.prepare_cached("SELECT slot FROM photo_tag WHERE tag = ?")?;
            for slot in tagged.query_map([tag], |row| row.get(0))? {
                reworded.insert(slot?);
            }
        }
        IndexChange::Album { photo, album, position } => {
            let slot = slot_of(photo)?;
            match position {
                Some(position) => run(
                    "INSERT OR REPLACE INTO photo_album (slot, album, position) VALUES (?, ?, ?)",
                    &[&slot, album, position],
                )?,
                None => run("DELETE FROM photo_album WHERE slot = ? AND album = ?", &[&slot, album])?,
            };
        }
        IndexChange::AlbumName { album, name } => {
            match name {
                Some(name) => run("INSERT OR REPLACE INTO album (album, name) VALUES (?, ?)", &[album, name])?,
                None => run("DELETE FROM album WHERE album = ?", &[album])?,
            };
        }
        IndexChange::Date { photo, captured } => {
            run(
                "UPDATE photo SET dated_ms = ?, dated_offset = ? WHERE slot = ?",
                &[&captured.map(Captured::local_ms), &captured.and_then(Captured::offset_minutes), &slot_of(photo)?],
            )?;
        }
        IndexChange::Successor { photo, successor } => {
            let successor = successor.as_ref().map(|id| id.as_bytes());
            run("UPDATE photo SET successor = ? WHERE slot = ?", &[&successor, &slot_of(photo)?])?;
        }
    }
    Ok(())
}

fn slot(transaction: &Transaction<'_>, photo: &PhotoId) -> Result<i64, rusqlite::Error> {
    let mut find = transaction.prepare_cached("SELECT slot FROM photo WHERE id = ?")?;
    if let Some(slot) = find.query_row([photo.as_bytes()], |row| row.get(0)).optional()? {
        return Ok(slot);
    }
    transaction.prepare_cached("INSERT INTO photo (id) VALUES (?)")?.insert([photo.as_bytes()])
}

fn put_facts(transaction: &Transaction<'_>, slot: i64, photo: &IndexedPhoto) -> Result<(), rusqlite::Error> {
    let mut update = transaction.prepare_cached(
        "UPDATE photo SET document = ?, device = ?, captured_ms = ?, captured_offset = ?, media = ?, bytes = ?, width = ?,
            height = ?, orientation = ?, duration_ms = ?, latitude = ?, longitude = ?, camera = ?, unreadable = ?
        WHERE slot = ?",
    )?;
    update.execute(params![
        photo.document,
        photo.device.as_ref().map(|device| device.as_bytes()),
        photo.captured.map(Captured::local_ms),
        photo.captured.and_then(Captured::offset_minutes),
        photo.media,
        i64::try_from(photo.bytes).unwrap_or(i64::MAX),
        photo.width,
        photo.height,
        photo.orientation,
        i64::try_from(photo.duration_ms).unwrap_or(i64::MAX),
        photo.location.map(|(latitude, _)| latitude),
        photo.location.map(|(_, longitude)| longitude),
        photo.camera,
        photo.unreadable,
        slot,
    ])?;
    Ok(())
}

/// Text in the form in which names, captions and tags are looked for: what looks alike is alike.
pub(super) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Writes the words that a photo is found by.
fn reword(transaction: &Transaction<'_>, slot: i64) -> Result<(), rusqlite::Error> {
    let mut words = transaction.prepare_cached(
        "SELECT group_concat(word, char(10)) FROM (
            SELECT path AS word FROM name WHERE slot = ?1
            UNION ALL SELECT text FROM caption WHERE slot = ?1
            UNION ALL SELECT tag.name FROM photo_tag JOIN tag USING (tag) WHERE slot = ?1
            UNION ALL SELECT camera FROM photo WHERE slot = ?1 AND camera IS NOT NULL
            UNION ALL SELECT media FROM photo WHERE slot = ?1 AND media IS NOT NULL)",
    )?;
    let words: Option<String> = words.query_row([slot], |row| row.get(0))?;
    transaction.prepare_cached("DELETE FROM search WHERE rowid = ?")?.execute([slot])?;
    if let Some(words) = words.map(|words| composed(&words)) {
        transaction.prepare_cached("INSERT INTO search (rowid, words) VALUES (?, ?)")?.execute(params![slot, words])?;
    }
    Ok(())
}
