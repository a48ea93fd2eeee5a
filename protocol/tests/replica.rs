//! Replicas in a small world: what nodes do together, behaviour only.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_protocol::envelope::Kind;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::keys::RootKey;
use holdfast_protocol::membership::{Statement, encode_statements};
use holdfast_protocol::message::Farewell;
use holdfast_protocol::position::Position;
use holdfast_protocol::replica::{DisconnectReason, Event, Input, LinkId, Misbehaviour};
use support::keys::{author_key, certificate};
use support::memory::Memory;
use support::world::{Lie, World};
use support::{EPOCH, chunk_bytes, chunk_id, root};

/// Chunks like those of a few photos: small and large ones.
fn photos(from: u64, count: u64) -> Vec<Vec<u8>> {
    (from..from + count)
        .map(|n| chunk_bytes(n, if n % 4 == 0 { 4000 } else { 60_000 + (n % 7) as usize * 40_000 }))
        .collect()
}

fn total(chunks: &[Vec<u8>]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// The founder tells everyone of the members that it invited.
fn admit(world: &mut World, numbers: std::ops::Range<u8>) {
    let statements: Vec<_> = numbers.map(|number| Statement::Admit(certificate(&root(), number))).collect();
    let now = world.clock();
    let body = encode_statements(&statements);
    let (_, effects) = world.replica(0).append(now, Kind::Membership, EPOCH, 1, body).unwrap();
    world.perform(0, effects);
}

/// A node says that a device is no member any more.
fn remove(world: &mut World, by: usize, device: DeviceId) {
    let now = world.clock();
    let replica = world.replica(by);
    let lengths = replica.vector();
    let length = |author: &_| lengths.iter().find(|point| point.author == *author).map_or(0, |point| point.length);
    let body = encode_statements(&[Statement::Remove(replica.registry().removal(device, length))]);
    let (_, effects) = replica.append(now, Kind::Membership, EPOCH, 1, body).unwrap();
    world.perform(by, effects);
}

#[test]
fn two_nodes_converge() {
    let mut world = World::new(1, 2);
    world.import(0, photos(0, 60));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])), "converge");
    world.check();
    assert_eq!(world.nodes[1].store.len(), 60);
    assert!(world.nodes[1].received.values().all(|times| *times == 1), "no chunk comes twice");
    assert!(world.nodes[1].events.contains(&Event::CaughtUp));
    // And back, while the session stands: quickly.
    world.import(1, photos(100, 40));
    assert!(world.run_while(3_000, |world| world.converged(&[0, 1])), "converge again");
    world.check();
    assert_eq!(world.nodes[0].store.len(), 100);
}

#[test]
fn what_a_peer_lacks_is_known_until_it_says_that_it_has_it() {
    let mut world = World::new(1, 2);
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])), "converge");
    let other = world.nodes[1].device;
    let chunks = photos(0, 60);
    let bytes = total(&chunks);
    // Two seconds for all of it.
    world.rate = (bytes / 2_000).max(1);
    world.import(0, chunks);
    assert_eq!(world.replica(0).lacked_by(&other), bytes);
    let is_part_there = |world: &mut World| (1..bytes).contains(&world.replica(0).lacked_by(&other));
    assert!(world.run_while(20_000, is_part_there), "parts count");
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])), "converge again");
    world.run_for(1_000);
    assert_eq!(world.replica(0).lacked_by(&other), 0);
    assert_eq!(world.replica(0).catching_up_with(), None);
    world.block(0, 1, true);
    world.import(0, photos(100, 1));
    world.run_for(1_000);
    assert_eq!(world.replica(0).lacked_by(&other), 0, "it is not connected");
    let view = world.replica(0).peers().remove(0);
    assert!(!view.connected && (view.dialling || view.next_dial.is_some()));
}

