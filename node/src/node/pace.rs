//! How fast bytes move one way, and how long the rest takes.
//!
//! On a slow path a counter of bytes grows by a chunk now and then, on a fast one at every look. So what is measured is the
//! time from one growth to the next, over the last quarter of the time that something has been moving: long enough to be
//! smooth, short enough to forget a slow beginning. A pause counts little once it is over.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_protocol::time::Timestamp;

/// Growths that follow each other faster than this are one step.
const STEP: Duration = Duration::from_millis(200);
/// At least so many steps make a rate, as soon as there are so many.
const STEPS_MIN: usize = 4;
/// At least and at most so much time makes a rate.
const WINDOW: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// What took this many times as long as any step before was a pause, and counts as no more.
const PAUSE: u32 = 3;
/// Shorter ones are no pauses.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// When nothing was left to move for this long, what comes next may go another way: it is measured anew.
const IDLE: Duration = Duration::from_secs(10);

/// See the head of the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    counter: u64,
    /// When the counter grew last; `None` before it has.
    grown: Option<Timestamp>,
    /// Since when nothing is left to move and nothing moves.
    idle_since: Option<Timestamp>,
    /// The last steps, the newest at the back.
    steps: VecDeque<Step>,
    /// How long all steps took.
    moving: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    bytes: u64,
    took: Duration,
}

impl Pace {
    /// Takes in a counter of bytes that only grows, and how many are `left`.
    pub(super) fn look(&mut self, now: Timestamp, counter: u64, left: u64) {
        if left > 0
            && let Some(since) = self.idle_since.take()
        {
            let idle = now.since(since);
            if idle >= IDLE {
                *self = Self { counter: self.counter, ..Self::default() };
            }
            // Time in which there was nothing to move says nothing about the path.
            self.grown = self.grown.map(|grown| grown + idle);
        }
        if counter > self.counter {
            let bytes = counter - self.counter;
            self.counter = counter;
            self.idle_since = None;
            if let Some(before) = self.grown.replace(now) {
                self.step(bytes, now.since(before));
            }
        }
        if left == 0 {
            self.idle_since.get_or_insert(now);
        }
    }

    fn step(&mut self, bytes: u64, took: Duration) {
        let took = match self.longest() {
            Some(longest) => took.min((longest * PAUSE).max(PAUSE_MIN)),
            None => took,
        };
        self.moving += took;
        match self.steps.back_mut() {
            Some(last) if last.took < STEP => *last = Step { bytes: last.bytes + bytes, took: last.took + took },
            _ => self.steps.push_back(Step { bytes, took }),
        }
        let window = (self.moving / 4).clamp(*WINDOW.start(), *WINDOW.end());
        let mut spare: Duration = self.steps.iter().map(|step| step.took).sum::<Duration>().saturating_sub(window);
        while let Some(first) = self.steps.front()
            && self.steps.len() > STEPS_MIN
            && first.took <= spare
        {
            spare -= first.took;
            self.steps.pop_front();
        }
    }

    fn longest(&self) -> Option<Duration> {
        self.steps.iter().map(|step| step.took).max()
    }

