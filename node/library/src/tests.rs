//! The library on metadata in memory: what damage, crashes and missing room leave of the catalog.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use holdfast_crdt::{AlbumId, Catalog, CatalogBody, TagId};
use holdfast_protocol::certificate::{DeviceCertificate, Role};
use holdfast_protocol::id::PhotoId;
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::manifest::{CaptureSource, CaptureTime, ContentBuilder, Facts, Manifest};
use holdfast_protocol::media_type::MediaType;
use holdfast_protocol::metadata::{Entry, StorageError, Table};
use holdfast_protocol::pairing::{JoinRefused, JoinRequest};
use holdfast_protocol::time::WallTime;

use super::*;

mod logs;

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Clones share the tables, as the handles of a real store do.
#[derive(Debug, Default, Clone)]
struct Memory(Rc<RefCell<Tables>>);

impl Metadata for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.borrow().get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StorageError> {
        let tables = self.0.borrow();
        let from = (table, prefix.max(from).to_vec());
        let entries = tables.range(from..).take_while(|((of, key), _)| *of == table && key.starts_with(prefix));
        Ok(entries.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StorageError> {
        let mut tables = self.0.borrow_mut();
        for (table, key, value) in batch.changes() {
            match value {
                Some(value) => drop(tables.insert((*table, key.clone()), value.clone())),
                None => drop(tables.remove(&(*table, key.clone()))),
            }
        }
        Ok(())
    }
}

/// A device that founded a library, and what survives its restarts.
struct Machine {
    metadata: Memory,
    device: DeviceKey,
    secrets: LibrarySecrets,
    chunks: BTreeMap<ChunkId, Vec<u8>>,
    elapsed: Duration,
    next_import: u64,
}

/// A library that is open, and everything that it said.
struct Open {
    library: Library<Memory>,
    events: Vec<Event>,
    indexed: Vec<IndexChange>,
}

impl Machine {
    fn new() -> Self {
        let founding = Founding::new(&[1; 32], "home", WallTime(0));
        let mut metadata = Memory::default();
        let mut batch = Batch::new();
        founding.membership.save(&mut batch);
        metadata.commit(batch).unwrap();
        let Founding { device, secrets, .. } = founding;
        let chunks = BTreeMap::new();
        Self { metadata, device, secrets, chunks, elapsed: Duration::ZERO, next_import: 0 }
    }

    fn now(&self) -> Now {
        let elapsed = self.elapsed;
        Now { elapsed: Timestamp::default() + elapsed, wall: WallTime(elapsed.as_millis() as i64) }
    }

    fn open(&self, indexed: Option<u64>) -> Open {
        let membership = Membership::load(&self.metadata).unwrap().unwrap();
        let config = Config {
            boot: [0; 16],
            replica: replica::Config {
                library: self.secrets.library(),
                device: self.device.clone(),
                author: membership.author.clone(),
                chain: vec![membership.certificate.wire().to_vec()],
                place: None,
                seed: [2; 32],
            },
            secrets: self.secrets.clone(),
            indexed,
        };
        let holds = |chunk: &ChunkId| self.chunks.contains_key(chunk);
        let (library, effects) = Library::open(config, self.metadata.clone(), &holds, self.now()).unwrap();
        let mut open = Open { library, events: Vec::new(), indexed: Vec::new() };
        open.perform(self, effects);
        let effects = open.library.introduce(self.now(), &membership.first_body).unwrap();
        open.perform(self, effects);
        open
    }

