//! Faults. Every class has a stream of chance of its own, and every strike another: leaving out a class or a single
//! strike leaves all others as they were.
//!
//! A new class is a line in the table below, and either an arm in `World::strike` (it plans itself) or a call of
//! [`Faults::strike`] where it has an occasion.

mod strike;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::options::Options;

/// How often a class strikes in a world that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// By itself: so many milliseconds pass before the next strike, longer in worlds of more than 1,000 seconds.
    Every {
        /// At least.
        from_ms: u64,
        /// Less than.
        to_ms: u64,
    },
    /// Once in so many occasions, on average. What an occasion is, the class says.
    OneIn(u64),
}

macro_rules! fault_classes {
    ($($(#[doc = $about:literal])+ $class:ident = $name:literal, in one world of $worlds:literal, $rate:expr;)+) => {
        /// A class of faults: this table is the one place that says how often each strikes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub enum FaultClass {
            $($(#[doc = $about])+ $class,)+
        }

        impl FaultClass {
            /// All classes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$class),+];

            /// Its name on the command line and in records; never changes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$class => $name),+ }
            }

            /// What it does.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$class => concat!($($about),+)),+ }
            }

            /// One world in so many has this class.
            #[must_use]
            pub const fn one_world_in(self) -> u64 {
                match self { $(Self::$class => $worlds),+ }
            }

            /// How often it strikes there.
            #[must_use]
            pub const fn rate(self) -> Rate {
                match self { $(Self::$class => $rate),+ }
            }
        }
    };
}

const fn every(from_ms: u64, to_ms: u64) -> Rate {
    Rate::Every { from_ms, to_ms }
}

const fn one_in(times: u64) -> Rate {
    Rate::OneIn(times)
}

fault_classes! {
    /// A node's machine dies, and starts again within 20 seconds.
    Crash = "crash", in one world of 2, every(500, 25_000);
    /// A node's machine dies right behind an acknowledgement.
    CrashAcknowledged = "crash-acknowledged", in one world of 2, one_in(6);
    /// A link breaks.
    Cut = "cut", in one world of 2, every(200, 15_000);
    /// Two nodes cannot reach each other for up to a minute.
    Separate = "separate", in one world of 2, every(500, 30_000);
    /// Two nodes lose and find each other again many times within seconds.
    Flap = "flap", in one world of 4, every(10_000, 90_000);
    /// The nodes fall apart into two groups for up to a quarter of an hour; links stall before they break.
    Split = "split", in one world of 4, every(10_000, 90_000);
    /// One node does not reach another for up to ten minutes, while it is reached itself.
    OneWay = "one-way", in one world of 3, every(2_000, 40_000);
    /// A node gets other addresses: its links break, and it knows.
    Roam = "roam", in one world of 4, every(5_000, 60_000);
    /// One direction between two linked nodes stands still for seconds to minutes, then goes on, or its links break.
    Clog = "clog", in one world of 3, every(1_000, 20_000);
    /// One end of a link that broke believes for up to a minute that it stands.
    HalfOpen = "half-open", in one world of 3, one_in(3);
    /// A link is as slow as a modem on a bad line.
    LinkSlow = "link-slow", in one world of 4, one_in(6);
    /// All links of a node share a connection that sends slowly.
    UplinkSlow = "uplink-slow", in one world of 3, one_in(3);
    /// A node can dial and cannot be dialled.
    Nat = "nat", in one world of 3, one_in(2);
    /// A node is off for a minute to a hundred days, or until faults stop.
    Offline = "offline", in one world of 4, every(20_000, 150_000);
    /// Everybody is off for hours to a year.
    Winter = "winter", in one world of 5, every(20_000, 200_000);
    /// A node's machine sleeps for seconds to hours; its monotonic clock stands still or leaps.
    Suspend = "suspend", in one world of 3, every(5_000, 60_000);
    /// A wall clock is wrong from the start, by up to ten years.
    ClockWrong = "clock-wrong", in one world of 2, one_in(2);
    /// Both clocks of a machine are too fast or too slow by up to 500 millionths.
    ClockDrift = "clock-drift", in one world of 2, one_in(2);
    /// A wall clock is set forward or back, by up to ten years.
    ClockJump = "clock-jump", in one world of 3, every(2_000, 40_000);
    /// A message of gossip is up to two minutes late.
    GossipLate = "gossip-late", in one world of 3, one_in(5);
    /// A message of gossip is lost on its way to one node.
    GossipLost = "gossip-lost", in one world of 2, one_in(3);
    /// A message of gossip arrives twice at one node.
    GossipDoubled = "gossip-doubled", in one world of 2, one_in(3);
    /// A node starts without its index.
    IndexLost = "index-lost", in one world of 3, every(5_000, 60_000);
    /// Bits flip in a node's segments.
    RotSegment = "rot-segment", in one world of 3, every(2_000, 40_000);
    /// Bits flip in a node's originals.
    RotOriginal = "rot-original", in one world of 3, every(2_000, 40_000);
    /// A node's disk fails to read, again and again, for up to 20 seconds.
    ReadErrors = "read-errors", in one world of 4, every(5_000, 60_000);
    /// A node's disk fails to write, again and again, for up to 20 seconds.
    WriteErrors = "write-errors", in one world of 4, every(5_000, 60_000);
    /// A node's disk fails to sync, again and again, for up to 20 seconds; what it did not write may stay unwritten after later syncs.
    SyncErrors = "sync-errors", in one world of 4, every(5_000, 60_000);
    /// A node's disk has little space left for up to a minute.
    DiskFull = "disk-full", in one world of 4, every(5_000, 90_000);
    /// A node's machine dies in the middle of a write or a sync.
    CrashWriting = "crash-writing", in one world of 3, every(2_000, 30_000);
    /// A node's home is put back as it was up to a minute before.
    BackupRestored = "backup-restored", in one world of 6, every(20_000, 80_000);
    /// A node's machine is copied, and the copy runs beside it for up to two minutes: two that are one device.
    Cloned = "cloned", in one world of 6, every(20_000, 80_000);
    /// The last device says again what anyone said to anyone before.
    LieReplayed = "lie-replayed", in one world of 5, one_in(5);
    /// The last device sends a malformed frame.
    LieGarbled = "lie-garbled", in one world of 5, one_in(20);
    /// The last device gossips what was gossiped before, and malformed messages.
    LieGossip = "lie-gossip", in one world of 5, one_in(2);
    /// The last device floods the others with malformed gossip.
    LieFlood = "lie-flood", in one world of 6, one_in(4);
    /// The last device claims chunks that it lacks.
    LieHoldings = "lie-holdings", in one world of 5, every(2_000, 30_000);
    /// Someone who is no member connects, and repeats what members said.
    Stranger = "stranger", in one world of 4, every(2_000, 20_000);
    /// A node's machine loses everything, or all but its folder; its person gets a new disk, and joins again as a new device.
    DiskLost = "disk-lost", in one world of 6, every(20_000, 90_000);
    /// A device joins only while the world runs.
    JoinLate = "join-late", in one world of 5, one_in(2);
    /// The last device does not answer: no envelopes, no inventory, no chunks, and not that it has none.
    LieUnanswered = "lie-unanswered", in one world of 5, one_in(4);
    /// The last device keeps to itself what it should say unasked, until it begins anew when faults stop.
    LieWithheld = "lie-withheld", in one world of 6, one_in(10);
    /// The last device is up to three minutes late with what it sends on a link.
    LieSlow = "lie-slow", in one world of 6, one_in(30);
    /// The last device sends other bytes than the chunk's.
    LieChunk = "lie-chunk", in one world of 5, one_in(3);
    /// The last device does not send a chunk that it claims: it says that it is busy, that another has it, or nobody.
    LieDeclined = "lie-declined", in one world of 5, one_in(3);
    /// A device is thrown away: it never comes back.
    ThrownAway = "thrown-away", in one world of 7, every(30_000, 120_000);
    /// A device leaves, or another removes it and it goes on for up to a minute.
    Removed = "removed", in one world of 6, every(20_000, 80_000);
    /// A node is stopped in order, and starts again within a minute.
    Restart = "restart", in one world of 3, every(3_000, 40_000);
    /// The last device signs two contents of its inventory under one version, or a version that it has not come to.
    LieInventories = "lie-inventories", in one world of 5, one_in(6);
    /// The last device says of everything, again and again, that it holds it and that it has lost it.
    LieFlickering = "lie-flickering", in one world of 6, every(2_000, 30_000);
    /// The last device writes hostile changes of the catalog, in a log beside its own.
    LieCatalog = "lie-catalog", in one world of 5, every(2_000, 20_000);
    /// The last device writes two versions of one log, and tells each peer one of them.
    LieForked = "lie-forked", in one world of 6, every(2_000, 30_000);
    /// The second device is of a newer version: it says what this version does not know.
    NewerVersion = "newer-version", in one world of 4, every(2_000, 20_000);
}

impl fmt::Display for FaultClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// No class of faults has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no class of faults is called {0:?}; `holdfast-sim faults` lists them")]
pub struct UnknownFaultClass(String);

impl FromStr for FaultClass {
    type Err = UnknownFaultClass;

    fn from_str(name: &str) -> Result<Self, UnknownFaultClass> {
        let found = Self::ALL.iter().find(|class| class.name() == name);
        found.copied().ok_or_else(|| UnknownFaultClass(name.to_owned()))
    }
}

impl From<FaultClass> for String {
    fn from(class: FaultClass) -> Self {
        class.name().to_owned()
    }
}

impl TryFrom<String> for FaultClass {
    type Error = UnknownFaultClass;

    fn try_from(name: String) -> Result<Self, UnknownFaultClass> {
        name.parse()
    }
}

/// Whether a class strikes now, and how often each has.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    /// Classes that are on, until faults stop.
    streams: BTreeMap<FaultClass, Chance>,
    skipped: BTreeSet<(FaultClass, u64)>,
    drawn: BTreeMap<FaultClass, u64>,
    struck: BTreeMap<FaultClass, u64>,
    pace: f64,
}

