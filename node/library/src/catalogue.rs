//! Imports become deposits and catalog changes; catalog changes become rows, counts and index changes.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_crdt::{CatalogBody, DocumentId, Edit, EditRefused, LocalChange, Name, NameId, Patch, PhotoState};
use holdfast_protocol::deposit::{DepositedChunk, NewRun, RunClass};
use holdfast_protocol::envelope::Kind;
use holdfast_protocol::id::{ChunkId, PhotoId};
use holdfast_protocol::metadata::Metadata;
use holdfast_protocol::position::Run;
use holdfast_protocol::replica;
use holdfast_protocol::sealing::chunk_id;
use holdfast_protocol::time::{Now, WallTime};

use super::describe::{hex, indexed_state, shown_successor};
use super::import::{ImportedPhoto, Pending, RemovedName};
use super::record::{self, NamedFile, PhotoRecord};
use super::{Effect, Library, LibraryError, PhotoRow};
use crate::index::{IndexChange, IndexedState};

/// The oldest version that understands what is written here.
pub(super) const MIN_READER: u16 = 1;

/// What an edit says of a file's name.
enum NameEdit {
    /// It is there, and sealed as this.
    Here(Vec<u8>),
    /// It is gone.
    Gone(WallTime),
}

/// One batch's edits of one document.
#[derive(Default)]
pub(super) struct Edits {
    records: Vec<(PhotoId, Vec<u8>)>,
    runs: Vec<(PhotoId, Run)>,
    names: Vec<(PhotoId, NameId, NameEdit)>,
    successors: Vec<(PhotoId, Option<PhotoId>)>,
}

impl Edits {
    pub(super) fn of_runs(runs: Vec<(PhotoId, Run)>) -> Self {
        Self { runs, ..Self::default() }
    }

    fn write(&self, edit: &mut Edit<'_>) {
        for (photo, record) in &self.records {
            edit.put_photo(*photo, record);
        }
        for (photo, run) in &self.runs {
            edit.put_run(*photo, *run);
        }
        for (photo, name, said) in &self.names {
            match said {
                NameEdit::Here(sealed) => edit.put_name(*photo, *name, sealed),
                NameEdit::Gone(since) => edit.mark_name_gone(*photo, *name, *since),
            }
        }
        for (photo, successor) in &self.successors {
            edit.set_successor(*photo, *successor);
        }
    }

    /// Those of half the photos, and the others; `None` for a single photo.
    fn halved(mut self) -> Option<(Self, Self)> {
        let mut photos: BTreeSet<PhotoId> = self.records.iter().map(|(photo, _)| *photo).collect();
        photos.extend(self.runs.iter().map(|(photo, _)| photo));
        photos.extend(self.names.iter().map(|(photo, ..)| photo));
        photos.extend(self.successors.iter().map(|(photo, _)| photo));
        let middle = *photos.iter().nth(photos.len() / 2).filter(|_| photos.len() > 1)?;
        let others = Self {
            records: self.records.extract_if(.., |(photo, _)| *photo >= middle).collect(),
            runs: self.runs.extract_if(.., |(photo, _)| *photo >= middle).collect(),
            names: self.names.extract_if(.., |(photo, ..)| *photo >= middle).collect(),
            successors: self.successors.extract_if(.., |(photo, _)| *photo >= middle).collect(),
        };
        Some((self, others))
    }
}

impl<M: Metadata> Library<M> {
    /// Deposits the chunks of a batch as one run, writes one change for each document, and flushes.
    pub(super) fn catalogue(
        &mut self,
        now: Now,
        batch: Vec<Pending>,
        lost: &BTreeSet<ChunkId>,
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        let runs = self.deposit_new(now, &batch, lost, out)?;
        let mut edits: BTreeMap<DocumentId, Edits> = BTreeMap::new();
        let mut imports = Vec::with_capacity(batch.len());
        for pending in &batch {
            match pending {
                Pending::Photo(photo) => {
                    imports.push(photo.import);
                    self.edit_photo(now.wall, photo, runs.get(&photo.photo), &mut edits)?;
                }
                Pending::NameRemoved(removed) => {
                    imports.push(removed.import);
                    self.edit_removed(now.wall, removed, &mut edits);
                }
            }
        }
        for (document, edits) in edits {
            self.write_change(now, document, edits, out)?;
        }
        for pending in &batch {
            if let Pending::Photo(photo) = pending {
                self.describe_imported(photo)?;
            }
        }
        let task = self.task();
        self.unflushed.insert(task, imports);
        out.push(Effect::Flush(task));
        Ok(())
    }