    /// A photo of July 2021 as ingest hands it over; its chunks are durable.
    fn photo(&mut self, path: &str, content: &[u8]) -> ImportedPhoto {
        let sealer = ChunkSealer::new(&self.secrets);
        let mut sealed = Vec::new();
        let mut builder = ContentBuilder::new(&sealer);
        let piece = builder.push(content, holdfast_protocol::cutting::CutKind::Picture, &mut sealed);
        let captured = CaptureTime {
            year: 2021,
            month: 7,
            day: 4,
            hour: 12,
            minute: 0,
            second: 0,
            millisecond: 0,
            offset_minutes: None,
            source: CaptureSource::Original,
        };
        let facts = Facts { captured: Some(captured), ..Facts::default() };
        let manifest = Manifest { content: builder.finish(), media: MediaType::Jpeg, facts, thumbnails: Vec::new() };
        let described = manifest.seal(&sealer).unwrap();
        let mut chunks: Vec<_> = described.into_iter().map(|chunk| (chunk.id, chunk.bytes.to_vec())).collect();
        chunks.push((piece, sealed));
        let import = ImportId(self.next_import);
        self.next_import += 1;
        let imported = ImportedPhoto {
            renamed_from: None,
            import,
            photo: manifest.photo(&self.secrets),
            photo_key: manifest.photo_key(&self.secrets),
            chunks: chunks.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect(),
            facts: manifest.facts,
            media: MediaType::Jpeg,
            name: file(path, content.len() as u64),
            replaces: Vec::new(),
        };
        self.chunks.extend(chunks);
        imported
    }
}

fn file(path: &str, size: u64) -> FileName {
    FileName { folder: "Pictures".into(), path: path.into(), mtime_ns: 7, size, mode: Some(0o644), created_ns: None }
}

impl Open {
    /// Carries out what the library asks for, at once.
    fn perform(&mut self, machine: &Machine, effects: Vec<Effect>) {
        let mut coming = VecDeque::from(effects);
        while let Some(effect) = coming.pop_front() {
            let input = match effect {
                Effect::Flush(task) => Input::Flushed(task),
                Effect::Replica(replica::Effect::Sync(task)) => Input::Replica(replica::Input::Synced(task)),
                Effect::Index { version, changes } => {
                    self.indexed.extend(changes);
                    Input::Indexed(version)
                }
                Effect::ReadChunk { task, chunk } => {
                    Input::ChunkRead { task, bytes: machine.chunks.get(&chunk).cloned() }
                }
                Effect::Event(event) => {
                    self.events.push(event);
                    continue;
                }
                Effect::Replica(_) | Effect::Catalogued(_) | Effect::Edited(_) => continue,
            };
            coming.extend(self.library.handle(machine.now(), input).unwrap());
        }
    }

    fn give(&mut self, machine: &mut Machine, inputs: Vec<Input>) {
        for input in inputs {
            let effects = self.library.handle(machine.now(), input).unwrap();
            self.perform(machine, effects);
        }
        machine.elapsed += Duration::from_secs(1);
        let effects = self.library.handle(machine.now(), Input::Replica(replica::Input::Tick)).unwrap();
        self.perform(machine, effects);
    }

    fn import(&mut self, machine: &mut Machine, photo: &ImportedPhoto) {
        let stored = photo.chunks.iter().map(|(chunk, _)| *chunk).collect();
        let inputs =
            vec![Input::Imported(Box::new(photo.clone())), Input::Replica(replica::Input::ChunksStored(stored))];
        self.give(machine, inputs);
    }

    /// Writes a checkpoint and ends.
    fn stop(mut self, machine: &Machine) -> u64 {
        self.library.checkpoint();
        let version = self.library.index_version;
        let effects = self.library.handle(machine.now(), Input::Indexed(version)).unwrap();
        self.perform(machine, effects);
        version
    }

    fn listed(&self) -> BTreeSet<PhotoId> {
        let photos = &self.library.photos;
        (0..photos.len() as u32).map(|slot| *photos.row(slot)).filter(|row| row.listed).map(|row| row.photo).collect()
    }

