//! A relay that is nothing else: no library, no keys but its own, no photos.

use std::time::Duration;

use futures::StreamExt as _;
use holdfast_protocol::{
    id::{DeviceId, LibraryId},
    keys::DeviceKey,
};
use libp2p::{
    Multiaddr, PeerId, Swarm, connection_limits, identify,
    identity::Keypair,
    multiaddr::Protocol,
    ping, relay,
    swarm::{self, NetworkBehaviour, SwarmEvent},
};
use tokio::task::JoinSet;

use super::{
    StartError, addresses,
    proof::{self, Proven},
    serving,
    streams::{self, Idle, Inbound},
    transport,
};

/// Connections in all, and of one peer.
const CONNECTIONS_MAX: u32 = 1024;
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
const PENDING_MAX: u32 = 64;
/// Proofs that are being read.
const PROOFS_MAX: usize = 32;
/// Who holds no place and uses no circuit is disconnected after this long.
const IDLE: Duration = Duration::from_secs(60);

/// What a relay serves, and where.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Its key: the id in its address.
    pub key: DeviceKey,
    /// The libraries whose members it listens for.
    pub libraries: Vec<LibraryId>,
    /// Multiaddresses to listen on. Those of IPv6 are left out where the machine has none.
    pub listen: Vec<String>,
    /// Where it is reached, if that is elsewhere.
    pub announced: Vec<String>,
}

/// What happened at a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayEvent {
    /// Where it is reached, all of it: what `--relay` is given.
    Listening {
        /// Multiaddresses that end in `/p2p/…`.
        addresses: Vec<String>,
    },
    /// A member has proven itself.
    Admitted {
        /// Who.
        device: DeviceId,
        /// What it is called.
        name: String,
    },
    /// A member is reached here no longer.
    Left {
        /// Who.
        device: DeviceId,
    },
    /// Two are connected through this relay.
    Joined {
        /// Who asked.
        from: DeviceId,
        /// The member.
        to: DeviceId,
    },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    serving: serving::Behaviour,
    streams: streams::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A running relay: it works while [`Self::next`] is awaited.
pub struct RelayServer {
    swarm: Swarm<Behaviour>,
    libraries: Vec<LibraryId>,
    is_announced: bool,
    proofs: JoinSet<Option<(PeerId, Proven)>>,
}

impl RelayServer {
    /// Listens. On a tokio runtime.
    ///
    /// # Errors
    /// When an address is malformed or cannot be bound.
    pub fn start(config: RelayConfig) -> Result<Self, StartError> {
        let setup = |detail: String| StartError::Setup { detail };
        let keypair = Keypair::ed25519_from_bytes(*config.key.to_bytes()).map_err(|error| setup(error.to_string()))?;
        let peer = keypair.public().to_peer_id();
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_established(Some(CONNECTIONS_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            serving: serving::Behaviour::new(peer),
            streams: streams::Behaviour::accepting(vec![streams::RELAY], Idle::Ends),
            identify: identify::Behaviour::new(
                identify::Config::new("/holdfast/1".to_owned(), keypair.public()).with_cache_size(0),
            ),
            ping: ping::Behaviour::default(),
        };
        let swarm_config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let mut swarm = Swarm::new(transport::direct(&keypair)?, behaviour, peer, swarm_config);
        for text in &config.listen {
            listen(&mut swarm, text)?;
        }
        for text in &config.announced {
            swarm.add_external_address(parse(text)?);
        }
        let is_announced = !config.announced.is_empty();
        Ok(Self { swarm, libraries: config.libraries, is_announced, proofs: JoinSet::new() })
    }

    /// Works until something happens that is worth telling.
    pub async fn next(&mut self) -> RelayEvent {
        loop {
            let happened = tokio::select! {
                event = self.swarm.select_next_some() => self.take(event),
                Some(Ok(Some((peer, proven)))) = self.proofs.join_next() => self.admit(peer, proven),
            };
            if let Some(event) = happened {
                return event;
            }
        }
    }

    fn take(&mut self, event: SwarmEvent<BehaviourEvent>) -> Option<RelayEvent> {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                // Who reserves a place is told these.
                if !self.is_announced {
                    self.swarm.add_external_address(address);
                }
                Some(self.listening())
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.swarm.remove_external_address(&address);
                Some(self.listening())
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(Inbound { peer, stream, permit, .. })) => {
                let device = addresses::device_id(&peer)?;
                if self.proofs.len() < PROOFS_MAX {
                    let libraries = self.libraries.clone();
                    self.proofs.spawn(async move {
                        let proven = proof::check(stream, device, &libraries).await;
                        drop(permit);
                        proven.map(|proven| (peer, proven))
                    });
                }
                None
            }
            SwarmEvent::Behaviour(BehaviourEvent::Serving(event)) => Self::served(&event),
            _ => None,
        }
    }

    fn admit(&mut self, peer: PeerId, proven: Proven) -> Option<RelayEvent> {
        let is_new = self.swarm.behaviour_mut().serving.admit(peer);
        let (device, name) = (proven.certificate.device(), proven.certificate.name().to_owned());
        tokio::spawn(proven.welcome());
        is_new.then_some(RelayEvent::Admitted { device, name })
    }

    fn served(event: &relay::Event) -> Option<RelayEvent> {
        match event {
            relay::Event::ReservationTimedOut { src_peer_id } => {
                Some(RelayEvent::Left { device: addresses::device_id(src_peer_id)? })
            }
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                let device = addresses::device_id;
                Some(RelayEvent::Joined { from: device(src_peer_id)?, to: device(dst_peer_id)? })
            }
            _ => None,
        }
    }

    fn listening(&self) -> RelayEvent {
        let peer = *self.swarm.local_peer_id();
        let named =
            |address: &Multiaddr| addresses::without_peer(address.clone()).with(Protocol::P2p(peer)).to_string();
        RelayEvent::Listening { addresses: self.swarm.external_addresses().map(named).collect() }
    }
}

fn parse(text: &str) -> Result<Multiaddr, StartError> {
    addresses::parse(text).map_err(|detail| StartError::Address { address: text.to_owned(), detail })
}

fn listen(swarm: &mut Swarm<Behaviour>, text: &str) -> Result<(), StartError> {
    let address = parse(text)?;
    let is_optional = matches!(address.iter().next(), Some(Protocol::Ip6(_)));
    match swarm.listen_on(address) {
        Ok(_) => Ok(()),
        Err(error) if is_optional => {
            tracing::info!(address = text, %error, "an address is left out");
            Ok(())
        }
        Err(error) => Err(StartError::Listen { address: text.to_owned(), detail: error.to_string() }),
    }
}
