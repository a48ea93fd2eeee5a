//! What a liar answers when it is asked: nothing, late, other bytes, or that it has not got what it claims.

use bytes::Bytes;
use holdfast_protocol::message::{Declined, FRAME_HEADER_BYTES, Message, tag};
use holdfast_protocol::replica::{Answer, LinkId};

use super::garbled;
use crate::chance::Chance;
use crate::fault::FaultClass;
use crate::world::World;

/// How late an answer is at most: less than what ends a link that stands still, and more.
const LATE_MS_MAX: u64 = 3 * 60_000;

impl World {
    /// What is left of the frames that a node sends: the liar keeps some to itself.
    pub(super) fn frames_not_withheld(&mut self, mut frames: Vec<Bytes>) -> Vec<Bytes> {
        frames.retain(|frame| {
            let is_answer = is_answer(frame);
            let class = if is_answer { FaultClass::LieUnanswered } else { FaultClass::LieWithheld };
            let is_kept = self.faults.strike(class).is_none();
            self.has_withheld |= !is_kept && !is_answer;
            is_kept
        });
        frames
    }

    /// The liar takes its time: what it sends on a link now, and all that follows, is late.
    pub(crate) fn dawdle(&mut self, node: usize, link: u64) {
        if self.may_lie(node)
            && let Some(mut chance) = self.faults.strike(FaultClass::LieSlow)
        {
            self.network.dawdle(self.now, link, node, chance.span(1_000, LATE_MS_MAX));
        }
    }

    /// Whether the liar leaves a request for chunks without any answer.
    pub(crate) fn ignores(&mut self, node: usize, link: LinkId) -> bool {
        let is_ignored = self.may_lie(node) && self.faults.strike(FaultClass::LieUnanswered).is_some();
        if is_ignored {
            // It takes in what comes next.
            self.free_slot(link.0, node, 0);
        }
        is_ignored
    }

    /// What the liar answers in place of something else.
    pub(crate) fn answer_told(&mut self, node: usize, answer: Answer) -> Result<(), Declined> {
        let answer = match answer {
            Answer::Send => Ok(()),
            Answer::NotHeld => Err(Declined::NotHeld),
            Answer::Elsewhere(peer) => Err(Declined::Elsewhere(peer)),
        };
        if !self.may_lie(node) {
            return answer;
        }
        let Some(mut chance) = self.faults.strike(FaultClass::LieDeclined) else { return answer };
        Err(match chance.below(4) {
            0 => Declined::Busy,
            1 => {
                let other = chance.below(self.nodes.len() as u64) as usize;
                Declined::Elsewhere(self.nodes[other].device_id())
            }
            _ => Declined::NotHeld,
        })
    }

    /// The bytes that the liar sends for a chunk.
    pub(crate) fn chunk_told(&mut self, node: usize, bytes: Result<Bytes, Declined>) -> Result<Bytes, Declined> {
        if !self.may_lie(node) || bytes.is_err() {
            return bytes;
        }
        let Some(mut chance) = self.faults.strike(FaultClass::LieChunk) else { return bytes };
        bytes.map(|bytes| other_bytes(&bytes, &mut chance))
    }
}

/// Bytes that hash to something else: garbled, or those of nobody's chunk.
fn other_bytes(bytes: &Bytes, chance: &mut Chance) -> Bytes {
    let other = garbled(bytes, chance);
    if other == *bytes { Bytes::from(chance.seed().to_vec()) } else { other }
}

/// Whether a frame is there because somebody asked for it.
fn is_answer(frame: &Bytes) -> bool {
    let Some((header, _)) = frame.split_first_chunk::<FRAME_HEADER_BYTES>() else { return false };
    match header[FRAME_HEADER_BYTES - 1] {
        tag::ENVELOPES => true,
        tag::INVENTORY => {
            let message = Message::decode(tag::INVENTORY, &frame.slice(FRAME_HEADER_BYTES..));
            matches!(message, Ok(Message::Inventory(part)) if part.base.is_none())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_are_never_the_right_ones() {
        let (mut chance, bytes) = (Chance::new(1, "other bytes"), Bytes::from(vec![7; 500]));
        assert!((0..200).all(|_| other_bytes(&bytes, &mut chance) != bytes));
    }

    #[test]
    fn answers_are_told_from_what_nobody_asked_for() {
        use holdfast_protocol::id::AuthorId;
        use holdfast_protocol::message::{Envelopes, InventoryPart};
        let answer = Envelopes { author: AuthorId::from_bytes([1; 32]), from: 0, envelopes: Vec::new() };
        assert!(is_answer(&Message::Envelopes(answer).to_frame()));
        let whole = InventoryPart { head: Bytes::from_static(&[1; 40]), base: None, more: false, changes: Vec::new() };
        assert!(is_answer(&Message::Inventory(whole.clone()).to_frame()));
        assert!(!is_answer(&Message::Inventory(InventoryPart { base: Some(3), ..whole }).to_frame()));
        assert!(!is_answer(&Message::Vector(Vec::new()).to_frame()));
    }
}
