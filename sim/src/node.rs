//! One device: the real library on virtual metadata, with a virtual chunk store, index and folder.
//!
//! Invariants: what a crash leaves is the flushed part of the metadata, chunks that were reported as durable, the index,
//! and the folder with what ingest has not seen acknowledged; an import is handed over only when its chunks are durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast::library::{
    Config, Effect, FileName, Founding, ImportId, ImportedPhoto, Input, Library, LibraryError, Membership, RemovedName,
};
use holdfast_protocol::id::{ChunkId, DeviceId, PhotoId};
use holdfast_protocol::keys::{AuthorKey, DeviceKey};
use holdfast_protocol::manifest::Manifest;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError};
use holdfast_protocol::pairing::{Joined, Ticket};
use holdfast_protocol::position::Position;
use holdfast_protocol::replica::{self, TaskId};
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::Now;

use crate::chance::Chance;
use crate::index::VirtualIndex;
use crate::metadata::VirtualMetadata;
use crate::workload::{Content, Folder, Gesture, prepare};

/// Something that ingest has handed over and not seen acknowledged.
#[derive(Debug, Clone)]
enum Outstanding {
    Import(Box<ImportedPhoto>, Content),
    Removal(PhotoId, FileName),
}

/// An import that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// The photo.
    pub photo: PhotoId,
    /// Its bytes.
    pub content: Content,
}

/// See the head of the module.
pub struct Node {
    /// Its number in the world.
    pub number: usize,
    device: DeviceKey,
    secrets: LibrarySecrets,
    /// What survives a crash only where it was flushed.
    pub metadata: VirtualMetadata,
    /// The durable chunks.
    pub chunks: BTreeMap<ChunkId, Bytes>,
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
    outstanding: BTreeMap<ImportId, Outstanding>,
    next_import: u64,
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

    /// The key and the chance of a device that does not belong to a library yet.
    #[must_use]
    pub fn stranger(seed: u64, number: usize) -> (DeviceKey, Chance) {
        let mut chance = Chance::new(seed, &format!("node {number}"));
        (DeviceKey::from_seed(&chance.seed()), chance)
    }

    /// A device that was admitted.
    ///
    /// # Errors
    /// When the metadata cannot be written.
    pub fn admitted(
        number: usize,
        (device, mut chance): (DeviceKey, Chance),
        ticket: &Ticket,
        joined: Joined,
    ) -> Result<Self, StorageError> {
        let author = AuthorKey::from_seed(&chance.seed());
        let membership = Membership::new(ticket.library(), &device, author, joined.certificate, Vec::new());
        Self::with(number, chance, device, joined.secrets, &membership)
    }

    fn with(
        number: usize,
        chance: Chance,
        device: DeviceKey,
        secrets: LibrarySecrets,
        membership: &Membership,
    ) -> Result<Self, StorageError> {
        let mut metadata = VirtualMetadata::default();
        let mut batch = Batch::new();
        membership.save(&mut batch);
        metadata.commit(batch)?;
        metadata.complete_flush(metadata.begin_flush());
        Ok(Self {
            number,
            device,
            secrets,
            metadata,
            chunks: BTreeMap::new(),
            index: VirtualIndex::default(),
            library: None,
            run: 0,
            chance,
            folder: Folder::new(),
            tick_at: None,
            index_asked: 0,
            acknowledged: Vec::new(),
            outstanding: BTreeMap::new(),
            next_import: 0,
        })
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

    /// Opens the library from `metadata`, as the node does at its start, without touching this node.
    ///
    /// # Errors
    /// When the library cannot be opened.
    pub fn open_from(
        &self,
        metadata: VirtualMetadata,
        indexed: Option<u64>,
        seed: [u8; 32],
        now: Now,
    ) -> Result<(Library<VirtualMetadata>, Membership, Vec<Effect>), LibraryError> {
        let missing = || StorageError::Damaged { what: "this device's membership".to_owned() };
        let membership = Membership::load(&metadata)?.ok_or_else(missing)?;
        let config = Config {
            replica: replica::Config {
                library: self.secrets.library(),
                device: self.device.clone(),
                author: membership.author.clone(),
                chain: vec![membership.certificate.wire().to_vec()],
                place: None,
                seed,
            },
            secrets: self.secrets.clone(),
            indexed,
        };
        let holds = |chunk: &ChunkId| self.chunks.contains_key(chunk);
        let (library, effects) = Library::open(config, metadata, &holds, now)?;
        Ok((library, membership, effects))
    }

    /// Starts the node: opens its library, introduces it, says where it stands.
    ///
    /// # Errors
    /// When the library cannot be opened or written.
    pub fn start(&mut self, now: Now) -> Result<Vec<Effect>, LibraryError> {
        self.run += 1;
        self.tick_at = None;
        self.index_asked = 0;
        let seed = self.chance.seed();
        let (mut library, membership, mut effects) =
            self.open_from(self.metadata.clone(), self.index.version(), seed, now)?;
        effects.extend(library.introduce(now, &membership.first_body)?);
        effects.extend(library.set_place(now, &format!("place {}", self.number % 2))?);
        self.library = Some(library);
        Ok(effects)
    }

    /// The machine dies.
    pub fn crash(&mut self) {
        self.library = None;
        let surviving = self.chance.below(self.metadata.unflushed() + 1);
        self.metadata.crash(surviving);
    }

    /// Hands an input to the library.
    ///
    /// # Errors
    /// When the library fails.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, LibraryError> {
        self.library.as_mut().map_or(Ok(Vec::new()), |library| library.handle(now, input))
    }

