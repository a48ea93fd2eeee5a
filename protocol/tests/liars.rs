//! Members that lie: the others stay correct, bounded and live.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use holdfast_protocol::carried;
use holdfast_protocol::certificate::{AuthorCertificate, DeviceCertificate};
use holdfast_protocol::deposit::DepositedChunk;
use holdfast_protocol::envelope::{Envelope, Kind, NO_ENVELOPE, SignedEnvelope};
use holdfast_protocol::id::{AuthorId, DeviceId};
use holdfast_protocol::inventory::{Generation, Head, HoldingChanges, Holdings, SignedHead, Span};
use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::membership::{Statement, encode_statements};
use holdfast_protocol::message::{Envelopes, FRAME_HEADER_BYTES, InventoryPart, LogPoint, Message, Reachable, tag};
use holdfast_protocol::replica::{DisconnectReason, Effect, Event, Input, LinkId, Misbehaviour};
use holdfast_protocol::time::WallTime;
use support::keys::{author_key, certificate};
use support::world::{Lie, World};
use support::{EPOCH, chunk_bytes, deposited, device_key, root, run};

/// Nodes that know each other as members.
fn members(seed: u64, count: u8) -> World {
    let mut world = World::new(seed, usize::from(count));
    let admitted: Vec<_> = (1..count).map(|number| Statement::Admit(certificate(&root(), number))).collect();
    let now = world.clock();
    let (_, effects) = world.replica(0).append(now, Kind::Membership, EPOCH, 1, encode_statements(&admitted)).unwrap();
    world.perform(0, effects);
    let everyone: Vec<usize> = (0..usize::from(count)).collect();
    assert!(world.run_while(20_000, |world| world.converged(&everyone)));
    world
}

#[test]
fn false_lengths_keep_nobody_from_a_chunk_and_get_nobody_blamed() {
    const LIAR: usize = 1;
    let mut world = members(1, 3);
    world.block(0, 2, true);
    let photos: Vec<Vec<u8>> = (0..8).map(|number| chunk_bytes(number, 5_000)).collect();
    // It says of chunks that are not there yet that they are shorter and longer than they are, and that it has them.
    for wrong in [10, 6_000, 4_999] {
        let lies: Vec<_> = photos.iter().map(|bytes| DepositedChunk { length: wrong, ..deposited(bytes) }).collect();
        let now = world.clock();
        let (_, effects) = world.replica(LIAR).deposit(now, EPOCH, &[run(lies)]).unwrap();
        world.perform(LIAR, effects);
    }
    world.run_for(5_000);
    assert_eq!(world.replica(2).transfers().missing_chunks, 8, "the lies arrived first");
    world.block(LIAR, 2, true);
    world.import(0, photos);
    world.block(0, 2, false);
    assert!(world.run_while(20_000, |world| world.nodes[2].store.len() == 8), "fetched all the same");
    let honest = [world.nodes[0].device, world.nodes[2].device];
    for node in [0, 2] {
        let blamed = world.nodes[node].disconnects.iter().find(|(peer, _)| honest.contains(peer));
        assert_eq!(blamed, None, "node {node}");
    }
}

#[test]
fn hints_without_end_end_the_session() {
    let mut world = members(2, 2);
    let mut hints = 0;
    while world.nodes[0].disconnects.is_empty() {
        let link = LinkId(world.live_links()[0]);
        let changes = (0..200_u32).map(|number| {
            let mut id = [7; 32];
            id[..4].copy_from_slice(&(hints * 1_000 + number).to_be_bytes());
            HoldingChanges { held: vec![Span { start: 0, count: 9 }], ..HoldingChanges::none(AuthorId::from_bytes(id)) }
        });
        let frame = Message::Have(changes.collect()).to_frame();
        world.input(0, Input::Received { link, tag: tag::HAVE, body: frame.slice(FRAME_HEADER_BYTES..) });
        hints += 1;
        assert!(hints < 10, "the peer is let go");
    }
    let liar = world.nodes[1].device;
    assert_eq!(world.nodes[0].disconnects, [(liar, DisconnectReason::Misbehaved(Misbehaviour::BadInventory))]);
    assert!(world.run_while(60_000, |world| world.converged(&[0, 1])), "a false word does not end a membership");
}

