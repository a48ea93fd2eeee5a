//! One device: the library and the store that ship, on a virtual disk, with a virtual index and a person's folder.
//!
//! Invariants: what a crash leaves is what the disk and the metadata kept, the index, and the folder; what was not finished
//! by then is found again by walking through the folder, as the real node does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use holdfast_library::{Config, Effect, Founding, ImportId, Input, Library, LibraryError, Membership};
use holdfast_protocol::id::{ChunkId, DeviceId, PhotoId};
use holdfast_protocol::keys::{AuthorKey, DeviceKey};
use holdfast_protocol::manifest::Manifest;
use holdfast_protocol::message::Declined;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError};
use holdfast_protocol::pairing::Joined;
use holdfast_protocol::position::Position;
use holdfast_protocol::replica::{self, TaskId};
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::Now;
use holdfast_store::ReadError;

use crate::chance::Chance;
use crate::disk::{Death, Ingested, Looked, Machine};
use crate::index::VirtualIndex;
use crate::metadata::VirtualMetadata;
use crate::workload::{Content, Folder, Gesture};

/// An import that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The photo.
    pub photo: PhotoId,
    /// Its bytes.
    pub content: Content,
}

/// An edit of a photo, by the tag that its gesture gave the photo beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The photo.
    pub photo: PhotoId,
    /// The tag.
    pub tag: String,
}

/// See the head of the module.
pub struct Node {
    /// Its number in the world.
    pub number: usize,
    /// The number of the node whose home it has: its own, unless its machine is a copy of another's.
    pub home: usize,
    device: DeviceKey,
    /// None before it has joined.
    secrets: Option<LibrarySecrets>,
    /// Counts the devices that had this number before, whose disks were lost.
    pub incarnation: u32,
    /// Its disk and what lies on it.
    pub machine: Machine,
    /// What its machine calls the time since it was switched on.
    boot: [u8; 16],
    /// The index.
    pub index: VirtualIndex,
    /// The library, while the node is up.
    pub library: Option<Library<VirtualMetadata>>,
    /// Counts starts: completions of an earlier run are nobody's.
    pub run: u32,
    /// Its own chance.
    pub chance: Chance,
    /// The watched folder.
    pub folder: Folder,
    /// When the next tick is due that was asked for.
    pub tick_at: Option<u64>,
    /// The newest version that the library asked of the index.
    pub index_asked: u64,
    /// Everything that was acknowledged to ingest, ever.
    pub acknowledged: Vec<Acknowledged>,
    /// Every edit that was told as done, and that this node has not forgotten since.
    pub edited: Vec<Edited>,
    editing: BTreeMap<TaskId, Vec<Edited>>,
    imports: BTreeMap<ImportId, (Option<Acknowledged>, Vec<ChunkId>, u64)>,
}

