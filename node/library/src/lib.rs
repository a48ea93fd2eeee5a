//! A library: the replica, the catalog and the counts of copies, joined into one pure state machine.
//!
//! [`Library`] stands between its driver and the [`Replica`]: replica effects pass through, except that accepted
//! envelopes become catalog changes and changed holdings become counts. No clock, disk, socket or thread inside: the
//! node drives it with real ones, the simulator with virtual ones.
//!
//! Invariants:
//! - an import is acknowledged ([`Effect::Catalogued`]) only after a flush that began behind its deposit and its
//!   catalog change;
//! - what a checkpoint holds (documents, photo rows, how far each log was taken in) was true at one moment, and
//!   everything the index must know from before that moment is durable in the index; what came after is taken in
//!   again from the logs;
//! - the catalog of this device's own changes equals what its log says, whatever instant it is killed at.

mod carrying;
mod catalogue;
mod checkpoint;
mod describe;
mod documents;
mod edit;
mod effect;
mod feeding;
mod founding;
mod import;
pub mod index;
mod membership;
mod outstanding;
mod path;
mod photos;
mod record;
mod retirement;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_crdt::{DocumentId, Origin};
use holdfast_protocol::copies::CopyTable;
use holdfast_protocol::envelope::{Envelope, Kind, SignedEnvelope};
use holdfast_protocol::id::{AuthorId, ChunkId, DeviceId};
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::metadata::{Batch, Metadata};
use holdfast_protocol::replica::{self, FetchOutcome, READER_VERSION, Replica, TaskId};
use holdfast_protocol::sealing::{BodySealer, ChunkSealer};
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::{Now, Timestamp};
use zeroize::Zeroizing;

use crate::index::IndexChange;

pub use documents::DocumentHeads;
pub use edit::{CAPTION_BYTES_MAX, EDIT_PHOTOS_MAX, EditError, LABEL_BYTES_MAX, PhotoEdit};
pub use effect::{Effect, Event, Input, LibraryError};
pub use founding::{Founding, Membership};
pub use import::{FileName, ImportId, ImportedPhoto, RemovedName};
pub use membership::RemoveError;
pub use outstanding::{FileChange, Outstanding, Settled};
pub use path::{FilePath, from_character};
pub use photos::{PhotoRow, PhotoTable};
pub use status::{PhotoCopies, Summary};

use checkpoint::Checkpoints;
use documents::Documents;
use feeding::CHANGES_BYTES_MAX;
use import::{ImportQueue, Pending};
use retirement::{Comparison, Incarnation};

/// Envelopes read at once when logs are taken in again.
const REPLAY_PAGE: usize = 256;
/// Manifests that are being read at once.
const READS_MAX: usize = 64;

/// What a library is opened with.
pub struct Config {
    /// The replica's part: library, keys, certificates, place, seed.
    pub replica: replica::Config,
    /// The library's secrets.
    pub secrets: LibrarySecrets,
    /// The newest version of the index that is durable, see [`Effect::Index`]; `None` when it is new or was lost.
    pub indexed: Option<u64>,
    /// What is the same for as long as the machine runs, and new when it starts again: the operating system's boot id.
    /// Random where there is none.
    pub boot: [u8; 16],
}

