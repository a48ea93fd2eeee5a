//! The loop around the swarm: connections, discovery, and what it is asked to do.

mod dialling;
mod liveness;
mod relaying;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use holdfast_protocol::{
    id::{DeviceId, LibraryId},
    replica::{Input as ReplicaInput, LinkId},
};
use indexmap::IndexSet;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    gossipsub, identify,
    identity::Keypair,
    mdns,
    multiaddr::Protocol,
    ping,
    swarm::{self, ConnectionId, SwarmEvent},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::{
    dialling::{Dial, Pair, explain, failures},
    liveness::TICK,
    watching::Watched,
};
use super::{
    ChunkSink, ChunkSource, LinkEnd, Misbehaviour, NetworkConfig, NetworkEvent, PairError, Path, Required, StartError,
    addresses::{self, AddressBook},
    behaviour::{Behaviour, BehaviourEvent},
    chunks::{self, Chunks},
    command::{COMMANDS_MAX, Command},
    control,
    events::Events,
    links::{Link, Rank},
    pairing::{self, Pairings},
    relays::Relays,
    shared::Shared,
    sockets,
    streams::{self, Inbound},
    transport,
};

/// Time for the last frames of a link.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time for the other side to close a link once it was sent the last.
const HEARD: Duration = Duration::from_millis(200);