    /// How long `left` bytes take; `None` while nothing has been measured.
    pub(super) fn time_for(&self, now: Timestamp, left: u64) -> Option<Duration> {
        let bytes: u64 = self.steps.iter().map(|step| step.bytes).sum();
        let took: Duration = self.steps.iter().map(|step| step.took).sum();
        let (waited, longest) = (now.since(self.grown?), self.longest()?);
        // Whatever takes longer than any step before makes the rest take longer too.
        let overdue = waited.saturating_sub(longest);
        let milliseconds = u128::from(left) * (took + overdue).as_millis() / u128::from(bytes.max(1));
        let whole = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX));
        // A part of the next step is on its way already.
        Some(whole.saturating_sub(waited.min(longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// A chunk of 1 MiB at 1 Mbit/s.
    const SLOW_CHUNK_MS: u64 = 8_389;

    /// What a counter grows by, and when.
    #[derive(Default)]
    struct Transfer {
        growths: Vec<(u64, u64)>,
        now_ms: u64,
    }

    impl Transfer {
        fn then(mut self, chunks: u64, bytes: u64, each_ms: u64) -> Self {
            for _ in 0..chunks {
                self.now_ms += each_ms;
                self.growths.push((self.now_ms, bytes));
            }
            self
        }

        fn pause(mut self, ms: u64) -> Self {
            self.now_ms += ms;
            self
        }

        /// Looks four times a second, and hands each estimate to `judge` with the truth and whether it was a pause, once a
        /// tenth has moved; all in milliseconds.
        fn replay(&self, pace: &mut Pace, begin_ms: u64, mut judge: impl FnMut(Option<u64>, u64)) {
            let total: u64 = self.growths.iter().map(|(_, bytes)| bytes).sum();
            let before = pace.counter;
            for now_ms in (0..self.now_ms).step_by(250) {
                let moved: u64 = self.growths.iter().take_while(|(at, _)| *at <= now_ms).map(|(_, bytes)| bytes).sum();
                let now = Timestamp::from_millis(begin_ms + now_ms);
                pace.look(now, before + moved, total - moved);
                if moved * 10 >= total {
                    let estimate = pace.time_for(now, total - moved);
                    judge(estimate.map(|time| time.as_millis() as u64), self.now_ms - now_ms);
                }
            }
            pace.look(Timestamp::from_millis(begin_ms + self.now_ms), before + total, 0);
        }

        /// Every estimate is within twice of the truth, but for a second.
        fn is_foretold(&self, pace: &mut Pace, begin_ms: u64) {
            self.replay(pace, begin_ms, |estimate, truth| {
                let estimate = estimate.expect("a tenth has moved");
                let close = estimate <= 2 * truth + 1000 && truth <= 2 * estimate + 1000;
                assert!(close, "{estimate} ms with {truth} ms to go");
            });
        }
    }

    #[test]
    fn chunks_that_take_seconds_each_are_foretold() {
        Transfer::default().then(24, MIB, SLOW_CHUNK_MS).is_foretold(&mut Pace::default(), 0);
        // Chunks differ.
        let mut uneven = Transfer::default();
        for turn in 0..20 {
            uneven = uneven.then(1, MIB / 4, SLOW_CHUNK_MS / 4).then(1 + turn % 2, 2 * MIB, 2 * SLOW_CHUNK_MS);
        }
        uneven.is_foretold(&mut Pace::default(), 0);
    }

    #[test]
    fn a_slow_beginning_of_a_fast_transfer_is_forgotten() {
        let begun = Transfer::default().then(300, 30_000, 5);
        begun.then(80, 16 * MIB, 120).is_foretold(&mut Pace::default(), 5_000);
    }

    #[test]
    fn after_a_pause_the_rest_is_foretold_as_before() {
        let pause = 60_000;
        let transfer = Transfer::default().then(10, MIB, SLOW_CHUNK_MS).pause(pause).then(14, MIB, SLOW_CHUNK_MS);
        let (begin, end) = (10 * SLOW_CHUNK_MS, 11 * SLOW_CHUNK_MS + pause);
        let mut in_pause = Vec::new();
        transfer.replay(&mut Pace::default(), 0, |estimate, truth| {
            let (now, estimate) = (transfer.now_ms - truth, estimate.expect("nothing vanishes"));
            if (begin..end).contains(&now) {
                in_pause.push(estimate);
            } else {
                assert!(estimate <= 2 * truth && truth <= 2 * estimate, "{estimate} ms with {truth} ms to go");
            }
        });
        // It does not jump when nothing comes, but grows.
        assert!(in_pause.windows(2).all(|pair| pair[1] < pair[0] + 5_000));
        assert!(in_pause.last() > in_pause.first());
    }

    #[test]
    fn what_is_measured_lately_holds_for_what_comes_next_and_not_for_long() {
        let mut pace = Pace::default();
        let fast = Transfer::default().then(40, MIB, 250);
        fast.is_foretold(&mut pace, 0);
        let soon = Timestamp::from_millis(fast.now_ms + 2_000);
        pace.look(soon, pace.counter, 10 * MIB);
        let foretold = pace.time_for(soon, 10 * MIB).expect("measured a moment ago");
        assert!((2..4).contains(&foretold.as_secs()), "{foretold:?}");
        // Hours later the way may be another.
        pace.look(Timestamp::from_millis(20_000), pace.counter, 0);
        Transfer::default().then(20, MIB, SLOW_CHUNK_MS).is_foretold(&mut pace, 10_000_000);
    }

    #[test]
    fn a_path_that_becomes_slow_is_noticed() {
        let mut pace = Pace::default();
        let transfer = Transfer::default().then(400, MIB, 50).then(60, MIB, SLOW_CHUNK_MS);
        let slow_since = 400 * 50 + 6 * SLOW_CHUNK_MS;
        transfer.replay(&mut pace, 0, |estimate, truth| {
            if transfer.now_ms - truth > slow_since {
                let estimate = estimate.expect("chunks come");
                assert!(estimate <= 2 * truth + 1000 && truth <= 2 * estimate + 1000, "{estimate} ms for {truth} ms");
            }
        });
    }

    #[test]
    fn steps_are_bounded() {
        let mut pace = Pace::default();
        for now in 0..200_000 {
            pace.look(Timestamp::from_millis(now), now, u64::MAX);
        }
        assert!(pace.steps.len() <= 310, "{}", pace.steps.len());
    }
}