    /// Deposits the chunks of every photo of the batch that this device has not deposited itself. A photo that
    /// another device imported gets positions of this device's own too, so that no release by someone who does not know
    /// of this import can erase it. What is among `lost` is wanted back from others at once.
    fn deposit_new(
        &mut self,
        now: Now,
        batch: &[Pending],
        lost: &BTreeSet<ChunkId>,
        out: &mut Vec<Effect>,
    ) -> Result<BTreeMap<PhotoId, Run>, LibraryError> {
        let (mut photos, mut runs) = (Vec::new(), Vec::new());
        for pending in batch {
            let Pending::Photo(photo) = pending else { continue };
            if photos.contains(&photo.photo) || self.deposited_here(&photo.photo) {
                continue;
            }
            let chunks = photo.chunks.iter().map(|(chunk, length)| DepositedChunk { chunk: *chunk, length: *length });
            photos.push(photo.photo);
            runs.push(NewRun { class: RunClass::PHOTO, chunks: chunks.collect() });
        }
        let chunks = runs.iter().flat_map(|run| &run.chunks).map(|deposited| deposited.chunk);
        let lost = chunks.filter(|chunk| lost.contains(chunk)).collect();
        let runs = self.deposit(now, &runs, lost, out)?;
        Ok(photos.into_iter().zip(runs).collect())
    }

    /// Deposits runs. A deposit counts all its chunks as held: those that are `lacked` are wanted from others.
    pub(super) fn deposit(
        &mut self,
        now: Now,
        runs: &[NewRun],
        lacked: Vec<ChunkId>,
        out: &mut Vec<Effect>,
    ) -> Result<Vec<Run>, LibraryError> {
        let (runs, effects) = self.replica.deposit(now, self.bodies.epoch(), runs)?;
        self.pass(effects, out)?;
        if !lacked.is_empty() {
            let effects = self.replica.handle(now, replica::Input::ChunksLost(lacked))?;
            self.pass(effects, out)?;
        }
        Ok(runs)
    }

    fn deposited_here(&self, photo: &PhotoId) -> bool {
        let author = self.replica.author();
        self.photos.slot(photo).is_some_and(|slot| {
            let row = self.photos.row(slot);
            row.run.author == author || row.deposited_here
        })
    }

    fn edit_photo(
        &mut self,
        now: WallTime,
        photo: &ImportedPhoto,
        run: Option<&Run>,
        edits: &mut BTreeMap<DocumentId, Edits>,
    ) -> Result<(), LibraryError> {
        let known = self.photos.slot(&photo.photo);
        let document =
            known.map_or_else(|| DocumentId::for_photo(photo.month(), &photo.photo), |slot| self.photos.document(slot));
        let of_document = edits.entry(document).or_default();
        match (known, run) {
            (None, Some(run)) => {
                of_document.records.push((photo.photo, PhotoRecord::new(*run, photo.name.size).encode()));
            }
            (Some(_), Some(run)) => of_document.runs.push((photo.photo, *run)),
            (_, None) => {}
        }
        let file = NamedFile { device: self.device, name: photo.name.clone() };
        let name = record::name_id(&self.secrets, &photo.photo, &file);
        of_document.names.push((photo.photo, name, NameEdit::Here(record::seal_name(&photo.photo_key, &file))));
        if known.is_some_and(|slot| !self.photos.row(slot).listed) {
            // An earlier version is back in its folder.
            of_document.successors.push((photo.photo, None));
        }
        let before = NamedFile { name: photo.renamed_from.clone().unwrap_or(file.name), ..file };
        for old in photo.replaces.iter().filter(|old| **old != photo.photo) {
            self.edit_replaced(now, (*old, photo.photo), &before, edits)?;
        }
        Ok(())
    }

