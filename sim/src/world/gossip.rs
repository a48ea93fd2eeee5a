//! Gossip: a message floods over the links of members, each node taking it in and passing it on once.
//!
//! As with the real driver it travels on the links that stand, apart from their frames and in no order; a message that a
//! full queue drops is lost on that hop alone.

use bytes::Bytes;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::replica::Input as ReplicaInput;

use super::{Coming, World};

/// To how many peers a node passes on what others published: a mesh like that of the real driver. What is a node's own
/// goes to all.
const MESH_PEERS: usize = 8;

/// A message of gossip.
#[derive(Debug, Clone)]
pub(crate) struct News {
    number: u64,
    from: DeviceId,
    message: Bytes,
}

impl World {
    /// A node publishes a message.
    pub(crate) fn gossip(&mut self, node: usize, message: Bytes) {
        self.news += 1;
        let news = News { number: self.news, from: self.nodes[node].device_id(), message };
        self.hosts[node].hear(self.now, news.number);
        let links = self.gossiping(node);
        self.pass_on(node, &links, &news);
    }

    /// One link to each peer that a node takes for a member.
    fn gossiping(&mut self, node: usize) -> Vec<u64> {
        let (mut links, mut peers) = (self.network.standing(Some(node)), Vec::new());
        links.retain(|link| {
            let Some(of) = self.network.alive(*link) else { return false };
            let side = of.side(node);
            let peer = of.ends[1 - side];
            let is_first = of.is_admitted[side] && !peers.contains(&peer);
            peers.extend(is_first.then_some(peer));
            is_first
        });
        links
    }

    fn pass_on(&mut self, node: usize, links: &[u64], news: &News) {
        for &link in links {
            let Some(to) = self.network.other_end(link, node) else { continue };
            self.traffic.gossip_bytes += news.message.len() as u64;
            for copy in 0..self.copies_of_gossip() {
                let Some(at) = self.network.gossip_arrives(self.now, link, node) else { continue };
                let after = at - self.now + self.gossip_late_ms();
                self.push(after, Coming::Gossip { link, to, news: news.clone(), is_again: copy > 0 });
            }
        }
    }

    pub(crate) fn gossip_arrives(&mut self, link: u64, to: usize, news: News, is_again: bool) {
        let is_heard = self.network.alive(link).is_some_and(|of| of.is_admitted[of.side(to)]);
        if !is_heard || self.nodes[to].library.is_none() {
            return;
        }
        let is_new = self.hosts[to].hear(self.now, news.number);
        if is_new || is_again {
            self.input(to, ReplicaInput::Gossiped { from: news.from, body: news.message.clone() });
        }
        if is_new {
            let mut links = self.gossiping(to);
            let origin = self.numbers.get(&news.from).copied();
            links.retain(|other| *other != link && self.network.other_end(*other, to) != origin);
            let links = self.network.some_of(to, links, MESH_PEERS);
            self.pass_on(to, &links, &news);
        }
    }
}