#[test]
fn equal_chunks_are_not_moved() {
    let mut world = World::new(2, 2);
    world.import(0, photos(0, 30));
    world.import(1, photos(0, 30));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    world.check();
    assert_eq!((world.nodes[0].sent_bytes, world.nodes[1].sent_bytes), (0, 0));
}

#[test]
fn three_nodes_from_one_source_send_each_chunk_about_once() {
    let mut world = World::new(3, 4);
    world.rate = 20_000;
    admit(&mut world, 1..4);
    world.run_for(5_000);
    let chunks = photos(0, 1500);
    let bytes = total(&chunks);
    world.import(0, chunks);
    assert!(world.run_while(300_000, |world| world.converged(&[0, 1, 2, 3])), "converge");
    world.check();
    let ratio = world.nodes[0].sent_bytes as f64 / bytes as f64;
    println!("the source sent {ratio:.3} times the bytes, in {} ms", world.now);
    assert!(ratio <= 1.15, "the source sent {ratio:.3} times the bytes");
}

#[test]
fn few_chunks_reach_many_nodes_soon() {
    let mut world = World::new(3, 24);
    world.delay_ms = 90;
    admit(&mut world, 1..24);
    world.run_for(5_000);
    let chunks = photos(0, 12);
    let bytes = total(&chunks);
    world.import(0, chunks);
    let all: Vec<usize> = (0..24).collect();
    let before = world.now;
    assert!(world.run_while(200_000, |world| world.converged(&all)), "converge");
    world.check();
    let ratio = world.nodes[0].sent_bytes as f64 / bytes as f64;
    println!("the source sent {ratio:.3} times the bytes, in {} ms", world.now - before);
    assert!(ratio <= 3.0, "the source sent {ratio:.3} times the bytes");
}

#[test]
fn corrupt_chunks_are_fetched_from_another_peer() {
    let mut world = World::new(4, 3);
    admit(&mut world, 1..3);
    world.block(1, 2, true);
    world.import(0, photos(0, 20));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    // Node 1 goes bad; node 2 meets it first.
    world.nodes[1].lie = Some(Lie::WrongBytes);
    world.block(0, 2, true);
    world.run_for(1_000);
    world.nodes[2].store.clear();
    world.crash(2);
    world.block(1, 2, false);
    world.start(2);
    world.run_for(8_000);
    let device = world.nodes[1].device;
    let corrupt = DisconnectReason::Misbehaved(Misbehaviour::CorruptChunks);
    assert!(world.nodes[2].disconnects.contains(&(device, corrupt)), "{:?}", world.nodes[2].disconnects);
    assert!(world.nodes[2].events.iter().any(|event| matches!(event, Event::ChunkCorrupt { .. })));
    assert!(world.nodes[2].store.is_empty());
    world.block(0, 2, false);
    assert!(world.run_while(400_000, |world| world.replica(2).transfers().missing_chunks == 0), "healed from node 0");
    world.check();
}

#[test]
fn a_stranger_learns_nothing() {
    let mut world = World::new(5, 1);
    world.import(0, photos(0, 5));
    let other = RootKey::from_seed(&[9; 32]);
    let stranger = world.add(other);
    world.connect(stranger, 0);
    world.run_for(1_000);
    let device = world.nodes[0].device;
    let refused = (world.nodes[stranger].device, DisconnectReason::WrongLibrary);
    assert!(
        world.nodes[0].disconnects.contains(&refused) && world.nodes[0].disconnects.iter().all(|of| *of == refused)
    );
    assert!(world.nodes[stranger].disconnects.iter().any(|(peer, _)| *peer == device));
    assert!(world.nodes[stranger].store.is_empty() && world.replica(stranger).vector().len() == 1);
}