impl Faults {
    /// The faults of a world, before the first.
    #[must_use]
    pub fn new(seed: u64, options: &Options) -> Self {
        let stream = |class: &FaultClass| (*class, Chance::new(seed, &format!("fault {class}")));
        Self {
            seed,
            streams: options.classes.iter().map(stream).collect(),
            skipped: options.skipped_strikes.clone(),
            drawn: BTreeMap::new(),
            struck: BTreeMap::new(),
            pace: options.pace(),
        }
    }

    /// An occasion for `class`: the chance of this strike alone, when it strikes.
    ///
    /// A class that plans itself strikes at each call.
    pub fn strike(&mut self, class: FaultClass) -> Option<Chance> {
        let stream = self.streams.get_mut(&class)?;
        if let Rate::OneIn(times) = class.rate()
            && !stream.one_in(times)
        {
            return None;
        }
        let drawn = self.drawn.entry(class).or_default();
        let number = *drawn;
        *drawn += 1;
        if self.skipped.contains(&(class, number)) {
            return None;
        }
        *self.struck.entry(class).or_default() += 1;
        Some(Chance::new(self.seed, &format!("fault {class} {number}")))
    }

    /// Whether `class` can strike at all: it is on, and faults have not stopped.
    #[must_use]
    pub fn has(&self, class: FaultClass) -> bool {
        self.streams.contains_key(&class)
    }

