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
    chunks.deposit(&AUTHOR, &Deposit { first: 0, chunks: vec![chunk] }).unwrap();
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
fn a_chunk_that_takes_minutes_on_a_slow_connection_arrives() {
    const TAKES: Duration = Duration::from_secs(200);
    let (mut scheduler, mut chunks) = wanting(1);
    let mut random = ChaCha20Rng::from_seed([9; 32]);
    let (mut under_way, mut given_up) = (None, 0);
    for second in 0..1_800 {
        let now = Timestamp::default() + Duration::from_secs(second);
        if under_way.is_some_and(|since| now.since(since) >= TAKES) {
            assert!((1..=4).contains(&given_up), "{given_up}");
            return;
        }
        let mut effects = Vec::new();
        scheduler.tick(now, &mut chunks, &mut random, &mut effects);
        scheduler.fill(now, &mut chunks, &mut random, &mut effects);
        for effect in effects {
            match effect {
                Effect::Fetch { .. } => under_way = Some(now),
                Effect::CancelFetch { .. } => (under_way, given_up) = (None, given_up + 1),
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("given up {given_up} times, always too soon");
}