/// See the head of the module.
pub struct Library<M: Metadata> {
    replica: Replica<M>,
    device: DeviceId,
    key: DeviceKey,
    /// What the keys of further authors come from.
    author_seed: Zeroizing<[u8; 32]>,
    authors_begun: u64,
    comparison: Comparison,
    incarnation: Incarnation,
    /// Logs that ended behind so many envelopes, and whose rest was not carried on yet.
    to_carry: BTreeMap<AuthorId, u64>,
    /// Where logs have ended, when somebody looked last.
    endings: BTreeMap<AuthorId, u64>,
    /// Authors whose positions may mean something else than before.
    to_review: BTreeSet<AuthorId>,
    secrets: LibrarySecrets,
    bodies: BodySealer,
    sealer: ChunkSealer,
    documents: Documents,
    photos: PhotoTable,
    copies: CopyTable,
    imports: ImportQueue,
    /// How many envelopes of each log were taken into the catalog.
    applied: BTreeMap<AuthorId, u64>,
    /// Photos whose facts the index needs (again), whose manifest may be read.
    to_describe: VecDeque<u32>,
    /// Photos whose manifest is not held or could not be read, by manifest.
    awaiting_manifest: BTreeMap<ChunkId, BTreeSet<u32>>,
    /// When those that are held are read again.
    read_again_at: Option<Timestamp>,
    /// Photos whose chunks are not deposited yet, as far as the logs are known.
    awaiting_deposit: BTreeSet<u32>,
    reading: BTreeMap<TaskId, (u32, ChunkId)>,
    /// Imports that are catalogued and wait for a flush.
    unflushed: BTreeMap<TaskId, Vec<ImportId>>,
    /// Edits that wait for a flush.
    unflushed_edits: BTreeSet<TaskId>,
    index_changes: Vec<IndexChange>,
    index_version: u64,
    /// News that was not told yet.
    events: Vec<Event>,
    checkpoints: Checkpoints,
    next_task: u64,
}

