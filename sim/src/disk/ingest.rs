//! Ingest on a virtual disk, in the order of the real one: read, cut and append · one sync · the files' records · handed
//! to the library · and, when that has acknowledged, the files are finished.

use std::path::{Path, PathBuf};

use holdfast_library::{FileChange, FileName, ImportId, ImportedPhoto, Input, RemovedName, Settled};
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::replica;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_store::{FileIdentity, FileRecord, FileStat, Known};
use roaring::RoaringBitmap;

use super::{FOLDER, Keep, Machine};
use crate::workload::{Content, Folder, Prepared, prepare_file};

/// A file whose chunks were made and appended.
pub(super) struct ReadFile {
    record: FileRecord,
    imported: Box<ImportedPhoto>,
    /// What it holds; `None` when that has rotted, so that nobody knows what it should be read as.
    content: Option<Content>,
}

/// What an adopted batch or a walk gives to the library.
#[derive(Debug, Default)]
pub struct Ingested {
    /// In order.
    pub inputs: Vec<Input>,
    /// What was handed out as an import, by the number that the acknowledgement will name.
    pub imports: Vec<(ImportId, PhotoId, Option<Content>, Vec<ChunkId>)>,
    /// Chunks that are held now because of it.
    pub chunks: Vec<ChunkId>,
    /// Chunks of files that changed again before they were taken in.
    pub stale: Vec<ChunkId>,
    /// Whether another walk is to come soon.
    pub is_to_walk_again: bool,
}

/// What a look at a file gave.
pub(crate) enum Looked {
    /// There is nothing to do.
    Nothing,
    /// It was read, and is this photo.
    Read(PhotoId),
    /// It cannot be read now.
    Unreadable,
}

impl Ingested {
    /// Puts `more` behind.
    pub fn append(&mut self, more: Self) {
        self.inputs.extend(more.inputs);
        self.imports.extend(more.imports);
        self.chunks.extend(more.chunks);
        self.stale.extend(more.stale);
        self.is_to_walk_again |= more.is_to_walk_again;
    }
}

impl Machine {
    /// Looks at one file of the folder, as after a change. The photo that it holds, if it was read; its chunks count once
    /// [`Machine::adopt`] has run.
    ///
    /// # Errors
    /// When the store or the disk fails; a later walk tries again.
    pub(crate) fn look_at(
        &mut self,
        secrets: &LibrarySecrets,
        folder: &str,
        path: &str,
        content: Content,
    ) -> Result<Looked, StorageError> {
        let Some(store) = &self.store else { return Ok(Looked::Nothing) };
        let file = Self::original(path);
        // A problem of this file alone; the next walk looks again.
        let Ok((bytes, stat)) = self.read_original(&file) else { return Ok(Looked::Unreadable) };
        let known = store.look_up(&file, &stat);
        let latest = self.outstanding.latest(&file);
        let is_due = match known {
            Known::No | Known::Changed(_) => true,
            Known::Unfinished(_) => !matches!(latest, Some(FileChange::Imported(_))),
            Known::Unchanged(_) => matches!(latest, Some(FileChange::Removed(_))),
        };
        if !is_due {
            return Ok(Looked::Nothing);
        }
        let before = match known {
            Known::No => None,
            _ => store.file(&file)?,
        };
        let name = file_name(folder, path, &stat);
        let Prepared { imported, chunks, cuts, content_hash } = prepare_file(secrets, content, &bytes, name);
        let cuts = if self.keep == Keep::InPlace { cuts } else { Vec::new() };
        for (chunk, sealed) in &chunks {
            if !cuts.iter().any(|cut| cut.chunk == *chunk) {
                store.append(*chunk, sealed)?;
            }
        }
        let photo = imported.photo;
        let content = Some(content).filter(|content| content.bytes() == bytes);
        let replaces = before.map_or(Some(Vec::new()), |before| before.replaced_by(photo));
        let Some(replaces) = replaces else { return Ok(Looked::Unreadable) };
        let record = FileRecord {
            path: file,
            stat,
            identity: FileIdentity::default(),
            photo,
            replaces: replaces.clone(),
            content_hash,
            cuts,
        };
        self.batch.push(ReadFile { record, imported: Box::new(ImportedPhoto { replaces, ..imported }), content });
        Ok(Looked::Read(photo))
    }

    /// Whether the file was read and is not taken in yet: then that comes first.
    #[must_use]
    pub fn is_reading(&self, path: &str) -> bool {
        self.record_as_read(&Self::original(path)).is_some()
    }

    /// What will be known of a file that was read and is not taken in yet.
    pub(super) fn record_as_read(&self, file: &Path) -> Option<&FileRecord> {
        self.batch.iter().map(|read| &read.record).find(|record| record.path == file)
    }