#[test]
fn a_device_with_certificates_of_another_root_is_refused() {
    let mut world = World::new(6, 2);
    world.run_for(2_000);
    // Knows the library's id, but was certified by someone else: its hello passes, its proof does not.
    let forged = RootKey::from_seed(&[9; 32]);
    let number = world.nodes.len() as u8;
    let mut config = support::config(&forged, number, 1);
    config.library = root().library_id();
    let index = world.add(forged);
    world.crash(index);
    let (replica, effects) =
        holdfast_protocol::replica::Replica::open(config, support::memory::Memory::default(), &|_| false).unwrap();
    world.nodes[index].replica = Some(replica);
    world.perform(index, effects);
    world.connect(index, 0);
    world.run_for(1_000);
    assert!(world.nodes[0].disconnects.contains(&(world.nodes[index].device, DisconnectReason::NotAMember)));
}

#[test]
fn a_removed_device_is_let_go_and_kept_out() {
    let mut world = World::new(7, 3);
    admit(&mut world, 1..3);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1, 2])));
    let device = world.nodes[2].device;
    remove(&mut world, 0, device);
    world.run_for(5_000);
    assert!(world.replica(1).registry().is_removed(&device));
    assert!(world.replica(1).peers().iter().all(|peer| peer.device != device));
    world.import(2, photos(0, 3));
    world.import(0, photos(10, 3));
    world.connect(2, 1);
    world.run_for(20_000);
    assert!(
        world.nodes[1].disconnects.iter().any(|(peer, reason)| *peer == device && *reason == DisconnectReason::Removed)
    );
    assert_eq!(world.nodes[1].store.len(), 3);
    assert!(world.nodes[2].store.len() == 3, "nothing said after the removal reaches the removed device");
}

#[test]
fn what_a_removed_device_wrote_is_asked_for_when_its_removal_counts_no_more() {
    let mut world = World::new(7, 4);
    admit(&mut world, 1..4);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1, 2, 3])));
    let (remover, removed) = (world.nodes[1].device, world.nodes[2].device);
    // Only the first node learns what the device wrote last.
    for other in [1, 3] {
        world.block(2, other, true);
        world.block(0, other, true);
    }
    world.import(2, photos(0, 3));
    assert!(world.run_while(20_000, |world| world.nodes[0].store.len() == 3));
    world.block(2, 0, true);
    remove(&mut world, 1, removed);
    assert!(world.run_while(10_000, |world| world.replica(3).registry().is_removed(&removed)));
    // Who removed it was no member itself by then.
    remove(&mut world, 0, remover);
    world.block(0, 3, false);
    assert!(world.run_while(400_000, |world| world.replica(3).registry().is_member(&removed)));
    assert!(world.run_while(30_000, |world| world.nodes[3].store.len() == 3));
    assert!(world.replica(3).holdings(&removed).is_some());
}

#[test]
fn holdings_of_peers_that_are_never_met_are_relayed() {
    let mut world = World::new(8, 3);
    admit(&mut world, 1..3);
    world.block(1, 2, true);
    world.import(0, photos(0, 30));
    assert!(world.run_while(120_000, |world| world.converged(&[0, 1, 2])), "1 knows what 2 holds, through 0");
    world.check();
    // And it is remembered over a restart.
    world.run_for(40_000);
    world.crash(1);
    world.block(0, 1, true);
    world.start(1);
    let device = world.nodes[2].device;
    assert_eq!(world.replica(1).holdings(&device).map(|of| of.held_count()), Some(30));
}

#[test]
fn a_restart_continues_and_a_cut_costs_at_most_one_chunk() {
    let mut world = World::new(9, 2);
    world.rate = 1_000;
    let chunks = photos(0, 400);
    world.import(0, chunks.clone());
    let mut cuts = 0;
    while !world.converged(&[0, 1]) && world.now < 600_000 {
        world.run_for(3_000);
        cuts += 1;
        match cuts % 3 {
            0 => {
                world.crash(1);
                world.start(1);
            }
            1 => {
                world.crash(0);
                world.start(0);
            }
            _ => world.live_links().into_iter().for_each(|link| world.cut(link)),
        }
        world.check();
    }
    assert!(world.run_while(60_000, |world| world.converged(&[0, 1])));
    let again: u32 = world.nodes[1].received.values().map(|times| times - 1).sum();
    println!("{cuts} cuts, {again} chunks came twice");
    assert_eq!(world.nodes[1].store.len(), 400);
    assert!(again <= cuts, "{again} chunks came twice over {cuts} cuts");
}