impl<M: Metadata> Library<M> {
    /// Opens a library and takes in what its logs say beyond the last checkpoint. `holdings` says whether the store
    /// durably holds a chunk.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(
        config: Config,
        metadata: M,
        holdings: &dyn Fn(&ChunkId) -> bool,
        now: Now,
    ) -> Result<(Self, Vec<Effect>), LibraryError> {
        let device = config.replica.device.device_id();
        let key = config.replica.device.clone();
        let author_seed = Zeroizing::new(blake3::derive_key("holdfast 1 authors of a run", &config.replica.seed));
        let incarnation = Incarnation::new(config.boot, &config.replica.seed);
        let (replica, effects) = Replica::open(config.replica, metadata, holdings)?;
        let mut library = Self {
            device,
            key,
            author_seed,
            authors_begun: 0,
            comparison: Comparison::default(),
            incarnation,
            to_carry: BTreeMap::new(),
            endings: BTreeMap::new(),
            to_review: BTreeSet::new(),
            bodies: BodySealer::new(&config.secrets),
            sealer: ChunkSealer::new(&config.secrets),
            secrets: config.secrets,
            documents: Documents::new(replica.author()),
            photos: PhotoTable::default(),
            copies: CopyTable::default(),
            imports: ImportQueue::default(),
            applied: BTreeMap::new(),
            to_describe: VecDeque::new(),
            awaiting_manifest: BTreeMap::new(),
            read_again_at: None,
            awaiting_deposit: BTreeSet::new(),
            reading: BTreeMap::new(),
            unflushed: BTreeMap::new(),
            unflushed_edits: BTreeSet::new(),
            index_changes: Vec::new(),
            index_version: 0,
            events: Vec::new(),
            checkpoints: Checkpoints::default(),
            next_task: 0,
            replica,
        };
        let mut out = Vec::new();
        library.restore(config.indexed)?;
        library.replay(&mut out)?;
        library.refresh_places();
        for (holder, holdings) in library.replica.holders() {
            library.copies.apply(holder, &holdings.as_changes());
        }
        // Accepted envelopes were replayed from the log, holdings were counted whole.
        let passed = effects
            .into_iter()
            .filter(|effect| !matches!(effect, replica::Effect::Accepted(_) | replica::Effect::HoldingsChanged { .. }));
        out.extend(passed.map(Effect::Replica));
        library.hold_imports(now);
        library.find_endings()?;
        library.review_runs()?;
        library.settle(now, &mut out)?;
        Ok((library, out))
    }

    /// Takes one input; returns what to do, in order.
    ///
    /// # Errors
    /// When the store cannot be read or written; the library must be opened again then.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, LibraryError> {
        let mut out = Vec::new();
        match input {
            Input::Replica(input) => self.handle_replica(now, input, &mut out)?,
            Input::Imported(photo) => self.imports.push(now, Pending::Photo(photo)),
            Input::NameRemoved(name) => self.imports.push(now, Pending::NameRemoved(name)),
            Input::ChunkRead { task, bytes } => self.describe_read(now, task, bytes.as_deref())?,
            Input::Flushed(task) => self.acknowledge(task, &mut out),
            Input::Indexed(version) => self.checkpoints.indexed(version),
        }
        self.settle(now, &mut out)?;
        Ok(out)
    }

    /// When to hand in the next `Tick` of the replica, unless another input comes first.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = [
            self.replica.next_deadline(),
            self.imports.deadline().filter(|_| !self.is_removed()),
            self.checkpoints.deadline(),
            self.carrying_deadline(),
            self.read_again_at,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The replica below, to ask what peers hold.
    #[must_use]
    pub const fn replica(&self) -> &Replica<M> {
        &self.replica
    }

    /// Keeps something of the driver's own beside the library's metadata.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(&mut self, batch: Batch) -> Result<(), LibraryError> {
        Ok(self.replica.metadata_mut().commit(batch)?)
    }

    /// The photos.
    #[must_use]
    pub const fn photos(&self) -> &PhotoTable {
        &self.photos
    }

    /// What is due at the end of every input: batches to catalogue, manifests to read, index changes, a checkpoint.
    fn settle(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        self.continue_if_retired(now, out)?;
        self.carry(now, out)?;
        self.compare_before_importing(now);
        // Nobody would hear of what is imported by a device that was removed: it stays to be imported when it has joined anew.
        let due = if self.is_removed() { None } else { self.imports.take_due(now) };
        if let Some((batch, lost)) = due {
            for part in import::parted(batch) {
                self.continue_if_behind(now, self.documents_of(&part), out)?;
                self.catalogue(now, part, &lost, out)?;
            }
        }
        self.read_manifests(now, out);
        if !self.index_changes.is_empty() {
            self.index_version += 1;
            let changes = std::mem::take(&mut self.index_changes);
            out.push(Effect::Index { version: self.index_version, changes });
        }
        self.checkpoint_if_due(now)?;
        out.extend(self.events.drain(..).map(Effect::Event));
        Ok(())
    }

    fn handle_replica(&mut self, now: Now, input: replica::Input, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        match &input {
            replica::Input::Fetched { chunk, outcome: FetchOutcome::Stored, .. } => {
                self.imports.stored(&[*chunk]);
                self.manifest_arrived(chunk);
            }
            replica::Input::ChunksStored(chunks) => {
                self.imports.stored(chunks);
                chunks.iter().for_each(|chunk| self.manifest_arrived(chunk));
            }
            replica::Input::ChunksLost(chunks) => self.imports.lost(chunks),
            _ => {}
        }
        let effects = self.replica.handle(now, input)?;
        self.pass(effects, out)
    }

    /// Passes the replica's effects on and consumes those meant for the library.
    fn pass(&mut self, effects: Vec<replica::Effect>, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        let (mut accepted, mut may_have_ended) = (Vec::new(), false);
        for effect in effects {
            match effect {
                replica::Effect::Accepted(envelope) => {
                    may_have_ended |= matches!(envelope.envelope().kind, Kind::Membership | Kind::Carried);
                    accepted.push(envelope);
                }
                replica::Effect::HoldingsChanged { peer, changes } => {
                    self.copies.apply(peer, &changes);
                }
                other => {
                    may_have_ended |= matches!(&other, replica::Effect::Event(replica::Event::ForkProven { .. }));
                    out.push(Effect::Replica(other));
                }
            }
        }
        self.absorb(accepted, out)?;
        if may_have_ended {
            self.find_endings()?;
        }
        self.review_runs()
    }

    /// Takes accepted envelopes into the catalog, all changes of one document at once.
    fn absorb(&mut self, accepted: Vec<SignedEnvelope>, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        let mut changes: BTreeMap<DocumentId, Vec<(Origin, Vec<u8>)>> = BTreeMap::new();
        let mut bytes = 0;
        for signed in &accepted {
            let envelope = signed.envelope();
            let applied = self.applied.entry(envelope.author).or_default();
            if envelope.seq != *applied {
                // Taken in already, or behind one that cannot be read yet: that is read from the log again.
                continue;
            }
            let said = carrying::said_by(self.replica.registry().library(), signed);
            let is_readable = |envelope: &Envelope| {
                let is_known = self.secrets.epochs().any(|epoch| epoch == envelope.epoch);
                envelope.kind != Kind::Catalog || (is_known && envelope.min_reader <= READER_VERSION)
            };
            if !said.iter().all(|said| is_readable(said.envelope())) {
                continue;
            }
            *applied = envelope.seq + 1;
            self.checkpoints.changed();
            for said in said.iter().map(SignedEnvelope::envelope).filter(|said| said.kind == Kind::Catalog) {
                let origin = Origin { author: said.author, log: envelope.author };
                match self.documents.open_body(&self.bodies, said) {
                    Ok(body) => {
                        bytes += body.changes.iter().map(Vec::len).sum::<usize>();
                        let of_document = changes.entry(body.document).or_default();
                        of_document.extend(body.changes.into_iter().map(|change| (origin, change)));
                    }
                    Err(reason) => {
                        self.events.push(Event::BodyUnreadable { author: said.author, seq: said.seq, reason });
                    }
                }
            }
            match envelope.kind {
                Kind::Deposit => {
                    let waiting = std::mem::take(&mut self.awaiting_deposit);
                    self.to_describe.extend(waiting);
                    if self.endings.contains_key(&envelope.author) {
                        self.to_review.insert(envelope.author);
                    }
                }
                Kind::Membership => self.membership_changed(envelope.author, out),
                Kind::Carried => said.iter().for_each(|said| {
                    if said.envelope().kind == Kind::Membership {
                        self.membership_changed(said.envelope().author, out);
                    }
                }),
                Kind::Catalog | Kind::Bundle | Kind::Release | Kind::Other(_) => {}
            }
            if bytes >= CHANGES_BYTES_MAX {
                bytes = 0;
                self.apply_changes(std::mem::take(&mut changes))?;
            }
        }
        self.apply_changes(changes)
    }

    /// Applies changes, document by document, and takes in what they say.
    fn apply_changes(&mut self, changes: BTreeMap<DocumentId, Vec<(Origin, Vec<u8>)>>) -> Result<(), LibraryError> {
        for (document, changes) in changes {
            let photos_before = self.photos.len();
            self.opened(document)?;
            let patches = self.apply(document, &changes)?;
            self.learn(document, patches);
            let photos = (self.photos.len() - photos_before) as u64;
            if let Some((origin, _)) = changes.first().filter(|_| photos > 0) {
                self.events.push(Event::PhotosReceived { author: origin.author, photos });
            }
        }
        Ok(())
    }

    /// Takes in what the logs say beyond the checkpoint.
    fn replay(&mut self, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        for point in self.replica.vector() {
            let mut before = None;
            loop {
                let from = self.applied.get(&point.author).copied().unwrap_or(0);
                // No further than to what cannot be read yet.
                if before.replace(from) == Some(from) {
                    break;
                }
                let page = self.replica.read_log(&point.author, from, REPLAY_PAGE)?;
                self.absorb(page, out)?;
            }
        }
        // Photos of the past are no news.
        self.events.retain(|event| !matches!(event, Event::PhotosReceived { .. }));
        Ok(())
    }

    fn acknowledge(&mut self, task: TaskId, out: &mut Vec<Effect>) {
        let later = self.unflushed.split_off(&TaskId(task.0 + 1));
        let done = std::mem::replace(&mut self.unflushed, later);
        let imports: Vec<_> = done.into_values().flatten().collect();
        if !imports.is_empty() {
            out.push(Effect::Catalogued(imports));
        }
        let later = self.unflushed_edits.split_off(&TaskId(task.0 + 1));
        let done = std::mem::replace(&mut self.unflushed_edits, later);
        out.extend(done.into_iter().map(Effect::Edited));
    }

    fn task(&mut self) -> TaskId {
        self.next_task += 1;
        TaskId(self.next_task)
    }
}
