//! Members: calling those that are not connected, letting go of those removed, and what is known about each.

use std::time::Duration;

use super::schedule::backoff;
use super::{DisconnectReason, Effect, PeerView, Replica};
use crate::id::DeviceId;
use crate::metadata::Metadata;
use crate::time::Timestamp;

/// From one call that fails to the next: at first, and at most; up to a half longer by chance.
const RETRY_MS: u64 = 2000;
const RETRY_MS_MAX: u64 = 5 * 60 * 1000;
/// At most, while something waits to move to the peer or from it: with chance, less than half a minute.
const RETRY_WAITING_MS_MAX: u64 = 18 * 1000;
/// A peer whose last call failed is called again so long after others were heard to speak of it, and not more often than
/// this.
const HEARSAY: Duration = Duration::from_secs(2);
const HEARSAY_REST: Duration = Duration::from_secs(10);
/// Who could not be reached is called about so soon after the network changed: a new address is not usable at once.
const NEW_NETWORK_MS: u64 = 300;
/// A peer that was just connected is called again after about this long.
const REDIAL: Duration = Duration::from_millis(500);

impl<M: Metadata> Replica<M> {
    /// A device became a member: it is called soon, and what was offered of its inventory counts now.
    pub(super) fn welcome(&mut self, device: &DeviceId) {
        if *device != self.me {
            let jitter = backoff(0, 200, 200, &mut self.random);
            let peer = self.peers.entry(*device).or_default();
            peer.dial_at = self.now.elapsed + jitter;
            self.reach_by_hearsay(device);
            self.ask_for_inventories();
        }
    }

    /// A device is a member no more: it is let go, and what it says it holds counts no more.
    pub(super) fn expel(&mut self, device: &DeviceId) {
        for link in self.links.get(device).cloned().unwrap_or_default() {
            self.refuse(link, DisconnectReason::Removed);
        }
        if let Some(inventory) = self.peers.remove(device).and_then(|peer| peer.inventory) {
            let changes = inventory.holdings.changes_to(&crate::inventory::Holdings::new());
            self.effects.push(Effect::HoldingsChanged { peer: *device, changes });
        }
    }