#[test]
fn a_fork_is_proven_and_passed_on_and_the_log_is_cut_there() {
    let mut world = World::new(10, 3);
    admit(&mut world, 1..3);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1, 2])));
    // Node 2 is cloned: both copies write on, and each is heard by another node only.
    let backup = world.nodes[2].memory.backup();
    world.block(1, 2, true);
    world.block(0, 1, true);
    world.import(2, photos(0, 3));
    world.run_for(3_000);
    world.crash(2);
    world.nodes[2].memory = backup;
    world.block(0, 2, true);
    world.block(1, 2, false);
    world.start(2);
    world.import(2, photos(50, 2));
    world.run_for(3_000);
    world.crash(2);
    // The two who heard different versions meet.
    world.block(0, 1, false);
    world.run_for(20_000);
    let author = author_key(2).author_id();
    for node in 0..2 {
        let proven = |event: &Event| matches!(event, Event::ForkProven { author: forked, .. } if *forked == author);
        assert_eq!(world.nodes[node].events.iter().filter(|event| proven(event)).count(), 1, "node {node}");
        assert!(world.replica(node).vector().iter().any(|point| point.author == author && point.forked));
    }
    // It is remembered, and the author itself learns of it and stops.
    world.crash(0);
    world.start(0);
    assert!(world.replica(0).vector().iter().any(|point| point.author == author && point.forked));
    world.block(0, 2, false);
    world.start(2);
    world.run_for(20_000);
    assert!(world.nodes[2].events.contains(&Event::RestoredFromBackup { author }));
    let now = world.clock();
    assert!(world.replica(2).append(now, Kind::Catalog, EPOCH, 1, vec![1]).is_err());
    let point =
        |world: &mut World, node: usize| world.replica(node).vector().into_iter().find(|of| of.author == author);
    assert_eq!(point(&mut world, 0), point(&mut world, 1));
    assert_eq!(point(&mut world, 0), point(&mut world, 2));
}

#[test]
fn of_many_branches_all_keep_what_all_have_in_common() {
    let mut world = World::new(14, 4);
    admit(&mut world, 1..4);
    world.import(3, photos(0, 2));
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1, 2, 3])));
    let author = author_key(3).author_id();
    let shared = world.replica(3).own_length();
    let counting = |world: &mut World, node: usize| {
        let positions = (0..).map(|index| Position { author, index });
        positions.map_while(|position| world.replica(node).chunk_at(&position)).count()
    };
    let positions = counting(&mut world, 3);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        world.block(a, b, true);
    }
    let write = |world: &mut World, from: &Memory, first: u64, heard: &[usize]| {
        world.nodes[3].memory = from.backup();
        (0..3).for_each(|node| world.block(node, 3, !heard.contains(&node)));
        world.start(3);
        // Long enough that the logs part further back than is looked at first.
        (0..20).for_each(|n| _ = world.import(3, photos(first + n, 1)));
        world.run_for(5_000);
        world.crash(3);
        world.nodes[3].memory.backup()
    };
    world.crash(3);
    let backup = world.nodes[3].memory.backup();
    write(&mut world, &backup, 20, &[0]);
    let later = write(&mut world, &backup, 40, &[1, 2]);
    write(&mut world, &later, 60, &[1]);
    write(&mut world, &later, 80, &[2]);
    let length = |world: &mut World, node: usize| {
        let points = world.replica(node).vector();
        points.iter().find(|point| point.author == author).map(|point| (point.length, point.forked)).unwrap()
    };
    // The two that part late meet first.
    world.block(1, 2, false);
    world.run_for(20_000);
    assert_eq!([1, 2].map(|node| length(&mut world, node)), [(shared + 20, true); 2]);
    world.block(0, 1, false);
    world.run_for(30_000);
    assert_eq!([0, 1, 2].map(|node| length(&mut world, node)), [(shared, true); 3]);
    world.crash(1);
    world.start(1);
    for node in 0..3 {
        assert_eq!(length(&mut world, node), (shared, true));
        assert_eq!(counting(&mut world, node), positions, "no position behind the fork counts");
    }
    // Who was away learns the same.
    (0..3).for_each(|node| world.block(node, 3, false));
    world.start(3);
    world.run_for(30_000);
    assert_eq!(length(&mut world, 3), (shared, true));
    assert!(world.replica(3).is_retired());
}

