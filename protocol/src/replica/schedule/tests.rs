use rand_core::SeedableRng;

use super::*;
use crate::deposit::{Deposit, DepositedChunk};
use crate::id::{AuthorId, ChunkId};
use crate::position::Position;

const AUTHOR: AuthorId = AuthorId::from_bytes([1; 32]);

fn peer(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 32])
}

/// A scheduler that wants one chunk, which `peers` peers hold.
fn wanting(peers: u8) -> (Scheduler, ChunkTable) {
    let mut chunks = ChunkTable::new([3, 4]);
    let chunk = DepositedChunk { chunk: ChunkId::from_bytes([7; 32]), length: 100 };
    chunks.deposit(&AUTHOR, &Deposit { first: 0, chunks: vec![chunk], runs: Vec::new() }).unwrap();
    let mut scheduler = Scheduler::default();
    let mut held = Holdings::new();
    held.insert(&Position { author: AUTHOR, index: 0 });
    for number in 0..peers {
        scheduler.add_source(Timestamp::default(), peer(number), LinkId(number.into()), held.clone(), 0, &mut chunks);
    }
    (scheduler, chunks)
}

#[test]
fn peers_that_name_each_other_in_a_circle_are_asked_urgently() {
    const PEERS: u8 = 6;
    let (mut scheduler, mut chunks) = wanting(PEERS);
    let (mut random, mut asked) = (ChaCha20Rng::from_seed([9; 32]), 0);
    for ms in 0..20_000 {
        let now = Timestamp::default() + Duration::from_millis(ms);
        let mut effects = Vec::new();
        scheduler.tick(now, &mut chunks, &mut random, &mut effects);
        scheduler.fill(now, &mut chunks, &mut random, &mut effects);
        for effect in effects {
            let Effect::Fetch { link, request, urgent, .. } = effect else { panic!("{effect:?}") };
            if urgent {
                assert!(asked <= u32::from(PEERS), "each is asked once before: {asked}");
                return;
            }
            asked += 1;
            let next = Declined::Elsewhere(peer((link.0 as u8 + 1) % PEERS));
            scheduler.settle(now, request, 0, Settled::Declined(next), &mut chunks, &mut random);
        }
        assert!(scheduler.rests.len() <= usize::from(PEERS), "{}", scheduler.rests.len());
    }
    panic!("nobody was asked urgently in 20 s, {asked} times in vain");
}

#[test]
fn a_peer_that_loses_and_finds_a_chunk_again_and_again_fills_no_memory() {
    let (mut scheduler, mut chunks) = wanting(2);
    // Nothing is asked while the store refuses chunks: nothing takes candidates away.
    let all = vec![Span { start: 0, count: 1 }];
    let lost = HoldingChanges { lost: all.clone(), ..HoldingChanges::none(AUTHOR) };
    let held = HoldingChanges { held: all, ..HoldingChanges::none(AUTHOR) };
    for _ in 0..10_000 {
        assert!(scheduler.announce(&peer(1), std::slice::from_ref(&lost), &mut chunks));
        assert!(scheduler.announce(&peer(1), std::slice::from_ref(&held), &mut chunks));
    }
    let most = scheduler.sources().map(Source::candidates).max();
    assert!(most <= Some(Source::candidates_max(&chunks)), "{most:?}");
    let (mut random, mut effects) = (ChaCha20Rng::from_seed([9; 32]), Vec::new());
    scheduler.remove_source(&peer(0), &mut chunks);
    scheduler.fill(Timestamp::default(), &mut chunks, &mut random, &mut effects);
    assert!(matches!(effects[..], [Effect::Fetch { .. }]), "it is asked all the same: {effects:?}");
}

#[test]
fn a_chunk_is_left_to_a_peer_that_has_not_been_asked_for_it() {
    let (mut scheduler, mut chunks) = wanting(2);
    let (mut random, mut effects) = (ChaCha20Rng::from_seed([9; 32]), Vec::new());
    scheduler.fill(Timestamp::default(), &mut chunks, &mut random, &mut effects);
    let Some(Effect::Fetch { link, request, .. }) = effects.pop() else { panic!("nobody was asked") };
    let other = peer(1 - link.0 as u8);
    let elsewhere = Settled::Declined(Declined::Elsewhere(other));
    scheduler.settle(Timestamp::default(), request, 0, elsewhere, &mut chunks, &mut random);
    scheduler.fill(Timestamp::default(), &mut chunks, &mut random, &mut effects);
    let Some(Effect::Fetch { link, urgent: false, .. }) = effects.pop() else { panic!("the other was not asked") };
    assert_eq!(link, LinkId(u64::from(other.as_bytes()[0])));
    assert!(effects.is_empty());
}