    /// What the index calls a photo, and since when the file is gone.
    fn called(&self, photo: &PhotoId) -> Vec<(String, Option<WallTime>)> {
        let described = |change: &IndexChange| matches!(change, IndexChange::Photo(facts) if facts.photo == *photo);
        let last = self.indexed.iter().rposition(described).unwrap();
        let names = self.indexed[last..].iter().filter_map(|change| match change {
            IndexChange::Name { photo: of, name, .. } if of == photo => Some((name.path.to_string(), name.gone_since)),
            _ => None,
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn rebuilt(&self) -> Vec<Option<DocumentId>> {
        let rebuilt = |event: &Event| if let Event::Rebuilt { document } = event { Some(*document) } else { None };
        self.events.iter().filter_map(rebuilt).collect()
    }
}

const JULY: DocumentId = DocumentId::Month { year: 2021, month: 7 };

#[test]
fn a_damaged_document_is_made_again_from_the_logs() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let photos: Vec<_> = (0..3).map(|n| machine.photo(&format!("{n}.jpg"), &[n; 1000])).collect();
    for photo in &photos[..2] {
        open.import(&mut machine, photo);
    }
    let version = open.stop(&machine);
    // What came after the checkpoint is taken in again at the next start, into a document that cannot be read.
    let mut open = machine.open(Some(version));
    assert_eq!(open.rebuilt(), []);
    open.import(&mut machine, &photos[2]);
    drop(open);
    for document in [JULY, DocumentId::Library] {
        let key = (Table::Catalog, documents::document_key(document));
        machine.metadata.0.borrow_mut().insert(key, b"damaged".to_vec());
    }
    let mut open = machine.open(Some(version));
    let all: BTreeSet<_> = photos.iter().map(|photo| photo.photo).collect();
    assert_eq!(open.listed(), all);
    assert_eq!(open.rebuilt(), [Some(JULY)]);
    // It can be written again, and the next checkpoint mends what is cached.
    let again = machine.photo("again.jpg", &[0; 1000]);
    open.import(&mut machine, &again);
    open.stop(&machine);
    // A lost index is fed from the documents.
    let mut open = machine.open(None);
    assert_eq!((open.listed(), open.rebuilt()), (all.clone(), vec![Some(DocumentId::Library)]));
    let edited = machine.photo("1.jpg", &[9; 1000]);
    open.import(&mut machine, &ImportedPhoto { replaces: vec![photos[1].photo], ..edited.clone() });
    assert_eq!(open.listed(), [photos[0].photo, photos[2].photo, edited.photo].into());
    open.stop(&machine);

    // Everything that is cached.
    let key = (Table::Catalog, b"checkpoint".to_vec());
    machine.metadata.0.borrow_mut().insert(key, b"damaged".to_vec());
    let open = machine.open(Some(version));
    assert_eq!((open.listed().len(), open.rebuilt()), (3, vec![None]));
}

#[test]
fn a_photo_is_called_what_its_file_was_last_when_that_is_gone() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let photo = machine.photo("a.jpg", &[3; 1000]);
    open.import(&mut machine, &photo);
    let moved = ImportedPhoto { name: file("b.jpg", 1000), ..photo.clone() };
    open.import(&mut machine, &moved);
    let remove = |open: &mut Open, machine: &mut Machine, photo: &ImportedPhoto| {
        let ImportedPhoto { import, photo, name, .. } = photo.clone();
        open.give(machine, vec![Input::NameRemoved(Box::new(RemovedName { import, photo, name }))]);
    };
    let here = |path: &str| vec![(format!("Pictures/{path}"), None)];
    assert_eq!(open.called(&photo.photo), [here("a.jpg"), here("b.jpg")].concat());
    remove(&mut open, &mut machine, &photo);
    assert_eq!(open.called(&photo.photo), here("b.jpg"));
    remove(&mut open, &mut machine, &moved);
    let gone = vec![("Pictures/b.jpg".to_owned(), Some(machine.now().wall))];
    assert_eq!(open.called(&photo.photo), gone);
    remove(&mut open, &mut machine, &moved);
    assert_eq!((open.called(&photo.photo), open.listed()), (gone, [photo.photo].into()), "it was gone already");

    // Back, and then edited: the version before is hidden, whatever it was called.
    open.import(&mut machine, &photo);
    let edited = machine.photo("a.jpg", &[4; 1000]);
    open.import(&mut machine, &ImportedPhoto { replaces: vec![photo.photo], ..edited.clone() });
    assert_eq!((open.called(&edited.photo), open.listed()), (here("a.jpg"), [edited.photo].into()));
    drop(open);
    let mut open = machine.open(None);
    open.give(&mut machine, Vec::new());
    assert_eq!(open.called(&photo.photo).len(), 1, "its name is in the catalog still");
}

#[test]
fn an_index_that_was_being_rebuilt_at_a_crash_is_rebuilt_again() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    for n in 0..4 {
        let photo = machine.photo(&format!("{n}.jpg"), &[n; 1000]);
        open.import(&mut machine, &photo);
    }
    let version = open.stop(&machine);
    let described = |open: &Open| {
        let photos = open.indexed.iter().filter_map(|change| match change {
            IndexChange::Photo(photo) => Some(photo.photo),
            _ => None,
        });
        photos.collect::<BTreeSet<_>>().len()
    };
    assert_eq!(described(&machine.open(Some(version))), 0);
    // The index is lost, the new one gets some of what it needs, and the machine dies.
    let rebuilding = machine.open(None);
    assert_eq!(described(&rebuilding), 4);
    let part = rebuilding.library.index_version;
    drop(rebuilding);
    let open = machine.open(Some(part));
    assert_eq!(described(&open), 4, "a part is not the whole");
    let version = open.stop(&machine);
    assert_eq!(described(&machine.open(Some(version))), 0, "once it is rebuilt, it is kept");
}

#[test]
fn edits_are_shown_survive_a_lost_index_and_are_told_of_once_durable() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let photo = machine.photo("a.jpg", &[3; 1000]);
    open.import(&mut machine, &photo);
    let chunk = open.library.manifest_of(&photo.photo).unwrap();
    let manifest = machine.chunks[&chunk].clone();
    let album = AlbumId::from_bytes([4; 16]);
    let caption = |text: &str| PhotoEdit::Caption { text: text.into(), manifest: manifest.clone() };
    let edits = vec![
        PhotoEdit::Favourite(true),
        caption("on the beach"),
        PhotoEdit::Tag(" Family".into()),
        PhotoEdit::Album(album, vec![1]),
        PhotoEdit::Trash,
    ];
    let edits = edits.into_iter().map(|edit| (photo.photo, edit)).collect();
    let (task, effects) = open.library.edit_photos(machine.now(), edits).unwrap();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Edited(_))), "not before the flush");
    let done = open.library.handle(machine.now(), Input::Flushed(task)).unwrap();
    assert!(done.iter().any(|effect| matches!(effect, Effect::Edited(of) if *of == task)));
    open.perform(&machine, effects);
    let (_, effects) = open.library.name_album(machine.now(), album, Some("Summer")).unwrap();
    open.perform(&machine, effects);
    assert_eq!(open.listed(), BTreeSet::new());

    // Other words for the same tag change nothing.
    let length = open.library.replica().own_length();
    let again = vec![(photo.photo, PhotoEdit::Favourite(true))];
    let (_, effects) = open.library.edit_photos(machine.now(), again).unwrap();
    open.perform(&machine, effects);
    assert_eq!(open.library.replica().own_length(), length);

    let mut open = machine.open(None);
    open.give(&mut machine, Vec::new());
    let shows = |wanted: &dyn Fn(&IndexChange) -> bool| open.indexed.iter().any(wanted);
    assert!(shows(&|change| matches!(change, IndexChange::Favourite { favourite: true, .. })));
    assert!(shows(&|change| matches!(change, IndexChange::Caption { captions, .. } if *captions == ["on the beach"])));
    assert!(shows(&|change| matches!(change, IndexChange::TagName { name: Some(name), .. } if name == "Family")));
    assert!(shows(&|change| matches!(change, IndexChange::AlbumName { name: Some(name), .. } if name == "Summer")));
    assert!(shows(&|change| matches!(change, IndexChange::Album { position: Some(_), .. })));
    let (_, effects) = open.library.edit_photos(machine.now(), vec![(photo.photo, PhotoEdit::Restore)]).unwrap();
    open.perform(&machine, effects);
    assert_eq!(open.listed(), BTreeSet::from([photo.photo]));
}