#[test]
fn a_node_restored_from_a_backup_continues_under_a_new_author() {
    let mut world = World::new(11, 2);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    let backup = world.nodes[1].memory.backup();
    world.import(1, photos(0, 4));
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    world.crash(1);
    world.nodes[1].memory = backup;
    world.start(1);
    world.run_for(10_000);
    let old = author_key(1).author_id();
    assert!(world.nodes[1].events.contains(&Event::RestoredFromBackup { author: old }));
    assert!(world.nodes[0].events.iter().all(|event| !matches!(event, Event::ForkProven { .. })));
    world.replica(1).adopt_author(author_key(50));
    let now = world.clock();
    let effects = world.replica(1).introduce(now, EPOCH).unwrap();
    world.perform(1, effects);
    world.import(1, photos(20, 4));
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])), "continues");
    world.check();
    assert_eq!(world.nodes[0].store.len(), 8);
}

#[test]
fn a_restored_node_has_compared_logs_only_once_everyone_has_spoken() {
    let mut world = World::new(13, 3);
    admit(&mut world, 1..3);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1, 2])));
    assert!(world.replica(2).has_compared());
    let backup = world.nodes[2].memory.backup();
    // Only node 0 hears the latest of node 2.
    world.block(0, 1, true);
    world.block(1, 2, true);
    world.import(2, photos(0, 3));
    world.run_for(3_000);
    world.crash(2);
    world.nodes[2].memory = backup;
    world.block(0, 2, true);
    world.block(1, 2, false);
    world.start(2);
    let node_1 = world.nodes[1].device;
    let is_connected =
        |world: &mut World| world.replica(2).peers().iter().any(|peer| peer.device == node_1 && peer.connected);
    assert!(world.run_while(60_000, is_connected));
    world.run_for(1_000);
    assert!(!world.replica(2).has_compared(), "node 1 cannot say what it has missed");
    world.block(0, 2, false);
    assert!(world.run_while(400_000, |world| world.replica(2).is_retired()));
    assert!(world.nodes.iter().all(|node| !node.events.iter().any(|event| matches!(event, Event::ForkProven { .. }))));
}

#[test]
fn a_restored_node_hears_at_once_of_what_a_peer_has_not_saved_yet() {
    let mut world = World::new(13, 2);
    admit(&mut world, 1..2);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    world.crash(1);
    world.start(1);
    assert!(world.run_while(10_000, |world| world.replica(1).is_known_to_all()));
    let backup = world.nodes[1].memory.backup();
    world.import(1, photos(0, 3));
    let length = world.replica(1).own_length();
    world.run_for(6);
    world.flush_ms = 1_000_000;
    let has_heard = |world: &mut World| {
        let author = author_key(1).author_id();
        world.replica(0).chunk_at(&Position { author, index: 0 }).is_some()
    };
    assert!(world.run_while(1_000, has_heard));
    world.crash(1);
    world.nodes[1].memory = backup;
    world.flush_ms = 5;
    world.start(1);
    assert!(world.replica(1).own_length() < length);
    assert!(world.run_while(1_000, |world| world.replica(1).is_behind()));
    assert!(!world.replica(1).is_known_to_all());
}