/// A head of node 1's inventory, and a frame with the content that it speaks for.
fn inventory_of((generation, seq): (Generation, u64), held: &[u32]) -> (SignedHead, Bytes) {
    let changes = held.iter().map(|count| HoldingChanges {
        held: vec![Span { start: 0, count: *count }],
        ..HoldingChanges::none(author_key(0).author_id())
    });
    let changes: Vec<_> = changes.collect();
    let mut holdings = Holdings::new();
    holdings.apply(&changes);
    let head = Head {
        peer: device_key(1).device_id(),
        generation,
        seq,
        root: holdings.root(),
        held: holdings.held_count(),
        erased: 0,
        place: None,
        time: WallTime(0),
    };
    let head = SignedHead::sign(head, &root().library_id(), &device_key(1));
    let part = InventoryPart { head: head.wire().clone(), base: None, more: false, changes };
    (head, Message::Inventory(part).to_frame().slice(FRAME_HEADER_BYTES..))
}

#[test]
fn two_inventories_under_one_version_settle_on_one_everywhere() {
    let mut world = members(3, 4);
    world.import(0, (0..8).map(|number| chunk_bytes(number, 500)));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1, 2, 3])));
    world.crash(1);
    world.run_for(1_000);
    for (node, held) in [(2, [3]), (3, [5])] {
        // The liar told each of them another thing before it left; here it comes over the link to node 0.
        let device = world.nodes[0].device;
        let (_, body) = inventory_of((Generation { counter: 1_000, nonce: 5 }, 3), &held);
        let link = LinkId(*world.live_links().iter().find(|link| world.leads_to(**link, node, device)).unwrap());
        world.input(node, Input::Received { link, tag: tag::INVENTORY, body });
    }
    let liar = world.nodes[1].device;
    let says = |world: &mut World, node: usize| world.replica(node).holdings(&liar).map(Holdings::held_count);
    assert_eq!((says(&mut world, 2), says(&mut world, 3)), (Some(3), Some(5)));
    world.run_for(200_000);
    let settled = says(&mut world, 0);
    assert!(settled == Some(3) || settled == Some(5));
    assert_eq!((says(&mut world, 2), says(&mut world, 3)), (settled, settled));
}

#[test]
fn nobody_is_made_to_dial_as_fast_as_others_tell_it_to() {
    let mut world = members(4, 3);
    world.crash(2);
    world.run_for(10_000);
    let away = world.nodes[2].device;
    let reachable = vec![Reachable { device: away, addresses: vec!["/ip4/192.0.2.1/tcp/9".to_owned()] }];
    let frame = Message::Addresses(reachable).to_frame();
    let mut dials = 0;
    for _ in 0..200 {
        let link = LinkId(world.live_links()[0]);
        let now = world.clock();
        let body = frame.slice(FRAME_HEADER_BYTES..);
        let effects = world.replica(0).handle(now, Input::Received { link, tag: tag::ADDRESSES, body }).unwrap();
        dials += effects.iter().filter(|effect| **effect == Effect::Dial { peer: away }).count();
        world.perform(0, effects);
        world.run_for(100);
    }
    assert!(dials <= 1, "{dials} dials, one for each word");
    world.start(2);
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1, 2])), "it is called when it is back");
}

#[test]
fn where_somebody_is_may_be_told_before_it_is_known_that_it_is_a_member() {
    let mut world = members(6, 2);
    let newcomer = certificate(&root(), 5);
    let reachable = |device| Reachable { device, addresses: vec!["/ip4/192.0.2.1/tcp/9".to_owned()] };
    let strangers = (0..1_000_u16).map(|number| {
        let mut id = [7; 32];
        id[..2].copy_from_slice(&number.to_le_bytes());
        reachable(DeviceId::from_bytes(id))
    });
    let told: Vec<Reachable> = std::iter::once(reachable(newcomer.device())).chain(strangers).collect();
    for part in told.chunks(16) {
        let (link, body) = (LinkId(world.live_links()[0]), Message::Addresses(part.to_vec()).to_frame());
        let body = body.slice(FRAME_HEADER_BYTES..);
        world.input(1, Input::Received { link, tag: tag::ADDRESSES, body });
    }
    assert_eq!(world.nodes[1].learned, []);
    assert!(world.replica(1).bounded().iter().all(|of| of.kept <= of.most));
    let now = world.clock();
    let admit = encode_statements(&[Statement::Admit(newcomer.clone())]);
    let (_, effects) = world.replica(0).append(now, Kind::Membership, EPOCH, 1, admit).unwrap();
    world.perform(0, effects);
    world.run_for(1_000);
    assert_eq!(world.nodes[1].learned, [newcomer.device()]);
}

