//! Chunks going out and coming in: answering requests, and settling own ones.
//!
//! A node that many peers fetch from at once sends each chunk about once: to who asks second it says who has got it
//! already ([`Answer::Elsewhere`]), unless the asker has waited in vain and says `urgent`.

use std::time::Duration;

use super::chunks::{ChunkTable, Slot};
use super::own_inventory::{OwnInventory, Pending};
use super::schedule::{Settled, corrupt_rest};
use super::{
    Answer, DisconnectReason, Effect, Event, FetchOutcome, LinkId, Misbehaviour, Replica, RequestId, Transfers,
};
use crate::id::{AuthorId, ChunkId, DeviceId};
use crate::message::FetchRequest;
use crate::metadata::{Metadata, StorageError};
use crate::position::Position;
use crate::time::Timestamp;

/// Chunks that an estimate of bytes looks at.
const LACKED_SAMPLE_MAX: u64 = 1024;
/// So long after the last chunk was sent to a peer, it counts as busy spreading what it got.
const SPREADING: Duration = Duration::from_secs(10 * 60);
/// After so many chunks with wrong bytes in one session a peer is turned away for a while, longer each time.
const CORRUPT_MAX: u32 = 3;

/// Notes in the own inventory that a chunk's positions are held, or no more.
pub(super) fn record_positions(
    chunks: &ChunkTable,
    slot: Slot,
    held: bool,
    now: Timestamp,
    own: &mut OwnInventory,
    news: &mut Pending,
) {
    for position in chunks.positions(slot) {
        record_position(&position, held, now, own, news);
    }
}

/// Notes in the own inventory that one position is held, or no more.
pub(super) fn record_position(
    position: &Position,
    held: bool,
    now: Timestamp,
    own: &mut OwnInventory,
    news: &mut Pending,
) {
    if own.holdings().holds(position) != held {
        own.record(now, position, held);
        news.record(position, held);
    }
}

impl<M: Metadata> Replica<M> {
    pub(super) fn handle_fetch_requested(&mut self, link: LinkId, request: &FetchRequest) {
        let Some(session) = self.sessions.get(&link) else { return };
        let asker = session.peer;
        if !session.is_established() {
            return self.misbehaved(link, Misbehaviour::OutOfTurn { tag: 0 });
        }
        let number = self.serve_number(asker);
        let mut sends = false;
        let answers: Vec<(ChunkId, Answer)> = request
            .chunks
            .iter()
            .map(|chunk| {
                let answer = self.answer(chunk, asker, number, request.urgent);
                sends |= answer == Answer::Send;
                (*chunk, answer)
            })
            .collect();
        if sends && let Some(peer) = self.peers.get_mut(&asker) {
            peer.served_at = Some(self.now.elapsed);
        }
        self.effects.push(Effect::Serve { link, request: RequestId(request.request), answers });
    }

    fn answer(&mut self, chunk: &ChunkId, asker: DeviceId, number: u8, urgent: bool) -> Answer {
        let Some(slot) = self.chunks.slot(chunk).filter(|&slot| self.chunks.is_held(slot)) else {
            return Answer::NotHeld;
        };
        if !urgent
            && let Some(other) = self.spreader(slot)
            && other != asker
        {
            return Answer::Elsewhere(other);
        }
        self.chunks.set_served_to(slot, number);
        Answer::Send
    }

    /// The peer that got this chunk from here and is around to pass it on.
    fn spreader(&self, slot: Slot) -> Option<DeviceId> {
        let number = usize::from(self.chunks.served_to(slot)).checked_sub(1)?;
        let peer = *self.served_peers.get(number)?;
        let recently = |at: Timestamp| self.now.elapsed.since(at) < SPREADING;
        let around = self.scheduler.is_source(&peer);
        (around && self.peers.get(&peer)?.served_at.is_some_and(recently)).then_some(peer)
    }

    fn serve_number(&mut self, asker: DeviceId) -> u8 {
        let peer = self.peers.entry(asker).or_default();
        if peer.serve_number == 0
            && let Ok(number) = u8::try_from(self.served_peers.len() + 1)
        {
            peer.serve_number = number;
            self.served_peers.push(asker);
        }
        peer.serve_number
    }

    pub(super) fn handle_arriving(&mut self, link: LinkId) {
        if let Some(session) = self.sessions.get(&link) {
            self.scheduler.arriving(self.now.elapsed, &session.peer);
        }
    }