#[test]
fn a_restored_node_outdoes_its_earlier_inventory_whoever_heard_of_it() {
    let mut world = World::new(14, 3);
    admit(&mut world, 1..3);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1, 2])));
    let backup = world.nodes[2].memory.backup();
    world.block(0, 1, true);
    world.block(0, 2, true);
    // Node 1 hears of several later runs of node 2.
    for _ in 0..3 {
        world.run_for(5_000);
        world.crash(2);
        world.start(2);
    }
    world.run_for(20_000);
    world.crash(2);
    world.nodes[2].memory = backup;
    world.block(1, 2, true);
    world.block(0, 2, false);
    world.start(2);
    // Node 0 greets it first, and hears of those runs only then.
    let node_0 = world.nodes[0].device;
    let is_connected =
        |world: &mut World| world.replica(2).peers().iter().any(|peer| peer.device == node_0 && peer.connected);
    assert!(world.run_while(400_000, is_connected));
    world.run_for(1_000);
    world.block(0, 1, false);
    let node_1 = world.nodes[1].device;
    let has_met =
        |world: &mut World| world.replica(0).peers().iter().any(|peer| peer.device == node_1 && peer.connected);
    assert!(world.run_while(400_000, has_met));
    world.run_for(60_000);
    world.import(2, photos(0, 3));
    assert!(world.run_while(60_000, |world| world.converged(&[0, 1, 2])), "its new inventory counts");
}

#[test]
fn lost_chunks_are_fetched_back() {
    let mut world = World::new(12, 2);
    world.import(0, photos(0, 20));
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    let lost: Vec<_> = photos(3, 4).iter().map(|bytes| chunk_id(bytes)).collect();
    for chunk in &lost {
        world.nodes[0].store.remove(chunk);
    }
    world.input(0, Input::ChunksLost(lost));
    world.check();
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    assert_eq!(world.nodes[0].store.len(), 20);
}

/// A run with everything that can happen between honest nodes; returns the hash over all effects.
fn chaos(seed: u64) -> blake3::Hash {
    use rand_core::{RngCore, SeedableRng};
    let mut random = rand_chacha::ChaCha20Rng::seed_from_u64(seed);
    let count = 2 + (random.next_u32() % 4) as usize;
    let mut world = World::new(seed, count);
    world.gossip_loss = true;
    world.rate = 200 + u64::from(random.next_u32() % 20_000);
    world.delay_ms = 1 + u64::from(random.next_u32() % 100);
    // Long enough for crashes to come between a write and its flush.
    world.flush_ms = 1 + u64::from(random.next_u32() % 1_000);
    admit(&mut world, 1..count as u8);
    let (mut next, mut down) = (0, BTreeSet::new());
    for _ in 0..40 {
        let node = random.next_u32() as usize % count;
        let other = random.next_u32() as usize % count;
        match random.next_u32() % 10 {
            0..4 if !down.contains(&node) => {
                let number = 1 + u64::from(random.next_u32() % 30);
                // Now and then something that another node has imported too.
                let from = if random.next_u32() % 3 == 0 { next / 2 } else { next };
                world.import(node, photos(from, number));
                next = next.max(from + number);
            }
            4 if !down.contains(&node) => {
                world.crash(node);
                down.insert(node);
            }
            5 | 6 if down.remove(&node) => world.start(node),
            7 if node != other => world.block(node, other, true),
            8 => world.block(node, other, false),
            _ => {
                let links = world.live_links();
                if !links.is_empty() {
                    world.cut(links[random.next_u32() as usize % links.len()]);
                }
            }
        }
        let pause = if random.next_u32() % 2 == 0 { 3_000 } else { 200 };
        world.run_for(u64::from(random.next_u32() % pause));
        world.check();
    }
    for node in std::mem::take(&mut down) {
        world.start(node);
    }
    world.blocked.clear();
    let all: Vec<usize> = (0..count).collect();
    let converged = world.run_while(1_200_000, |world| world.converged(&all));
    let transfers: Vec<_> = all.iter().map(|&node| world.replica(node).transfers()).collect();
    assert!(converged, "seed {seed}: no convergence: {transfers:?}");
    world.check();
    for node in &world.nodes {
        let forks = node
            .events
            .iter()
            .any(|event| matches!(event, Event::ForkProven { .. } | Event::RestoredFromBackup { .. }));
        assert!(!forks, "seed {seed}: a crash must never look like a fork");
    }
    world.trace.finalize()
}