    /// The photo that an edited file was has no file of this name any more, and when it has no other, is listed no more.
    fn edit_replaced(
        &mut self,
        now: WallTime,
        (old, new): (PhotoId, PhotoId),
        file: &NamedFile,
        edits: &mut BTreeMap<DocumentId, Edits>,
    ) -> Result<(), LibraryError> {
        let Some(slot) = self.photos.slot(&old) else { return Ok(()) };
        let document = self.photos.document(slot);
        let name = record::name_id(&self.secrets, &old, file);
        let state = self.opened(document)?.photo(document, &old);
        let of_document = edits.entry(document).or_default();
        of_document.names.push((old, name, NameEdit::Gone(now)));
        let is_last = |(other, of): (&NameId, &Name)| *other == name || !of.is_here();
        if state.is_some_and(|state| state.names.iter().all(is_last)) {
            of_document.successors.push((old, Some(new)));
        }
        Ok(())
    }

    /// The documents that a batch is about to edit.
    pub(super) fn documents_of(&self, batch: &[Pending]) -> BTreeSet<DocumentId> {
        let known = |photo: &PhotoId| self.photos.slot(photo).map(|slot| self.photos.document(slot));
        let mut documents: BTreeSet<_> = batch.iter().flat_map(Pending::builds_on).filter_map(known).collect();
        documents.extend(batch.iter().filter_map(|pending| match pending {
            Pending::Photo(photo) => {
                Some(known(&photo.photo).unwrap_or_else(|| DocumentId::for_photo(photo.month(), &photo.photo)))
            }
            Pending::NameRemoved(_) => None,
        }));
        documents
    }

    fn edit_removed(&self, now: WallTime, removed: &RemovedName, edits: &mut BTreeMap<DocumentId, Edits>) {
        if let Some(slot) = self.photos.slot(&removed.photo) {
            let file = NamedFile { device: self.device, name: removed.name.clone() };
            let name = record::name_id(&self.secrets, &removed.photo, &file);
            let of_document = edits.entry(self.photos.document(slot)).or_default();
            of_document.names.push((removed.photo, name, NameEdit::Gone(now)));
        }
    }

    /// Writes one change of one document into the catalog and into this device's log; several when it would be too large.
    pub(super) fn write_change(
        &mut self,
        now: Now,
        document: DocumentId,
        edits: Edits,
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        let change = match self.opened(document)?.edit(document, |edit| edits.write(edit)) {
            Err(error @ EditRefused::TooLarge { .. }) => {
                let halves = edits.halved().ok_or_else(|| LibraryError::Catalog(error.to_string()))?;
                self.write_change(now, document, halves.0, out)?;
                return self.write_change(now, document, halves.1, out);
            }
            change => change.map_err(|error| LibraryError::Catalog(error.to_string()))?,
        };
        change.map_or(Ok(()), |change| self.append_change(now, change, out))
    }

    /// Writes a change that is in the catalog into this device's log.
    pub(super) fn append_change(
        &mut self,
        now: Now,
        change: LocalChange,
        out: &mut Vec<Effect>,
    ) -> Result<(), LibraryError> {
        let (author, document) = (self.replica.author(), change.document);
        let body = CatalogBody { document, changes: vec![change.change] }.encode();
        self.learn(document, change.patches);
        let seq = self.replica.own_length();
        let body = self.bodies.seal(&author, seq, &body);
        // The envelope comes back as accepted; the catalog knows its change already.
        self.applied.insert(author, seq + 1);
        let appended = self.replica.append(now, Kind::Catalog, self.bodies.epoch(), MIN_READER, body);
        let (_, effects) = appended.inspect_err(|_| {
            // Nothing may build on a change that is in no log.
            self.documents.catalog.close(document);
        })?;
        self.checkpoints.changed();
        self.pass(effects, out)
    }

