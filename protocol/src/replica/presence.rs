//! Where peers can be reached: passed on to those who may not have seen them, so that members which met through a third
//! one call each other and not it alone.
//!
//! Only what this device saw itself (a connection, the local network) is passed on, never what it was told: nothing
//! circles. An address is a hint; the transport proves who answers at it.

use super::{Effect, LinkId, Replica};
use crate::id::DeviceId;
use crate::limits::PEERS_MAX;
use crate::message::{ADDRESSES_PER_PEER_MAX, Message, PEERS_PER_FRAME_MAX, Reachable, is_address};
use crate::metadata::Metadata;

impl<M: Metadata> Replica<M> {
    /// A peer was seen at `addresses` (none: it is known where). A member is called, and others are told.
    pub(super) fn handle_peer_seen(&mut self, device: &DeviceId, addresses: Vec<String>) {
        let addresses: Vec<String> =
            addresses.into_iter().filter(|address| is_address(address)).take(ADDRESSES_PER_PEER_MAX).collect();
        let has_room = self.seen.contains_key(device) || self.seen.len() < PEERS_MAX;
        if self.registry.is_member(device) && !addresses.is_empty() && has_room {
            let news = self.seen.get(device) != Some(&addresses);
            self.seen.insert(*device, addresses.clone());
            if news {
                let frame = Message::Addresses(vec![Reachable { device: *device, addresses }]).to_frame();
                let others = |session: &super::Session| session.is_established() && session.peer != *device;
                for (link, _) in self.sessions.iter().filter(|(_, session)| others(session)) {
                    self.effects.push(Effect::Send { link: *link, frame: frame.clone() });
                }
            }
        }
        self.call_soon(device);
    }

    /// Tells a new session where members were seen.
    pub(super) fn greet_with_addresses(&mut self, link: LinkId) {
        let Some(peer) = self.sessions.get(&link).map(|session| session.peer) else { return };
        let seen = self.seen.iter().filter(|(device, _)| **device != peer && self.registry.is_member(device));
        let reachable: Vec<Reachable> =
            seen.map(|(device, addresses)| Reachable { device: *device, addresses: addresses.clone() }).collect();
        for part in reachable.chunks(PEERS_PER_FRAME_MAX) {
            self.send(link, &Message::Addresses(part.to_vec()));
        }
    }

    /// A peer tells where others can be reached. That overtakes the log that says who they are: then it waits for that.
    pub(super) fn handle_addresses(&mut self, reachable: Vec<Reachable>) {
        for Reachable { device, addresses } in reachable {
            if self.registry.is_member(&device) {
                self.reach(device, addresses);
            } else if self.hearsay.contains_key(&device) || self.hearsay.len() < PEERS_MAX {
                self.hearsay.insert(device, addresses);
            }
        }
    }

    /// A device became a member: it is called where others have said that it is.
    pub(super) fn reach_by_hearsay(&mut self, device: &DeviceId) {
        if let Some(addresses) = self.hearsay.remove(device) {
            self.reach(*device, addresses);
        }
    }

    fn reach(&mut self, device: DeviceId, addresses: Vec<String>) {
        if device != self.me {
            self.effects.push(Effect::AddressesLearned { peer: device, addresses });
            self.call_on_hearsay(&device);
        }
    }
}