/// A library that knows a photo, opened while the store lacked everything; the photo's manifest, which is there by now.
fn without_manifest(machine: &mut Machine) -> (Open, ChunkId) {
    let mut open = machine.open(None);
    let photo = machine.photo("a.jpg", &[3; 1000]);
    open.import(machine, &photo);
    let chunks = std::mem::take(&mut machine.chunks);
    let open = machine.open(None);
    machine.chunks = chunks;
    assert!(!open.library.photos.row(0).described, "its manifest is not here");
    (open, photo.chunks[0].0)
}

fn stored(chunk: ChunkId) -> Input {
    Input::Replica(replica::Input::ChunksStored(vec![chunk]))
}

/// What is asked for of the store.
fn reading(effects: &[Effect]) -> Option<TaskId> {
    effects.iter().find_map(|effect| if let Effect::ReadChunk { task, .. } = effect { Some(*task) } else { None })
}

#[test]
fn a_manifest_that_is_back_while_an_earlier_read_of_it_fails_is_read_again() {
    let mut machine = Machine::new();
    let (mut open, manifest) = without_manifest(&mut machine);
    let mut told = || open.library.handle(machine.now(), stored(manifest)).unwrap();
    let (first, again) = (told(), told());
    let read = Input::ChunkRead { task: reading(&first).unwrap(), bytes: None };
    let failed = open.library.handle(machine.now(), read).unwrap();
    open.perform(&machine, again.into_iter().chain(failed).collect());
    assert!(open.library.photos.row(0).described);
}

