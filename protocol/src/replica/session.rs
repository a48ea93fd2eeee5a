//! Sessions: two devices introduce themselves, and from then on trust what membership allows.
//!
//! Each side sends `Hello`, checks the other's, sends `Prove`, checks the other's. Only then is anything of the library
//! said or listened to. Of two sessions with one peer, both sides keep the same one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;

use super::inventories::{Asked, Offer};
use super::{DisconnectReason, Effect, Event, LinkId, Misbehaviour, Replica};
use crate::certificate::{DeviceCertificate, leads_to_root};
use crate::id::{AuthorId, DeviceId};
use crate::inventory::Holdings;
use crate::limits::HELLO_BYTES_MAX;
use crate::message::{Farewell, Hello, LogPoint, Message, Prove, VERSIONS, library_tag};
use crate::metadata::{Metadata, StorageError};
use crate::time::Timestamp;

const HANDSHAKE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ExpectHello { until: Timestamp },
    ExpectProve { until: Timestamp },
    Established,
}

/// One connection and what was said on it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: DeviceId,
    outbound: bool,
    state: State,
    /// How far the peer knows which log.
    pub(super) points: BTreeMap<AuthorId, LogPoint>,
    /// Forks that the peer was given the proof of, with where they are.
    pub(super) forks_told: BTreeMap<AuthorId, u64>,
    /// Inventories that the peer can give and that are not known here yet.
    pub(super) offered: BTreeMap<DeviceId, Offer>,
    /// Inventories asked of the peer.
    pub(super) asked: BTreeMap<DeviceId, Asked>,
    /// An inventory that comes in pieces: its head and what has come so far.
    pub(super) assembly: Option<(Bytes, Holdings)>,
}

impl Session {
    pub(super) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// When the session needs a tick.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::ExpectHello { until } | State::ExpectProve { until } => Some(until),
            State::Established => {
                let rests = self.offered.values().filter_map(|offer| offer.rests_until);
                self.asked.values().map(|asked| asked.until).chain(rests).min()
            }
        }
    }
}