    /// Changes the folder and hands the change over, its chunks durable; the inputs for the library.
    pub fn take_gesture(&mut self, gesture: Gesture, now: Now) -> Vec<Input> {
        match gesture {
            Gesture::Write { path, content } => {
                let before = self.folder.get(&path).copied();
                if before.is_some_and(|(before, _)| before == content) {
                    return Vec::new();
                }
                let prepared = prepare(&self.secrets, content, self.name(&path, now));
                self.chunks.extend(prepared.chunks);
                let photo = prepared.imported.photo;
                self.folder.insert(path, (content, photo));
                let replaces = before.map(|(_, photo)| photo).into_iter().collect();
                let imported = Box::new(ImportedPhoto { replaces, ..prepared.imported });
                self.hand_over(Outstanding::Import(imported, content))
            }
            Gesture::Remove { path } => {
                let Some((_, photo)) = self.folder.remove(&path) else { return Vec::new() };
                let name = self.name(&path, now);
                self.hand_over(Outstanding::Removal(photo, name))
            }
        }
    }

    /// Everything that was not acknowledged before a crash, in its order, for the library again.
    pub fn hand_over_again(&mut self) -> Vec<Input> {
        let outstanding = std::mem::take(&mut self.outstanding);
        outstanding.into_values().flat_map(|again| self.hand_over(again)).collect()
    }

    fn hand_over(&mut self, outstanding: Outstanding) -> Vec<Input> {
        let import = ImportId(self.next_import);
        self.next_import += 1;
        self.outstanding.insert(import, outstanding.clone());
        match outstanding {
            Outstanding::Import(imported, _) => {
                let stored = imported.chunks.iter().map(|(chunk, _)| *chunk).collect();
                let imported = Input::Imported(Box::new(ImportedPhoto { import, ..*imported }));
                vec![imported, Input::Replica(replica::Input::ChunksStored(stored))]
            }
            Outstanding::Removal(photo, name) => {
                vec![Input::NameRemoved(Box::new(RemovedName { import, photo, name }))]
            }
        }
    }

    /// The library has acknowledged `imports`.
    pub fn take_acknowledgement(&mut self, imports: &[ImportId]) {
        for import in imports {
            if let Some(Outstanding::Import(imported, content)) = self.outstanding.remove(import) {
                self.acknowledged.push(Acknowledged { photo: imported.photo, content });
            }
        }
    }

    /// Whether ingest waits for nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Answers [`Effect::ReadChunk`].
    #[must_use]
    pub fn read_chunk(&self, task: TaskId, chunk: &ChunkId) -> Input {
        Input::ChunkRead { task, bytes: self.chunks.get(chunk).map(|bytes| bytes.to_vec()) }
    }

    fn name(&self, path: &str, now: Now) -> FileName {
        let mtime_ns = i64::try_from(now.elapsed.as_millis()).unwrap_or(i64::MAX);
        FileName { folder: self.folder_name(), path: path.to_owned(), mtime_ns, size: 0 }
    }

    /// The name of its watched folder.
    #[must_use]
    pub fn folder_name(&self) -> String {
        format!("pictures-{}", self.number)
    }

    /// A photo's file, put together from this node's own chunks; `None` when that cannot be done.
    #[must_use]
    pub fn read_photo(&self, library: &Library<VirtualMetadata>, photo: &PhotoId) -> Option<Vec<u8>> {
        let sealer = ChunkSealer::new(&self.secrets);
        let run = library.photo_copies(photo)?.run;
        let first = library.replica().chunk_at(&Position { author: run.author, index: run.start })?;
        let manifest = Manifest::open(&sealer, &first.chunk, self.chunks.get(&first.chunk)?, |_| None).ok()?;
        let mut file = Vec::new();
        for piece in &manifest.content.chunks {
            file.extend(sealer.open(&piece.chunk, self.chunks.get(&piece.chunk)?).ok()?);
        }
        (manifest.photo(&self.secrets) == *photo).then_some(file)
    }
}