#[test]
fn what_one_peer_does_not_answer_others_are_asked_and_it_again_later() {
    const LIAR: usize = 1;
    let mut world = members(5, 3);
    world.nodes[LIAR].lie = Some(Lie::NoAnswer);
    world.block(0, 2, true);
    world.import(0, (0..8).map(|number| chunk_bytes(number, 5_000)));
    world.run_for(20_000);
    assert_eq!(world.nodes[2].store.len(), 0, "the liar alone could tell");
    world.block(0, 2, false);
    // One chunk at a time is still tried at the liar, for up to half a minute at first.
    assert!(world.run_while(75_000, |world| world.converged(&[0, 2])), "another one is asked");
    world.import(LIAR, (20..24).map(|number| chunk_bytes(number, 5_000)));
    world.run_for(120_000);
    assert_eq!((world.nodes[0].store.len(), world.nodes[2].store.len()), (8, 8));
    let links = world.live_links();
    world.nodes[LIAR].lie = None;
    // What is asked of a peer that did not answer may take it up to five minutes, in which the next may begin.
    assert!(world.run_while(660_000, |world| world.converged(&[0, 1, 2])), "asked again though it says nothing new");
    assert_eq!(world.live_links(), links, "and on the same links");
    world.check();
}

#[test]
fn who_declines_what_it_claims_is_asked_less_and_less_and_again() {
    let mut world = members(7, 2);
    world.nodes[1].lie = Some(Lie::NotHeld);
    world.import(1, (0..8).map(|number| chunk_bytes(number, 5_000)));
    world.run_for(100_000);
    let transfers = world.replica(0).transfers();
    assert_eq!((transfers.missing_chunks, transfers.unavailable_chunks), (8, 8));
    let links = world.live_links();
    world.nodes[1].lie = None;
    assert!(world.run_while(330_000, |world| world.converged(&[0, 1])), "asked again though it says nothing new");
    assert_eq!(world.live_links(), links, "and on the same links");
}

#[test]
fn who_sent_wrong_bytes_is_given_another_try() {
    let mut world = members(8, 2);
    world.nodes[1].lie = Some(Lie::WrongBytes);
    world.import(1, (0..8).map(|number| chunk_bytes(number, 5_000)));
    world.run_for(3_600_000);
    let corrupt = |event: &&Event| matches!(event, Event::ChunkCorrupt { .. });
    let wasted = world.nodes[0].events.iter().filter(corrupt).count();
    assert!((8..60).contains(&wasted), "{wasted} chunks for nothing in an hour");
    assert!(!world.nodes[0].disconnects.is_empty() && world.nodes[0].store.is_empty());
    world.nodes[1].lie = None;
    assert!(world.run_while(6_000_000, |world| world.converged(&[0, 1])));
}

#[test]
fn an_inventory_that_took_another_path_is_asked_for_whole() {
    let mut world = members(9, 2);
    world.import(1, (0..8).map(|number| chunk_bytes(number, 500)));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    let liar = world.nodes[1].device;
    let version = world.replica(0).peers()[0].inventory.unwrap();
    // The other content of its newest version, the one that counts of the two.
    let root = world.replica(0).holdings(&liar).unwrap().clone().root();
    let mut others = (1..200).map(|count| inventory_of(version, &[count]));
    let (_, other) = others.find(|(signed, _)| signed.head().root > root).unwrap();
    let link = LinkId(world.live_links()[0]);
    world.input(0, Input::Received { link, tag: tag::INVENTORY, body: other });
    assert!(!world.converged(&[0, 1]));
    world.import(1, (20..24).map(|number| chunk_bytes(number, 500)));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    assert_eq!(world.nodes[0].disconnects, []);
}