    /// Members, and those who certified this device, that may be called: not connected and not being called.
    fn callable(&self) -> impl Iterator<Item = (DeviceId, Timestamp)> + '_ {
        let others = self.others().filter(|device| !self.links.contains_key(device));
        others.filter_map(|device| {
            let peer = self.peers.get(&device).filter(|peer| !peer.dialling)?;
            let at = peer.shunned_until.map_or(peer.dial_at, |until| until.max(peer.dial_at));
            Some((device, at))
        })
    }

    pub(super) fn dial_deadline(&self) -> Option<Timestamp> {
        self.callable().map(|(_, at)| at).min()
    }

    pub(super) fn dial_members(&mut self) {
        let due: Vec<DeviceId> =
            self.callable().filter(|(_, at)| *at <= self.now.elapsed).map(|(device, _)| device).collect();
        for peer in due {
            self.dial(peer);
        }
    }

    fn dial(&mut self, peer: DeviceId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.dialling = true;
            known.dialled_at = self.now.elapsed;
            self.effects.push(Effect::Dial { peer });
        }
    }

    pub(super) fn handle_dial_failed(&mut self, device: &DeviceId) {
        let most = if self.has_to_move(device) { RETRY_WAITING_MS_MAX } else { RETRY_MS_MAX };
        let Some(peer) = self.peers.get_mut(device) else { return };
        peer.dialling = false;
        // Counted from call to call: waiting for an answer was waiting too.
        let rest = backoff(peer.dial_failures, RETRY_MS, most, &mut self.random);
        peer.dial_at = (peer.dialled_at + rest).max(self.now.elapsed + REDIAL);
        peer.dial_failures += 1;
    }

    /// Whether something waits to move to a peer or from it, as far as is known of what it holds.
    fn has_to_move(&self, device: &DeviceId) -> bool {
        let Some(inventory) = self.peers.get(device).and_then(|peer| peer.inventory.as_ref()) else { return true };
        let theirs = &inventory.holdings;
        let is_theirs = |slot| self.chunks.positions(slot).any(|position| theirs.holds(&position));
        // Whoever holds fewer lacks some of these; whoever holds others that are wanted here is looked at chunk by chunk.
        theirs.held_count() < self.own.holdings().held_count() || self.chunks.wanted().iter().any(is_theirs)
    }

    /// This device holds something new: who is not connected lacks it.
    pub(super) fn call_with_news(&mut self) {
        let at_most = Duration::from_millis(RETRY_WAITING_MS_MAX);
        for peer in self.peers.values_mut() {
            peer.dial_at = peer.dial_at.min((peer.dialled_at + at_most).max(self.now.elapsed + REDIAL));
        }
    }

    /// This machine has other addresses: what failed before says nothing any more.
    pub(super) fn handle_network_changed(&mut self) {
        let failed: Vec<DeviceId> = self.others().filter(|device| !self.links.contains_key(device)).collect();
        for device in failed {
            let soon = self.now.elapsed + backoff(0, NEW_NETWORK_MS, NEW_NETWORK_MS, &mut self.random);
            if let Some(peer) = self.peers.get_mut(&device) {
                peer.dial_at = peer.dial_at.min(soon);
                peer.dial_failures = 0;
            }
        }
    }

    /// There is a new way to a peer: a member is called at once, whatever failed before.
    pub(super) fn call_soon(&mut self, device: &DeviceId) {
        let now = self.now.elapsed;
        if self.callable().any(|(member, _)| member == *device)
            && self.peers.get(device).is_some_and(|peer| peer.shunned_until.is_none_or(|until| until <= now))
        {
            self.dial(*device);
        }
    }

    /// Someone says where a peer can be reached, or passes on what it says: it is called at once if no call has failed yet, and
    /// soon otherwise, so that nobody's words make this node dial as fast as they come.
    pub(super) fn call_on_hearsay(&mut self, device: &DeviceId) {
        let soon = self.now.elapsed + HEARSAY;
        match self.peers.get_mut(device) {
            Some(peer) if peer.dial_failures > 0 => {
                peer.dial_at = peer.dial_at.min(soon.max(peer.dialled_at + HEARSAY_REST));
            }
            _ => self.call_soon(device),
        }
    }

    /// After a connection ended, the peer is called again: soon the first time, later each time it ends at once.
    pub(super) fn rest_before_dialling(&mut self, device: &DeviceId) {
        if let Some(peer) = self.peers.get_mut(device) {
            let rest = backoff(peer.dial_failures, REDIAL.as_millis() as u64, RETRY_MS_MAX, &mut self.random);
            peer.dial_at = self.now.elapsed + rest;
            peer.dial_failures += 1;
        }
    }

    /// A device that is about to tell more of what this one does not know: it was asked for it, or, while this device knows
    /// nothing but of itself, has not said yet how much it knows.
    #[must_use]
    pub fn catching_up_with(&self) -> Option<DeviceId> {
        let asked = self.pulls.asked_of().and_then(|link| self.sessions.get(&link)).map(|session| session.peer);
        let is_new = self.logs.keys().all(|author| *author == self.author());
        asked.or_else(|| self.others().find(|device| is_new && !self.compared.contains_key(device)))
    }

    /// Every other member, in the order of their ids, and peers that have proved a membership not yet in the logs.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        let members = self.registry.members().map(|certificate| certificate.device());
        let guests = self.sessions.values().filter(|session| session.is_established()).map(|session| session.peer);
        let mut devices: Vec<DeviceId> = members.chain(guests).filter(|device| *device != self.me).collect();
        devices.sort_unstable();
        devices.dedup();
        devices.iter().map(|device| self.view(device)).collect()
    }

    fn view(&self, device: &DeviceId) -> PeerView {
        let peer = self.peers.get(device);
        let head = peer.and_then(|peer| Some(peer.inventory.as_ref()?.head.head()));
        let next_dial = self.callable().find(|(callable, _)| callable == device).map(|(_, at)| at);
        PeerView {
            device: *device,
            name: self.registry.name(device).unwrap_or_default().to_owned(),
            place: self.registry.place_of(device),
            connected: self.session_with(device).is_some(),
            dialling: peer.is_some_and(|peer| peer.dialling),
            next_dial,
            resting_until: self.scheduler.resting_until(self.now.elapsed, device),
            last_heard: peer.and_then(|peer| peer.last_heard),
            inventory: head.map(|head| head.version()),
            inventory_signed: head.map(|head| head.time),
            held: head.map_or(0, |head| head.held),
            erased: head.map_or(0, |head| head.erased),
        }
    }
}
