//! Virtual links between nodes, and the ways on which they stand.
//!
//! As with the real driver a frame arrives in its order or the link is gone; nothing is lost in between. What goes wrong
//! on the way of a stream shows as delay, and as the end of the link when it lasts.
//!
//! Invariant: only links that stand are kept; whatever arrives on another finds nothing.

mod link;

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX};

pub use link::{Answering, Link, Quality};

use crate::chance::Streams;

/// How much later than a frame a message of gossip may arrive.
const GOSSIP_DELAY_MS_MAX: u64 = 200;
/// A link stands still when what was sent on it arrives so much later.
const LATE_MS: u64 = 5_000;

/// The way from one node to another, where something is wrong with it.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Until then nobody is reached on it who has no link yet.
    closed_until: u64,
    /// Until then nothing moves on it.
    stalled_until: u64,
}

/// What one node's own connection to the world is like.
#[derive(Debug, Clone, Copy)]
struct Uplink {
    /// Bytes per millisecond that it sends on all its links.
    rate: u64,
    busy_until: u64,
    is_behind_nat: bool,
}

/// All links and ways.
#[derive(Debug)]
pub struct Network {
    links: BTreeMap<u64, Link>,
    of: BTreeMap<usize, BTreeSet<u64>>,
    next: u64,
    /// By sender and receiver.
    delays: Streams<(usize, usize)>,
    /// By who passes gossip on.
    meshes: Streams<usize>,
    usual: Quality,
    ways: BTreeMap<(usize, usize), Way>,
    uplinks: BTreeMap<usize, Uplink>,
}

impl Network {
    /// A network without links, whose links are of the usual quality.
    #[must_use]
    pub const fn new(seed: u64, usual: Quality) -> Self {
        Self {
            links: BTreeMap::new(),
            of: BTreeMap::new(),
            next: 0,
            delays: Streams::new(seed, "delays"),
            meshes: Streams::new(seed, "mesh"),
            usual,
            ways: BTreeMap::new(),
            uplinks: BTreeMap::new(),
        }
    }

    /// Limits what a node sends on all its links, in bytes per millisecond, and says whether it can be dialled.
    pub fn place(&mut self, node: usize, rate: u64, is_behind_nat: bool) {
        self.uplinks.insert(node, Uplink { rate: rate.max(1), busy_until: 0, is_behind_nat });
    }

    /// What the slowest node sends, in bytes per millisecond.
    #[must_use]
    pub fn slowest_rate(&self) -> u64 {
        self.uplinks.values().map(|uplink| uplink.rate).chain([self.usual.rate]).min().unwrap_or(1).max(1)
    }

    /// A new link from one node to another; its number is never used again.
    pub fn connect(&mut self, from: usize, to: usize, quality: Option<Quality>) -> u64 {
        self.next += 1;
        self.links.insert(self.next, Link::new([from, to], quality.unwrap_or(self.usual)));
        for end in [from, to] {
            self.of.entry(end).or_default().insert(self.next);
        }
        self.next
    }

    /// The link, if it stands.
    pub fn alive(&mut self, link: u64) -> Option<&mut Link> {
        self.links.get_mut(&link)
    }

    /// The links that stand, of one node or of all.
    #[must_use]
    pub fn standing(&self, node: Option<usize>) -> Vec<u64> {
        match node {
            None => self.links.keys().copied().collect(),
            Some(node) => self.of.get(&node).into_iter().flatten().copied().collect(),
        }
    }

    /// The links that stand between two nodes.
    #[must_use]
    pub fn between(&self, a: usize, b: usize) -> Vec<u64> {
        let links = self.of.get(&a).into_iter().flatten().copied();
        links.filter(|link| self.links.get(link).is_some_and(|link| link.ends.contains(&b))).collect()
    }

    /// The node at the other end of a standing link.
    #[must_use]
    pub fn other_end(&self, link: u64, node: usize) -> Option<usize> {
        self.links.get(&link)?.ends.into_iter().find(|end| *end != node)
    }

