//! The clocks of one machine: a wall clock that may be years off, and a monotonic one that starts anew with each start.
//!
//! Invariant: the monotonic clock never goes back while the node runs, whatever the wall clock does.

use holdfast_protocol::time::{Now, Timestamp, WallTime};

/// What a right wall clock shows when the world begins.
const WALL_AT_START_MS: i64 = 1_600_000_000_000;
const MILLION: i64 = 1_000_000;

/// See the head of the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    wall_offset_ms: i64,
    /// By how many millionths both clocks are too fast.
    drift_ppm: i64,
    /// When the node started, in the world's time, and what its monotonic clock showed then.
    started_at: u64,
    origin_ms: u64,
    /// How long the monotonic clock has stood still since.
    stood_still_ms: u64,
}

impl Clock {
    /// Both clocks at a moment of the world.
    #[must_use]
    pub fn at(&self, world_ms: u64) -> Now {
        let elapsed = self.origin_ms + self.pace(world_ms.saturating_sub(self.started_at + self.stood_still_ms));
        let wall = WALL_AT_START_MS + self.pace(world_ms) as i64 + self.wall_offset_ms;
        Now { elapsed: Timestamp::from_millis(elapsed), wall: WallTime(wall) }
    }

    /// The first moment of the world at which the monotonic clock shows `deadline`, not before `world_ms`.
    #[must_use]
    pub fn when(&self, deadline: Timestamp, world_ms: u64) -> u64 {
        let ahead = deadline.as_millis().saturating_sub(self.at(world_ms).elapsed.as_millis());
        let mut at = world_ms + (ahead as i64 * MILLION / (MILLION + self.drift_ppm)) as u64;
        while self.at(at).elapsed < deadline {
            at += 1;
        }
        at
    }

    fn pace(&self, ms: u64) -> u64 {
        (i128::from(ms) * i128::from(MILLION + self.drift_ppm) / i128::from(MILLION)) as u64
    }

    /// The node starts: its monotonic clock shows `origin_ms`.
    pub const fn restart(&mut self, world_ms: u64, origin_ms: u64) {
        self.started_at = world_ms;
        self.origin_ms = origin_ms;
        self.stood_still_ms = 0;
    }

    /// The wall clock is set, forward or back.
    pub const fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// Both clocks are too fast by so many millionths from the start on.
    pub const fn drift(&mut self, ppm: i64) {
        self.drift_ppm = ppm;
    }

    /// The monotonic clock stood still while the machine slept.
    pub const fn stand_still(&mut self, ms: u64) {
        self.stood_still_ms += ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_when_the_clock_shows_it_and_not_before() {
        for ppm in [-500, 0, 499] {
            let mut clock = Clock::default();
            clock.drift(ppm);
            clock.restart(5_000, 17);
            for deadline in [17, 18, 4_000, 90_000_001] {
                let deadline = Timestamp::from_millis(deadline);
                let at = clock.when(deadline, 6_000);
                assert!(clock.at(at).elapsed >= deadline);
                assert!(at == 6_000 || clock.at(at - 1).elapsed < deadline, "{ppm} {deadline:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_stood_still_goes_on_where_it_was() {
        let mut clock = Clock::default();
        clock.restart(1_000, 0);
        let before = clock.at(3_000);
        clock.stand_still(10_000);
        let after = clock.at(13_000);
        assert_eq!(before.elapsed, after.elapsed);
        assert_eq!(after.wall.0 - before.wall.0, 10_000);
        clock.jump(-1_000_000);
        assert!(clock.at(13_001).elapsed > after.elapsed);
    }
}