#[test]
fn a_chunk_that_comes_slowly_is_not_given_up() {
    const TAKES: Duration = Duration::from_secs(200);
    let (mut scheduler, mut chunks) = wanting(1);
    let mut random = ChaCha20Rng::from_seed([9; 32]);
    let mut under_way = None;
    for second in 0..1_800 {
        let now = Timestamp::default() + Duration::from_secs(second);
        if under_way.is_some_and(|since| now.since(since) >= TAKES) {
            return;
        }
        if second % 20 == 19 {
            scheduler.arriving(now, &peer(0));
        }
        let mut effects = Vec::new();
        scheduler.tick(now, &mut chunks, &mut random, &mut effects);
        scheduler.fill(now, &mut chunks, &mut random, &mut effects);
        for effect in effects {
            match effect {
                Effect::Fetch { .. } => under_way = Some(now),
                // Patience that a slow peer has not used up yet may end once.
                Effect::CancelFetch { .. } => under_way = None,
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("always given up too soon");
}

/// A scheduler that has asked one peer for `requests` chunks, one a request, at the beginning of time.
fn asking(requests: u32) -> (Scheduler, ChunkTable, ChaCha20Rng, Vec<RequestId>) {
    let mut chunks = ChunkTable::new([3, 4]);
    let chunk = |number: u32| DepositedChunk { chunk: ChunkId::from_bytes([number as u8; 32]), length: 1 << 20 };
    chunks
        .deposit(&AUTHOR, &Deposit { first: 0, chunks: (0..requests).map(chunk).collect(), runs: Vec::new() })
        .unwrap();
    let mut held = Holdings::new();
    (0..requests).for_each(|index| _ = held.insert(&Position { author: AUTHOR, index }));
    let mut scheduler = Scheduler::default();
    scheduler.add_source(Timestamp::default(), peer(0), LinkId(0), held, 0, &mut chunks);
    let (mut random, mut effects) = (ChaCha20Rng::from_seed([9; 32]), Vec::new());
    scheduler.fill(Timestamp::default(), &mut chunks, &mut random, &mut effects);
    let asked = |effect| match effect {
        Effect::Fetch { request, .. } => request,
        other => panic!("{other:?}"),
    };
    let asked = effects.into_iter().map(asked).collect();
    (scheduler, chunks, random, asked)
}

#[test]
fn what_was_under_way_at_once_fails_once() {
    let (mut scheduler, mut chunks, mut random, asked) = asking(4);
    assert_eq!(asked.len(), 4);
    let now = Timestamp::default() + Duration::from_secs(1);
    for (slot, request) in (0..).zip(asked) {
        // Chunks are drawn by chance: each request knows one of them.
        for slot in (slot..4).chain(0..slot) {
            scheduler.settle(now, request, slot, Settled::Declined(Declined::Busy), &mut chunks, &mut random);
        }
    }
    let rests = scheduler.take_rests();
    assert!(matches!(rests[..], [(_, rest)] if rest <= Duration::from_millis(1_500)), "{rests:?}");
}

#[test]
fn a_peer_that_delivers_does_not_rest() {
    let (mut scheduler, mut chunks, mut random, asked) = asking(4);
    let silent = Timestamp::default() + Duration::from_secs(40);
    let mut effects = Vec::new();
    scheduler.tick(silent, &mut chunks, &mut random, &mut effects);
    assert_eq!(effects.len(), asked.len(), "nothing came, and all is given up: {effects:?}");
    assert_eq!(scheduler.take_rests().len(), 1);
    effects.clear();
    scheduler.fill(silent, &mut chunks, &mut random, &mut effects);
    assert_eq!(effects, [], "it rests");
    scheduler.arriving(silent, &peer(0));
    scheduler.fill(silent, &mut chunks, &mut random, &mut effects);
    assert!(matches!(effects[..], [Effect::Fetch { .. }]), "it is asked for one chunk until that comes: {effects:?}");
}

#[test]
fn a_chunk_that_another_is_about_to_get_is_left_to_it_while_others_come() {
    let (mut scheduler, mut chunks, mut random, asked) = asking(2);
    scheduler.add_source(Timestamp::default(), peer(1), LinkId(1), Holdings::new(), 0, &mut chunks);
    let [first, _] = asked[..] else { panic!("{asked:?}") };
    let left = (0..2).find(|&slot| {
        let elsewhere = Settled::Declined(Declined::Elsewhere(peer(1)));
        scheduler.settle(Timestamp::default(), first, slot, elsewhere, &mut chunks, &mut random);
        !chunks.is_requested(slot)
    });
    let left = left.unwrap();
    for second in 1..60 {
        let now = Timestamp::default() + Duration::from_secs(second);
        scheduler.arriving(now, &peer(0));
        let mut effects = Vec::new();
        scheduler.tick(now, &mut chunks, &mut random, &mut effects);
        scheduler.fill(now, &mut chunks, &mut random, &mut effects);
        assert_eq!(effects, [], "after {second} s");
    }
    // The other one comes: nothing is under way from there any more.
    let end = Timestamp::default() + Duration::from_secs(60);
    chunks.set_held(1 - left, true);
    scheduler.settle(end, asked[1], 1 - left, Settled::Stored, &mut chunks, &mut random);
    let urgent = (60..63).any(|second| {
        let now = Timestamp::default() + Duration::from_secs(second);
        let mut effects = Vec::new();
        scheduler.tick(now, &mut chunks, &mut random, &mut effects);
        scheduler.fill(now, &mut chunks, &mut random, &mut effects);
        effects.iter().any(|effect| matches!(effect, Effect::Fetch { urgent: true, .. }))
    });
    assert!(urgent);
}