    /// The ends of a link that stands, if everything moves on it now, both ways.
    #[must_use]
    pub fn moving(&self, link: u64, now: u64) -> Option<[usize; 2]> {
        let of = self.links.get(&link)?;
        let [a, b] = of.ends;
        let moves = self.moves_at(now, (a, b)) <= now && self.moves_at(now, (b, a)) <= now;
        let is_late = of.frames_until.into_iter().chain(of.chunks_until).any(|until| until > now + LATE_MS);
        (moves && !is_late).then_some(of.ends)
    }

    /// Ends a link; the link as it was.
    pub fn cut(&mut self, link: u64) -> Option<Link> {
        let of = self.links.remove(&link)?;
        for end in of.ends {
            if let Some(links) = self.of.get_mut(&end) {
                links.remove(&link);
            }
        }
        Some(of)
    }

    /// How long something small is on its way where there is no link yet.
    pub fn delay(&mut self, from: usize, to: usize) -> u64 {
        self.delay_of(self.usual, (from, to))
    }

    fn delay_of(&mut self, quality: Quality, way: (usize, usize)) -> u64 {
        quality.delay_ms + self.delays.of(way).below(quality.delay_ms + 2)
    }

    /// When a frame of `bytes` that `node` sends now arrives: never before an earlier one.
    pub fn frame_arrives(&mut self, now: u64, link: u64, node: usize, bytes: u64) -> Option<u64> {
        let quality = self.links.get(&link)?.quality;
        let way = (node, self.other_end(link, node)?);
        let delay = self.delay_of(quality, way) + bytes / quality.rate;
        let at = self.moves_at(now, way) + delay;
        let of = self.links.get_mut(&link)?;
        let until = &mut of.frames_until[of.side(node)];
        *until = (*until).max(at);
        Some(*until)
    }

    /// When a message of gossip that `node` passes on now arrives: in no order.
    pub fn gossip_arrives(&mut self, now: u64, link: u64, node: usize) -> Option<u64> {
        let quality = self.links.get(&link)?.quality;
        let way = (node, self.other_end(link, node)?);
        let delay = self.delay_of(quality, way) + self.delays.of(way).below(GOSSIP_DELAY_MS_MAX);
        Some(self.moves_at(now, way) + delay)
    }

    /// When everything that `node` has sent on a link has arrived.
    #[must_use]
    pub fn frames_end(&self, link: u64, node: usize) -> Option<u64> {
        let of = self.links.get(&link)?;
        Some(of.frames_until[of.side(node)])
    }

    /// When `bytes` of a chunk that `node` sends now are sent, after what its connection already carries, and when they
    /// have arrived.
    pub fn chunk_arrives(&mut self, now: u64, link: u64, node: usize, bytes: u64) -> Option<(u64, u64)> {
        let start = self.moves_at(now, (node, self.other_end(link, node)?));
        let of = self.links.get_mut(&link)?;
        let side = of.side(node);
        let mut sent = start.max(of.chunks_until[side]) + bytes / of.quality.rate;
        if let Some(uplink) = self.uplinks.get_mut(&node) {
            uplink.busy_until = uplink.busy_until.max(start) + bytes / uplink.rate;
            sent = sent.max(uplink.busy_until);
        }
        of.chunks_until[side] = sent;
        Some((sent, sent + of.quality.delay_ms))
    }

    /// When what is sent now on a way begins to move.
    fn moves_at(&self, now: u64, way: (usize, usize)) -> u64 {
        self.ways.get(&way).map_or(now, |way| way.stalled_until.max(now))
    }

    /// Nothing moves from one node to the other until then.
    pub fn stall(&mut self, from: usize, to: usize, until: u64) {
        let way = self.ways.entry((from, to)).or_default();
        way.stalled_until = way.stalled_until.max(until);
    }

    /// What `node` sends on a link from now on arrives in its order, and not before so much later.
    pub fn dawdle(&mut self, now: u64, link: u64, node: usize, by_ms: u64) {
        let Some(of) = self.links.get_mut(&link) else { return };
        let side = of.side(node);
        for until in [&mut of.frames_until[side], &mut of.chunks_until[side]] {
            *until = (*until).max(now + by_ms);
        }
    }

    /// One node cannot dial the other until then.
    pub fn close(&mut self, from: usize, to: usize, until: u64) {
        let way = self.ways.entry((from, to)).or_default();
        way.closed_until = way.closed_until.max(until);
    }

