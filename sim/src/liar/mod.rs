//! Peers that lie. The last device of a world is a member like the others whose words are tampered with on their way out,
//! until faults stop; strangers without membership repeat what they overheard.
//!
//! Each kind of lie is a class of faults with a stream of its own. The others must stay correct, bounded and live, and
//! once the lies end all must agree, the liar too: what it is caught at costs it links, never its membership.

mod answers;
mod inventories;
mod shadow;
mod stranger;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use holdfast_library::Input;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::message::FRAME_HEADER_BYTES;
use holdfast_protocol::position::Position;
use holdfast_protocol::replica::Input as ReplicaInput;

use crate::chance::Chance;
use crate::disk::Death;
use crate::fault::FaultClass;
use crate::world::World;

pub(crate) use shadow::Shadow;

/// Messages that liars remember of what they overheard.
const OVERHEARD_MAX: usize = 128;
/// Messages of one flood.
const FLOOD_MESSAGES: u64 = 60;

/// What liars remember.
#[derive(Debug, Default)]
pub(crate) struct Overheard {
    frames: VecDeque<Bytes>,
    gossip: VecDeque<Bytes>,
}

impl Overheard {
    fn keep(messages: &mut VecDeque<Bytes>, message: &Bytes) {
        messages.truncate(OVERHEARD_MAX - 1);
        messages.push_front(message.clone());
    }

    fn any(messages: &VecDeque<Bytes>, chance: &mut Chance) -> Option<Bytes> {
        messages.get(chance.below(messages.len() as u64) as usize).cloned()
    }
}

impl World {
    /// The number of the device that may lie.
    pub(crate) const fn liar(&self) -> usize {
        self.options.nodes - 1
    }

    /// Whether a node lies where a class of lies strikes: only the last of several does.
    fn may_lie(&self, node: usize) -> bool {
        node > 0 && node == self.liar()
    }

    /// Whether a node is the liar, or a copy of it.
    pub(crate) fn is_liar(&self, node: usize) -> bool {
        self.may_lie(self.nodes[node].home)
    }

    /// Whether a node may say that it holds what it lacks.
    pub(crate) fn may_claim_falsely(&self, node: usize) -> bool {
        let classes = &self.options.classes;
        let lies = [FaultClass::LieHoldings, FaultClass::LieInventories].iter().any(|class| classes.contains(class));
        lies && self.may_lie(node)
    }

    /// What is sent in place of a frame.
    pub(crate) fn frames_told(&mut self, node: usize, frame: Bytes) -> Vec<Bytes> {
        Overheard::keep(&mut self.overheard.frames, &frame);
        if !self.may_lie(node) {
            return vec![frame];
        }
        let mut told = self.inventory_told(node, frame);
        if let Some(mut chance) = self.faults.strike(FaultClass::LieReplayed) {
            // What was true once can take back what is.
            self.has_withheld = true;
            told.extend(Overheard::any(&self.overheard.frames, &mut chance));
        }
        if let Some(mut chance) = self.faults.strike(FaultClass::LieGarbled) {
            self.has_withheld = true;
            told = told.into_iter().map(|frame| garbled_frame(&frame, &mut chance)).collect();
        }
        self.frames_not_withheld(told)
    }

    /// What is published in place of a message of gossip.
    pub(crate) fn gossip_told(&mut self, node: usize, message: Bytes) -> Vec<Bytes> {
        Overheard::keep(&mut self.overheard.gossip, &message);
        if !self.may_lie(node) {
            return vec![message];
        }
        let mut told = vec![message];
        if let Some(mut chance) = self.faults.strike(FaultClass::LieGossip) {
            let old = Overheard::any(&self.overheard.gossip, &mut chance);
            told.extend(old.iter().map(|old| garbled(old, &mut chance)));
            told.extend(old);
        }
        if let Some(mut chance) = self.faults.strike(FaultClass::LieFlood) {
            for _ in 0..FLOOD_MESSAGES {
                told.extend(Overheard::any(&self.overheard.gossip, &mut chance).map(|old| garbled(&old, &mut chance)));
            }
        }
        told
    }

    /// The liar says that it holds chunks that it lacks; whether it lacks any.
    pub(crate) fn lie_about_holdings(&mut self, chance: &mut Chance) -> bool {
        let liar = self.liar();
        let Some(library) = self.nodes[liar].library.as_ref().filter(|_| self.may_lie(liar)) else { return false };
        let mut lacked: Vec<ChunkId> = Vec::new();
        for slot in 0..library.photos().len() as u32 {
            let run = library.photos().row(slot).run;
            let at = |index| library.replica().chunk_at(&Position { author: run.author, index });
            let chunks = (run.start..run.start + run.count).filter_map(|index| Some(at(index)?.chunk));
            lacked.extend(chunks.filter(|chunk| !library.replica().holds(chunk)));
        }
        lacked.retain(|_| chance.one_in(2));
        let does_lie = !lacked.is_empty();
        if does_lie {
            self.has_lied = true;
            self.handle(liar, Input::Replica(ReplicaInput::ChunksStored(lacked)));
        }
        does_lie
    }

    /// Whoever lied about what it holds is started again, and looks. Who kept to itself what others can only know from it
    /// begins anew with everybody: nobody can ask for what was never mentioned. So does who has told of a log that it writes
    /// beside its own: its library is told only by those who begin anew with it.
    pub(crate) fn stop_lying(&mut self) {
        let liar = self.liar();
        if std::mem::take(&mut self.has_lied) && self.nodes[liar].library.is_some() {
            self.end(liar, Death::Killed, 1);
        }
        let mut anew: BTreeSet<usize> = self.shadows.values().map(Shadow::node).collect();
        if std::mem::take(&mut self.has_withheld) {
            anew.insert(liar);
        }
        for link in anew.into_iter().flat_map(|node| self.network.standing(Some(node))).collect::<BTreeSet<_>>() {
            self.cut(link);
        }
    }
}

/// Other bytes, of another length now and then.
fn garbled(bytes: &Bytes, chance: &mut Chance) -> Bytes {
    let mut bytes = bytes.to_vec();
    match chance.below(4) {
        0 => bytes.truncate(chance.below(bytes.len() as u64) as usize),
        1 => bytes.extend_from_slice(&chance.seed()),
        2 => bytes = chance.seed().repeat(1 + chance.below(40) as usize),
        _ => {}
    }
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() as u64) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << chance.below(8);
        }
    }
    bytes.into()
}

/// A frame with a garbled body, and a header that fits it, or says too much.
fn garbled_frame(frame: &Bytes, chance: &mut Chance) -> Bytes {
    let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return frame.clone() };
    let tag = if chance.one_in(4) { chance.below(256) as u8 } else { header[FRAME_HEADER_BYTES - 1] };
    let body = garbled(&frame.slice(FRAME_HEADER_BYTES..), chance);
    let length = if chance.one_in(8) { u32::MAX } else { body.len() as u32 };
    [&length.to_le_bytes()[..], &[tag], &body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_garbled_is_not_what_it_was() {
        let (mut chance, bytes) = (Chance::new(1, "garbled"), Bytes::from(vec![7; 500]));
        assert!((0..100).all(|_| garbled(&bytes, &mut chance) != bytes));
        assert!((0..100).any(|_| garbled_frame(&bytes, &mut chance).starts_with(&u32::MAX.to_le_bytes())));
    }
}
