//! One connected peer as a source of chunks: what it has, what could be asked of it next, and how much at once.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use roaring::RoaringBitmap;

use super::super::chunks::{ChunkTable, Slot};
use super::super::input::LinkId;
use crate::inventory::Holdings;
use crate::limits::{CHUNKS_PER_REQUEST_MAX, REQUESTS_PER_PEER_MAX, WINDOW_BYTES_MAX};
use crate::time::Timestamp;

/// Chunks up to this sealed length (manifests, thumbnails) are fetched before all others.
const SMALL_BYTES_MAX: u32 = 64 << 10;
/// Chunks with at least so many sources count as equally common.
const RARITIES: usize = 8;
const WINDOW_BYTES_MIN: u64 = 4 << 20;
const REQUEST_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(8 << 20);
const MEASURE_MS: u64 = 100;
/// How much of its transfer a peer may be asked for beyond what the path holds: an arrival counts once it is durable, and
/// disks on both ends work in batches.
const DISKS_MS: u64 = 250;
const DELAY_RESET: Duration = Duration::from_secs(60);
/// How long a peer rests at most that gives nothing of what it is asked for: it is connected, so asking costs little, and
/// what it holds may be all that is missing.
const BACKOFF_MS_MAX: u64 = 60 * 1000;
/// How long one chunk may take at most: 4 MiB at 14 kB/s.
const SLOWEST_CHUNK: Duration = Duration::from_secs(5 * 60);
/// Candidates that may be stale, beside as many as are wanted.
pub(in crate::replica) const CANDIDATES_SPARE: usize = 256;
/// How long a peer is not asked again for what it did not send, at first.
const DECLINED_MS: u64 = 10_000;

/// See the head of the module.
#[derive(Debug)]
pub(in crate::replica) struct Source {
    pub(super) link: LinkId,
    pub(in crate::replica) available: Holdings,
    /// Candidates by class (small, large) and rarity. An entry may be stale, and a chunk may stand in several; what is
    /// drawn is checked, and dropped or moved when it is not what it was.
    candidates: [[Vec<Slot>; RARITIES]; 2],
    /// How many there are.
    offered: usize,
    /// To be asked for even though the peer would rather have others serve it.
    pub(super) urgent: Vec<Slot>,
    pub(in crate::replica) in_flight_bytes: u64,
    pub(in crate::replica) requests: usize,
    pub(super) paused_until: Timestamp,
    failures: u32,
    /// When the last failure was seen: what was asked before it fails with it.
    failed: Option<Timestamp>,
    /// Requests in a row that ended before they were answered.
    timeouts: u32,
    /// Requests in a row that brought nothing because others were to be asked first.
    deferrals: u32,
    /// Chunks with wrong bytes in this session.
    pub(super) corrupt: u32,
    /// How often it was turned away before because of such.
    pub(super) distrust: u32,
    /// What the peer says it holds and did not send when asked: it is asked again after a rest.
    declined: RoaringBitmap,
    /// When that rest ends.
    pub(super) declined_until: Option<Timestamp>,
    /// Rests in a row after which nothing came.
    rests: u32,
    window: u64,
    rate: u64,
    delay: Duration,
    delay_measured: Timestamp,
    measured_from: Timestamp,
    measured_bytes: u64,
    /// When anything of it came last.
    pub(super) progress: Timestamp,
}

impl Source {
    pub(super) fn new(link: LinkId, available: Holdings, now: Timestamp) -> Self {
        Self {
            link,
            available,
            candidates: Default::default(),
            offered: 0,
            urgent: Vec::new(),
            in_flight_bytes: 0,
            requests: 0,
            paused_until: now,
            failures: 0,
            failed: None,
            timeouts: 0,
            deferrals: 0,
            corrupt: 0,
            distrust: 0,
            declined: RoaringBitmap::new(),
            declined_until: None,
            rests: 0,
            window: WINDOW_BYTES_MIN,
            rate: 0,
            delay: Duration::MAX,
            delay_measured: now,
            measured_from: now,
            measured_bytes: 0,
            progress: now,
        }
    }