    /// Takes what a document says now into the rows, the counts and the index.
    pub(super) fn learn(&mut self, document: DocumentId, mut patches: Vec<Patch>) {
        self.checkpoints.document_changed(document);
        // What is said of a photo finds it known.
        patches.sort_by_key(|patch| !matches!(patch, Patch::PhotoAdded { .. }));
        let relisted = patches.iter().filter_map(|patch| match patch {
            Patch::State { photo, .. } | Patch::Successor { photo, .. } | Patch::Name { photo, .. } => Some(*photo),
            _ => None,
        });
        let relisted: BTreeSet<PhotoId> = relisted.collect();
        for patch in patches {
            match patch {
                Patch::PhotoAdded { photo, record, others } => self.learn_photo(document, photo, &record, &others),
                Patch::Run { photo, run } => self.learn_run(document, &photo, run),
                Patch::State { .. } | Patch::Successor { .. } => {}
                Patch::Favourite { photo, favourite } => {
                    self.index_changes.push(IndexChange::Favourite { photo, favourite });
                }
                Patch::Tag { photo, tag, present } => {
                    let tag = hex(tag.as_bytes());
                    self.index_changes.push(IndexChange::Tag { photo, tag, tagged: present });
                }
                Patch::Album { photo, album, position } => self.index_changes.push(IndexChange::Album {
                    photo,
                    album: hex(album.as_bytes()),
                    position: position.map(|position| hex(&position)),
                }),
                Patch::Name { photo, .. } | Patch::Caption { photo, .. } | Patch::Date { photo, .. } => {
                    // Sealed under the photo's key, which stands in its manifest.
                    if let Some(slot) = self.photos.slot(&photo) {
                        self.photos.row_mut(slot).described = false;
                        self.to_describe.push_back(slot);
                    }
                }
                Patch::TagNamed { tag, name } => {
                    let tag = hex(tag.as_bytes());
                    let name = name.value.and_then(|sealed| self.open_label(&sealed));
                    self.index_changes.push(IndexChange::TagName { tag, name });
                }
                Patch::AlbumNamed { album, name } => {
                    let album = hex(album.as_bytes());
                    let name = name.value.and_then(|sealed| self.open_label(&sealed));
                    self.index_changes.push(IndexChange::AlbumName { album, name });
                }
                Patch::Setting { .. } => {}
            }
        }
        for photo in relisted {
            self.refresh_listing(document, &photo);
        }
    }

    /// A photo is new, or others imported it at the same time and the catalog has settled on one of the records: all
    /// devices then count the same run, whatever they learned first.
    fn learn_photo(&mut self, document: DocumentId, photo: PhotoId, record: &[u8], others: &[Vec<u8>]) {
        // A record that cannot be read is another version's; the photo is unknown until this one is updated.
        let Some(record) = PhotoRecord::decode(record) else { return };
        let author = self.replica.author();
        let is_own = |other: &Vec<u8>| PhotoRecord::decode(other).is_some_and(|other| other.run.author == author);
        let deposited_here = others.iter().any(is_own);
        let run = self.run_that_counts(record.run, || self.documents.catalog.photo(document, &photo));
        if let Some(slot) = self.photos.slot(&photo) {
            let row = self.photos.row_mut(slot);
            row.deposited_here |= deposited_here || row.run.author == author;
            row.bytes = record.bytes;
            self.set_run(slot, run, record.run);
            return;
        }
        let (bytes, is_moved) = (record.bytes, run != record.run);
        let row = PhotoRow { photo, run, bytes, listed: true, described: false, deposited_here, is_moved };
        let slot = self.photos.add(document, row);
        self.count_run(slot);
        self.to_describe.push_back(slot);
    }

    fn learn_run(&mut self, document: DocumentId, photo: &PhotoId, run: Run) {
        let Some(slot) = self.photos.slot(photo) else { return };
        let row = self.photos.row_mut(slot);
        row.deposited_here |= run.author == self.replica.author();
        let read_from = row.run;
        if !self.endings.is_empty() || self.is_void(&read_from) {
            self.choose_run(document, slot);
        }
    }

