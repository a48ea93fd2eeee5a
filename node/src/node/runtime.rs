//! The thread that owns the library: inputs in, effects out, one at a time.
//!
//! Invariants: every input is handed in with clocks read for it, and its effects are carried out before the next one;
//! nothing here waits for the network or a disk, so nothing can wait in a circle; while the index is far behind, no
//! new work is taken from folders and peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_disk::{SledMetadata, SystemDisk};
use holdfast_library::{Config, Effect, ImportId, Input, Library, Membership};
use holdfast_media::{MediaPool, PoolConfig, WorkerCommand};
use holdfast_network::{DialFailure, Network, NetworkConfig, NetworkEvent, NetworkHandle};
use holdfast_protocol::id::{ChunkId, DeviceId, LibraryId};
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::metadata::StorageError;
use holdfast_protocol::replica;
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_store::{ChunkStore, StoreConfig};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::connections::Connections;
use super::export::WaitingExport;
use super::folders::follow_links;
use super::imports::ingest_config;
use super::network::{AddressBook, WaitingPairing, is_loopback, sink, source};
use super::news::News;
use super::peers::WaitingCall;
use super::port::Listening;
use super::readers::{Answer, Readers};
use super::space::{Change, Space};
use super::upkeep::Upkeep;
use super::workers::{Completion, Flush, Losses, Workers, completions, covered};
use super::{Clock, NodeError, boot_id, identity, seed};
use crate::api::{Call, EventLog, Happening};
use crate::home::{Discovery, Home, PortMapping, Relaying, Settings};
use crate::index::Index;
use crate::ingest::{ImportEvent, Ingest};

/// Index batches that may wait before folders and peers have to.
const INDEX_BEHIND_MAX: u64 = 64;
/// Threads that look things up for whoever asks.
const READERS: usize = 2;
/// How long a stop waits for the index and the last flush.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How often counts and progress are published while they change.
const NEWS_INTERVAL: Duration = Duration::from_millis(250);

/// A node whose parts are open.
pub(super) struct Runtime {
    pub(super) library: Library<SledMetadata>,
    pub(super) device: DeviceKey,
    pub(super) home: Home,
    pub(super) settings: Settings,
    pub(super) store: Arc<ChunkStore>,
    pub(super) sealer: ChunkSealer,
    pub(super) network: NetworkHandle,
    pub(super) ingest: Ingest,
    pub(super) readers: Readers,
    pub(super) addresses: AddressBook,
    pub(super) listening: Vec<String>,
    /// Where others have seen this node.
    pub(super) observed: Vec<String>,
    pub(super) news: News,
    pub(super) clock: Clock,
    pub(super) losses: Losses,
    pub(super) exports: Vec<WaitingExport>,
    pub(super) connections: Connections,
    pub(super) calls: Vec<WaitingCall>,
    pub(super) pairings: Vec<WaitingPairing>,
    /// Chunks that others deposited and that may be in the store already.
    deposited: Vec<ChunkId>,
    pub(super) space: Space,
    workers: Workers,
    _upkeep: Upkeep,
    sources: Option<Sources>,
    index_sent: u64,
    index_done: u64,
    /// Imports that were handed to the library and are not durable in it yet, with what is told once they are.
    pub(super) uncatalogued: BTreeMap<ImportId, Option<Happening>>,
    /// What came when there was no room to write any of it down.
    held: Option<Arrival>,
    is_stopping: bool,
}

/// Where inputs come from.
struct Sources {
    network: mpsc::Receiver<NetworkEvent>,
    imports: mpsc::Receiver<ImportEvent>,
    completions: mpsc::Receiver<Completion>,
    answers: mpsc::Receiver<Answer>,
    calls: mpsc::Receiver<Call>,
    stopping: watch::Receiver<bool>,
}

/// What came.
#[derive(Debug)]
enum Arrival {
    Network(NetworkEvent),
    Import(ImportEvent),
    Completion(Completion),
    Answer(Answer),
    Call(Call),
    Deadline,
    News,
    Stop,
}