impl Node {
    /// A device that founds a library.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn founder(seed: u64, now: Now) -> Result<Self, StorageError> {
        let mut chance = Chance::new(seed, "node 0");
        let founding = Founding::new(&chance.seed(), "node 0", now.wall);
        Self::with(0, chance, founding.device, founding.secrets, &founding.membership)
    }

    /// The key and the chance of a device that does not belong to a library yet; `incarnation` counts those that had its
    /// number before.
    #[must_use]
    pub fn stranger(seed: u64, number: usize, incarnation: u32) -> (DeviceKey, Chance) {
        let again = if incarnation > 0 { format!(" again {incarnation}") } else { String::new() };
        let mut chance = Chance::new(seed, &format!("node {number}{again}"));
        (DeviceKey::from_seed(&chance.seed()), chance)
    }

    /// A device that was admitted.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn admitted(
        number: usize,
        (device, mut chance): (DeviceKey, Chance),
        joined: Joined,
    ) -> Result<Self, StorageError> {
        let author = AuthorKey::from_seed(&chance.seed());
        let membership = Membership::new(joined.secrets.library(), &device, author, joined.certificate, Vec::new());
        Self::with(number, chance, device, joined.secrets, &membership)
    }

    fn with(
        number: usize,
        mut chance: Chance,
        device: DeviceKey,
        secrets: LibrarySecrets,
        membership: &Membership,
    ) -> Result<Self, StorageError> {
        let machine = Machine::new(&mut chance);
        let mut node = Self::on(number, chance, device, machine);
        let mut batch = Batch::new();
        membership.save(&mut batch);
        node.machine.metadata.commit(batch)?;
        node.machine.metadata.complete_flush(node.machine.metadata.begin_flush())?;
        node.secrets = Some(secrets);
        Ok(node)
    }

    /// A device that is still to join: it has a folder, and nothing else.
    #[must_use]
    pub fn waiting(seed: u64, number: usize, incarnation: u32) -> Self {
        let (device, _) = Self::stranger(seed, number, incarnation);
        let mut chance = Chance::new(seed, &format!("node {number} before it joins {incarnation}"));
        let machine = Machine::new(&mut chance);
        Self { incarnation, ..Self::on(number, chance, device, machine) }
    }

    fn on(number: usize, chance: Chance, device: DeviceKey, machine: Machine) -> Self {
        Self {
            number,
            home: number,
            device,
            secrets: None,
            incarnation: 0,
            machine,
            boot: [0; 16],
            index: VirtualIndex::default(),
            library: None,
            run: 0,
            chance,
            folder: Folder::new(),
            tick_at: None,
            index_asked: 0,
            acknowledged: Vec::new(),
            edited: Vec::new(),
            editing: BTreeMap::new(),
            imports: BTreeMap::new(),
        }
    }

    /// The node that a copy of its machine makes, with its home, its folder and its keys.
    #[must_use]
    pub fn copied(&self, number: usize, mut chance: Chance) -> Self {
        let mut boot = [0; 16];
        boot.copy_from_slice(&chance.seed()[..16]);
        Self {
            home: self.home,
            secrets: self.secrets.clone(),
            incarnation: self.incarnation,
            boot,
            index: self.index.clone(),
            folder: self.folder.clone(),
            acknowledged: self.acknowledged.clone(),
            ..Self::on(number, chance, self.device.clone(), self.machine.backup())
        }
    }

    /// Goes on in place of `before`: with the files that are left in its folder.
    pub fn inherit(&mut self, before: &Self) {
        self.incarnation = self.incarnation.max(before.incarnation);
        self.run = before.run + 1;
        self.folder.clone_from(&before.folder);
        for (path, bytes) in before.machine.originals(&before.folder) {
            self.machine.write_original(&path, bytes);
        }
    }

    /// Its identity.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.device.device_id()
    }

    /// Its key, to invite with.
    #[must_use]
    pub const fn device(&self) -> &DeviceKey {
        &self.device
    }

    /// The library's secrets, once it has joined.
    #[must_use]
    pub const fn secrets(&self) -> Option<&LibrarySecrets> {
        self.secrets.as_ref()
    }

    /// Opens store and library on `machine`, as the node does at its start, without touching this node.
    ///
    /// # Errors
    /// When either cannot be opened.
    pub fn open_on(
        &self,
        machine: &mut Machine,
        indexed: Option<u64>,
        seed: [u8; 32],
        now: Now,
    ) -> Result<(Library<VirtualMetadata>, Membership, Vec<Effect>), LibraryError> {
        let missing = || StorageError::Damaged { what: "this device's membership".to_owned() };
        let membership = Membership::load(&machine.metadata)?.ok_or_else(missing)?;
        let stranger = || StorageError::Damaged { what: "this device's library, which it has not joined".to_owned() };
        let secrets = self.secrets.as_ref().ok_or_else(stranger)?;
        machine.open(ChunkSealer::new(secrets), blake3::derive_key("holdfast simulator fingerprints", &seed))?;
        let config = Config {
            boot: self.boot,
            replica: replica::Config {
                library: secrets.library(),
                device: self.device.clone(),
                author: membership.author.clone(),
                chain: vec![membership.certificate.wire().to_vec()],
                place: None,
                seed,
            },
            secrets: secrets.clone(),
            indexed,
        };
        let holds = |chunk: &ChunkId| machine.holds(chunk);
        let (library, effects) = Library::open(config, machine.metadata.clone(), &holds, now)?;
        Ok((library, membership, effects))
    }

    /// Starts the node: opens its store and library, introduces it, says where it stands.
    ///
    /// # Errors
    /// When the store or the library cannot be opened or written; the node is down then.
    pub fn start(&mut self, now: Now) -> Result<Vec<Effect>, LibraryError> {
        self.run += 1;
        self.tick_at = None;
        self.index_asked = 0;
        let seed = self.chance.seed();
        let mut machine = std::mem::replace(&mut self.machine, Machine::new(&mut Chance::new(0, "nothing")));
        let opened = self.open_on(&mut machine, self.index.version(), seed, now);
        self.machine = machine;
        let (mut library, membership, mut effects) = opened?;
        effects.extend(library.introduce(now, &membership.first_body)?);
        effects.extend(library.set_place(now, &format!("place {}", self.home % 2))?);
        self.library = Some(library);
        Ok(effects)
    }

    /// The node ends without having been told to.
    pub fn die(&mut self, death: Death) {
        self.library = None;
        self.machine.die(death, &mut self.chance);
        if death == Death::PowerLoss {
            self.boot.copy_from_slice(&self.chance.seed()[..16]);
        }
        self.imports.clear();
        self.editing.clear();
    }

    /// Photos are being edited.
    pub fn edit_begins(&mut self, task: TaskId, edited: Vec<Edited>) {
        self.editing.insert(task, edited);
    }

    /// The library says that an edit is done.
    pub fn edit_is_done(&mut self, task: TaskId) {
        self.edited.extend(self.editing.remove(&task).into_iter().flatten());
    }

    /// Hands an input to the library.
    ///
    /// # Errors
    /// When the library fails.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, LibraryError> {
        self.library.as_mut().map_or(Ok(Vec::new()), |library| library.handle(now, input))
    }

    /// A person changes the folder, and ingest sees it; the inputs for the library. What was read is handed over by a
    /// later [`Node::adopt`].
    ///
    /// # Errors
    /// When the store fails; a later [`Node::walk`] tries again.
    pub fn take_gesture(&mut self, gesture: Gesture) -> Result<Ingested, StorageError> {
        match gesture {
            Gesture::Write { path, content } => {
                let before = self.folder.get(&path).copied();
                if before.is_some_and(|(before, _)| before == content) {
                    return Ok(Ingested::default());
                }
                self.machine.write_original(&path, content.bytes().into());
                let photo = before.map_or(PhotoId::from_bytes([0; 32]), |(_, photo)| photo);
                self.folder.insert(path.clone(), (content, photo));
                self.look_at(&path)
            }
            Gesture::Move { from, to } => {
                let Some(&of) = self.folder.get(&from) else { return Ok(Ingested::default()) };
                self.machine.write_original(&to, of.0.bytes().into());
                self.folder.insert(to.clone(), of);
                // As in a walk: the name where it lay goes only after the one where it lies is in.
                let mut out = self.look_at(&to)?;
                out.append(self.take_gesture(Gesture::Remove { path: from })?);
                Ok(out)
            }
            Gesture::Remove { path } => {
                if self.folder.remove(&path).is_none() {
                    return Ok(Ingested::default());
                }
                self.machine.remove_original(&path);
                let mut out = self.adopt()?;
                out.append(self.machine.gone(&self.folder_name(), &Machine::original(&path))?);
                Ok(out)
            }
        }
    }

    /// A person changes the folder, and nobody looks.
    pub fn change_folder(&mut self, gesture: Gesture) {
        let unknown = PhotoId::from_bytes([0; 32]);
        match gesture {
            Gesture::Write { path, content } => {
                self.machine.write_original(&path, content.bytes().into());
                self.folder.insert(path, (content, unknown));
            }
            Gesture::Move { from, to } => {
                if let Some((content, _)) = self.folder.remove(&from) {
                    self.machine.remove_original(&from);
                    self.change_folder(Gesture::Write { path: to, content });
                }
            }
            Gesture::Remove { path } => {
                self.folder.remove(&path);
                self.machine.remove_original(&path);
            }
        }
    }

    fn look_at(&mut self, path: &str) -> Result<Ingested, StorageError> {
        let Some(&(content, _)) = self.folder.get(path) else { return Ok(Ingested::default()) };
        let mut out = if self.machine.is_reading(path) { self.adopt()? } else { Ingested::default() };
        let Some(secrets) = &self.secrets else { return Ok(out) };
        let folder = self.folder_name();
        match self.machine.look_at(secrets, &folder, path, content)? {
            Looked::Nothing => {}
            Looked::Read(photo) => drop(self.folder.insert(path.to_owned(), (content, photo))),
            Looked::Unreadable => out.is_to_walk_again = true,
        }
        Ok(out)
    }

    /// Ingest compares the folder with what it knows.
    ///
    /// # Errors
    /// When the store fails; a later walk tries again.
    pub fn walk(&mut self) -> Result<Ingested, StorageError> {
        let mut out = self.adopt()?;
        let (to_read, gone) = self.machine.walk(&self.folder)?;
        for path in to_read {
            out.append(self.look_at(&path)?);
        }
        // Names go only after everything new is in: a moved file is never without one.
        out.append(self.adopt()?);
        for path in gone {
            out.append(self.machine.gone(&self.folder_name(), &path)?);
        }
        Ok(out)
    }

    /// What was read becomes durable and is handed to the library.
    ///
    /// # Errors
    /// When the store fails; a later walk tries again.
    pub fn adopt(&mut self) -> Result<Ingested, StorageError> {
        let ingested = self.machine.adopt()?;
        for (import, photo, content, chunks) in &ingested.imports {
            let acknowledged = content.map(|content| Acknowledged { photo: *photo, content });
            self.imports.insert(*import, (acknowledged, chunks.clone(), self.machine.batches));
        }
        Ok(ingested)
    }

    /// The library has acknowledged `imports`; what is to be said of chunks.
    ///
    /// # Errors
    /// When the store fails; a later walk tries again.
    pub fn take_acknowledgement(&mut self, imports: &[ImportId]) -> Result<Vec<Input>, StorageError> {
        let mut inputs = Vec::new();
        for import in imports {
            let Some((acknowledged, chunks, batch)) = self.imports.remove(import) else { continue };
            self.acknowledged.extend(acknowledged);
            // The file's record is as durable as the acknowledgement: what was destroyed before may be there again.
            for chunk in chunks {
                if self.machine.destroyed.get(&chunk).is_some_and(|batches| *batches < batch) {
                    let (served, lost) = self.serve_chunk(&chunk);
                    inputs.extend(lost);
                    if served.is_ok() {
                        self.machine.destroyed.remove(&chunk);
                    }
                }
            }
        }
        inputs.extend(self.machine.catalogued(imports)?);
        Ok(inputs)
    }

    /// Whether ingest waits for nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    /// Answers [`Effect::ReadChunk`]; and what else is to be said because of it.
    #[must_use]
    pub fn read_chunk(&self, task: TaskId, chunk: &ChunkId) -> Vec<Input> {
        let read = self.machine.read(chunk);
        let lost = read.as_ref().err().filter(|error| error.is_loss());
        let lost = lost.map(|_| Input::Replica(replica::Input::ChunksLost(vec![*chunk])));
        lost.into_iter().chain([Input::ChunkRead { task, bytes: read.ok() }]).collect()
    }

    /// A chunk for a peer that asked for it; and what else is to be said because of it.
    ///
    /// # Errors
    /// Why it is not given.
    pub fn serve_chunk(&self, chunk: &ChunkId) -> (Result<Bytes, Declined>, Option<Input>) {
        match self.machine.read(chunk) {
            Ok(sealed) => (Ok(sealed.into()), None),
            Err(ReadError::Storage(_)) => (Err(Declined::Busy), None),
            Err(error) => {
                let lost = || Input::Replica(replica::Input::ChunksLost(vec![*chunk]));
                (Err(Declined::NotHeld), error.is_loss().then(lost))
            }
        }
    }

    /// The name of its watched folder.
    #[must_use]
    pub fn folder_name(&self) -> String {
        folder_name(self.home, self.incarnation)
    }

    /// A photo's file, put together from this node's own chunks; `None` when that cannot be done.
    #[must_use]
    pub fn read_photo(
        &self,
        library: &Library<VirtualMetadata>,
        photo: &PhotoId,
        opened: &mut Opened,
    ) -> Option<Vec<u8>> {
        self.read_photo_on(&self.machine, library, photo, opened)
    }

    /// The same from the chunks of another machine.
    #[must_use]
    pub fn read_photo_on(
        &self,
        machine: &Machine,
        library: &Library<VirtualMetadata>,
        photo: &PhotoId,
        opened: &mut Opened,
    ) -> Option<Vec<u8>> {
        let secrets = self.secrets.as_ref()?;
        let sealer = ChunkSealer::new(secrets);
        let run = library.photo_copies(photo)?.run;
        let first = library.replica().chunk_at(&Position { author: run.author, index: run.start })?;
        let manifest = Manifest::open(&sealer, &first.chunk, &machine.read(&first.chunk).ok()?, |_| None).ok()?;
        let mut file = Vec::new();
        for piece in &manifest.content.chunks {
            file.extend_from_slice(opened.open(&sealer, &piece.chunk, machine.read(&piece.chunk).ok()?)?);
        }
        (manifest.photo(secrets) == *photo).then_some(file)
    }
}

/// Chunks that were opened, sealed and in the open: nodes that hold the same bytes need not each open them.
#[derive(Debug, Default)]
pub struct Opened(BTreeMap<ChunkId, (Vec<u8>, Vec<u8>)>);

impl Opened {
    fn open(&mut self, sealer: &ChunkSealer, chunk: &ChunkId, sealed: Vec<u8>) -> Option<&[u8]> {
        let (known, plain) = match self.0.entry(*chunk) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let plain = sealer.open(chunk, &sealed).ok()?;
                return Some(&unknown.insert((sealed, plain)).1);
            }
        };
        (*known == sealed).then_some(plain)
    }
}

fn folder_name(number: usize, incarnation: u32) -> String {
    if incarnation == 0 { format!("pictures-{number}") } else { format!("pictures-{number}-{incarnation}") }
}
