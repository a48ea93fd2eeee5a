//! The loop around the swarm: connections, discovery, and what it is asked to do.

mod dialling;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_protocol::{
    id::DeviceId,
    replica::{Input as ReplicaInput, LinkId},
};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm,
    core::ConnectedPoint,
    gossipsub, identify,
    identity::Keypair,
    mdns,
    multiaddr::Protocol,
    ping,
    swarm::{self, ConnectionId, SwarmEvent},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{sleep, timeout},
};

use self::dialling::{Pair, explain, failures};
use super::{
    ChunkSink, ChunkSource, LinkEnd, Misbehaviour, NetworkConfig, NetworkEvent, PairError, Path, Required, StartError,
    addresses::{self, AddressBook},
    behaviour::{Behaviour, BehaviourEvent},
    chunks::{self, Chunks},
    control,
    links::{COMMANDS_MAX, Link, Rank, Shared},
    pairing::{self, Pairings},
    relays::Relays,
    streams::{self, Inbound, OpenRefused},
    transport::{self, Relaying},
};

/// Events that wait for the runtime.
const EVENTS_MAX: usize = 1024;
/// Time for the last frames of a link.
const FAREWELL: Duration = Duration::from_secs(1);
/// Unanswered pings in a row that end a connection.
const PINGS_MISSED_MAX: u32 = 3;

/// What the swarm is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Dial { peer: DeviceId, addresses: Vec<String> },
    DialAddress { address: String },
    Remember { peer: DeviceId, addresses: Vec<String> },
    Admitted { link: LinkId },
    Gossip { message: Bytes },
    Pair { peer: DeviceId, addresses: Vec<String>, request: Bytes, answer: PairAnswer },
    Open { peer: PeerId, connection: ConnectionId, protocol: StreamProtocol, reply: OpenReply },
    End { link: LinkId },
    Ended { link: LinkId },
    AskRelay { relay: PeerId },
    Shutdown,
}

type PairAnswer = oneshot::Sender<Result<Bytes, PairError>>;
type OpenReply = oneshot::Sender<Result<Stream, OpenRefused>>;

/// Binds the addresses and starts the loop.
pub(super) fn start(
    config: NetworkConfig,
    source: ChunkSource,
    sink: ChunkSink,
) -> Result<(Arc<Shared>, mpsc::Receiver<NetworkEvent>), StartError> {
    let setup = |detail: String| StartError::Setup { detail };
    let keypair = Keypair::ed25519_from_bytes(*config.device.to_bytes()).map_err(|error| setup(error.to_string()))?;
    let relaying = if config.relays.is_empty() { Relaying::Off } else { Relaying::On };
    let transports = transport::build(&keypair, relaying)?;
    let behaviour = Behaviour::new(&config, &keypair, transports.relay)?;
    let swarm_config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let peer_id = keypair.public().to_peer_id();
    let mut swarm = Swarm::new(transports.transport, behaviour, peer_id, swarm_config);
    listen_on_all(&mut swarm, &config)?;
    let mut relays = Relays::parse(&config.relays)?;
    for relay in relays.peers() {
        relays.ask(&mut swarm, &relay);
    }
    let (events, happening) = mpsc::channel(EVENTS_MAX);
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let chunks = Chunks::start(source, sink, events.clone()).map_err(|error| setup(error.to_string()))?;
    let shared = Arc::new(Shared { commands, events, links: Mutex::default(), pairings: Pairings::default(), chunks });
    let driver = Driver {
        swarm,
        shared: shared.clone(),
        local: config.device.device_id(),
        admission_deadline: config.admission_deadline,
        book: AddressBook::default(),
        relays,
        connections: BTreeMap::new(),
        standing: BTreeMap::new(),
        ending: BTreeMap::new(),
        dials: BTreeMap::new(),
        unknown_dials: BTreeSet::new(),
        pairs: Vec::new(),
        missed: BTreeMap::new(),
        next_link: 1,
    };
    tokio::spawn(driver.run(asked));
    Ok((shared, happening))
}