#[test]
fn a_manifest_that_could_not_be_read_for_a_moment_is_read_again() {
    let mut machine = Machine::new();
    let (mut open, manifest) = without_manifest(&mut machine);
    let asked = open.library.handle(machine.now(), stored(manifest)).unwrap();
    // Out of handles, say: nothing is lost, so nobody will bring it.
    open.library.handle(machine.now(), Input::ChunkRead { task: reading(&asked).unwrap(), bytes: None }).unwrap();
    let mut tick = |after| {
        machine.elapsed += Duration::from_secs(after);
        reading(&open.library.handle(machine.now(), Input::Replica(replica::Input::Tick)).unwrap())
    };
    assert_eq!(tick(30), None);
    assert!(tick(30).is_some());
}

#[test]
fn edits_that_cannot_be_made_say_why_and_write_nothing() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let photo = machine.photo("a.jpg", &[3; 1000]);
    open.import(&mut machine, &photo);
    let length = open.library.replica().own_length();
    let unknown = PhotoId::from_bytes([9; 32]);
    let mut refused = |photo, edit| open.library.edit_photos(machine.now(), vec![(photo, edit)]).unwrap_err();
    assert_eq!(refused(unknown, PhotoEdit::Trash), EditError::UnknownPhoto(unknown));
    let caption = |bytes, manifest| PhotoEdit::Caption { text: "x".repeat(bytes), manifest };
    assert_eq!(refused(photo.photo, caption(1, vec![1; 99])), EditError::WrongManifest(photo.photo));
    assert!(matches!(refused(photo.photo, caption(4000, Vec::new())), EditError::WrongText { .. }));
    assert!(matches!(refused(photo.photo, PhotoEdit::Tag("  ".into())), EditError::WrongText { .. }));
    let position = vec![0; 300];
    let album = PhotoEdit::Album(AlbumId::from_bytes([1; 16]), position);
    assert!(matches!(refused(photo.photo, album), EditError::Refused(_)));
    assert_eq!(open.library.replica().own_length(), length);
}