    /// Whether nothing can be read from a run: its author's log ended before it, or nobody vouches for its author. A device
    /// may be removed before all know what it writes as; then what others carry on of it is all that they learn.
    pub(super) fn is_void(&self, run: &Run) -> bool {
        self.replica.registry().device_of(&run.author).is_none() || self.replica.is_void(run)
    }

    /// Chooses again from which run a photo of an open document is read.
    fn choose_run(&mut self, document: DocumentId, slot: u32) {
        let photo = self.photos.row(slot).photo;
        if let Some(state) = self.documents.catalog.photo(document, &photo)
            && let Some(record) = PhotoRecord::decode(&state.record)
        {
            let run = self.run_that_counts(record.run, || Some(state));
            self.set_run(slot, run, record.run);
        }
    }

    /// The run to read a photo from: that of its record, unless that is void; then the first other one that is not. What
    /// else the catalog says of the photo is looked up only then.
    fn run_that_counts(&self, recorded: Run, state: impl FnOnce() -> Option<PhotoState>) -> Run {
        if !self.is_void(&recorded) {
            return recorded;
        }
        let mut runs = state().into_iter().flat_map(|state| {
            let records = std::iter::once(&state.record).chain(&state.other_records);
            let recorded: Vec<Run> = records.filter_map(|of| Some(PhotoRecord::decode(of)?.run)).collect();
            recorded.into_iter().chain(state.runs.into_values())
        });
        runs.find(|run| !self.is_void(run)).unwrap_or(recorded)
    }

    /// Reads and counts a photo from a run, perhaps another than before.
    fn set_run(&mut self, slot: u32, run: Run, recorded: Run) {
        let row = self.photos.row_mut(slot);
        row.is_moved = run != recorded;
        if row.run != run {
            (row.run, row.described) = (run, false);
            self.count_run(slot);
            self.to_describe.push_back(slot);
        }
    }

    /// Counts the copies of a photo, when it is listed.
    pub(super) fn count_run(&mut self, slot: u32) {
        let row = self.photos.row(slot);
        self.copies.remove_photo(slot);
        if row.listed && !self.replica.is_void(&row.run) {
            self.copies.add_run(slot, row.run);
        }
    }

    /// Looks again at photos that are read from runs of authors that are to be reviewed, and at those that would be if theirs
    /// counted.
    pub(super) fn review_runs(&mut self) -> Result<(), LibraryError> {
        let authors = std::mem::take(&mut self.to_review);
        if authors.is_empty() {
            return Ok(());
        }
        for slot in 0..self.photos.len() as u32 {
            let row = *self.photos.row(slot);
            let is_theirs = authors.contains(&row.run.author);
            if row.is_moved || (is_theirs && self.replica.is_void(&row.run)) {
                let document = self.photos.document(slot);
                self.opened(document)?;
                self.checkpoints.document_changed(document);
                self.choose_run(document, slot);
            }
            let run = self.photos.row(slot).run;
            let is_counted = self.copies.copies(slot).is_some();
            if is_theirs && row.listed && is_counted == self.replica.is_void(&run) {
                self.count_run(slot);
            }
        }
        // Positions that meant nothing may be known now.
        self.to_describe.extend(std::mem::take(&mut self.awaiting_deposit));
        Ok(())
    }

    /// Reads a photo's state and successor again: whether it is listed and counted.
    fn refresh_listing(&mut self, document: DocumentId, photo: &PhotoId) {
        let (Some(slot), Some(state)) = (self.photos.slot(photo), self.documents.catalog.photo(document, photo)) else {
            return;
        };
        let indexed = indexed_state(&state);
        let successor = shown_successor(&state);
        let listed = indexed == IndexedState::Live && successor.is_none();
        self.index_changes.push(IndexChange::State { photo: *photo, state: indexed });
        self.index_changes.push(IndexChange::Successor { photo: *photo, successor });
        let row = self.photos.row_mut(slot);
        if listed != row.listed {
            row.listed = listed;
            self.count_run(slot);
        }
    }

    fn open_label(&self, sealed: &[u8]) -> Option<String> {
        String::from_utf8(self.sealer.open(&chunk_id(sealed), sealed).ok()?).ok()
    }
}