    /// Whether the peer says that it holds the chunk, and has not declined to send it lately.
    pub(super) fn has(&self, chunks: &ChunkTable, slot: Slot) -> bool {
        !self.declined.contains(slot) && chunks.positions(slot).any(|position| self.available.holds(&position))
    }

    /// The peer does not send what it says it holds: it is not asked for it again for a while.
    pub(super) fn decline(&mut self, now: Timestamp, slot: Slot, random: &mut ChaCha20Rng) {
        self.declined.insert(slot);
        if self.declined_until.is_none() {
            self.declined_until = Some(now + backoff(self.rests, DECLINED_MS, BACKOFF_MS_MAX, random));
            self.rests += 1;
        }
    }

    /// The peer says anew that it holds the chunk.
    pub(super) fn believe(&mut self, slot: Slot) {
        self.declined.remove(slot);
    }

    /// What may be asked for again, once the rest is over.
    pub(super) fn take_declined(&mut self, now: Timestamp) -> RoaringBitmap {
        if self.declined_until.is_none_or(|until| until > now) {
            return RoaringBitmap::new();
        }
        self.declined_until = None;
        std::mem::take(&mut self.declined)
    }

    /// Makes the chunk a candidate.
    pub(super) fn offer(&mut self, chunks: &ChunkTable, slot: Slot) {
        self.candidates[class(chunks, slot)][rarity(chunks, slot)].push(slot);
        self.offered += 1;
        if self.offered > Self::candidates_max(chunks) {
            self.drop_stale(chunks);
        }
    }

    /// How many candidates there are.
    pub(in crate::replica) const fn candidates(&self) -> usize {
        self.offered
    }

    /// How many candidates there may be: a peer that says again and again that it has lost a chunk and holds it must not
    /// fill the memory.
    pub(super) fn candidates_max(chunks: &ChunkTable) -> usize {
        2 * chunks.wanted().len() as usize + CANDIDATES_SPARE
    }

    /// Keeps of every wanted chunk one candidate: the rarest.
    fn drop_stale(&mut self, chunks: &ChunkTable) {
        let mut seen = RoaringBitmap::new();
        for bucket in self.candidates.iter_mut().flatten() {
            bucket.retain(|&slot| chunks.is_wanted(slot) && seen.insert(slot));
        }
        self.offered = seen.len() as usize;
    }

    /// The chunks of the next request to this peer, marked as requested, and whether they are urgent. After a chunk that
    /// was drawn come its neighbours in the table, so that the peer reads and this node writes in long runs.
    pub(super) fn pick(
        &mut self,
        budget: u64,
        chunks: &mut ChunkTable,
        random: &mut ChaCha20Rng,
        rests: impl Fn(Slot) -> bool,
    ) -> (bool, Vec<(Slot, u32)>) {
        let usable = |source: &Self, chunks: &ChunkTable, slot: Slot| {
            chunks.is_wanted(slot) && !chunks.is_requested(slot) && source.has(chunks, slot) && !rests(slot)
        };
        let (mut picked, mut bytes) = (Vec::new(), 0u64);
        let mut take = |slot: Slot, chunks: &mut ChunkTable, picked: &mut Vec<(Slot, u32)>| {
            let length = chunks.chunk(slot).length;
            chunks.set_requested(slot, true);
            picked.push((slot, length));
            bytes += u64::from(length);
            bytes < budget && picked.len() < CHUNKS_PER_REQUEST_MAX
        };
        let mut room = true;
        while room && let Some(slot) = self.urgent.pop() {
            if usable(self, chunks, slot) {
                room = take(slot, chunks, &mut picked);
            }
        }
        if !picked.is_empty() {
            return (true, picked);
        }
        while room && let Some(slot) = self.draw(chunks, random, |source, slot| usable(source, chunks, slot)) {
            room = take(slot, chunks, &mut picked);
            for next in slot + 1..chunks.len() {
                if !room || !usable(self, chunks, next) || !rides_along(chunks, slot, next) {
                    break;
                }
                room = take(next, chunks, &mut picked);
            }
        }
        (false, picked)
    }