fn listen_on_all(swarm: &mut Swarm<Behaviour>, config: &NetworkConfig) -> Result<(), StartError> {
    let mut refused = Vec::new();
    for address in &config.listen {
        match listen(swarm, address, addresses::parse(address)) {
            Err(error) if config.required == Required::One => {
                tracing::info!(%error, "an address is left out");
                refused.push(error);
            }
            outcome => outcome?,
        }
    }
    match refused.pop() {
        Some(error) if refused.len() + 1 == config.listen.len() => Err(error),
        _ => Ok(()),
    }
}

fn listen(swarm: &mut Swarm<Behaviour>, text: &str, parsed: Result<Multiaddr, String>) -> Result<(), StartError> {
    let address = parsed.map_err(|detail| StartError::Address { address: text.to_owned(), detail })?;
    match swarm.listen_on(address) {
        Ok(_) => Ok(()),
        Err(error) => Err(StartError::Listen { address: text.to_owned(), detail: error.to_string() }),
    }
}

/// Owns the swarm.
///
/// Invariants: `standing` names the one link of each connected peer and `connections` its connection, until it is told
/// to have ended; every `Connected` is followed by exactly one `Disconnected`, before the next `Connected`
/// of the same peer.
struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    local: DeviceId,
    admission_deadline: Duration,
    book: AddressBook,
    relays: Relays,
    connections: BTreeMap<ConnectionId, LinkId>,
    standing: BTreeMap<PeerId, Arc<Link>>,
    /// Links that are out of the shared table and not yet told to have ended.
    ending: BTreeMap<LinkId, Arc<Link>>,
    /// Addresses that are still to be tried, by peer, route by route.
    dials: BTreeMap<PeerId, VecDeque<Vec<Multiaddr>>>,
    /// Dials of addresses whose peer is not known.
    unknown_dials: BTreeSet<ConnectionId>,
    pairs: Vec<Pair>,
    missed: BTreeMap<ConnectionId, Missed>,
    next_link: u64,
}

/// Pings without an answer, and how far the link had come.
#[derive(Default)]
struct Missed {
    pings: u32,
    progress: u64,
}