    /// Neither of two nodes reaches the other until then; the links that this ends.
    pub fn separate(&mut self, a: usize, b: usize, until: u64) -> Vec<u64> {
        self.close(a, b, until);
        self.close(b, a, until);
        self.between(a, b)
    }

    /// Whether one node can dial the other, as far as the way goes.
    #[must_use]
    pub fn is_reachable(&self, from: usize, to: usize, now: u64) -> bool {
        let is_open = self.ways.get(&(from, to)).is_none_or(|way| way.closed_until.max(way.stalled_until) <= now);
        is_open && self.is_dialable(to)
    }

    /// Whether a node can be dialled where nothing is wrong.
    #[must_use]
    pub fn is_dialable(&self, node: usize) -> bool {
        self.uplinks.get(&node).is_none_or(|uplink| !uplink.is_behind_nat)
    }

    /// Whether both nodes may have one more link with each other.
    #[must_use]
    pub fn has_room(&self, from: usize, to: usize) -> bool {
        let count = |node| self.of.get(&node).map_or(0, BTreeSet::len);
        let is_free = |node| count(node) < CONNECTIONS_MAX as usize;
        is_free(from) && is_free(to) && self.between(from, to).len() < CONNECTIONS_PER_PEER_MAX as usize
    }

    /// At most `count` of these links of `node`, drawn by chance: whom it passes gossip on to.
    pub fn some_of(&mut self, node: usize, mut links: Vec<u64>, count: usize) -> Vec<u64> {
        while links.len() > count {
            let left_out = self.meshes.of(node).below(links.len() as u64) as usize;
            links.swap_remove(left_out);
        }
        links
    }

    /// Every way is as it should be; the links that are not of the usual quality.
    pub fn heal(&mut self) -> Vec<u64> {
        self.ways.clear();
        let usual = self.usual;
        self.links.iter().filter(|(_, link)| link.quality != usual).map(|(number, _)| *number).collect()
    }

    /// Time leaps: nothing that was under way before matters.
    pub fn leap(&mut self) {
        self.ways.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(1, Quality { delay_ms: 10, rate: 100 })
    }

    #[test]
    fn frames_keep_their_order_through_a_stall() {
        let mut network = network();
        let link = network.connect(0, 1, None);
        network.stall(0, 1, 5_000);
        let first = network.frame_arrives(100, link, 0, 10).unwrap();
        let back = network.frame_arrives(100, link, 1, 10).unwrap();
        let second = network.frame_arrives(4_999, link, 0, 10).unwrap();
        assert!(first >= 5_000 && second >= first, "nothing overtakes");
        assert!(back < 200, "the other way is open");
    }

    #[test]
    fn links_of_one_node_share_what_it_can_send() {
        let mut network = network();
        network.place(0, 10, false);
        let links = [network.connect(0, 1, None), network.connect(0, 2, None)];
        let sent: Vec<u64> = links.iter().map(|link| network.chunk_arrives(0, *link, 0, 1_000).unwrap().0).collect();
        assert_eq!(sent, [100, 200]);
        assert_eq!(network.chunk_arrives(0, links[0], 1, 1_000).unwrap().0, 10, "the other end is not limited");
    }

    #[test]
    fn a_link_that_was_cut_is_forgotten() {
        let mut network = network();
        let link = network.connect(0, 1, None);
        assert_eq!((network.between(1, 0), network.other_end(link, 0)), (vec![link], Some(1)));
        assert_eq!(network.cut(link).map(|link| link.ends), Some([0, 1]));
        assert!(
            network.cut(link).is_none() && network.standing(None).is_empty() && network.standing(Some(1)).is_empty()
        );
    }

    #[test]
    fn nodes_are_reached_where_the_way_is_open_and_there_is_room() {
        let mut network = network();
        network.close(0, 1, 500);
        assert!(!network.is_reachable(0, 1, 499) && network.is_reachable(1, 0, 499) && network.is_reachable(0, 1, 500));
        network.place(1, 10, true);
        assert!(!network.is_reachable(0, 1, 500) && network.is_reachable(1, 0, 500));
        for peer in 0..CONNECTIONS_MAX as usize {
            assert!(network.has_room(100, peer));
            network.connect(100, peer, None);
        }
        assert!(!network.has_room(100, 99) && !network.has_room(99, 100));
    }
}