    /// Draws a candidate that `usable` accepts: small ones first, then the rarest; among equals by chance, so that two
    /// peers that want the same ask for different parts of it.
    fn draw(
        &mut self,
        chunks: &ChunkTable,
        random: &mut ChaCha20Rng,
        usable: impl Fn(&Self, Slot) -> bool,
    ) -> Option<Slot> {
        for (class, rare) in (0..2).flat_map(|class| (0..RARITIES).map(move |rare| (class, rare))) {
            while !self.candidates[class][rare].is_empty() {
                let bucket = &mut self.candidates[class][rare];
                let slot = bucket.swap_remove(random.next_u32() as usize % bucket.len());
                self.offered -= 1;
                if !usable(self, slot) {
                    continue;
                }
                let now = rarity(chunks, slot);
                if now > rare {
                    self.candidates[class][now].push(slot);
                    self.offered += 1;
                } else {
                    return Some(slot);
                }
            }
            // What was drawn once and dropped does not come back by itself: give back its memory.
            self.candidates[class][rare] = Vec::new();
        }
        None
    }

    /// Bytes that the next request may ask for, if there is room for another request. Of a peer that did not answer
    /// one chunk is asked, until it comes: whoever never answers keeps no more from the others.
    pub(super) fn room(&self, now: Timestamp) -> Option<u64> {
        if self.timeouts > 0 {
            return (self.requests == 0 && self.paused_until <= now).then_some(1);
        }
        let target = (self.window / 4).clamp(*REQUEST_BYTES.start(), *REQUEST_BYTES.end());
        let full = self.in_flight_bytes + target / 2 > self.window;
        (!full && self.paused_until <= now && self.requests < REQUESTS_PER_PEER_MAX).then_some(target)
    }

    /// Whether the peer gave what it was asked for last, as far as is known, and may be asked now.
    pub(super) fn is_answering(&self, now: Timestamp) -> bool {
        self.timeouts == 0 && self.paused_until <= now
    }

    /// How long a request, queued behind what is in flight, may take at most: four times as long as the peer took so far,
    /// and twice that after each one that took longer, or no chunk would ever come over a connection that is slower still.
    pub(super) fn patience(&self) -> Duration {
        const RATE_MIN: u64 = 64 << 10;
        let queued = Duration::from_millis(4000 * self.in_flight_bytes / self.rate.max(RATE_MIN));
        let wait = Duration::from_secs(15) + queued;
        wait.saturating_mul(1 << self.timeouts.min(16)).min(wait.max(SLOWEST_CHUNK))
    }

    /// How long the peer may bring nothing at all, not even part of a chunk, while requests are under way.
    pub(super) fn stall(&self) -> Duration {
        const STALL_MAX: Duration = Duration::from_secs(30);
        match self.rate {
            0 => STALL_MAX,
            rate => Duration::from_millis((16_000 << 20) / rate).clamp(Duration::from_secs(10), STALL_MAX),
        }
    }

    /// Measures an arrival: the window grows towards twice what the path holds at once, and what the disks at its ends do.
    /// The shortest delay says nothing about disks under load: a window made of it alone would shrink with every commit
    /// that takes longer.
    pub(super) fn arrived(&mut self, now: Timestamp, bytes: u64, first_after: Option<Duration>) {
        self.arriving(now);
        (self.timeouts, self.deferrals, self.rests) = (0, 0, 0);
        self.measured_bytes += bytes;
        if let Some(delay) = first_after {
            let stale = now.since(self.delay_measured) > DELAY_RESET;
            if stale || delay <= self.delay {
                (self.delay, self.delay_measured) = (delay.max(Duration::from_millis(1)), now);
            }
        }
        let elapsed = now.since(self.measured_from).as_millis() as u64;
        if elapsed >= MEASURE_MS {
            let sample = self.measured_bytes * 1000 / elapsed;
            self.rate =
                if sample > self.rate { self.rate.midpoint(sample).max(1) } else { (7 * self.rate + sample) / 8 };
            (self.measured_from, self.measured_bytes) = (now, 0);
            let delay_ms = self.delay.as_millis().min(10_000) as u64;
            let window = self.rate.saturating_mul(2 * delay_ms + DISKS_MS) / 1000;
            self.window = window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        }
    }