impl Arrival {
    /// Whether taking it may mean to write something down.
    const fn needs_room(&self) -> bool {
        match self {
            Self::Network(_) | Self::Import(_) | Self::Completion(_) | Self::Deadline => true,
            // A call is refused by itself when it needs room.
            Self::Call(_) | Self::Answer(_) | Self::News | Self::Stop => false,
        }
    }
}

/// Opens every part of a node. On a tokio runtime; nothing runs yet but the parts' own threads.
pub(super) fn open(
    home: Home,
    settings: Settings,
    worker: Option<WorkerCommand>,
    events: EventLog,
    calls: mpsc::Receiver<Call>,
    stopping: watch::Receiver<bool>,
) -> Result<Runtime, NodeError> {
    if !home.has_library() {
        return Err(NodeError::NoLibrary { home: home.root().to_owned() });
    }
    let mut settings = settings;
    follow_links(&mut settings);
    let clock = Clock::new();
    let device = identity::read_device_key(&home)?;
    let secrets = identity::read_secrets(&home)?;
    let metadata = SledMetadata::open(&home.metadata())?;
    let membership = Membership::load(&metadata)?.ok_or_else(|| NodeError::LogLost { metadata: home.metadata() })?;
    let sealer = ChunkSealer::new(&secrets);
    let config = StoreConfig { directory: home.store(), fingerprint_key: seed()? };
    let (store, recovery) =
        ChunkStore::open(config, Arc::new(SystemDisk), Box::new(metadata.clone()), Some(sealer.clone()))?;
    let store = Arc::new(store);
    let (index, index_covers) = open_index(&home)?;
    let readers = (0..READERS).map(|_| index.reader()).collect::<Result<_, _>>()?;
    let (readers, answers) = Readers::start(readers, &store)?;

    let config = Config {
        boot: boot_id(home.root())?,
        replica: replica::Config {
            library: secrets.library(),
            device: device.clone(),
            author: membership.author.clone(),
            chain: vec![membership.certificate.wire().to_vec()],
            place: settings.place.as_deref().map(|label| secrets.place_id(label)),
            seed: seed()?,
        },
        secrets: secrets.clone(),
        indexed: index_covers,
    };
    let (library, effects) = Library::open(config, metadata.clone(), &|chunk| store.contains(chunk), clock.now())?;
    let (done, completions) = completions();
    let losses = Losses(done.clone());
    let upkeep = Upkeep::start(store.clone(), recovery.rebuilt_segments > 0, done.clone())?;
    let workers = Workers::start(metadata, store.clone(), index, done)?;

    let listening = Listening::choose(&home, &settings)?;
    let network_config = NetworkConfig {
        discovery: match settings.discovery {
            Discovery::LocalNetwork => holdfast_network::Discovery::LocalNetwork,
            Discovery::Off => holdfast_network::Discovery::Off,
        },
        topic: Some(blake3::derive_key("holdfast 1 gossip topic", secrets.library().as_bytes())),
        announced: settings.announced.clone(),
        port_mapping: match settings.port_mapping {
            PortMapping::Tried if listening.addresses.iter().any(|address| !is_loopback(address)) => {
                holdfast_network::PortMapping::Tried
            }
            _ => holdfast_network::PortMapping::Off,
        },
        relays: settings.relays.clone(),
        chain: library.replica().own_chain(),
        serving: (settings.relaying == Relaying::Members).then(|| secrets.library()),
        required: listening.required,
        ..NetworkConfig::new(device.clone(), listening.addresses.clone())
    };
    let (network, network_events) =
        Network::start(network_config, source(store.clone(), losses.clone()), sink(store.clone()))?;
    listening.keep(&home)?;
    let media = worker.map(|command| Arc::new(MediaPool::new(PoolConfig::new(command))));
    let (ingest, imports) = Ingest::start(ingest_config(&settings, &home), store.clone(), secrets, media)?;

    let sources = Sources { network: network_events, imports, completions, answers, calls, stopping };
    let mut runtime = Runtime {
        addresses: AddressBook::load(library.replica().metadata())?,
        listening: Vec::new(),
        observed: Vec::new(),
        library,
        device,
        settings,
        store,
        sealer,
        network,
        ingest,
        readers,
        news: News::new(events, clock),
        clock,
        losses,
        exports: Vec::new(),
        connections: Connections::default(),
        calls: Vec::new(),
        pairings: Vec::new(),
        deposited: Vec::new(),
        space: Space::new(home.metadata(), home.store()),
        home,
        workers,
        _upkeep: upkeep,
        sources: Some(sources),
        index_sent: index_covers.unwrap_or(0),
        index_done: index_covers.unwrap_or(0),
        uncatalogued: BTreeMap::new(),
        held: None,
        is_stopping: false,
    };
    // Only what a node has started with: an address that cannot be listened on would be in the way of every later start.
    runtime.home.remember(&runtime.settings)?;
    runtime.news.recovered(&recovery);
    if let Some(problem) = listening.problem {
        runtime.news.problem(problem);
    }
    runtime.begin(&membership, effects)?;
    Ok(runtime)
}

