//! Whether the other end of a connection is still there: what was heard of it, counted in ticks.
//!
//! A connection is alive while it answers pings or carries bytes, however slowly: behind bulk on a slow path a ping takes
//! as long as the bulk before it. Time is counted by ticks that were given, so that a process which was stopped for a
//! while does not take that for silence of its peers.

use std::time::Duration;

use crate::behaviour::PING_INTERVAL;

/// How often connections are looked at.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Silence after which other ways to the peer are tried, and how often while it lasts.
const DOUBT: Duration = Duration::from_secs(5);
/// Silence after which a connection is given up: at least three times [`PING_INTERVAL`].
const DEAD: Duration = Duration::from_secs(10);
/// Round trips after which a slow path is doubted, and after which it is given up.
const ROUND_TRIPS_DOUBTED: u32 = 2;
const ROUND_TRIPS_DEAD: u32 = 4;
/// How long an answer may take at most, on a path however slow.
const DEAD_MAX: Duration = Duration::from_secs(60);
/// A connection that stands for so long did not arise because both ends dialled at once.
const SETTLED: Duration = Duration::from_secs(5);
/// Time to the first look for a better way, and between later ones at most; doubled each time.
const BETTER_WAY: Duration = Duration::from_secs(30);
const BETTER_WAY_MAX: Duration = Duration::from_secs(15 * 60);

/// What a tick has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing to do.
    Alive,
    /// Nothing was heard for a while: time to try other ways.
    Doubtful,
    /// Nothing was heard for so long: the connection is dead.
    Dead(Duration),
    /// Time to look for a better way, if there may be one.
    MayImprove,
}

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Liveness {
    age: Duration,
    silent: Duration,
    /// How long the last answer took.
    round_trip: Duration,
    moved: u64,
    doubt_at: Duration,
    improve_at: Duration,
    improve_after: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            age: Duration::ZERO,
            silent: Duration::ZERO,
            round_trip: Duration::ZERO,
            moved: 0,
            doubt_at: DOUBT,
            improve_at: BETTER_WAY,
            improve_after: BETTER_WAY,
        }
    }
}

impl Liveness {
    /// A ping was answered.
    pub(super) const fn answered(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
        self.heard();
    }

    const fn heard(&mut self) {
        self.silent = Duration::ZERO;
        self.doubt_at = DOUBT;
    }

    /// A tick later, the connection has carried `moved` bytes in all.
    pub(super) fn tick(&mut self, moved: u64) -> Finding {
        self.age += TICK;
        if self.moved == moved {
            self.silent += TICK;
        } else {
            self.moved = moved;
            self.heard();
        }
        if self.silent >= self.patience(DEAD, ROUND_TRIPS_DEAD) {
            return Finding::Dead(self.silent);
        }
        if self.silent >= self.patience(self.doubt_at, ROUND_TRIPS_DOUBTED) {
            self.doubt_at = self.silent + DOUBT / 2;
            return Finding::Doubtful;
        }
        if self.age >= self.improve_at {
            self.improve_after = (self.improve_after * 2).min(BETTER_WAY_MAX);
            self.improve_at = self.age + self.improve_after;
            return Finding::MayImprove;
        }
        Finding::Alive
    }

    /// Whether it stands for longer than two ends take to see that both have dialled.
    pub(super) fn is_settled(&self) -> bool {
        self.age >= SETTLED
    }

    /// Whether more time has passed than a ping takes.
    pub(super) fn is_suspect(&self) -> bool {
        self.silent >= self.patience(PING_INTERVAL + TICK, ROUND_TRIPS_DOUBTED)
    }

    fn patience(&self, at_least: Duration, round_trips: u32) -> Duration {
        at_least.max(self.round_trip.saturating_mul(round_trips).min(DEAD_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ticks without a word find, in seconds since the last.
    fn silence(liveness: &mut Liveness) -> Vec<(u32, Finding)> {
        let mut found = Vec::new();
        for second in 1..100 {
            match liveness.tick(0) {
                Finding::Alive | Finding::MayImprove => {}
                finding => found.push((second, finding)),
            }
            if matches!(found.last(), Some((_, Finding::Dead(_)))) {
                break;
            }
        }
        found
    }

    #[test]
    fn silence_is_doubted_before_it_is_given_up() {
        let dead = Finding::Dead(Duration::from_secs(10));
        assert_eq!(silence(&mut Liveness::default()), [(5, Finding::Doubtful), (8, Finding::Doubtful), (10, dead)]);
        let mut heard_late = Liveness::default();
        (0..7).for_each(|_| _ = heard_late.tick(0));
        assert!(heard_late.is_suspect());
        heard_late.answered(Duration::from_millis(40));
        assert!(!heard_late.is_suspect() && heard_late.is_settled());
        assert_eq!(silence(&mut heard_late).first(), Some(&(5, Finding::Doubtful)));
    }

    #[test]
    fn a_slow_path_has_as_long_as_it_takes() {
        let mut slow = Liveness::default();
        slow.answered(Duration::from_secs(6));
        let found = silence(&mut slow);
        assert_eq!(found.first(), Some(&(12, Finding::Doubtful)));
        assert_eq!(found.last(), Some(&(24, Finding::Dead(Duration::from_secs(24)))));
        let mut trickling = Liveness::default();
        for second in 1..200 {
            assert!(matches!(trickling.tick(second / 4), Finding::Alive | Finding::MayImprove));
        }
    }

    #[test]
    fn a_better_way_is_looked_for_less_and_less_often() {
        let mut liveness = Liveness::default();
        let looks: Vec<u64> = (1..=4000).filter(|second| liveness.tick(*second) == Finding::MayImprove).collect();
        assert_eq!(looks, [30, 90, 210, 450, 930, 1830, 2730, 3630]);
    }
}