    /// Starts a measurement when a request goes out after a pause, so that idle time does not count as slowness.
    pub(super) fn departed(&mut self, now: Timestamp) {
        if self.requests == 0 {
            (self.measured_from, self.measured_bytes, self.progress) = (now, 0, now);
        }
    }

    /// Part of a chunk has arrived: a peer that delivers does not rest.
    pub(super) fn arriving(&mut self, now: Timestamp) {
        (self.progress, self.failures) = (now, 0);
        self.paused_until = self.paused_until.min(now);
    }

    /// Rests after a request of that moment which failed, longer each time, and says for how long. What was under way when it
    /// began to rest is the same failure.
    pub(super) fn fail(&mut self, now: Timestamp, issued: Timestamp, random: &mut ChaCha20Rng) -> Option<Duration> {
        if self.failed.is_some_and(|failed| issued <= failed) {
            return None;
        }
        let rest = backoff(self.failures, 1000, BACKOFF_MS_MAX, random);
        (self.paused_until, self.failed) = (now + rest, Some(now));
        self.failures += 1;
        Some(rest)
    }

    /// The same, after a request that was not answered in time. A peer that is slower than it was thought to be is asked for
    /// less at once, and has longer.
    pub(super) fn time_out(&mut self, now: Timestamp, issued: Timestamp, random: &mut ChaCha20Rng) -> Option<Duration> {
        let rest = self.fail(now, issued, random);
        self.timeouts += u32::from(rest.is_some());
        rest
    }

    /// Rests after a request to which the peer answered only that others should be asked first.
    pub(super) fn defer(&mut self, now: Timestamp, random: &mut ChaCha20Rng) {
        self.paused_until = now + backoff(self.deferrals, 100, 1000, random);
        self.deferrals += 1;
    }

    /// How long another peer may take to get a chunk from this one before it is looked at again: as long as this one takes for
    /// all that it may have promised to the other before, if others are sent as much as this node.
    pub(super) fn elsewhere_wait(&self) -> Duration {
        const WAIT_MS: std::ops::RangeInclusive<u64> = 2_000..=60_000;
        let window_ms = (1000 * self.window).checked_div(self.rate).unwrap_or(0);
        Duration::from_millis(window_ms.clamp(*WAIT_MS.start(), *WAIT_MS.end()))
    }

    pub(super) const fn rate(&self) -> u64 {
        self.rate
    }
}

/// `first` doubled `failures` times, at most `most`, and up to a half more by chance, so that peers don't act in step.
pub(in crate::replica) fn backoff(failures: u32, first_ms: u64, most_ms: u64, random: &mut ChaCha20Rng) -> Duration {
    let delay = first_ms.saturating_mul(1 << failures.min(20)).min(most_ms);
    Duration::from_millis(delay + random.next_u64() % (delay / 2 + 1))
}

fn class(chunks: &ChunkTable, slot: Slot) -> usize {
    usize::from(chunks.chunk(slot).length > SMALL_BYTES_MAX)
}

fn rarity(chunks: &ChunkTable, slot: Slot) -> usize {
    usize::from(chunks.sources(slot).max(1)).min(RARITIES) - 1
}

/// Whether `next` may ride along with `slot`, its neighbour in the table.
fn rides_along(chunks: &ChunkTable, slot: Slot, next: Slot) -> bool {
    class(chunks, slot) == class(chunks, next) && rarity(chunks, next) <= rarity(chunks, slot)
}