/// The index and what it covers; one that cannot be used is made anew.
fn open_index(home: &Home) -> Result<(Index, Option<u64>), NodeError> {
    let path = home.index();
    let opened = Index::open(&path).and_then(|index| Ok((covered(&index)?, index)));
    let (covers, index) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "the index cannot be used and is made anew");
            Index::remove(&path)?;
            let index = Index::open(&path)?;
            (None, index)
        }
    };
    Ok((index, covers))
}

impl Runtime {
    pub(super) fn library_id(&self) -> LibraryId {
        self.library.replica().registry().library()
    }

    pub(super) fn device_id(&self) -> DeviceId {
        self.device.device_id()
    }

    pub(super) const fn begin_stop(&mut self) {
        self.is_stopping = true;
    }

    /// What a node says and does first.
    fn begin(&mut self, membership: &Membership, effects: Vec<Effect>) -> Result<(), NodeError> {
        self.carry_out(effects)?;
        let now = self.clock.now();
        let effects = self.library.introduce(now, &membership.first_body)?;
        self.carry_out(effects)?;
        if let Some(place) = identity::place_to_claim(&self.settings, &membership.certificate) {
            let effects = self.library.set_place(now, &place)?;
            self.carry_out(effects)?;
        }
        for (peer, addresses) in self.addresses.iter() {
            self.network.remember(peer, addresses);
            self.handle(Input::Replica(replica::Input::PeerSeen { peer, addresses: Vec::new() }))?;
        }
        for address in &self.settings.peers {
            self.network.dial_address(address.clone());
        }
        self.news.publish(Happening::Started { version: env!("CARGO_PKG_VERSION").to_owned() });
        Ok(())
    }

    /// Runs until told to stop, or until the disk fails.
    pub(super) async fn run(mut self) -> Result<(), NodeError> {
        let Some(mut sources) = self.sources.take() else { return Ok(()) };
        let outcome = self.run_until_stopped(&mut sources).await;
        let outcome = outcome.and_then(|()| self.say_goodbye());
        self.network.shutdown();
        let stopped = match outcome {
            Ok(()) => self.stop(&mut sources).await,
            Err(error) => Err(error),
        };
        self.news.publish(Happening::Stopping);
        stopped
    }

    fn say_goodbye(&mut self) -> Result<(), NodeError> {
        if self.space.is_standstill() { Ok(()) } else { self.handle(Input::Replica(replica::Input::Stopping)) }
    }

    async fn run_until_stopped(&mut self, sources: &mut Sources) -> Result<(), NodeError> {
        let mut news = tokio::time::interval(NEWS_INTERVAL);
        news.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_stopping {
            self.look_at_space()?;
            let goes_on = !self.space.is_standstill();
            let arrival = match self.held.take_if(|_| goes_on) {
                Some(held) => held,
                None => self.next_arrival(sources, &mut news).await,
            };
            // The wait may have been long.
            self.look_at_space()?;
            if self.space.is_standstill() && arrival.needs_room() {
                self.held = Some(arrival);
                continue;
            }
            self.take(arrival)?;
            self.claim_deposited()?;
            if !self.exports.is_empty() {
                self.start_exports();
            }
            if !self.calls.is_empty() {
                self.answer_calls();
            }
            if !self.pairings.is_empty() {
                self.answer_pairings()?;
            }
        }
        Ok(())
    }