#[test]
fn what_is_lost_before_its_import_is_catalogued_is_not_held() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    let photos: Vec<_> = (0..2).map(|n| machine.photo(&format!("{n}.jpg"), &[n; 1000])).collect();
    let piece = |photo: &ImportedPhoto| photo.chunks[photo.chunks.len() - 1].0;
    let chunks = |photo: &ImportedPhoto| photo.chunks.iter().map(|(chunk, _)| *chunk).collect();
    let imported = |photo: &ImportedPhoto| {
        [Input::Imported(Box::new(photo.clone())), Input::Replica(replica::Input::ChunksStored(chunks(photo)))]
    };
    let lost = |photo: &ImportedPhoto| Input::Replica(replica::Input::ChunksLost(vec![piece(photo)]));
    // The file of each is replaced while its import waits for others; that of the second is put back.
    let mut inputs = Vec::new();
    for photo in &photos {
        inputs.extend(imported(photo));
        inputs.push(lost(photo));
    }
    inputs.extend(imported(&photos[1]));
    open.give(&mut machine, inputs);
    assert_eq!(open.listed().len(), 2);
    let replica = open.library.replica();
    assert!(!replica.holds(&piece(&photos[0])) && replica.holds(&piece(&photos[1])));
    assert_eq!(replica.transfers().missing_chunks, 1);
}

/// Lets another device in, which is never seen again; its certificate.
fn admit(open: &mut Open, machine: &Machine, number: u8) -> Result<DeviceCertificate, JoinRefused> {
    let key = &machine.device;
    let lifetime = (Role::Member, Duration::from_secs(3600));
    let (ticket, _) = open.library.invite(machine.now(), key, &[], &[number; 32], lifetime).unwrap();
    let request = JoinRequest::new(&ticket, &DeviceKey::from_seed(&[number; 32]), "other");
    let (answer, _) = open.library.admit(machine.now(), key, &[], &request, &[number; 32]).unwrap();
    answer.map(|admission| admission.certificate().clone())
}

#[test]
fn after_a_start_nobody_edits_or_joins_before_logs_are_compared() {
    let mut machine = Machine::new();
    let album = AlbumId::from_bytes([4; 16]);
    let mut open = machine.open(None);
    assert!(open.library.name_album(machine.now(), album, Some("Spring")).is_ok(), "nobody else is there");
    assert!(admit(&mut open, &machine, 5).is_ok());
    // The same home again, perhaps put back from a backup: the other device may know more of its log.
    let mut open = machine.open(None);
    let length = open.library.replica().own_length();
    let refused = open.library.name_album(machine.now(), album, Some("Summer")).unwrap_err();
    assert_eq!((refused, admit(&mut open, &machine, 6).err()), (EditError::Comparing, Some(JoinRefused::NotYet)));
    assert_eq!(open.library.replica().own_length(), length);
    machine.elapsed += Duration::from_secs(16);
    assert!(open.library.name_album(machine.now(), album, Some("Summer")).is_ok(), "the other is away");
    assert!(admit(&mut open, &machine, 6).is_ok());
}

#[test]
fn however_much_waits_for_logs_to_be_compared_is_catalogued_in_changes_that_fit() {
    let mut machine = Machine::new();
    let mut open = machine.open(None);
    admit(&mut open, &machine, 5).unwrap();
    let mut open = machine.open(None);
    let length = open.library.replica().own_length();
    // Far more than one change may hold; of some of them a batch is too much, and their names are longer than the catalog takes.
    let folders = [String::new(), "long/".repeat(1000)];
    let photos: BTreeSet<PhotoId> = (0..1000u32)
        .map(|number| {
            let folder = &folders[usize::from(number < 150)];
            let photo = machine.photo(&format!("{folder}IMG_{number:04}.jpg"), &number.to_le_bytes());
            let id = photo.photo;
            let effects = open.library.handle(machine.now(), Input::Imported(Box::new(photo))).unwrap();
            open.perform(&machine, effects);
            id
        })
        .collect();
    assert_eq!((open.library.replica().own_length(), open.listed().len()), (length, 0));
    machine.elapsed += Duration::from_secs(16);
    open.give(&mut machine, vec![]);
    assert_eq!(open.listed(), photos);
    drop(open);
    assert_eq!(machine.open(None).listed(), photos);
}
