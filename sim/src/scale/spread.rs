//! One change of one inventory on its way to every peer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::inventories::Sizes;
use super::network::Peers;
use crate::chance::Chance;

/// Whoever adopted a head relays it after so long at most.
pub(super) const RELAY_S: f64 = 30.0;
const RELAY_US: u64 = 30_000_000;
/// A change is gossiped so long after it was signed.
const GOSSIP_US: u64 = 30_000_000;
/// A change is signed after so long without another.
const QUIET_US: u64 = 1_000_000;
/// Bytes of an announced message id; how often, and to what share of the peers outside the mesh, at least to how many.
const ID_BYTES: u64 = 60;
const ANNOUNCED_TIMES: u64 = 3;
const ANNOUNCED_SHARE: f64 = 0.25;
const ANNOUNCED_MIN: f64 = 6.0;
/// What one peer sends in a second.
const UPLOAD_BYTES: u64 = 2_500_000;
const NEVER: u64 = u64::MAX;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Positions are held that were not.
    Holdings,
    /// The peer restarted: a new generation of the same content.
    HeadAlone,
}

/// Bytes that all peers together received.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) deltas: u64,
    pub(super) gossip: u64,
    pub(super) heads: u64,
    pub(super) inventories: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    Learned,
    Gossiped,
    Relay,
}

/// See the head of the module.
pub(super) struct Spread<'a> {
    peers: &'a Peers,
    sizes: &'a Sizes,
    /// How likely it is that a peer is about to relay something else already.
    is_busy: f64,
    received: Received,
    learned_us: Vec<u64>,
}

impl<'a> Spread<'a> {
    pub(super) const fn new(peers: &'a Peers, sizes: &'a Sizes, is_busy: f64) -> Self {
        let received = Received { deltas: 0, gossip: 0, heads: 0, inventories: 0 };
        Self { peers, sizes, is_busy, received, learned_us: Vec::new() }
    }

    pub(super) const fn received(&self) -> &Received {
        &self.received
    }

    /// After so many seconds this share of the peers had learned.
    pub(super) fn learned_s(&self, share: f64) -> f64 {
        let mut all = self.learned_us.clone();
        all.sort_unstable();
        let at = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
        all.get(at).map_or(0.0, |learned| *learned as f64 / 1e6)
    }

    /// A change of a peer drawn by chance.
    pub(super) fn play(&mut self, change: Change, chance: &mut Chance) {
        let origin = chance.below(self.peers.len() as u64) as u32;
        let mut known = vec![NEVER; self.peers.len()];
        let mut asked = vec![false; self.peers.len()];
        let mut heard = vec![false; self.peers.len()];
        let mut queue = BinaryHeap::new();
        let first = match change {
            Change::Holdings => self.sizes.delta,
            Change::HeadAlone => self.sizes.head,
        };
        for neighbour in self.peers.of(origin) {
            self.received.deltas += first;
            queue.push(Reverse((QUIET_US + neighbour.delay_us, Coming::Learned, neighbour.peer)));
        }
        queue.push(Reverse((QUIET_US + GOSSIP_US, Coming::Gossiped, origin)));
        known[origin as usize] = 0;
        while let Some(Reverse((at, coming, peer))) = queue.pop() {
            let of = peer as usize;
            match coming {
                Coming::Learned if known[of] == NEVER => {
                    known[of] = at;
                    queue.push(Reverse((at + self.relay_after(chance), Coming::Relay, peer)));
                }
                Coming::Learned => {}
                Coming::Relay => {
                    for neighbour in self.peers.of(peer).iter().filter(|neighbour| neighbour.peer != origin) {
                        self.received.heads += self.sizes.head;
                        let arrives = at + neighbour.delay_us;
                        let to = neighbour.peer as usize;
                        // Who has heard of it by then is not told anything new; who has asked somebody waits.
                        if known[to] <= arrives || asked[to] {
                            continue;
                        }
                        asked[to] = true;
                        let answered = arrives + self.answer(change, neighbour.delay_us);
                        queue.push(Reverse((answered, Coming::Learned, neighbour.peer)));
                    }
                }
                Coming::Gossiped if !heard[of] => {
                    heard[of] = true;
                    self.gossip(change, at, peer, origin, &mut queue);
                }
                Coming::Gossiped => {}
            }
        }
        self.learned_us.extend(known.into_iter().filter(|at| *at > 0 && *at < NEVER));
    }

    /// How long it takes from the arrival of a head until its content is known.
    fn answer(&mut self, change: Change, delay_us: u64) -> u64 {
        if change == Change::HeadAlone {
            return 0;
        }
        self.received.inventories += self.sizes.want + self.sizes.whole;
        2 * delay_us + self.sizes.whole * 1_000_000 / UPLOAD_BYTES
    }

    fn relay_after(&self, chance: &mut Chance) -> u64 {
        let is_busy = (chance.below(1 << 30) as f64) < self.is_busy * f64::from(1 << 30);
        if is_busy { chance.below(RELAY_US) } else { RELAY_US }
    }

    /// The publisher sends to all, others pass on to their mesh; everybody announces to some beyond it.
    fn gossip(
        &mut self,
        change: Change,
        at: u64,
        peer: u32,
        origin: u32,
        queue: &mut BinaryHeap<Reverse<(u64, Coming, u32)>>,
    ) {
        let size = if change == Change::Holdings { self.sizes.gossip } else { self.sizes.gossip_head };
        let sessions = self.peers.of(peer);
        let beyond = sessions.iter().filter(|neighbour| !neighbour.in_mesh).count() as f64;
        let announced = (beyond * ANNOUNCED_SHARE).max(ANNOUNCED_MIN.min(beyond)) as u64;
        self.received.gossip += announced * ANNOUNCED_TIMES * ID_BYTES;
        let to = sessions.iter().filter(|neighbour| peer == origin || (neighbour.in_mesh && neighbour.peer != origin));
        let mut sent = 0;
        for neighbour in to {
            sent += 1;
            queue.push(Reverse((at + neighbour.delay_us, Coming::Gossiped, neighbour.peer)));
            if change == Change::Holdings {
                queue.push(Reverse((at + neighbour.delay_us, Coming::Learned, neighbour.peer)));
            }
        }
        // Nobody sends a message back to whom it came from.
        self.received.gossip += size * if peer == origin { sent } else { sent.max(1) - 1 };
    }
}