    async fn next_arrival(&self, sources: &mut Sources, news: &mut tokio::time::Interval) -> Arrival {
        let deadline = self.library.next_deadline().map_or(Duration::from_secs(3600), |at| self.clock.until(at));
        // Whatever is handed to the library may have to be written down.
        let goes_on = !self.space.is_standstill();
        let has_room = goes_on && self.index_sent - self.index_done < INDEX_BEHIND_MAX;
        // Local work first: what is finished frees what waits for it.
        tokio::select! {
            biased;
            _ = sources.stopping.wait_for(|stop| *stop) => Arrival::Stop,
            Some(completion) = sources.completions.recv(), if goes_on => Arrival::Completion(completion),
            Some(answer) = sources.answers.recv() => Arrival::Answer(answer),
            Some(call) = sources.calls.recv() => Arrival::Call(call),
            () = sleep_until(Instant::now() + deadline), if goes_on => Arrival::Deadline,
            _ = news.tick() => Arrival::News,
            Some(import) = sources.imports.recv(), if has_room => Arrival::Import(import),
            Some(event) = sources.network.recv(), if has_room => Arrival::Network(event),
        }
    }

    fn take(&mut self, arrival: Arrival) -> Result<(), NodeError> {
        self.news.has_changed |= !matches!(arrival, Arrival::News | Arrival::Call(_) | Arrival::Answer(_));
        match arrival {
            Arrival::Network(event) => self.take_network(event),
            Arrival::Import(event) => self.take_import(event),
            Arrival::Completion(completion) => self.take_completion(completion),
            Arrival::Answer(answer) => {
                self.answer_found(answer);
                Ok(())
            }
            Arrival::Call(call) => self.answer(call),
            Arrival::Deadline => self.handle(Input::Replica(replica::Input::Tick)),
            Arrival::News => {
                self.publish_counts();
                Ok(())
            }
            Arrival::Stop => {
                self.is_stopping = true;
                Ok(())
            }
        }
    }

    /// Says which chunks that others deposited are in the store already.
    fn claim_deposited(&mut self) -> Result<(), NodeError> {
        if self.space.is_standstill() {
            return Ok(());
        }
        let mut stored = std::mem::take(&mut self.deposited);
        stored.retain(|chunk| self.store.contains(chunk));
        if stored.is_empty() {
            return Ok(());
        }
        self.handle(Input::Replica(replica::Input::ChunksStored(stored)))
    }

