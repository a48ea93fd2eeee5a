//! Relays: nodes elsewhere that pass connections on to this one, which cannot be dialled itself.
//!
//! A relay is no member of the library: a connection to it carries circuits and the asking for them, and never becomes
//! a link. What passes through a circuit is secured end to end, as on any other route.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId, Swarm, core::transport::ListenerId, multiaddr::Protocol};

use super::{StartError, addresses, behaviour::Behaviour};

/// Time from losing a place at a relay to asking for one again; doubled with every refusal in a row, six times at most.
const ASK_AGAIN: Duration = Duration::from_secs(4);
const DOUBLINGS_MAX: u32 = 6;

/// The relays that were named, and which of them listen for this node.
#[derive(Debug, Default)]
pub(super) struct Relays(BTreeMap<PeerId, Relay>);

#[derive(Debug)]
struct Relay {
    circuit: Multiaddr,
    listener: Option<ListenerId>,
    refusals: u32,
}

impl Relays {
    /// The relays at `texts`.
    ///
    /// # Errors
    /// When one is no address, or does not name its peer at the end.
    pub(super) fn parse(texts: &[String]) -> Result<Self, StartError> {
        let mut relays = BTreeMap::new();
        for text in texts {
            let refused = |detail: String| StartError::Address { address: text.clone(), detail };
            let address = addresses::parse(text).map_err(refused)?;
            let missing = || refused("the relay's id is missing: it ends in /p2p/ and the id".to_owned());
            let peer = addresses::peer_of(&address).ok_or_else(missing)?;
            relays.insert(peer, Relay { circuit: address.with(Protocol::P2pCircuit), listener: None, refusals: 0 });
        }
        Ok(Self(relays))
    }

    /// The peers that are relays.
    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.0.keys().copied().collect()
    }

    /// Whether `peer` is a relay.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// Asks `peer` to listen for this node. Whether it does shows later: as an address, or as a listener that closed.
    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>, peer: &PeerId) {
        let Some(relay) = self.0.get_mut(peer) else { return };
        match swarm.listen_on(relay.circuit.clone()) {
            Ok(listener) => relay.listener = Some(listener),
            Err(error) => tracing::warn!(circuit = %relay.circuit, %error, "the relay cannot be asked"),
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
        let wait = ASK_AGAIN * 2_u32.pow(relay.refusals);
        relay.refusals = (relay.refusals + 1).min(DOUBLINGS_MAX);
        Some((peer, wait))
    }

    fn at(&mut self, listener: ListenerId) -> Option<(PeerId, &mut Relay)> {
        let mut relays = self.0.iter_mut();
        relays.find(|(_, relay)| relay.listener == Some(listener)).map(|(peer, relay)| (*peer, relay))
    }
}