#[test]
fn what_is_carried_introduces_nobody_that_no_member_let_in() {
    const LIAR: usize = 1;
    let mut world = members(9, 3);
    let library = root().library_id();
    let author = |number: u8| AuthorKey::from_seed(&std::array::from_fn(|at| if at == 0 { number } else { 9 }));
    // Many authors of a device that another invented device has certified, and more of them than are kept at most.
    let (stranger, device) = (device_key(100), device_key(101));
    let grant = certificate(&root(), 101).grant().clone();
    let certified = DeviceCertificate::issue_by_device(grant, &stranger);
    let invented: Vec<_> = (0..=255)
        .map(|number| {
            let certificate = AuthorCertificate::issue(library, &device, &author(number));
            let introduction = Statement::Introduce { device: certified.clone(), author: certificate };
            envelope(&author(number), encode_statements(&[introduction]))
        })
        .collect();
    for body in carried::encode(&invented) {
        let now = world.clock();
        let (_, effects) = world.replica(LIAR).append(now, Kind::Carried, EPOCH, 1, body).unwrap();
        world.perform(LIAR, effects);
    }
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1, 2])));
    for node in 0..3 {
        let registry = world.replica(node).registry();
        assert!((0..=255).all(|number| registry.device_of(&author(number).author_id()).is_none()), "node {node}");
    }
    // Once a member lets the first in, its introductions count.
    let admit = Statement::Admit(DeviceCertificate::issue_by_root(certificate(&root(), 100).grant().clone(), &root()));
    let now = world.clock();
    let (_, effects) = world.replica(0).append(now, Kind::Membership, EPOCH, 1, encode_statements(&[admit])).unwrap();
    world.perform(0, effects);
    world.run_for(5_000);
    for node in 0..3 {
        let registry = world.replica(node).registry();
        let known = (0..=255).filter(|&number| registry.device_of(&author(number).author_id()).is_some()).count();
        assert_eq!(known, 64, "as many as one device may have, node {node}");
    }
}

/// An envelope that follows another one.
fn next(key: &AuthorKey, after: &SignedEnvelope, body: u8) -> SignedEnvelope {
    let (seq, prev) = (after.envelope().seq + 1, after.hash());
    SignedEnvelope::sign(Envelope { seq, prev, body: vec![body], ..after.envelope().clone() }, key)
}

/// A log that goes as far as this envelope.
fn up_to(last: &SignedEnvelope) -> LogPoint {
    let envelope = last.envelope();
    LogPoint { author: envelope.author, length: envelope.seq + 1, head: last.hash(), forked: false }
}

/// The peer at the other end of the only link says something.
fn receive(world: &mut World, node: usize, tag: u8, message: &Message) {
    let (link, body) = (LinkId(world.live_links()[0]), message.to_frame().slice(FRAME_HEADER_BYTES..));
    world.input(node, Input::Received { link, tag, body });
}

#[test]
fn nobody_is_blamed_for_an_answer_that_a_proof_of_a_fork_has_overtaken() {
    let mut world = members(10, 2);
    world.import(1, (0..3).map(|number| chunk_bytes(number, 500)));
    assert!(world.run_while(20_000, |world| world.converged(&[0, 1])));
    let (key, author) = (author_key(1), author_key(1).author_id());
    let kept = world.replica(0).read_log(&author, 0, 100).unwrap();
    let last = kept.last().unwrap();
    let (grown, other) = (next(&key, last, 1), next(&key, &kept[kept.len() - 2], 2));
    let answer = Envelopes { author, from: grown.envelope().seq, envelopes: vec![grown.wire().clone()] };
    receive(&mut world, 0, tag::VECTOR, &Message::Vector(vec![up_to(&grown)]));
    receive(&mut world, 0, tag::FORK, &Message::Fork(last.wire().clone(), other.wire().clone()));
    receive(&mut world, 0, tag::ENVELOPES, &Message::Envelopes(answer));
    assert_eq!(world.replica(0).vector().iter().find(|point| point.author == author).map(|of| of.forked), Some(true));
    assert_eq!(world.nodes[0].disconnects, []);
}

#[test]
fn nobody_is_blamed_for_what_a_device_has_written_itself_meanwhile() {
    let mut world = members(10, 2);
    let (key, author) = (author_key(1), author_key(1).author_id());
    let last = world.replica(1).read_log(&author, 0, 100).unwrap().pop().unwrap();
    // It was put back as it was before it wrote this, asks for it, and does not wait.
    let before = next(&key, &last, 1);
    let answer = Envelopes { author, from: before.envelope().seq, envelopes: vec![before.wire().clone()] };
    receive(&mut world, 1, tag::VECTOR, &Message::Vector(vec![up_to(&before)]));
    world.import(1, (0..3).map(|number| chunk_bytes(number, 500)));
    receive(&mut world, 1, tag::ENVELOPES, &Message::Envelopes(answer));
    assert_eq!(world.nodes[1].disconnects, []);
    assert!(world.replica(1).is_behind() || world.replica(1).is_retired());
}

/// The first envelope of a log.
fn envelope(author: &AuthorKey, body: Vec<u8>) -> SignedEnvelope {
    let envelope = Envelope {
        library: root().library_id(),
        author: author.author_id(),
        seq: 0,
        prev: NO_ENVELOPE,
        epoch: EPOCH,
        min_reader: 1,
        kind: Kind::Membership,
        body,
    };
    SignedEnvelope::sign(envelope, author)
}