#[test]
fn after_any_faults_everything_converges() {
    let seeds = std::env::var("HOLDFAST_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        chaos(seed);
    }
}

#[test]
fn equal_inputs_give_equal_effects() {
    assert_eq!(chaos(77), chaos(77));
    assert_ne!(chaos(77), chaos(78));
}

#[test]
fn frames_of_any_bytes_never_panic_and_end_the_session() {
    use rand_core::{RngCore, SeedableRng};
    let mut random = rand_chacha::ChaCha20Rng::seed_from_u64(5);
    let mut world = World::new(13, 2);
    world.import(0, photos(0, 4));
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    let before = world.replica(0).vector();
    let mut ended = 0;
    for round in 0..3000 {
        let link = world.live_links().first().copied();
        let link = LinkId(link.unwrap_or_else(|| world.connect(1, 0)));
        if round % 3 == 0 {
            world.run_for(50);
        }
        let mut body = vec![0; (random.next_u32() % 300) as usize];
        random.fill_bytes(&mut body);
        if body.len() > 4 && round % 2 == 0 {
            // Small numbers in front make lengths and counts that fit.
            body[..4].iter_mut().for_each(|byte| *byte %= 4);
        }
        let tag = (random.next_u32() % 13) as u8;
        let disconnects = world.nodes[0].disconnects.len();
        world.input(0, Input::Received { link, tag, body: body.into() });
        ended += world.nodes[0].disconnects.len() - disconnects;
    }
    assert!(ended > 500, "{ended}");
    assert_eq!(world.replica(0).vector(), before);
    assert!(world.run_while(700_000, |world| world.converged(&[0, 1])));
    world.check();
}

#[test]
fn changed_frames_never_panic() {
    use rand_core::{RngCore, SeedableRng};
    // Real messages of a session, each with a byte changed or cut short.
    let mut random = rand_chacha::ChaCha20Rng::seed_from_u64(6);
    let mut world = World::new(14, 2);
    world.import(0, photos(0, 12));
    world.import(1, photos(40, 12));
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    let frames = support::recorded(&mut world);
    assert!(frames.len() > 5);
    for round in 0..2000 {
        let link = world.live_links().first().copied();
        let link = LinkId(link.unwrap_or_else(|| world.connect(1, 0)));
        world.run_for(40);
        let (tag, body) = &frames[random.next_u32() as usize % frames.len()];
        let mut body = body.to_vec();
        let at = random.next_u32() as usize % body.len().max(1);
        match round % 3 {
            0 => body.truncate(at),
            1 if !body.is_empty() => body[at] ^= 1 << (random.next_u32() % 8),
            _ => body.insert(at, random.next_u32() as u8),
        }
        world.input(0, Input::Received { link, tag: *tag, body: Bytes::from(body) });
    }
    assert!(world.run_while(700_000, |world| world.converged(&[0, 1])));
    world.check();
}

#[test]
fn a_restored_device_does_not_fetch_what_its_store_has() {
    let mut world = World::new(11, 2);
    admit(&mut world, 1..2);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    let backup = world.nodes[1].memory.backup();
    world.import(0, photos(0, 5));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    let stored = world.nodes[1].store.len();
    world.crash(1);
    world.nodes[1].memory = backup;
    world.start(1);
    assert!(world.run_while(60_000, |world| world.converged(&[0, 1])));
    assert!(stored > 0 && world.nodes[1].received.values().all(|times| *times == 1), "{:?}", world.nodes[1].received);
}

