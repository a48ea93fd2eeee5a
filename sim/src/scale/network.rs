//! Who has a session with whom, who is in whose mesh, and how far apart they are.

use crate::chance::Chance;

/// The mesh of gossipsub as the node configures it: grafts up to so many.
const MESH: usize = 6;
/// A peer takes part in at most so many meshes.
const MESH_MAX: usize = 12;
/// One way, in milliseconds.
const DELAY_MS: (u64, u64) = (10, 150);

/// A peer at the other end of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neighbour {
    pub(super) peer: u32,
    pub(super) delay_us: u64,
    pub(super) in_mesh: bool,
}

/// All peers with their sessions.
pub(super) struct Peers(Vec<Vec<Neighbour>>);

impl Peers {
    /// Random sessions, `sessions` for each peer on average; everybody with everybody when that is enough.
    pub(super) fn new(peers: usize, sessions: usize, chance: &mut Chance) -> Self {
        let mut all = Self(vec![Vec::new(); peers]);
        if sessions + 1 >= peers {
            for a in 0..peers {
                for b in 0..a {
                    all.connect(a, b, chance);
                }
            }
        } else {
            // Each dials half of its sessions and is dialled by the other half.
            for a in 0..peers {
                let mut dialled = 0;
                while dialled < sessions / 2 {
                    let b = chance.below(peers as u64) as usize;
                    if a != b && !all.0[a].iter().any(|neighbour| neighbour.peer as usize == b) {
                        all.connect(a, b, chance);
                        dialled += 1;
                    }
                }
            }
        }
        all.graft(chance);
        all
    }

    fn connect(&mut self, a: usize, b: usize, chance: &mut Chance) {
        let delay_us = chance.between(DELAY_MS.0, DELAY_MS.1) * 1000;
        self.0[a].push(Neighbour { peer: b as u32, delay_us, in_mesh: false });
        self.0[b].push(Neighbour { peer: a as u32, delay_us, in_mesh: false });
    }

    fn in_mesh(&self, peer: usize) -> usize {
        self.0[peer].iter().filter(|neighbour| neighbour.in_mesh).count()
    }

    fn graft(&mut self, chance: &mut Chance) {
        for peer in 0..self.0.len() {
            let mut tries = 0;
            while self.in_mesh(peer) < MESH.min(self.0[peer].len()) && tries < 200 {
                tries += 1;
                let at = chance.below(self.0[peer].len() as u64) as usize;
                let other = self.0[peer][at].peer as usize;
                if self.0[peer][at].in_mesh || self.in_mesh(other) >= MESH_MAX {
                    continue;
                }
                self.0[peer][at].in_mesh = true;
                if let Some(back) = self.0[other].iter_mut().find(|back| back.peer as usize == peer) {
                    back.in_mesh = true;
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn of(&self, peer: u32) -> &[Neighbour] {
        &self.0[peer as usize]
    }

    pub(super) fn sessions_mean(&self) -> f64 {
        self.0.iter().map(Vec::len).sum::<usize>() as f64 / self.0.len() as f64
    }
}