impl<M: Metadata> Replica<M> {
    pub(super) fn handle_connected(&mut self, link: LinkId, peer: DeviceId, outbound: bool) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.dialling = false;
        }
        let session = Session {
            peer,
            outbound,
            state: State::ExpectHello { until: self.now.elapsed + HANDSHAKE },
            points: BTreeMap::new(),
            forks_told: BTreeMap::new(),
            offered: BTreeMap::new(),
            asked: BTreeMap::new(),
            assembly: None,
        };
        self.sessions.insert(link, session);
        self.links.entry(peer).or_default().insert(link);
        let shunned = self.peers.get(&peer).and_then(|known| known.shunned_until);
        if peer == self.me {
            self.refuse(link, DisconnectReason::Duplicate);
        } else if self.registry.is_removed(&peer) {
            self.refuse(link, DisconnectReason::Removed);
        } else if shunned.is_some_and(|until| until > self.now.elapsed) {
            self.refuse(link, DisconnectReason::Misbehaved(Misbehaviour::CorruptChunks));
        } else {
            let (oldest, newest) = VERSIONS;
            let library_tag = library_tag(&self.config.library, &self.me, &peer);
            self.send(link, &Message::Hello(Hello { oldest, newest, features: 0, library_tag }));
        }
    }

    pub(super) fn send(&mut self, link: LinkId, message: &Message) {
        self.effects.push(Effect::Send { link, frame: message.to_frame() });
    }

    pub(super) fn handle_received(&mut self, link: LinkId, tag: u8, body: &Bytes) -> Result<(), StorageError> {
        let Some(session) = self.sessions.get(&link) else { return Ok(()) };
        let (peer, state) = (session.peer, session.state);
        let Ok(message) = Message::decode(tag, body) else {
            self.misbehaved(link, Misbehaviour::MalformedFrame { tag });
            return Ok(());
        };
        match (state, message) {
            (_, Message::Bye(farewell)) => self.refuse(link, DisconnectReason::Farewell(farewell)),
            (State::ExpectHello { until }, Message::Hello(hello)) => self.handle_hello(link, &peer, until, &hello),
            (State::ExpectProve { .. }, Message::Prove(prove)) => self.handle_prove(link, peer, &prove),
            (State::Established, message) => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.last_heard = Some(self.now.wall);
                }
                self.handle_message(link, message)?;
            }
            _ => self.misbehaved(link, Misbehaviour::OutOfTurn { tag }),
        }
        Ok(())
    }

    fn handle_message(&mut self, link: LinkId, message: Message) -> Result<(), StorageError> {
        match message {
            Message::Vector(points) => self.handle_vector(link, points),
            Message::WantEnvelopes(want) => self.handle_want_envelopes(link, &want)?,
            Message::Envelopes(envelopes) => self.handle_envelopes(link, envelopes)?,
            Message::Fork(first, second) => self.handle_fork(link, first, second)?,
            Message::Heads(heads) => self.handle_heads(link, heads)?,
            Message::WantInventory(want) => self.handle_want_inventory(link, &want),
            Message::Inventory(part) => self.handle_inventory(link, part)?,
            Message::Have(changes) => self.handle_have(link, &changes),
            Message::Addresses(reachable) => self.handle_addresses(reachable),
            Message::Hello(_) | Message::Prove(_) => {
                self.misbehaved(link, Misbehaviour::OutOfTurn { tag: message.tag() });
            }
            Message::Bye(_) | Message::Unknown(_) => {}
        }
        Ok(())
    }

    fn handle_hello(&mut self, link: LinkId, peer: &DeviceId, until: Timestamp, hello: &Hello) {
        if hello.library_tag != library_tag(&self.config.library, peer, &self.me) {
            return self.refuse(link, DisconnectReason::WrongLibrary);
        }
        if hello.oldest > VERSIONS.1 || hello.newest < VERSIONS.0 {
            return self.refuse(link, DisconnectReason::IncompatibleVersion);
        }
        if let Some(session) = self.sessions.get_mut(&link) {
            session.state = State::ExpectProve { until };
        }
        let chain = self.own_chain();
        self.send(link, &Message::Prove(Prove { chain }));
    }

    /// The certificates that prove this device's membership.
    #[must_use]
    pub fn own_chain(&self) -> Vec<Vec<u8>> {
        let known: Vec<_> =
            self.registry.chain(&self.me).iter().map(|certificate| certificate.wire().to_vec()).collect();
        let fits = known.iter().map(|wire| wire.len() + 8).sum::<usize>() <= HELLO_BYTES_MAX;
        if known.is_empty() || !fits { self.config.chain.clone() } else { known }
    }

    fn handle_prove(&mut self, link: LinkId, peer: DeviceId, prove: &Prove) {
        let chain: Result<Vec<_>, _> = prove.chain.iter().map(|wire| DeviceCertificate::parse(wire)).collect();
        match chain {
            Ok(_) if self.registry.is_removed(&peer) => self.refuse(link, DisconnectReason::Removed),
            Ok(chain) if self.is_proven(&peer, &chain) => self.establish(link, peer),
            _ => self.refuse(link, DisconnectReason::NotAMember),
        }
    }

    /// Whether `chain` proves that `peer` is a member: the registry vouches for its certificate, or the chain leads to
    /// the root through owners none of whom was removed (so that a device which knows no log yet can be sure too).
    fn is_proven(&self, peer: &DeviceId, chain: &[DeviceCertificate]) -> bool {
        let Some(own) = chain.first().filter(|own| own.device() == *peer) else { return false };
        if self.registry.vouches(own) {
            return true;
        }
        let stays = |certificate: &DeviceCertificate| !self.registry.is_removed(&certificate.device());
        chain.iter().all(stays) && leads_to_root(chain, peer, &self.config.library)
    }

    fn establish(&mut self, link: LinkId, peer: DeviceId) {
        let outbound = self.sessions.get(&link).is_some_and(|session| session.outbound);
        let other = self
            .sessions
            .iter()
            .find(|(other, session)| **other != link && session.peer == peer && session.is_established());
        if let Some((&other, session)) = other {
            // When both sides dialled at once, the connection that the lesser id dialled is kept; otherwise the newer
            // one, since the older may be dead.
            let keep_new = session.outbound == outbound || outbound == (self.me < peer);
            let (dropped, kept) = if keep_new { (other, link) } else { (link, other) };
            self.refuse(dropped, DisconnectReason::Duplicate);
            if kept != link {
                return;
            }
        }
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.state = State::Established;
        let known = self.peers.entry(peer).or_default();
        known.last_heard = Some(self.now.wall);
        known.dial_failures = 0;
        let holdings = known.inventory.as_ref().map(|inventory| inventory.holdings.clone()).unwrap_or_default();
        self.effects.push(Effect::Admitted { link, peer });
        self.effects.push(Effect::Event(Event::PeerConnected { peer }));
        let distrust = known.distrust;
        self.scheduler.add_source(self.now.elapsed, peer, link, holdings, distrust, &mut self.chunks);
        self.greet(link);
    }

    /// Ends the session with a reason that the peer is told.
    pub(super) fn refuse(&mut self, link: LinkId, reason: DisconnectReason) {
        let Some(session) = self.sessions.get(&link) else { return };
        let (peer, established) = (session.peer, session.is_established());
        let farewell = match &reason {
            DisconnectReason::WrongLibrary => Some(Farewell::WrongLibrary),
            DisconnectReason::IncompatibleVersion => Some(Farewell::IncompatibleVersion),
            DisconnectReason::NotAMember => Some(Farewell::NotAMember),
            DisconnectReason::Removed => Some(Farewell::Removed),
            DisconnectReason::Duplicate => Some(Farewell::Duplicate),
            DisconnectReason::Misbehaved(_) => Some(Farewell::Misbehaved),
            DisconnectReason::Stopping => Some(Farewell::ShuttingDown),
            DisconnectReason::HandshakeTimeout | DisconnectReason::Farewell(_) => None,
        };
        if let Some(farewell) = farewell {
            self.send(link, &Message::Bye(farewell));
        }
        let is_nobodys_fault =
            matches!(reason, DisconnectReason::Duplicate | DisconnectReason::Stopping | DisconnectReason::Farewell(_));
        if !established && !is_nobodys_fault {
            self.effects.push(Effect::Event(Event::PeerRefused { peer, reason: reason.clone() }));
        }
        self.effects.push(Effect::Disconnect { link, reason: reason.clone() });
        self.end_session(link, Some(reason));
    }

    /// This device stops: who is connected need not wait to find out.
    pub(super) fn handle_stopping(&mut self) {
        for link in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.refuse(link, DisconnectReason::Stopping);
        }
    }

    /// Ends the session because the peer did what no honest one does.
    pub(super) fn misbehaved(&mut self, link: LinkId, misbehaviour: Misbehaviour) {
        self.refuse(link, DisconnectReason::Misbehaved(misbehaviour));
    }

    /// The connection is gone, or is given up for a reason.
    pub(super) fn end_session(&mut self, link: LinkId, reason: Option<DisconnectReason>) {
        let Some(session) = self.sessions.remove(&link) else { return };
        if let Entry::Occupied(mut links) = self.links.entry(session.peer) {
            links.get_mut().remove(&link);
            if links.get().is_empty() {
                links.remove();
            }
        }
        self.pulls.forget(link);
        self.rest_before_dialling(&session.peer);
        if session.is_established() {
            self.scheduler.remove_source(&session.peer, &mut self.chunks);
            self.effects.push(Effect::Event(Event::PeerDisconnected { peer: session.peer, reason }));
        }
        self.ask_for_inventories();
    }

    pub(super) fn expire_sessions(&mut self) {
        let now = self.now.elapsed;
        let late =
            |session: &Session| !session.is_established() && session.deadline().is_some_and(|until| until <= now);
        let expired: Vec<_> =
            self.sessions.iter().filter(|(_, session)| late(session)).map(|(link, _)| *link).collect();
        for link in expired {
            self.refuse(link, DisconnectReason::HandshakeTimeout);
        }
        self.expire_inventories();
    }

    /// The established session with `peer`.
    pub(super) fn session_with(&self, peer: &DeviceId) -> Option<LinkId> {
        let is_established = |link: &&LinkId| self.sessions.get(link).is_some_and(Session::is_established);
        self.links.get(peer)?.iter().find(is_established).copied()
    }
}