    /// The last strike of a class found nothing to strike at: the node was down, or the link gone.
    pub fn missed(&mut self, class: FaultClass) {
        if let Some(struck) = self.struck.get_mut(&class) {
            *struck = struck.saturating_sub(1);
        }
    }

    /// When a class that plans itself strikes next, in milliseconds from now.
    fn gap_ms(&mut self, class: FaultClass) -> Option<u64> {
        let Rate::Every { from_ms, to_ms } = class.rate() else { return None };
        let gap_ms = self.streams.get_mut(&class)?.between(from_ms, to_ms);
        Some((gap_ms as f64 * self.pace) as u64)
    }

    /// How often each class has struck something.
    #[must_use]
    pub const fn struck(&self) -> &BTreeMap<FaultClass, u64> {
        &self.struck
    }

    /// How many strikes of each class were drawn, with those that were left out.
    #[must_use]
    pub const fn drawn(&self) -> &BTreeMap<FaultClass, u64> {
        &self.drawn
    }

    /// Nothing strikes any more.
    fn stop(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_draws(options: &Options, class: FaultClass) -> Vec<Option<u64>> {
        let mut faults = Faults::new(7, options);
        (0..40).map(|_| faults.strike(class).map(|mut chance| chance.below(u64::MAX))).collect()
    }

    #[test]
    fn names_are_unique_and_are_read_back() {
        let names: BTreeSet<&str> = FaultClass::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names.len(), FaultClass::ALL.len());
        for class in FaultClass::ALL {
            assert_eq!(class.name().parse(), Ok(*class));
            assert!(!class.about().is_empty() && class.one_world_in() > 0);
        }
    }

    #[test]
    fn leaving_out_a_class_or_a_strike_leaves_all_others_as_they_were() {
        let class = FaultClass::CrashAcknowledged;
        let all = Options { classes: FaultClass::ALL.iter().copied().collect(), ..Options::calm(2) };
        let alone = Options { classes: BTreeSet::from([class]), ..Options::calm(2) };
        let before = first_draws(&all, class);
        assert_eq!(before, first_draws(&alone, class));
        let skipping = Options { skipped_strikes: BTreeSet::from([(class, 1)]), ..alone };
        let struck: Vec<_> = before.into_iter().flatten().collect();
        let left: Vec<_> = first_draws(&skipping, class).into_iter().flatten().collect();
        assert!(struck.len() > 3);
        assert_eq!(left, [&struck[..1], &struck[2..]].concat());
    }

    #[test]
    fn a_class_that_is_off_never_strikes() {
        assert!(first_draws(&Options::calm(2), FaultClass::GossipLost).iter().all(Option::is_none));
    }
}
