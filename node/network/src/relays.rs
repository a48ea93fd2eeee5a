//! Relays: nodes elsewhere that pass connections on to this one, which cannot be dialled itself.
//!
//! A relay of one's own asks for a proof of membership first ([`proof`](super::proof)), then a place at it is asked for.
//! What passes through a circuit is secured end to end, as on any other route. A relay may be a member too: its connection
//! becomes a link when it speaks as one.

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexSet;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::transport::ListenerId,
    multiaddr::Protocol,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{StartError, addresses, behaviour::Behaviour, proof::Outcome};

/// Time from losing a place at a relay to asking for one again; doubled with every refusal in a row, four times at most.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const DOUBLINGS_MAX: u32 = 4;

/// Relays on the way to others that are remembered.
const PASSED_MAX: usize = 64;

/// The relays that were named, and which of them listen for this node; and those that lie on the way to others.
#[derive(Debug, Default)]
pub(super) struct Relays {
    named: BTreeMap<PeerId, Relay>,
    passed: IndexSet<PeerId>,
}

#[derive(Debug)]
struct Relay {
    address: Multiaddr,
    connection: Option<ConnectionId>,
    state: State,
    refusals: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until it is asked again.
    Resting,
    Dialling,
    Proving,
    Listening(ListenerId),
}

impl Relays {
    /// The relays at `texts`.
    ///
    /// # Errors
    /// When one is no address, or does not name its peer at the end.
    pub(super) fn parse(texts: &[String]) -> Result<Self, StartError> {
        let mut named = BTreeMap::new();
        for text in texts {
            let refused = |detail: String| StartError::Address { address: text.clone(), detail };
            let address = addresses::parse(text).map_err(refused)?;
            let missing = || refused("the relay's id is missing: it ends in /p2p/ and the id".to_owned());
            let peer = addresses::peer_of(&address).ok_or_else(missing)?;
            named.insert(peer, Relay { address, connection: None, state: State::Resting, refusals: 0 });
        }
        Ok(Self { named, passed: IndexSet::new() })
    }

    /// The peers that are relays.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.named.keys().copied().collect()
    }

    /// The relays that listen for nobody here and are not being asked.
    pub(super) fn resting(&self) -> Vec<PeerId> {
        let resting = self.named.iter().filter(|(_, relay)| relay.state == State::Resting);
        resting.map(|(peer, _)| *peer).collect()
    }

    /// Whether `peer` is a relay.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.named.contains_key(peer) || self.passed.contains(peer)
    }

    /// Connections to the relays that `addresses` lead through are on their way.
    pub(super) fn pass(&mut self, addresses: &[Multiaddr]) {
        for address in addresses {
            let mut before = None;
            for part in address {
                if let (Some(Protocol::P2p(relay)), Protocol::P2pCircuit) = (&before, &part) {
                    self.passed.insert(*relay);
                }
                before = Some(part);
            }
        }
        while self.passed.len() > PASSED_MAX {
            self.passed.shift_remove_index(0);
        }
    }

    /// Where `peer` is reached if it listens at the relays that this node knows.
    pub(super) fn circuits(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let others = self.named.iter().filter(|(relay, _)| *relay != peer);
        others.map(|(_, relay)| relay.address.clone().with(Protocol::P2pCircuit)).collect()
    }

    /// Begins to ask `peer` to listen for this node: the connection to prove membership on, once there is one.
    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>, peer: &PeerId) -> Option<ConnectionId> {
        let relay = self.named.get_mut(peer).filter(|relay| relay.state == State::Resting)?;
        if relay.connection.is_some() {
            relay.state = State::Proving;
            return relay.connection;
        }
        let dial = DialOpts::peer_id(*peer).condition(PeerCondition::Always).addresses(vec![relay.address.clone()]);
        relay.state = match swarm.dial(dial.build()) {
            Ok(()) => State::Dialling,
            Err(_) => State::Resting,
        };
        None
    }

    /// A connection to a relay stands; whether it is to be used for the proof.
    pub(super) fn connected(&mut self, peer: &PeerId, connection: ConnectionId) -> bool {
        let Some(relay) = self.named.get_mut(peer) else { return false };
        relay.connection = Some(connection);
        let is_awaited = relay.state == State::Dialling;
        if is_awaited {
            relay.state = State::Proving;
        }
        is_awaited
    }

    /// A connection has ended.
    pub(super) fn disconnected(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(relay) = self.named.get_mut(peer).filter(|relay| relay.connection == Some(connection)) {
            relay.connection = None;
        }
    }

    /// A relay could not be dialled: when to try again.
    pub(super) fn unreachable(&mut self, peer: &PeerId) -> Option<Duration> {
        let relay = self.named.get_mut(peer).filter(|relay| relay.state == State::Dialling)?;
        Some(relay.rest())
    }

    /// A relay has answered the proof: listens there, or says when to ask again.
    pub(super) fn answered(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: &PeerId,
        outcome: Outcome,
    ) -> Option<Duration> {
        let relay = self.named.get_mut(peer).filter(|relay| relay.state == State::Proving)?;
        if outcome == Outcome::Refused && relay.refusals == 0 {
            tracing::warn!(relay = %relay.address, "the relay serves other libraries than this one; start it with this library's id");
        }
        if matches!(outcome, Outcome::Refused | Outcome::Lost) {
            return Some(relay.rest());
        }
        // Whether it does shows later: as an address, or as a listener that closed.
        match swarm.listen_on(relay.address.clone().with(Protocol::P2pCircuit)) {
            Ok(listener) => {
                relay.state = State::Listening(listener);
                None
            }
            Err(error) => {
                tracing::warn!(relay = %relay.address, %error, "the relay cannot be asked");
                Some(relay.rest())
            }
        }
    }

    /// A listener has an address.
    pub(super) fn listening(&mut self, listener: ListenerId) {
        if let Some((_, relay)) = self.at(listener) {
            relay.refusals = 0;
        }
    }

    /// A listener has closed: the relay that it was at, and when to ask that again.
    pub(super) fn closed(&mut self, listener: ListenerId) -> Option<(PeerId, Duration)> {
        let (peer, relay) = self.at(listener)?;
        Some((peer, relay.rest()))
    }

    fn at(&mut self, listener: ListenerId) -> Option<(PeerId, &mut Relay)> {
        let mut relays = self.named.iter_mut();
        relays.find(|(_, relay)| relay.state == State::Listening(listener)).map(|(peer, relay)| (*peer, relay))
    }
}

impl Relay {
    fn rest(&mut self) -> Duration {
        let wait = ASK_AGAIN * 2_u32.pow(self.refusals);
        self.state = State::Resting;
        self.refusals = (self.refusals + 1).min(DOUBLINGS_MAX);
        wait
    }
}