    pub(super) fn handle_fetched(
        &mut self,
        link: LinkId,
        request: RequestId,
        chunk: &ChunkId,
        outcome: FetchOutcome,
    ) -> Result<(), StorageError> {
        let Some(slot) = self.chunks.slot(chunk) else { return Ok(()) };
        let peer = self.sessions.get(&link).map(|session| session.peer);
        let settled = match outcome {
            FetchOutcome::Stored => {
                if let Some(known) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
                    known.distrust = 0;
                }
                self.received_bytes += u64::from(self.chunks.chunk(slot).length);
                self.mark_held(slot);
                Settled::Stored
            }
            FetchOutcome::Declined(declined) => Settled::Declined(declined),
            FetchOutcome::Corrupt => Settled::Corrupt,
            FetchOutcome::StorageFailed(error) => {
                self.effects.push(Effect::Event(Event::StorageFailed(error)));
                Settled::StorageFailed
            }
        };
        let now = self.now.elapsed;
        let corrupt = self.scheduler.settle(now, request, slot, settled, &mut self.chunks, &mut self.random);
        if let Some(corrupt) = corrupt
            && let Some(peer) = peer
        {
            self.effects.push(Effect::Event(Event::ChunkCorrupt { peer, chunk: *chunk }));
            if corrupt >= CORRUPT_MAX {
                let known = self.peers.entry(peer).or_default();
                known.shunned_until = Some(now + corrupt_rest(known.distrust, &mut self.random));
                known.distrust += 1;
                self.refuse(link, DisconnectReason::Misbehaved(Misbehaviour::CorruptChunks));
            }
        }
        Ok(())
    }

    pub(super) fn handle_fetch_ended(&mut self, request: RequestId) {
        self.scheduler.end_early(self.now.elapsed, request, &mut self.chunks, &mut self.random);
    }

    /// Chunks came into the store by other means. Those that were not deposited (yet) are left alone.
    pub(super) fn handle_stored(&mut self, stored: &[ChunkId]) {
        for chunk in stored {
            if let Some(slot) = self.chunks.slot(chunk) {
                self.mark_held(slot);
            }
        }
    }

    pub(super) fn handle_lost(&mut self, lost: &[ChunkId]) {
        for chunk in lost {
            let Some(slot) = self.chunks.slot(chunk) else { continue };
            if self.chunks.set_held(slot, false) {
                record_positions(&self.chunks, slot, false, self.now.elapsed, &mut self.own, &mut self.news);
                self.scheduler.want([slot], &mut self.chunks);
            }
        }
    }

    /// A chunk is durable here.
    pub(super) fn mark_held(&mut self, slot: Slot) {
        if self.chunks.set_held(slot, true) {
            record_positions(&self.chunks, slot, true, self.now.elapsed, &mut self.own, &mut self.news);
        }
    }

    /// Chunks that are asked of nobody while nothing at all is asked of `peer`, and nothing keeps them from it but what it did
    /// or said; none while the store takes no chunks.
    #[must_use]
    pub fn unasked(&self, peer: &DeviceId) -> Vec<ChunkId> {
        let slots = self.scheduler.unasked(self.now.elapsed, peer, &self.chunks);
        slots.map(|slot| self.chunks.chunk(slot).chunk).collect()
    }

    /// What is missing and on its way. Counting what no connected peer holds takes a pass over what is missing.
    #[must_use]
    pub fn transfers(&self) -> Transfers {
        let (in_flight_chunks, in_flight_bytes) = self.scheduler.in_flight();
        let wanted = self.chunks.wanted();
        let unavailable = wanted.iter().filter(|&slot| self.chunks.sources(slot) == 0);
        let (unavailable_chunks, unavailable_bytes) = unavailable
            .fold((0, 0), |(chunks, bytes), slot| (chunks + 1, bytes + u64::from(self.chunks.chunk(slot).length)));
        Transfers {
            missing_chunks: wanted.len(),
            missing_bytes: self.chunks.wanted_bytes(),
            unavailable_chunks,
            unavailable_bytes,
            in_flight_chunks,
            in_flight_bytes,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            bytes_per_second: self.scheduler.rate(),
        }
    }
    /// About how many sealed bytes a connected peer lacks of what is durable here and still counts: exact for a thousand
    /// chunks, in proportion for more. What it does not hold by its own account, a moment ago, it lacks.
    #[must_use]
    pub fn lacked_by(&self, peer: &DeviceId) -> u64 {
        let Some(theirs) = self.scheduler.available(peer) else { return 0 };
        let lacked_of = |author: &AuthorId| {
            let ours = self.own.holdings().held(author)?;
            Some((*author, theirs.held(author).map_or_else(|| ours.clone(), |held| ours - held)))
        };
        let lacked: Vec<_> = self.logs.keys().filter_map(lacked_of).collect();
        let positions: u64 = lacked.iter().map(|(_, indices)| indices.len()).sum();
        let stride = positions.div_ceil(LACKED_SAMPLE_MAX).max(1);
        let mut bytes = 0;
        for (author, indices) in &lacked {
            for step in 0..indices.len().div_ceil(stride) {
                // Not in step with photos that have equally many chunks each.
                let nth = step * stride + (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % stride;
                let index = u32::try_from(nth).ok().and_then(|nth| indices.select(nth));
                let slot = index.and_then(|index| self.chunks.slot_at(&Position { author: *author, index }));
                if let Some(slot) = slot.filter(|&slot| self.chunks.is_live(slot)) {
                    bytes += u64::from(self.chunks.chunk(slot).length);
                }
            }
        }
        bytes.saturating_mul(stride)
    }
}
