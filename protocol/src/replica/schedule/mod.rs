//! The transfer scheduler: which chunk is asked of which peer, when, and what happens when it does not come.
//!
//! Invariants:
//! - a chunk is in at most one request at a time, and only while it is wanted;
//! - for every wanted chunk, `sources` in the table is the number of connected peers that say they hold it and have not
//!   declined to send it lately;
//! - a wanted chunk that is not requested is, for each peer that has it, either a candidate there or resting there: whoever
//!   sends elsewhere is asked again only after a while, so that every other holder is asked before;
//! - nothing that a peer did wrong keeps it from being asked again for ever: it rests, longer each time, and no longer than until
//!   something of it arrives. A request that brings nothing is one failure, whatever it names, and so are all that were
//!   under way with it;
//! - what is asked of one peer stays within its window and [`REQUESTS_PER_PEER_MAX`](crate::limits::REQUESTS_PER_PEER_MAX) requests.
//!
//! The cost of an input is that of the chunks it names. Only a peer that connects or leaves costs a pass over what is
//! wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;

use super::chunks::{ChunkTable, Slot};
use super::effect::{ChunkWanted, Effect};
use super::input::{LinkId, RequestId};
use crate::id::DeviceId;
use crate::inventory::{HoldingChanges, Holdings, Span};
use crate::message::Declined;
use crate::time::Timestamp;

mod source;

pub(super) use source::{CANDIDATES_SPARE, Source, backoff};

/// Bytes asked for and not settled, over all peers.
const IN_FLIGHT_BYTES_MAX: u64 = 96 << 20;
/// How long a chunk may be left to another peer that does not have it yet, while the source sends other chunks.
const ELSEWHERE_WAIT_MAX: Duration = Duration::from_secs(2 * 60);
/// How long a chunk that others do have is left to them at least before the source is asked again; up to a half longer by
/// chance, so that not everyone comes back to the first source.
const ELSEWHERE_HELD_WAIT_MS: u64 = 10_000;
/// How long a peer is not asked again for a chunk of which it sent wrong bytes, and not connected to after several: at
/// first, and at most.
const CORRUPT_MS: u64 = 60 * 1000;
const CORRUPT_MS_MAX: u64 = 60 * 60 * 1000;

#[derive(Debug)]
struct Request {
    peer: DeviceId,
    /// Not settled yet.
    chunks: Vec<(Slot, u32)>,
    issued: Timestamp,
    deadline: Timestamp,
    /// Whether anything was settled.
    answered: bool,
    /// The best that came of it so far.
    outcome: Outcome,
}

/// What came of a request, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nothing that says anything of the peer.
    Nothing,
    /// Others are to be asked first.
    Deferred,
    /// What the peer says it holds it did not send.
    Refused,
    /// Chunks.
    Chunks,
}

/// Why a peer is not asked for a chunk for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It wants others to pass the chunk on; they have until then.
    Elsewhere { until: Timestamp },
    /// The same, and others do have the chunk.
    Held,
    /// It sent wrong bytes.
    Corrupt,
}

/// How a chunk of a request was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Stored,
    Declined(Declined),
    Corrupt,
    StorageFailed,
}

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    sources: BTreeMap<DeviceId, Source>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    /// Chunks that peers are not asked for until a time.
    resting: BTreeMap<(Slot, DeviceId), Rest>,
    /// When each of them ends; an entry may be stale.
    rests: BTreeSet<(Timestamp, Slot, DeviceId)>,
    paused_until: Timestamp,
    storage_failures: u32,
    in_flight_bytes: u64,
    in_flight_chunks: u64,
    /// Whose turn it is to be asked first.
    turn: Option<DeviceId>,
    /// Whether anything changed since the last `fill` that might allow another request.
    stirred: bool,
    /// Peers that began to rest, and for how long, until it is told.
    began_to_rest: Vec<(DeviceId, Duration)>,
}

impl Scheduler {
    /// A peer is connected and says it holds `available`. `distrust` says how often it was turned away for wrong bytes
    /// since it last sent right ones.
    pub(super) fn add_source(
        &mut self,
        now: Timestamp,
        peer: DeviceId,
        link: LinkId,
        available: Holdings,
        distrust: u32,
        chunks: &mut ChunkTable,
    ) {
        let mut source = Source::new(link, available, now);
        source.distrust = distrust;
        let gained: Vec<Slot> = chunks.wanted().iter().filter(|&slot| source.has(chunks, slot)).collect();
        for &slot in &gained {
            chunks.set_sources(slot, chunks.sources(slot).saturating_add(1));
        }
        gained.iter().for_each(|&slot| source.offer(chunks, slot));
        self.sources.insert(peer, source);
        self.stirred = true;
    }