    fn look_at_space(&mut self) -> Result<(), NodeError> {
        let stood_still = self.space.is_standstill();
        let change = self.space.look(self.clock.now().elapsed);
        if self.space.is_standstill() && !stood_still {
            // What was taken in by now still finds room.
            self.once_durable(|| {});
        }
        match change {
            Some(Change::Full(problem)) => self.news.problem(problem),
            Some(Change::Room(problem)) => {
                self.news.settled(&problem);
                self.ingest.rescan();
                self.handle(Input::Replica(replica::Input::RoomMade))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Whether the index has all that is here.
    pub(super) fn has_settled(&self) -> bool {
        !self.library.is_describing() && self.index_done >= self.index_sent
    }

    /// Gives an answer once everything that is written by now is durable.
    pub(super) fn once_durable(&self, answer: impl FnOnce() + Send + 'static) {
        self.workers.flush(Flush::Answer(Box::new(answer)));
    }

    /// Hands one input to the library and carries out what it asks for.
    pub(super) fn handle(&mut self, input: Input) -> Result<(), NodeError> {
        let effects = self.library.handle(self.clock.now(), input)?;
        self.carry_out(effects)
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), NodeError> {
        for effect in effects {
            match effect {
                Effect::Replica(effect) => self.carry_out_replica(effect)?,
                Effect::ReadChunk { task, chunk } => self.workers.read(task, chunk),
                Effect::Index { version, changes } => {
                    self.index_sent = version;
                    self.workers.index(version, changes);
                }
                Effect::Flush(task) => self.workers.flush(Flush::Library(task)),
                Effect::Catalogued(imports) => self.catalogued(imports),
                // Nobody asks this node for edits yet.
                Effect::Edited(_) => {}
                Effect::Event(event) => {
                    if let holdfast_library::Event::MembershipChanged { .. } = &event {
                        self.network.prove_with(self.library.replica().own_chain());
                    }
                    self.news.of_library(event, &self.library);
                }
            }
        }
        Ok(())
    }

    fn carry_out_replica(&mut self, effect: replica::Effect) -> Result<(), NodeError> {
        use replica::Effect as Do;
        match effect {
            Do::Send { link, frame } => self.network.send(link, frame),
            Do::Disconnect { link, reason } => {
                tracing::debug!(link = link.0, %reason, "closing a connection");
                self.network.disconnect(link);
            }
            Do::Admitted { link, .. } => self.network.admit(link),
            Do::Dial { peer } => {
                self.connections.calling(&peer);
                self.network.dial(peer, self.addresses.of(&peer));
            }
            Do::AddressesLearned { peer, addresses } => {
                self.learn_addresses(peer, addresses)?;
            }
            Do::Gossip(message) => self.network.gossip(message),
            Do::Fetch { link, request, urgent, chunks } => self.network.fetch(link, request, urgent, chunks),
            Do::CancelFetch { link, request } => self.network.cancel_fetch(link, request),
            Do::Serve { link, request, answers } => self.network.serve(link, request, answers),
            Do::Sync(task) => self.workers.flush(Flush::Replica(task)),
            Do::Event(replica::Event::StorageFailed(StorageError::Full)) => {
                self.space.refused(self.clock.now().elapsed);
            }
            Do::Event(event) => {
                if let replica::Event::PeerRefused { peer, reason } = &event {
                    let failure = DialFailure { address: None, reason: reason.to_string() };
                    self.connections.failed(*peer, [failure]);
                }
                self.news.of_replica(event, &self.library);
            }
            Do::Deposited(chunks) => self.deposited.extend(chunks),
            // The library keeps these to itself.
            Do::Accepted(_) | Do::HoldingsChanged { .. } => {}
        }
        Ok(())
    }

    fn take_completion(&mut self, completion: Completion) -> Result<(), NodeError> {
        match completion {
            Completion::Flushed { library, replica } => {
                for task in library {
                    self.handle(Input::Flushed(task))?;
                }
                for task in replica {
                    self.handle(Input::Replica(replica::Input::Synced(task)))?;
                }
                Ok(())
            }
            Completion::ChunkRead { task, bytes } => self.handle(Input::ChunkRead { task, bytes }),
            Completion::Indexed(version) => {
                self.index_done = version;
                self.handle(Input::Indexed(version))
            }
            Completion::Lost(chunk) => self.take_losses(vec![chunk]),
            Completion::Found(chunks) => self.handle(Input::Replica(replica::Input::ChunksStored(chunks))),
            Completion::Changed => {
                self.ingest.rescan();
                Ok(())
            }
            Completion::Failed(error) => Err(error),
        }
    }

    /// The store has lost chunks. It may have got them back since it was found out: whoever stored them said so already.
    pub(super) fn take_losses(&mut self, mut lost: Vec<ChunkId>) -> Result<(), NodeError> {
        lost.retain(|chunk| !self.store.contains(chunk));
        if lost.is_empty() {
            return Ok(());
        }
        self.handle(Input::Replica(replica::Input::ChunksLost(lost)))
    }

    /// Stops in order: no new work, then a checkpoint once the index has caught up, then the last flush.
    async fn stop(&mut self, sources: &mut Sources) -> Result<(), NodeError> {
        if self.space.is_standstill() {
            // Nothing can be written down; the next start takes it in from the logs.
            return Ok(());
        }
        if let Some(held) = self.held.take() {
            self.take(held)?;
        }
        self.library.checkpoint();
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.index_done < self.index_sent {
            let completion = tokio::time::timeout_at(deadline, sources.completions.recv()).await;
            // Too slow, or gone: the next start takes in from the logs what the checkpoint would have held.
            let Ok(Some(completion)) = completion else { break };
            self.take_completion(completion)?;
        }
        self.handle(Input::Indexed(self.index_done))?;
        self.library.keep(self.library.replica().unkept_inventories())?;
        self.library.replica().metadata().flush()?;
        Ok(())
    }
}