impl Driver {
    async fn run(mut self, mut asked: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = asked.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.command(command).await,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
            }
        }
        let links = std::mem::take(&mut *self.shared.links()).into_values();
        for link in links.chain(std::mem::take(&mut self.ending).into_values()) {
            link.end(LinkEnd::Closed);
            link.closed.cancel();
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addresses } => match self.remember(&peer, &addresses) {
                Some(peer_id) => self.dial(peer_id).await,
                None => self.dial_failed(Some(peer), "its id is not a key".to_owned()).await,
            },
            Command::DialAddress { address } => self.dial_address(&address).await,
            Command::Remember { peer, addresses } => {
                self.remember(&peer, &addresses);
            }
            Command::Admitted { link } => {
                if let Some(link) = self.shared.link(link)
                    && let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut()
                {
                    gossip.admit(link.peer_id, link.connection);
                }
            }
            Command::Gossip { message } => {
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut()
                    && let Err(detail) = gossip.publish(message.into())
                {
                    tracing::debug!(%detail, "gossip not published");
                }
            }
            Command::Pair { peer, addresses, request, answer } => match self.remember(&peer, &addresses) {
                Some(peer) => {
                    self.pairs.push(Pair { peer, request, answer });
                    match self.standing.get(&peer).cloned() {
                        Some(link) => self.pair_on(&link),
                        None => self.dial(peer).await,
                    }
                }
                None => {
                    let _ = answer.send(Err(PairError::Unreachable { detail: "its id is not a key".to_owned() }));
                }
            },
            Command::Open { peer, connection, protocol, reply } => {
                self.swarm.behaviour_mut().streams.open(peer, connection, protocol, reply);
            }
            Command::End { link } => self.end_link(link).await,
            Command::Ended { link } => self.ended(link).await,
            Command::AskRelay { relay } => self.relays.ask(&mut self.swarm, &relay),
            Command::Shutdown => {}
        }
    }

    fn remember(&mut self, peer: &DeviceId, texts: &[String]) -> Option<PeerId> {
        let peer_id = addresses::peer_id(peer)?;
        self.book.remember(peer_id, texts.iter().filter_map(|text| addresses::parse(text).ok()));
        Some(peer_id)
    }

    async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } if self.relays.contains(&peer_id) => {}
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.unknown_dials.remove(&connection_id);
                self.connected(peer_id, connection_id, endpoint).await;
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.missed.remove(&connection_id);
                if let Some(link) = self.connections.get(&connection_id).copied() {
                    self.end_link(link).await;
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error, .. } => {
                let reason = explain(&error);
                if let Some(peer) = peer_id.as_ref().and_then(addresses::device_id) {
                    self.shared.hint(NetworkEvent::AddressesFailed { peer, failures: failures(&error) });
                }
                if self.unknown_dials.remove(&connection_id) {
                    self.dial_failed(None, reason).await;
                } else if let Some(peer) = peer_id.filter(|peer| self.dials.contains_key(peer)) {
                    self.dial_next(peer, reason).await;
                }
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                if let Some((relay, wait)) = self.relays.closed(listener_id) {
                    let commands = self.shared.commands.clone();
                    tokio::spawn(async move {
                        sleep(wait).await;
                        let _ = commands.send(Command::AskRelay { relay }).await;
                    });
                }
                self.tell_addresses().await;
            }
            SwarmEvent::NewListenAddr { listener_id, .. } => {
                self.relays.listening(listener_id);
                self.tell_addresses().await;
            }
            SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. } => self.tell_addresses().await,
            SwarmEvent::Behaviour(event) => self.behaviour_event(event).await,
            _ => {}
        }
    }

    async fn tell_addresses(&mut self) {
        let peer = *self.swarm.local_peer_id();
        let addresses = self.swarm.listeners().chain(self.swarm.external_addresses());
        let named = addresses.map(|address| addresses::without_peer(address.clone()).with(Protocol::P2p(peer)));
        let addresses = named.map(|address| address.to_string()).collect();
        self.shared.tell(NetworkEvent::Listening { addresses }).await;
    }

    async fn behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(inbound) => self.accept(inbound),
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let admitted = self.standing.get(&propagation_source).is_some_and(|link| link.is_admitted());
                let from = message.source.as_ref().and_then(addresses::device_id);
                let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return };
                if gossip.judge(&message_id, &propagation_source, admitted && from.is_some())
                    && let Some(from) = from
                {
                    self.shared
                        .tell(NetworkEvent::Replica(ReplicaInput::Gossiped { from, body: message.data.into() }))
                        .await;
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })
                if self.standing.contains_key(&peer_id) =>
            {
                self.seen(peer_id, info.listen_addrs).await;
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
                for (peer, address) in found {
                    peers.entry(peer).or_default().push(address);
                }
                for (peer, addresses) in peers {
                    self.seen(peer, addresses).await;
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result, .. }) => match result {
                Ok(took) => {
                    self.missed.remove(&connection);
                    if let Some(link) = self.connections.get(&connection).copied() {
                        self.shared.hint(NetworkEvent::RoundTrip { link, took });
                    }
                }
                Err(_) => self.ping_missed(connection),
            },
            _ => {}
        }
    }

    /// Ends a connection that answers nothing and moves nothing. On a slow path pings wait behind bulk, so that only
    /// those count between which nothing went either way.
    fn ping_missed(&mut self, connection: ConnectionId) {
        let link = self.connections.get(&connection).and_then(|link| self.shared.link(*link));
        let progress = link.map_or(0, |link| link.progress());
        let missed = self.missed.entry(connection).or_default();
        if missed.progress != progress {
            *missed = Missed { pings: 0, progress };
        }
        missed.pings += 1;
        if missed.pings >= PINGS_MISSED_MAX {
            self.swarm.close_connection(connection);
        }
    }

    /// Remembers where a peer listens; tells when that is news.
    async fn seen(&mut self, peer_id: PeerId, addresses: Vec<Multiaddr>) {
        if let Some(peer) = addresses::device_id(&peer_id)
            && peer != self.local
            && self.book.remember(peer_id, addresses)
        {
            self.shared.tell(NetworkEvent::PeerSeen { peer, addresses: self.book.texts(&peer_id) }).await;
        }
    }

    async fn connected(&mut self, peer_id: PeerId, connection: ConnectionId, endpoint: ConnectedPoint) {
        let address = endpoint.get_remote_address().clone();
        let Some(peer) = addresses::device_id(&peer_id) else {
            self.swarm.close_connection(connection);
            return;
        };
        self.dials.remove(&peer_id);
        let outbound = endpoint.is_dialer();
        if outbound {
            self.book.remember(peer_id, [address.clone()]);
        }
        let rank = Rank::new(addresses::route(&address), &self.local, &peer, outbound);
        if let Some(standing) = self.standing.get(&peer_id).cloned() {
            if !rank.replaces(standing.rank) && !self.ending.contains_key(&standing.id) {
                self.swarm.close_connection(connection);
                return;
            }
            standing.end(LinkEnd::Replaced);
            self.end_link(standing.id).await;
            self.ended(standing.id).await;
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let (link, fetches) = Link::new(id, (peer, peer_id), connection, rank, self.shared.commands.clone());
        let link = Arc::new(link);
        self.connections.insert(connection, id);
        self.standing.insert(peer_id, link.clone());
        self.shared.links().insert(id, link.clone());
        let (address, path) = (address.to_string(), Path::of(&endpoint));
        self.shared.tell(NetworkEvent::Connected { link: id, peer, outbound, address, path }).await;
        tokio::spawn(control::write(link.clone()));
        tokio::spawn(chunks::fetch::run(link.clone(), self.shared.clone(), fetches));
        tokio::spawn(deadline(link.clone(), self.admission_deadline));
        self.pair_on(&link);
    }

    /// Takes a link out of the table, so that nothing more is asked of it. What is on its way still arrives: frames that
    /// this node sent before closing, frames that the peer sent before it closed. Does nothing the second time.
    async fn end_link(&mut self, id: LinkId) {
        let Some(link) = self.shared.links().remove(&id) else { return };
        link.end(LinkEnd::Lost);
        self.ending.insert(id, link.clone());
        let end = link.ended();
        if !matches!(end, LinkEnd::Closed | LinkEnd::Lost) {
            return self.ended(id).await;
        }
        let commands = self.shared.commands.clone();
        tokio::spawn(async move {
            let settled = async {
                match end {
                    LinkEnd::Closed => link.control.drained().await,
                    _ => link.frames_read().await,
                }
            };
            let _ = timeout(FAREWELL, settled).await;
            let _ = commands.send(Command::Ended { link: id }).await;
        });
    }

    /// Tells that a link has ended and closes its connection.
    async fn ended(&mut self, id: LinkId) {
        let Some(link) = self.ending.remove(&id) else { return };
        self.connections.remove(&link.connection);
        if self.standing.get(&link.peer_id).is_some_and(|standing| standing.id == id) {
            self.standing.remove(&link.peer_id);
        }
        link.closed.cancel();
        self.swarm.close_connection(link.connection);
        self.shared.tell(NetworkEvent::Disconnected { link: id, peer: link.peer, end: link.ended() }).await;
    }

    /// Hands a stream that a peer opened to its link.
    fn accept(&self, Inbound { connection, peer, protocol, stream, permit }: Inbound) {
        let Some(link) = self.connections.get(&connection).and_then(|link| self.shared.link(*link)) else { return };
        let shared = self.shared.clone();
        if protocol == streams::CONTROL {
            if link.accept_control() {
                tokio::spawn(holding(permit, control::read(link, shared, stream)));
            } else {
                link.finish(LinkEnd::Misbehaved(Misbehaviour::SecondStream));
            }
        } else if protocol == streams::CHUNKS {
            match link.take_serves() {
                Some(serves) => {
                    tokio::spawn(holding(permit, chunks::serve::run(link, shared, stream, serves)));
                }
                None => link.finish(LinkEnd::Misbehaved(Misbehaviour::SecondStream)),
            }
        } else if protocol == streams::PAIR {
            tokio::spawn(holding(permit, pairing::accept(shared, peer, link.peer, stream)));
        }
    }
}

/// Keeps a stream counted while its task runs.
async fn holding(permit: OwnedSemaphorePermit, task: impl Future<Output = ()>) {
    task.await;
    drop(permit);
}

async fn deadline(link: Arc<Link>, admission: Duration) {
    tokio::select! {
        () = link.admission() => {}
        () = link.closed.cancelled() => {}
        () = sleep(admission) => link.end(LinkEnd::NotAdmitted),
    }
}