    /// A peer is gone; what was asked of it is wanted again from others.
    pub(super) fn remove_source(&mut self, peer: &DeviceId, chunks: &mut ChunkTable) {
        let Some(source) = self.sources.remove(peer) else { return };
        let lost: Vec<Slot> = chunks.wanted().iter().filter(|&slot| source.has(chunks, slot)).collect();
        for slot in lost {
            chunks.set_sources(slot, chunks.sources(slot).saturating_sub(1));
        }
        let ended: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| request.peer == *peer).map(|(id, _)| *id).collect();
        for id in ended {
            self.end(id, chunks);
        }
        self.stirred = true;
    }

    /// A connected peer says what it holds and has lost since. False when it has said more by now than any inventory may
    /// hold.
    #[must_use]
    pub(super) fn announce(&mut self, peer: &DeviceId, changes: &[HoldingChanges], chunks: &mut ChunkTable) -> bool {
        let Some(source) = self.sources.get_mut(peer) else { return true };
        let touched = |list: fn(&HoldingChanges) -> &Vec<Span>| {
            let mut slots: Vec<Slot> = changes
                .iter()
                .flat_map(|of| list(of).iter().flat_map(|span| chunks.slots_in(&of.author, span)))
                .copied()
                .filter(|&slot| chunks.is_wanted(slot))
                .collect();
            slots.sort_unstable();
            slots.dedup();
            slots
        };
        let mut gained = touched(|changes| &changes.held);
        gained.retain(|&slot| !source.has(chunks, slot));
        gained.iter().for_each(|&slot| source.believe(slot));
        let mut lost = touched(|changes| &changes.lost);
        lost.retain(|&slot| source.has(chunks, slot));
        source.available.apply(changes);
        gained.retain(|&slot| source.has(chunks, slot));
        lost.retain(|&slot| !source.has(chunks, slot));
        for slot in lost {
            chunks.set_sources(slot, chunks.sources(slot).saturating_sub(1));
        }
        for slot in gained {
            chunks.set_sources(slot, chunks.sources(slot).saturating_add(1));
            source.offer(chunks, slot);
            self.stirred = true;
        }
        !source.available.is_over_limit()
    }

    /// Chunks have become wanted: newly deposited, or lost here.
    pub(super) fn want(&mut self, slots: impl IntoIterator<Item = Slot>, chunks: &mut ChunkTable) {
        for slot in slots {
            if !chunks.is_wanted(slot) || chunks.is_requested(slot) {
                continue;
            }
            let sources = self.sources.values().filter(|source| source.has(chunks, slot)).count();
            chunks.set_sources(slot, u8::try_from(sources).unwrap_or(u8::MAX));
            self.offer_to_all(slot, chunks);
        }
    }

    fn offer_to_all(&mut self, slot: Slot, chunks: &ChunkTable) {
        if !chunks.is_wanted(slot) {
            return;
        }
        for (peer, source) in &mut self.sources {
            if source.has(chunks, slot) && !self.resting.contains_key(&(slot, *peer)) {
                source.offer(chunks, slot);
                self.stirred = true;
            }
        }
    }

    /// Issues as many requests as windows and candidates allow.
    pub(super) fn fill(
        &mut self,
        now: Timestamp,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
        effects: &mut Vec<Effect>,
    ) {
        if !std::mem::take(&mut self.stirred) || self.paused_until > now {
            return;
        }
        let first = self.turn.and_then(|turn| self.sources.range(turn..).next()).map(|(peer, _)| *peer);
        let mut order: Vec<DeviceId> = self.sources.keys().copied().collect();
        let begin = first.and_then(|first| order.iter().position(|peer| *peer == first)).unwrap_or(0);
        order.rotate_left(begin);
        for (index, peer) in order.iter().enumerate() {
            while self.in_flight_bytes < IN_FLIGHT_BYTES_MAX && self.ask(now, *peer, chunks, random, effects) {}
            if self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX {
                self.turn = order.get(index + 1).copied();
                break;
            }
        }
    }

    /// Asks one peer for more, if it has room and anything to ask for.
    fn ask(
        &mut self,
        now: Timestamp,
        peer: DeviceId,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let alone = self.sources.len() == 1;
        let resting = &self.resting;
        let Some(source) = self.sources.get_mut(&peer) else { return false };
        let Some(budget) = source.room(now) else { return false };
        let (urgent, picked) = source.pick(budget, chunks, random, |slot| resting.contains_key(&(slot, peer)));
        if picked.is_empty() {
            return false;
        }
        let bytes: u64 = picked.iter().map(|(_, length)| u64::from(*length)).sum();
        source.departed(now);
        source.in_flight_bytes += bytes;
        source.requests += 1;
        self.in_flight_bytes += bytes;
        self.in_flight_chunks += picked.len() as u64;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let wanted = |&(slot, length): &(Slot, u32)| ChunkWanted { chunk: chunks.chunk(slot).chunk, length };
        effects.push(Effect::Fetch {
            link: source.link,
            request,
            urgent: urgent || alone,
            chunks: picked.iter().map(wanted).collect(),
        });
        let deadline = now + source.patience();
        let state = Request { peer, chunks: picked, issued: now, deadline, answered: false, outcome: Outcome::Nothing };
        self.requests.insert(request, state);
        true
    }

    /// One chunk of a request is settled. `Stored` ones must be marked as held before. Returns how many chunks with
    /// wrong bytes the peer has sent in this session, when this was one.
    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        id: RequestId,
        slot: Slot,
        settled: Settled,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
    ) -> Option<u32> {
        let request = self.requests.get_mut(&id)?;
        let index = request.chunks.iter().position(|(other, _)| *other == slot)?;
        let (_, length) = request.chunks.swap_remove(index);
        let (peer, first, issued) = (request.peer, !request.answered, request.issued);
        request.answered = true;
        let first_after = first.then(|| now.since(issued));
        self.landed(peer, length, slot, chunks);
        self.stirred = true;
        let outcome = match settled {
            Settled::Stored => Outcome::Chunks,
            Settled::Declined(declined) => self.declined(now, peer, slot, declined, chunks, random),
            Settled::Corrupt | Settled::StorageFailed => Outcome::Nothing,
        };
        self.note(now, id, outcome, random);
        let source = self.sources.get_mut(&peer)?;
        match settled {
            Settled::Stored => {
                source.arrived(now, u64::from(length), first_after);
                self.storage_failures = 0;
            }
            Settled::Declined(_) => {}
            Settled::Corrupt => {
                source.corrupt += 1;
                let corrupt = source.corrupt;
                let until = now + corrupt_rest(source.distrust, random);
                self.rest(until, slot, peer, Rest::Corrupt);
                self.offer_to_all(slot, chunks);
                return Some(corrupt);
            }
            Settled::StorageFailed => {
                self.paused_until = now + backoff(self.storage_failures, 5000, 60_000, random);
                self.storage_failures += 1;
                self.offer_to_all(slot, chunks);
            }
        }
        None
    }

    fn rest(&mut self, until: Timestamp, slot: Slot, peer: DeviceId, rest: Rest) {
        self.resting.insert((slot, peer), rest);
        self.rests.insert((until, slot, peer));
    }

    /// Fetches at once, after the store had refused chunks.
    pub(super) fn resume(&mut self, now: Timestamp) {
        (self.paused_until, self.storage_failures, self.stirred) = (now, 0, true);
    }

    /// Notes what came of a chunk for its request; the last one of a request says whether the peer rests.
    fn note(&mut self, now: Timestamp, id: RequestId, outcome: Outcome, random: &mut ChaCha20Rng) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.outcome = request.outcome.max(outcome);
        if !request.chunks.is_empty() {
            return;
        }
        let Some(Request { peer, issued, outcome, .. }) = self.requests.remove(&id) else { return };
        let Some(source) = self.sources.get_mut(&peer) else { return };
        source.requests -= 1;
        match outcome {
            Outcome::Refused => self.began_to_rest.extend(source.fail(now, issued, random).map(|rest| (peer, rest))),
            Outcome::Deferred => source.defer(now, random),
            Outcome::Nothing | Outcome::Chunks => {}
        }
    }

    /// A peer did not send a chunk: who is asked for it next.
    fn declined(
        &mut self,
        now: Timestamp,
        peer: DeviceId,
        slot: Slot,
        declined: Declined,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
    ) -> Outcome {
        let reachable = match declined {
            Declined::Elsewhere(other) => other != peer && self.sources.contains_key(&other),
            Declined::NotHeld | Declined::Busy => false,
        };
        let Some(source) = self.sources.get_mut(&peer) else { return Outcome::Nothing };
        let outcome = match declined {
            Declined::NotHeld | Declined::Busy => {
                // If it has lost it, its inventory will say so; if not, it is asked again.
                if source.has(chunks, slot) {
                    source.decline(now, slot, random);
                    if chunks.is_wanted(slot) {
                        chunks.set_sources(slot, chunks.sources(slot).saturating_sub(1));
                    }
                }
                Outcome::Refused
            }
            Declined::Elsewhere(_) if reachable => {
                let wait = source.elsewhere_wait();
                self.rest(now + wait, slot, peer, Rest::Elsewhere { until: now + ELSEWHERE_WAIT_MAX });
                Outcome::Deferred
            }
            Declined::Elsewhere(_) => {
                source.urgent.push(slot);
                Outcome::Nothing
            }
        };
        for (other, source) in &mut self.sources {
            if *other != peer && source.has(chunks, slot) && !self.resting.contains_key(&(slot, *other)) {
                source.offer(chunks, slot);
            }
        }
        outcome
    }

    /// Part of a chunk has arrived: the peer delivers, and does not rest.
    pub(super) fn arriving(&mut self, now: Timestamp, peer: &DeviceId) {
        if let Some(source) = self.sources.get_mut(peer) {
            source.arriving(now);
            self.stirred = true;
        }
    }

    /// The peers that have begun to rest since this was asked last.
    pub(super) fn take_rests(&mut self) -> Vec<(DeviceId, Duration)> {
        std::mem::take(&mut self.began_to_rest)
    }

    /// Takes a chunk out of all accounts of what is in flight.
    fn landed(&mut self, peer: DeviceId, length: u32, slot: Slot, chunks: &mut ChunkTable) {
        chunks.set_requested(slot, false);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(u64::from(length));
        self.in_flight_chunks = self.in_flight_chunks.saturating_sub(1);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.in_flight_bytes = source.in_flight_bytes.saturating_sub(u64::from(length));
        }
    }

    /// A request is over; what it did not settle is wanted again, also from the same peer.
    pub(super) fn end(&mut self, id: RequestId, chunks: &mut ChunkTable) {
        let Some(request) = self.requests.remove(&id) else { return };
        for (slot, length) in request.chunks {
            self.landed(request.peer, length, slot, chunks);
            self.offer_to_all(slot, chunks);
        }
        if let Some(source) = self.sources.get_mut(&request.peer) {
            source.requests = source.requests.saturating_sub(1);
        }
        self.stirred = true;
    }

    /// A request ended before all of it was settled although the peer is still connected: let the peer rest.
    pub(super) fn end_early(
        &mut self,
        now: Timestamp,
        id: RequestId,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
    ) {
        let request = self.requests.get(&id).map(|request| (request.peer, request.issued));
        self.end(id, chunks);
        if let Some((peer, issued)) = request
            && let Some(source) = self.sources.get_mut(&peer)
        {
            self.began_to_rest.extend(source.time_out(now, issued, random).map(|rest| (peer, rest)));
        }
    }

    /// Deadlines that have come: stalled and overdue requests are cancelled, chunks that rested offered again.
    pub(super) fn tick(
        &mut self,
        now: Timestamp,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
        effects: &mut Vec<Effect>,
    ) {
        let overdue: Vec<(RequestId, DeviceId)> = self
            .requests
            .iter()
            .filter(|(_, request)| self.request_deadline(request) <= now)
            .map(|(id, request)| (*id, request.peer))
            .collect();
        for (request, peer) in overdue {
            if let Some(source) = self.sources.get(&peer) {
                effects.push(Effect::CancelFetch { link: source.link, request });
            }
            self.end_early(now, request, chunks, random);
        }
        while let Some(&(due, slot, peer)) = self.rests.first() {
            if due > now {
                break;
            }
            self.rests.pop_first();
            self.wake(now, slot, peer, chunks, random);
        }
        for source in self.sources.values_mut() {
            for slot in source.take_declined(now) {
                if chunks.is_wanted(slot) && source.has(chunks, slot) {
                    chunks.set_sources(slot, chunks.sources(slot).saturating_add(1));
                    source.offer(chunks, slot);
                }
            }
        }
        // Pauses may have ended.
        self.stirred = true;
    }

    fn wake(&mut self, now: Timestamp, slot: Slot, peer: DeviceId, chunks: &ChunkTable, random: &mut ChaCha20Rng) {
        let Some(rest) = self.resting.remove(&(slot, peer)).filter(|_| chunks.is_wanted(slot)) else { return };
        // Those that rest too have sent elsewhere: the first time they are left to get on with it.
        let is_first = matches!(rest, Rest::Elsewhere { .. });
        let is_left_to = |other: &DeviceId| is_first || !self.resting.contains_key(&(slot, *other));
        let others = self.sources.iter().any(|(other, source)| {
            *other != peer && is_left_to(other) && source.is_answering(now) && source.has(chunks, slot)
        });
        let Some(source) = self.sources.get_mut(&peer).filter(|source| source.has(chunks, slot)) else { return };
        match rest {
            Rest::Corrupt => source.offer(chunks, slot),
            Rest::Elsewhere { .. } | Rest::Held if others => {
                let wait = backoff(0, ELSEWHERE_HELD_WAIT_MS, ELSEWHERE_HELD_WAIT_MS, random);
                self.rest(now + wait, slot, peer, Rest::Held);
            }
            // There is no hurry as long as it sends others: to send this one twice would take their place.
            Rest::Elsewhere { until } if until > now && source.requests > 0 => {
                let wait = source.elsewhere_wait();
                self.rest(now + wait, slot, peer, rest);
            }
            Rest::Elsewhere { .. } | Rest::Held => source.urgent.push(slot),
        }
    }

    fn request_deadline(&self, request: &Request) -> Timestamp {
        let stalled =
            self.sources.get(&request.peer).map(|source| source.progress.max(request.issued) + source.stall());
        stalled.map_or(request.deadline, |stalled| stalled.min(request.deadline))
    }

    /// When `tick` has something to do next.
    pub(super) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let requests = self.requests.values().map(|request| self.request_deadline(request));
        let rests = self.rests.first().map(|(due, _, _)| *due);
        let pauses = self.sources.values().map(|source| source.paused_until).chain([self.paused_until]);
        let declined = self.sources.values().filter_map(|source| source.declined_until);
        requests.chain(rests).chain(declined).chain(pauses.filter(|&pause| pause > now)).min()
    }

    /// Chunks that are wanted and in no request, while the store takes chunks and none of `peer`'s are under way.
    pub(super) fn unasked(&self, now: Timestamp, peer: &DeviceId, chunks: &ChunkTable) -> impl Iterator<Item = Slot> {
        let is_idle = self.paused_until <= now && self.sources.get(peer).is_some_and(|source| source.requests == 0);
        let wanted = is_idle.then(|| chunks.wanted().iter()).into_iter().flatten();
        wanted.filter(|&slot| !chunks.is_requested(slot))
    }

    /// The peer that a request was sent to.
    pub(super) fn is_source(&self, peer: &DeviceId) -> bool {
        self.sources.contains_key(peer)
    }

    /// What a connected peer says it holds.
    pub(super) fn available(&self, peer: &DeviceId) -> Option<&Holdings> {
        self.sources.get(peer).map(|source| &source.available)
    }

    /// Until when a connected peer is not asked for anything; `None` when it may be.
    pub(super) fn resting_until(&self, now: Timestamp, peer: &DeviceId) -> Option<Timestamp> {
        self.sources.get(peer).map(|source| source.paused_until).filter(|until| *until > now)
    }

    /// Every connected peer.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values()
    }

    /// Chunks and sealed bytes asked for and not settled.
    pub(super) const fn in_flight(&self) -> (u64, u64) {
        (self.in_flight_chunks, self.in_flight_bytes)
    }

    /// Bytes per second, over the peers of which something is under way.
    pub(super) fn rate(&self) -> u64 {
        self.sources.values().filter(|source| source.requests > 0).map(Source::rate).sum()
    }
}

/// How long a peer that was turned away so often for wrong bytes is left alone.
pub(super) fn corrupt_rest(distrust: u32, random: &mut ChaCha20Rng) -> Duration {
    backoff(distrust, CORRUPT_MS, CORRUPT_MS_MAX, random)
}

#[cfg(test)]
mod tests;