#[test]
fn a_restored_device_remembers_what_a_peer_knew_that_is_gone_again() {
    let mut world = World::new(12, 2);
    admit(&mut world, 1..2);
    assert!(world.run_while(10_000, |world| world.converged(&[0, 1])));
    let backup = world.nodes[1].memory.backup();
    world.import(1, photos(0, 3));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    world.crash(1);
    world.nodes[1].memory = backup;
    // It says how much it knows, and is gone before it has given it.
    world.nodes[0].lie = Some(Lie::NoAnswer);
    world.start(1);
    assert!(world.run_while(10_000, |world| world.replica(1).is_behind()));
    world.block(0, 1, true);
    world.run_for(1_000);
    assert!(world.live_links().is_empty());
    assert!(world.replica(1).is_behind() && !world.replica(1).has_compared());
}

#[test]
fn who_let_a_device_in_and_was_removed_since_holds_nothing_after_a_restart_either() {
    let mut world = World::new(31, 2);
    world.import(0, photos(0, 5));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    world.run_for(60_000);
    let gone = world.nodes[0].device;
    assert!(world.replica(1).holdings(&gone).is_some());
    let removal = world.replica(1).registry().removal(gone, |_| u64::MAX);
    let now = world.clock();
    let body = encode_statements(&[Statement::Remove(removal)]);
    let (_, effects) = world.replica(1).append(now, Kind::Membership, EPOCH, 1, body).unwrap();
    world.perform(1, effects);
    world.run_for(1_000);
    assert!(world.replica(1).holdings(&gone).is_none());
    world.crash(1);
    world.start(1);
    assert!(world.replica(1).registry().is_removed(&gone) && world.replica(1).holdings(&gone).is_none());
}

/// Two nodes that hold the same and have not reached each other for so long that they seldom try.
fn estranged(seed: u64) -> World {
    let mut world = World::new(seed, 2);
    world.import(0, photos(0, 4));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    world.block(0, 1, true);
    world.run_for(60 * 60_000);
    world
}

#[test]
fn whoever_lacks_something_is_called_at_least_every_half_minute() {
    for seed in 0..8 {
        let mut world = estranged(seed);
        world.import(0, photos(10, 2));
        for _ in 0..3 {
            world.run_for(10 * 60_000);
            world.block(0, 1, false);
            assert!(world.run_while(30_000, |world| !world.live_links().is_empty()), "seed {seed}");
            assert!(world.run_while(5_000, |world| world.converged(&[0, 1])));
            world.block(0, 1, true);
            world.import(1, [chunk_bytes(1_000 + world.clock().elapsed.as_millis(), 500)]);
        }
    }
}

#[test]
fn on_another_network_everybody_is_called_at_once() {
    let mut calls = 0;
    for seed in 0..8 {
        let mut world = estranged(seed);
        world.block(0, 1, false);
        calls += usize::from(world.run_while(30_000, |world| !world.live_links().is_empty()));
        if world.live_links().is_empty() {
            world.input(0, Input::NetworkChanged);
            assert!(world.run_while(1_000, |world| !world.live_links().is_empty()), "seed {seed}");
        }
    }
    assert!(calls < 8, "nobody was waiting for anything");
}

#[test]
fn whoever_stops_says_so() {
    let mut world = World::new(1, 2);
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    let stopped = world.nodes[0].device;
    world.input(0, Input::Stopping);
    world.run_for(1_000);
    let reason = Some(DisconnectReason::Farewell(Farewell::ShuttingDown));
    assert!(world.nodes[1].events.contains(&Event::PeerDisconnected { peer: stopped, reason }));
}