    /// Makes what was read durable, takes the files in, and hands them out.
    ///
    /// # Errors
    /// When the store fails; then nothing is handed out, and a later walk tries again.
    pub fn adopt(&mut self) -> Result<Ingested, StorageError> {
        let batch = std::mem::take(&mut self.batch);
        let mut out = Ingested::default();
        let Some(store) = self.store.as_ref().filter(|_| !batch.is_empty()) else { return Ok(out) };
        store.commit()?;
        let records: Vec<FileRecord> = batch.iter().map(|read| read.record.clone()).collect();
        let lost = store.adopt_files(&records)?;
        self.batches += 1;
        for ReadFile { record, imported, content } in batch {
            let is_as_read = store_stat(self, &record.path) == Some(record.stat);
            let import = self.outstanding.add(FileChange::Imported(record.path.clone()));
            let chunks: Vec<ChunkId> = imported.chunks.iter().map(|(chunk, _)| *chunk).collect();
            out.imports.push((import, imported.photo, content, chunks.clone()));
            out.inputs.push(Input::Imported(Box::new(ImportedPhoto { import, ..*imported })));
            if is_as_read {
                out.chunks.extend(&chunks);
            } else {
                out.stale.extend(record.cuts.iter().map(|cut| cut.chunk));
            }
            let (stored, gone) = chunks.into_iter().partition(|chunk| store.contains(chunk));
            out.inputs.push(Input::Replica(replica::Input::ChunksStored(stored)));
            out.inputs.extend(losses(gone));
        }
        out.inputs.extend(losses(lost));
        self.taken.extend(out.imports.iter().flat_map(|(.., chunks)| chunks));
        Ok(out)
    }

    /// A file is gone: its name goes from the catalog first, and from the store when that is done.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn gone(&mut self, folder: &str, path: &Path) -> Result<Ingested, StorageError> {
        let mut out = Ingested::default();
        let Some(record) = self.store.as_ref().map_or(Ok(None), |store| store.file(path))? else { return Ok(out) };
        if self.outstanding.latest(path).is_some() {
            // Under way already, or just imported: the next walk looks again.
            out.is_to_walk_again = true;
            return Ok(out);
        }
        let relative = path.strip_prefix(FOLDER).unwrap_or(path).to_string_lossy().into_owned();
        let name = file_name(folder, &relative, &record.stat);
        for photo in record.replaces.into_iter().chain([record.photo]) {
            let import = self.outstanding.add(FileChange::Removed(path.to_owned()));
            out.inputs.push(Input::NameRemoved(Box::new(RemovedName { import, photo, name: name.clone() })));
        }
        Ok(out)
    }

    /// Walks through the folder: files to look at, and files that are gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn walk(&self, files: &Folder) -> Result<(Vec<String>, Vec<PathBuf>), StorageError> {
        let Some(store) = &self.store else { return Ok(Default::default()) };
        let (mut seen, mut to_read) = (RoaringBitmap::new(), Vec::new());
        for path in files.keys() {
            let file = Self::original(path);
            let stat = store_stat(self, &file);
            match stat.map(|stat| store.look_up(&file, &stat)) {
                Some(Known::Changed(number) | Known::Unfinished(number)) => {
                    seen.insert(number.get());
                    to_read.push(path.clone());
                }
                Some(Known::Unchanged(number)) => {
                    seen.insert(number.get());
                    to_read.extend(self.outstanding.latest(&file).map(|_| path.clone()));
                }
                Some(Known::No) | None => to_read.push(path.clone()),
            }
        }
        let gone = store.unseen(Path::new(FOLDER), &seen)?;
        Ok((to_read, gone.into_iter().map(|file| file.path).collect()))
    }

    /// The library has acknowledged `imports`: files are finished or forgotten. Returns what is to be said of chunks.
    ///
    /// # Errors
    /// When the store fails; a later walk does it again.
    pub fn catalogued(&mut self, imports: &[ImportId]) -> Result<Option<Input>, StorageError> {
        let Settled { finished, forgotten, .. } = self.outstanding.settled(imports);
        let outcome = self.store.as_ref().map_or(Ok(Vec::new()), |store| {
            store.finish_files(&finished).and_then(|()| store.forget_files(&forgotten))
        });
        self.outstanding.remove(imports);
        outcome.map(losses)
    }
}

fn store_stat(machine: &Machine, file: &Path) -> Option<FileStat> {
    use holdfast_store::disk::{Access, Disk as _};
    machine.disk.open(file, Access::Read).ok()?.stat().ok()
}

fn losses(lost: Vec<ChunkId>) -> Option<Input> {
    (!lost.is_empty()).then(|| Input::Replica(replica::Input::ChunksLost(lost)))
}

fn file_name(folder: &str, path: &str, stat: &FileStat) -> FileName {
    FileName {
        folder: folder.to_owned(),
        path: path.into(),
        mtime_ns: stat.mtime_ns,
        size: stat.size,
        mode: None,
        created_ns: None,
    }
}