/// Binds the addresses and starts the loop.
pub(super) fn start(
    config: NetworkConfig,
    source: ChunkSource,
    sink: ChunkSink,
) -> Result<(Arc<Shared>, mpsc::Receiver<NetworkEvent>), StartError> {
    let setup = |detail: String| StartError::Setup { detail };
    let keypair = Keypair::ed25519_from_bytes(*config.device.to_bytes()).map_err(|error| setup(error.to_string()))?;
    let (transport, client) = transport::with_circuits(&keypair)?;
    let behaviour = Behaviour::new(&config, &keypair, client)?;
    let swarm_config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let peer_id = keypair.public().to_peer_id();
    let mut swarm = Swarm::new(transport, behaviour, peer_id, swarm_config);
    listen_on_all(&mut swarm, &config)?;
    for text in &config.announced {
        let refused = |detail| StartError::Address { address: text.clone(), detail };
        swarm.add_external_address(addresses::parse(text).map_err(refused)?);
    }
    let mut relays = Relays::parse(&config.relays)?;
    for relay in relays.peers() {
        relays.ask(&mut swarm, &relay);
    }
    let (events, happening) = Events::channel();
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let chunks = Chunks::start(source, sink, events.clone()).map_err(|error| setup(error.to_string()))?;
    let (links, pairings, chunks) = (Mutex::default(), Arc::new(Pairings::default()), Arc::new(chunks));
    let shared = Arc::new(Shared { commands, events, links, pairings, chunks });
    let driver = Driver {
        swarm,
        shared: shared.clone(),
        local: config.device.device_id(),
        admission_deadline: config.admission_deadline,
        book: AddressBook::default(),
        relays,
        chain: config.chain,
        serving: config.serving.map(|library| Serving { library, is_announced: !config.announced.is_empty() }),
        observed: IndexSet::new(),
        at_relays: BTreeMap::new(),
        connections: BTreeMap::new(),
        standing: BTreeMap::new(),
        ending: BTreeMap::new(),
        dials: BTreeMap::new(),
        unknown_dials: BTreeSet::new(),
        pairs: Vec::new(),
        watched: BTreeMap::new(),
        has_moved: false,
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
    if sockets::is_address_taken(&address) {
        return Err(StartError::taken(text));
    }
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
    /// What proves to relays that this device is a member.
    chain: Vec<Vec<u8>>,
    serving: Option<Serving>,
    /// Where others have seen this node.
    observed: IndexSet<Multiaddr>,
    /// Connections to relays that have not spoken as members.
    at_relays: BTreeMap<ConnectionId, (PeerId, ConnectedPoint)>,
    connections: BTreeMap<ConnectionId, LinkId>,
    standing: BTreeMap<PeerId, Arc<Link>>,
    /// Links that are out of the shared table and not yet told to have ended.
    ending: BTreeMap<LinkId, Arc<Link>>,
    dials: BTreeMap<PeerId, Dial>,
    /// Dials of addresses whose peer is not known.
    unknown_dials: BTreeSet<ConnectionId>,
    pairs: Vec<Pair>,
    watched: BTreeMap<ConnectionId, Watched>,
    /// Whether this machine's addresses changed since the last tick.
    has_moved: bool,
    next_link: u64,
}

/// That this node is a relay.
#[derive(Clone, Copy)]
struct Serving {
    library: LibraryId,
    /// Whether it was told where it is reached; where it listens, otherwise.
    is_announced: bool,
}

impl Driver {
    async fn run(mut self, mut asked: mpsc::Receiver<Command>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = asked.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.command(command).await,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
                _ = ticks.tick() => self.tick().await,
            }
        }
        let _ = timeout(FAREWELL, self.send_the_last(&mut asked)).await;
        let links = std::mem::take(&mut *self.shared.links()).into_values();
        for link in links.chain(std::mem::take(&mut self.ending).into_values()) {
            link.end(LinkEnd::Closed);
            link.closed.cancel();
        }
    }

    /// Ends all connections, once what is queued was sent.
    async fn send_the_last(&mut self, asked: &mut mpsc::Receiver<Command>) {
        for connection in self.watched.keys().copied().collect::<Vec<_>>() {
            self.give_up(connection, LinkEnd::Closed);
        }
        while !self.watched.is_empty() {
            tokio::select! {
                Some(command) = asked.recv() => self.command(command).await,
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
            }
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
                        None => self.dial_to_pair(peer).await,
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
            Command::AskRelay { relay } => self.ask_relay(relay),
            Command::RelayAnswered { relay, outcome } => {
                if let Some(wait) = self.relays.answered(&mut self.swarm, &relay, outcome) {
                    self.ask_relay_later(relay, wait);
                }
            }
            Command::ProveWith { chain } => self.prove_with(chain),
            Command::Serve { member, proven } => {
                if let Some(serving) = self.swarm.behaviour_mut().serving.as_mut() {
                    serving.admit(member);
                    tokio::spawn(proven.welcome());
                }
            }
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
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.watch(peer_id, connection_id, &endpoint);
                self.unknown_dials.remove(&connection_id);
                if self.relays.contains(&peer_id) && !endpoint.is_relayed() {
                    self.relay_connected(peer_id, connection_id, endpoint);
                } else {
                    self.connected(peer_id, connection_id, endpoint).await;
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.at_relays.remove(&connection_id);
                self.relays.disconnected(&peer_id, connection_id);
                self.watched.remove(&connection_id);
                if let Some(link) = self.connections.get(&connection_id).copied() {
                    self.end_link(link).await;
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error, .. } => {
                if let Some((relay, wait)) = peer_id.and_then(|peer| Some((peer, self.relays.unreachable(&peer)?))) {
                    tracing::info!(%relay, reason = explain(&error), "the relay cannot be reached; it is dialled again");
                    self.ask_relay_later(relay, wait);
                }
                if let Some(peer) = peer_id.as_ref().and_then(addresses::device_id) {
                    self.shared.events.hint(NetworkEvent::AddressesFailed { peer, failures: failures(&error) });
                }
                if self.unknown_dials.remove(&connection_id) {
                    self.dial_failed(None, explain(&error)).await;
                } else if let Some(peer) = peer_id {
                    self.route_failed(peer, connection_id, &error).await;
                }
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                if let Some((relay, wait)) = self.relays.closed(listener_id) {
                    self.ask_relay_later(relay, wait);
                }
                self.tell_addresses().await;
            }
            SwarmEvent::NewExternalAddrCandidate { address } => self.observed(address).await,
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.relays.listening(listener_id);
                self.address_came(&address);
                self.serve_at(address);
                self.tell_addresses().await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.address_went(&address);
                self.tell_addresses().await;
            }
            SwarmEvent::ExternalAddrConfirmed { .. } | SwarmEvent::ExternalAddrExpired { .. } => {
                self.tell_addresses().await;
            }
            SwarmEvent::Behaviour(event) => self.behaviour_event(event).await,
            _ => {}
        }
    }

    async fn tell_addresses(&mut self) {
        let peer = *self.swarm.local_peer_id();
        let addresses = self.swarm.listeners().chain(self.swarm.external_addresses());
        let named = addresses.map(|address| addresses::without_peer(address.clone()).with(Protocol::P2p(peer)));
        let addresses = named.map(|address| address.to_string()).collect();
        self.shared.events.tell(NetworkEvent::Listening { addresses }).await;
    }

    async fn behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(inbound) => {
                if inbound.protocol != streams::RELAY {
                    self.speaks_as_member(inbound.connection).await;
                }
                self.accept(inbound);
            }
            BehaviourEvent::Identify(identify::Event::Received { connection_id, info, .. })
                if self.at_relays.contains_key(&connection_id) && info.protocols.contains(&streams::CONTROL) =>
            {
                self.speaks_as_member(connection_id).await;
            }
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let admitted = self.standing.get(&propagation_source).is_some_and(|link| link.is_admitted());
                let from = message.source.as_ref().and_then(addresses::device_id);
                let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else { return };
                if gossip.judge(&message_id, &propagation_source, admitted && from.is_some())
                    && let Some(from) = from
                {
                    self.shared
                        .events
                        .tell(NetworkEvent::Replica(ReplicaInput::Gossiped { from, body: message.data.into() }))
                        .await;
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })
                if self.standing.contains_key(&peer_id) =>
            {
                self.learned(peer_id, info.listen_addrs).await;
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found))
            | BehaviourEvent::MdnsIpv6(mdns::Event::Discovered(found)) => {
                let mut peers: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
                for (peer, address) in found {
                    peers.entry(peer).or_default().push(address);
                }
                for (peer, addresses) in peers {
                    self.discovered(peer, addresses).await;
                }
            }
            BehaviourEvent::Ping(ping::Event { connection, result: Ok(took), .. }) => {
                if let Some(watched) = self.watched.get_mut(&connection) {
                    watched.liveness.answered(took);
                }
                if let Some(link) = self.connections.get(&connection).copied() {
                    self.shared.events.hint(NetworkEvent::RoundTrip { link, took });
                }
            }
            _ => {}
        }
    }

    /// Remembers where a peer listens; tells when that is news.
    async fn learned(&mut self, peer_id: PeerId, addresses: Vec<Multiaddr>) {
        if self.book.remember(peer_id, addresses) {
            self.tell_seen(peer_id).await;
        }
    }

    /// A peer was found on the local network: worth a dial, also where it was before.
    async fn discovered(&mut self, peer_id: PeerId, addresses: Vec<Multiaddr>) {
        if self.book.remember(peer_id, addresses) || !self.standing.contains_key(&peer_id) {
            self.tell_seen(peer_id).await;
        }
    }

    async fn tell_seen(&mut self, peer_id: PeerId) {
        if let Some(peer) = addresses::device_id(&peer_id).filter(|peer| *peer != self.local) {
            self.shared.events.tell(NetworkEvent::PeerSeen { peer, addresses: self.book.texts(&peer_id) }).await;
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
        let rank = Rank::new(addresses::route_of(&endpoint), &self.local, &peer, outbound);
        if let Some(standing) = self.standing.get(&peer_id).cloned() {
            if !self.takes_over(rank, &standing) {
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
        self.shared.events.tell(NetworkEvent::Connected { link: id, peer, outbound, address, path }).await;
        tokio::spawn(control::write(link.clone()));
        tokio::spawn(chunks::fetch::run(link.clone(), self.shared.chunks.clone(), fetches));
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
                if end == LinkEnd::Closed {
                    link.control.drained().await;
                    // QUIC drops with the connection what it has not sent: whoever hears a goodbye closes it by itself.
                    let _ = timeout(HEARD, link.frames_read()).await;
                } else {
                    link.frames_read().await;
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
        self.shared.events.tell(NetworkEvent::Disconnected { link: id, peer: link.peer, end: link.ended() }).await;
    }

    /// Hands a stream that a peer opened to its link.
    fn accept(&self, Inbound { connection, peer, protocol, stream, permit }: Inbound) {
        if protocol == streams::RELAY {
            return self.check_proof(peer, stream, permit);
        }
        let Some(link) = self.connections.get(&connection).and_then(|link| self.shared.link(*link)) else { return };
        let shared = &self.shared;
        if protocol == streams::CONTROL {
            if link.accept_control() {
                tokio::spawn(holding(permit, control::read(link, shared.events.clone(), stream)));
            } else {
                link.finish(LinkEnd::Misbehaved(Misbehaviour::SecondStream));
            }
        } else if protocol == streams::CHUNKS {
            match link.take_serves() {
                Some(serves) => {
                    tokio::spawn(holding(permit, chunks::serve::run(link, shared.chunks.clone(), stream, serves)));
                }
                None => link.finish(LinkEnd::Misbehaved(Misbehaviour::SecondStream)),
            }
        } else if protocol == streams::PAIR {
            let (pairings, events) = (shared.pairings.clone(), shared.events.clone());
            tokio::spawn(holding(permit, pairing::accept(pairings, events, (link.peer, peer), stream)));
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
