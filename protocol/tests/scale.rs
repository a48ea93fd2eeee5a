//! How the replica behaves with a large library. The bounds asserted are generous, so that a debug build on a busy machine
//! passes; the figures printed are what to look at: `cargo test --release -p holdfast-protocol --test scale -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "measures time")]
#![allow(clippy::print_stdout, reason = "prints what it measured")]

mod support;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use holdfast_protocol::deposit::{DepositedChunk, NewRun, RunClass};
use holdfast_protocol::envelope::Kind;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::message::{FRAME_HEADER_BYTES, Gate};
use holdfast_protocol::replica::{Effect, FetchOutcome, Input, LinkId, Replica};
use holdfast_protocol::time::{Now, Timestamp, WallTime};
use support::memory::Memory;
use support::{EPOCH, config, root};

const CHUNKS: u32 = 300_000;
const LINK: LinkId = LinkId(1);

fn now(ms: u64) -> Now {
    Now { elapsed: Timestamp::from_millis(ms), wall: WallTime(ms as i64) }
}

fn chunk(number: u32) -> DepositedChunk {
    let chunk = ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
    DepositedChunk { chunk, length: if number.is_multiple_of(3) { 3_000 } else { 900_000 } }
}

/// A node that has imported a library in a thousand steps.
fn library() -> (Replica<Memory>, Memory) {
    let memory = Memory::default();
    let (mut replica, effects) = Replica::open(config(&root(), 0, 1), memory.clone(), &|_| true).unwrap();
    synced(&mut replica, effects);
    let effects = replica.introduce(now(1), EPOCH).unwrap();
    synced(&mut replica, effects);
    for step in 0..1000 {
        let chunks: Vec<_> = (0..CHUNKS / 1000).map(|n| chunk(step * (CHUNKS / 1000) + n)).collect();
        let (_, effects) = replica.deposit(now(2), EPOCH, &[NewRun { class: RunClass::PHOTO, chunks }]).unwrap();
        synced(&mut replica, effects);
        let (_, effects) = replica.append(now(2), Kind::Catalog, EPOCH, 1, vec![7; 10_000]).unwrap();
        synced(&mut replica, effects);
    }
    (replica, memory)
}

fn synced(replica: &mut Replica<Memory>, effects: Vec<Effect>) {
    for effect in effects {
        if let Effect::Sync(task) = effect {
            let effects = replica.handle(now(3), Input::Synced(task)).unwrap();
            synced(replica, effects);
        }
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[test]
fn a_large_library_opens_quickly() {
    let (replica, memory) = library();
    drop(replica);
    let (started, before) = (Instant::now(), resident_bytes());
    let (replica, _) = Replica::open(config(&root(), 0, 2), memory, &|_| true).unwrap();
    let (took, grown) = (started.elapsed(), resident_bytes().saturating_sub(before));
    println!("{CHUNKS} chunks in 2,001 envelopes: opened in {took:?}, {} MiB more", grown >> 20);
    assert_eq!(replica.holdings(&replica.device()).unwrap().held_count(), u64::from(CHUNKS));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Carries control frames between two replicas until nothing is said any more; returns what the second is to fetch.
fn talk(pair: &mut [Replica<Memory>; 2], ms: u64, mut queue: Vec<(usize, Effect)>) -> Vec<Effect> {
    let mut gates = [Gate::default(), Gate::default()];
    let mut fetches = Vec::new();
    while !queue.is_empty() {
        for (from, effect) in std::mem::take(&mut queue) {
            let (to, input) = match effect {
                Effect::Send { frame, .. } => {
                    let (header, _) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
                    let tag = gates[1 - from].admit(header).unwrap().tag;
                    (1 - from, Input::Received { link: LINK, tag, body: frame.slice(FRAME_HEADER_BYTES..) })
                }
                Effect::Sync(task) => (from, Input::Synced(task)),
                fetch @ Effect::Fetch { .. } => {
                    fetches.push(fetch);
                    continue;
                }
                _ => continue,
            };
            let effects = pair[to].handle(now(ms), input).unwrap();
            queue.extend(effects.into_iter().map(|effect| (to, effect)));
        }
    }
    fetches
}

#[test]
fn a_large_library_is_fetched_with_little_work_per_chunk() {
    let (source, memory) = library();
    drop(source);
    let (source, effects) = Replica::open(config(&root(), 0, 2), memory, &|_| true).unwrap();
    let (new, more) = Replica::open(config(&root(), 1, 1), Memory::default(), &|_| false).unwrap();
    let mut pair = [source, new];
    let mut queue: Vec<_> = effects.into_iter().map(|effect| (0, effect)).collect();
    queue.extend(more.into_iter().map(|effect| (1, effect)));
    talk(&mut pair, 5, queue);
    let (peer, me) = (pair[0].device(), pair[1].device());
    let started = Instant::now();
    let mut queue = Vec::new();
    for (at, peer) in [(0, me), (1, peer)] {
        let effects = pair[at].handle(now(10), Input::Connected { link: LINK, peer, outbound: at == 1 }).unwrap();
        queue.extend(effects.into_iter().map(|effect| (at, effect)));
    }
    let mut fetches = VecDeque::from(talk(&mut pair, 10, queue));
    println!("logs and inventory of {CHUNKS} chunks exchanged in {:?}", started.elapsed());
    assert_eq!(pair[1].transfers().missing_chunks, u64::from(CHUNKS));

    let (started, mut inputs, mut slowest, mut ms) = (Instant::now(), 0u32, Duration::ZERO, 20_000);
    let mut handle = |replica: &mut Replica<Memory>, ms, input| {
        let before = Instant::now();
        let effects = replica.handle(now(ms), input).unwrap();
        slowest = slowest.max(before.elapsed());
        inputs += 1;
        effects
    };
    while let Some(fetch) = fetches.pop_front() {
        let Effect::Fetch { request, chunks, .. } = fetch else { continue };
        ms += 1;
        let mut more = Vec::new();
        for wanted in chunks {
            let outcome = FetchOutcome::Stored;
            let input = Input::Fetched { link: LINK, request, chunk: wanted.chunk, outcome };
            more.extend(handle(&mut pair[1], ms, input));
        }
        more.extend(handle(&mut pair[1], ms, Input::FetchEnded { link: LINK, request }));
        more.extend(handle(&mut pair[1], ms, Input::Tick));
        for effect in more {
            match effect {
                Effect::Sync(task) => drop(pair[1].handle(now(ms), Input::Synced(task)).unwrap()),
                fetch @ Effect::Fetch { .. } => fetches.push_back(fetch),
                _ => {}
            }
        }
    }
    let took = started.elapsed();
    let each = took / CHUNKS;
    println!("{CHUNKS} chunks in {inputs} inputs: {took:?}, {each:?} a chunk, slowest input {slowest:?}");
    assert_eq!(pair[1].transfers().missing_chunks, 0);
    assert!(each < Duration::from_micros(200), "{each:?}");
}
