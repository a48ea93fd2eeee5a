//! Virtual links: ordered control frames and chunk streams with delay and a limited rate, and unordered gossip.
//!
//! As with the real driver a frame arrives in its order or the link is gone; nothing is lost in between.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_protocol::message::Gate;

use crate::chance::Chance;

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// The nodes at its ends, the dialling one first.
    pub ends: [usize; 2],
    /// What each end accepts.
    pub gates: [Gate; 2],
    /// Whether it stands.
    pub is_alive: bool,
    frames_until: [u64; 2],
    chunks_until: [u64; 2],
}

/// All links.
#[derive(Debug)]
pub struct Network {
    links: BTreeMap<u64, Link>,
    next: u64,
    chance: Chance,
    delay_ms: u64,
    /// Sealed bytes per millisecond and direction.
    rate: u64,
    separated: BTreeSet<(usize, usize)>,
}

impl Network {
    /// A network without links.
    #[must_use]
    pub const fn new(chance: Chance, delay_ms: u64, rate: u64) -> Self {
        Self { links: BTreeMap::new(), next: 0, chance, delay_ms, rate, separated: BTreeSet::new() }
    }

    /// A new link from one node to another; its number is never used again.
    pub fn connect(&mut self, from: usize, to: usize) -> u64 {
        self.next += 1;
        let link = Link {
            ends: [from, to],
            gates: Default::default(),
            is_alive: true,
            frames_until: [0; 2],
            chunks_until: [0; 2],
        };
        self.links.insert(self.next, link);
        self.next
    }

    /// The link, if it stands.
    pub fn alive(&mut self, link: u64) -> Option<&mut Link> {
        self.links.get_mut(&link).filter(|link| link.is_alive)
    }

    /// The links that stand, of one node or of all.
    #[must_use]
    pub fn standing(&self, node: Option<usize>) -> Vec<u64> {
        let of_node = |link: &Link| node.is_none_or(|node| link.ends.contains(&node));
        self.links.iter().filter(|(_, link)| link.is_alive && of_node(link)).map(|(number, _)| *number).collect()
    }

    /// The node at the other end of a standing link.
    pub fn other_end(&mut self, link: u64, node: usize) -> Option<usize> {
        self.alive(link)?.ends.into_iter().find(|end| *end != node)
    }

    /// Ends a link; the nodes that stood at its ends, once.
    pub fn cut(&mut self, link: u64) -> Option<[usize; 2]> {
        let of = self.alive(link)?;
        of.is_alive = false;
        Some(of.ends)
    }

    /// How long something small is on its way.
    pub fn delay(&mut self) -> u64 {
        self.delay_ms + self.chance.below(self.delay_ms + 2)
    }

    /// By how much a message of gossip is later than that.
    pub fn gossip_delay(&mut self) -> u64 {
        self.chance.below(200)
    }

    /// When a frame that `node` sends now arrives: never before an earlier one.
    pub fn frame_arrives(&mut self, now: u64, link: u64, node: usize) -> Option<u64> {
        let at = now + self.delay();
        let of = self.alive(link)?;
        let side = usize::from(of.ends[0] != node);
        of.frames_until[side] = of.frames_until[side].max(at);
        Some(of.frames_until[side])
    }

    /// When everything that `node` has sent on a link has arrived.
    pub fn frames_end(&mut self, link: u64, node: usize) -> Option<u64> {
        let of = self.alive(link)?;
        Some(of.frames_until[usize::from(of.ends[0] != node)])
    }

    /// When `bytes` of a chunk that `node` sends now have arrived, behind all earlier ones.
    pub fn chunk_arrives(&mut self, now: u64, link: u64, node: usize, bytes: u64) -> Option<u64> {
        let (start, rate) = (now + self.delay_ms, self.rate);
        let of = self.alive(link)?;
        let side = usize::from(of.ends[0] != node);
        of.chunks_until[side] = of.chunks_until[side].max(start) + bytes / rate;
        Some(of.chunks_until[side])
    }

    /// Separates two nodes, or lets them reach each other again; the links that this ends.
    pub fn separate(&mut self, a: usize, b: usize, is_separate: bool) -> Vec<u64> {
        if !is_separate {
            self.separated.remove(&(a.min(b), a.max(b)));
            return Vec::new();
        }
        self.separated.insert((a.min(b), a.max(b)));
        let between = |link: &Link| link.is_alive && link.ends.contains(&a) && link.ends.contains(&b);
        self.links.iter().filter(|(_, link)| between(link)).map(|(number, _)| *number).collect()
    }

    /// Whether one node can reach the other.
    #[must_use]
    pub fn is_reachable(&self, a: usize, b: usize) -> bool {
        !self.separated.contains(&(a.min(b), a.max(b)))
    }
}
