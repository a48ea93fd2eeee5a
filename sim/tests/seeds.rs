//! A fixed batch of seeds, and those that once found something.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_sim::check::replayed;
use holdfast_sim::fault::FaultClass;
use holdfast_sim::options::Options;
use holdfast_sim::outcome;

/// Runs each seed as it is.
fn run_all(seeds: &[u64]) {
    run_all_as(seeds, Options::of);
}

/// Runs each seed twice, on all cores: clean both times, with the same trace.
fn run_all_as(seeds: &[u64], options_of: fn(u64) -> Options) {
    let (next, broken) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let options = options_of(seed);
                    let run = || outcome::run_unwatched(seed, &options);
                    let verdict = replayed::check(run(), &run()).verdict;
                    if !verdict.is_clean() {
                        let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                        broken.push(format!("seed {seed}: {}", verdict.what()));
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    let hint = "replay with `cargo run -p holdfast-sim -- replay --seed N`, `shrink --seed N` makes it small";
    assert!(broken.is_empty(), "{hint}\n{}", broken.join("\n"));
}

#[test]
fn a_fixed_batch_of_seeds_breaks_nothing() {
    run_all(&(100..130).collect::<Vec<_>>());
}

#[test]
fn seeds_that_found_something_find_it_no_more() {
    // 1, 5: a file gone before its import was catalogued stayed in lists. 2, 6: places of devices whose inventory was
    // still on its way were each counted as one more. 9, 23: two imports of one photo counted by what was learned first.
    // 42: a photo whose last known file was edited stayed hidden although another device had imported it.
    // 1121, 1299, 1368, 1590: an index that was being rebuilt when its node died passed for a whole one ever after.
    // 17, 2099: what a store lost while its import waited to be catalogued was counted as held ever after.
    // 48: a node restored from a backup believed the one peer that had missed its latest, and forked its log. 1045: a
    // restored node stopped because its own changes were on their way. 1194: photos without a manifest have no name.
    // 50037: the index kept an album's name that a kill took from the log. 5064: an edit right after a start did not wait
    // for logs to be compared, and forked that of a restored device. 5002:
    // a chunk that takes longer on a slow connection than a request may was asked for again and again.
    // 910109: a loss that was reported late took back what had been stored meanwhile.
    run_all(&[1, 2, 5, 6, 9, 17, 23, 25, 42, 48, 1045, 1121, 1194, 1299, 1368, 1590, 2099, 5002, 5064, 50037, 910_109]);
}

/// A world of `nodes` with the faults of a seed as they were when it found something.
fn of_then(seed: u64, nodes: usize, faults: &str) -> Options {
    let classes = faults.split(',').map(|name| name.parse().unwrap()).collect();
    Options { nodes, classes, ..Options::of(seed) }
}

#[test]
fn worlds_of_ten_nodes_that_found_something_find_it_no_more() {
    let worlds = [
        // Peers that each named another as the one to ask first were asked in a circle, for ever and without a pause.
        (100_016, "cut,one-way,offline,clock-drift,clock-jump,gossip-lost,lie-flood"),
        (
            100_849,
            "crash-acknowledged,half-open,link-slow,uplink-slow,clock-drift,index-lost,read-errors,crash-writing",
        ),
    ];
    for (seed, faults) in worlds {
        let outcome = outcome::run_unwatched(seed, &of_then(seed, 10, faults));
        assert!(outcome.verdict.is_clean(), "seed {seed}: {}", outcome.verdict.what());
    }
}

#[test]
fn worlds_that_asked_for_what_nobody_had_ask_for_it_no_more() {
    let worlds = [
        // A file rotted between its reading and its record: nobody knew whose chunk it had been.
        (
            800_042,
            6,
            "crash-acknowledged,separate,flap,nat,clock-wrong,rot-segment,rot-original,write-errors,lie-gossip,stranger,\
             lie-unanswered",
        ),
        // A manifest was gone everywhere, and the index of a node was built anew behind that.
        (
            800_055,
            3,
            "cut,half-open,winter,clock-wrong,gossip-late,gossip-lost,gossip-doubled,index-lost,rot-segment,\
             rot-original,crash-writing,lie-garbled,lie-holdings,disk-lost,join-late,lie-unanswered,lie-slow,restart,\
             lie-inventories",
        ),
        // A manifest came back while an earlier read of it was still to fail: then nobody read it again.
        (
            4_001_345,
            10,
            "crash,separate,flap,split,half-open,winter,suspend,clock-drift,gossip-late,index-lost,rot-segment,\
             read-errors,disk-full,crash-writing,lie-replayed,lie-holdings,stranger,disk-lost,lie-slow,lie-declined,\
             lie-forked",
        ),
        // A chunk rotted between its appending and its sync: it passed for good.
        (
            4_031_406,
            10,
            "crash,separate,nat,winter,clock-wrong,clock-drift,clock-jump,rot-segment,crash-writing,lie-holdings,\
             removed,lie-inventories,lie-flickering,newer-version",
        ),
        // Late gossip of how far a peer knew a log took back what it had said since: nobody asked it for more.
        (
            4_031_453,
            10,
            "separate,split,nat,winter,clock-drift,gossip-doubled,rot-segment,disk-full,disk-lost,lie-unanswered,\
             lie-catalog,newer-version",
        ),
        // A proof of a fork overtook an answer: who gave it was hung up on as one that broke the protocol.
        (
            6_000_216,
            10,
            "crash,crash-acknowledged,cut,separate,uplink-slow,clock-drift,rot-segment,cloned,lie-garbled,lie-slow,\
             lie-catalog,lie-forked",
        ),
        // A home was put back while a failed read hid one of its chunks.
        (
            4_051_263,
            10,
            "separate,nat,suspend,clock-wrong,clock-drift,gossip-late,gossip-lost,gossip-doubled,read-errors,\
             backup-restored,lie-declined",
        ),
        // A home that was put back had held chunks of photos that it did not know yet.
        (
            3_002_470,
            10,
            "crash,cut,one-way,clog,link-slow,gossip-lost,read-errors,write-errors,backup-restored,lie-garbled,\
             lie-gossip,lie-holdings,lie-unanswered,lie-withheld",
        ),
    ];
    for (seed, nodes, faults) in worlds {
        let outcome = outcome::run_unwatched(seed, &of_then(seed, nodes, faults));
        assert!(outcome.verdict.is_clean(), "seed {seed}: {}", outcome.verdict.what());
    }
}

#[test]
fn devices_that_were_two_or_removed_lose_nothing_any_more() {
    let worlds = [
        // What a restored device said after it had reached nobody for 15 seconds was known to nobody else, ever after.
        (840_050, 3, "backup-restored,separate,clog,crash"),
        // Photos that several devices deposited again behind a fork were read from another run at each device.
        (
            892_112,
            4,
            "crash-acknowledged,cut,separate,split,one-way,link-slow,uplink-slow,clock-drift,clock-jump,gossip-late,\
             gossip-doubled,read-errors,crash-writing,cloned,lie-slow,removed,restart",
        ),
        // A device that knew nobody but who had let it in did not compare its log with that one's before it wrote.
        (
            895_050,
            2,
            "crash,clog,uplink-slow,clock-drift,gossip-late,gossip-doubled,rot-original,read-errors,disk-full,\
             backup-restored,cloned,lie-replayed,lie-garbled,lie-flood,disk-lost,lie-slow,lie-declined,thrown-away,\
             removed,restart,lie-flickering",
        ),
        // Positions before a fork meant nothing as long as nobody knew who vouches for their device.
        (
            897_026,
            6,
            "crash,separate,one-way,half-open,uplink-slow,clock-jump,gossip-late,gossip-lost,rot-original,write-errors,\
             crash-writing,backup-restored,cloned,disk-lost,lie-unanswered,lie-withheld,lie-slow,removed,lie-flickering",
        ),
        // After a restart the removed device that had let this one in counted as a holder again.
        (
            940_026,
            10,
            "crash,separate,one-way,clog,suspend,clock-drift,clock-jump,index-lost,rot-segment,sync-errors,\
             crash-writing,backup-restored,cloned,lie-garbled,lie-holdings,join-late,lie-withheld,lie-chunk,removed",
        ),
        // A removed device had told of a photo in a change that waited for others: nobody deposited the photo's chunks again.
        (
            3_100_409,
            10,
            "link-slow,uplink-slow,clock-wrong,clock-drift,gossip-doubled,index-lost,write-errors,lie-slow,removed",
        ),
        // What only a removed device had was waited for, when somebody carried on later what it had said of it.
        (
            3_005_256,
            10,
            "crash-acknowledged,one-way,clog,half-open,offline,winter,clock-drift,clock-jump,gossip-late,\
             gossip-doubled,rot-segment,rot-original,read-errors,lie-slow,removed,restart,lie-inventories,\
             lie-flickering,newer-version",
        ),
    ];
    for (seed, nodes, faults) in worlds {
        let outcome = outcome::run_unwatched(seed, &of_then(seed, nodes, faults));
        assert!(outcome.verdict.is_clean(), "seed {seed}: {}", outcome.verdict.what());
    }
}

/// With everything that networks, clocks and machines do wrong at once.
fn in_a_bad_network(seed: u64) -> Options {
    use FaultClass as Class;
    let classes = [
        [Class::Crash, Class::Cut, Class::Separate, Class::Flap, Class::Split, Class::OneWay, Class::Clog],
        [
            Class::HalfOpen,
            Class::LinkSlow,
            Class::UplinkSlow,
            Class::Nat,
            Class::Offline,
            Class::Suspend,
            Class::Winter,
        ],
        [
            Class::ClockWrong,
            Class::ClockDrift,
            Class::ClockJump,
            Class::GossipLate,
            Class::GossipLost,
            Class::GossipDoubled,
            Class::IndexLost,
        ],
    ];
    Options { classes: classes.into_iter().flatten().collect(), ..Options::of(seed) }
}

#[test]
fn bad_networks_and_wrong_clocks_break_nothing() {
    run_all_as(&[0, 1, 2, 3, 30], in_a_bad_network);
}

/// Homes are put back while not everybody can tell the node what it has forgotten.
fn restored_on_bad_links(seed: u64) -> Options {
    let classes = [FaultClass::BackupRestored, FaultClass::Crash, FaultClass::OneWay, FaultClass::Clog];
    Options { classes: classes.into(), ..Options::of(seed) }
}

#[test]
fn restored_nodes_on_bad_links_break_nothing() {
    // 4036: a backup of before a restore was put back after it.
    run_all_as(&[48, 4000, 4036], restored_on_bad_links);
}

/// Three devices for ten days: bursts of work, faults far apart, months that nobody is there.
fn for_days(seed: u64) -> Options {
    Options { nodes: 3, ..Options::of(seed) }.lasting(10 * 24 * 3_600_000)
}

#[test]
fn days_of_little_work_break_nothing() {
    run_all_as(&[6, 7], for_days);
}
