//! Inventories as they would be: real bitmaps, real encodings.

use holdfast_protocol::id::{AuthorId, DeviceId, LibraryId, PlaceId};
use holdfast_protocol::inventory::{Generation, Head, HoldingChanges, Holdings, SignedHead, Span};
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::message::{Announcement, InventoryPart, Message, WantInventory};
use holdfast_protocol::time::WallTime;

use super::{CHUNKS_PER_PHOTO, Pool};
use crate::chance::Chance;

/// What gossipsub adds to a message: source, number, topic, signature, and the frame around them.
const GOSSIP_ENVELOPE: u64 = 220;
/// Positions in all inventories together that are built.
const POSITIONS_MAX: u64 = 60_000_000;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// A head among many in a frame.
    pub(super) head: u64,
    /// A frame that says what changed.
    pub(super) delta: u64,
    /// A gossiped message that says what changed.
    pub(super) gossip: u64,
    /// A gossiped head alone.
    pub(super) gossip_head: u64,
    /// Asking for an inventory.
    pub(super) want: u64,
    /// One inventory, whole, in its frames.
    pub(super) whole: u64,
    /// All inventories in memory.
    pub(super) memory: u64,
}

/// Builds the inventories of the pool and measures them.
pub(super) fn build(pool: &Pool, chance: &mut Chance, memory: &mut dyn FnMut() -> u64) -> Sizes {
    let each = (pool.chunks * pool.copies() as u64 / pool.peers as u64).max(1);
    // All of them, or as many as fit; the rest is counted as their mean.
    let built = pool.peers.min((POSITIONS_MAX / each).max(8) as usize);
    let lists: Vec<Vec<HoldingChanges>> = (0..built).map(|_| held_by_one(pool, chance)).collect();
    let before = memory();
    let inventories: Vec<Holdings> = lists
        .iter()
        .map(|list| {
            let mut holdings = Holdings::new();
            holdings.apply(list);
            // As for every inventory that was taken in, its root has been compared.
            holdings.root();
            holdings
        })
        .collect();
    let occupied = memory().saturating_sub(before);
    let key = DeviceKey::from_seed(&chance.seed());
    let head = head(&key, &inventories[0]);
    let whole = InventoryPart::whole(&head, &inventories[0].as_changes());
    let changes = one_change(pool);
    let part = InventoryPart { head: head.wire().clone(), base: Some(1 << 20), more: false, changes };
    let alone = InventoryPart { base: None, more: true, changes: Vec::new(), ..part.clone() };
    let announced = |part: &InventoryPart| {
        let message = Announcement { points: Vec::new(), inventory: Some(part.clone()) }.encode();
        message.map_or(0, |message| message.len() as u64 + GOSSIP_ENVELOPE)
    };
    let known = Some((head.head().generation, head.head().seq));
    let hundred = Message::Heads(vec![head.wire().clone(); 100]).to_frame().len() as u64;
    Sizes {
        head: hundred / 100,
        delta: Message::Inventory(part.clone()).to_frame().len() as u64,
        gossip: announced(&part),
        gossip_head: announced(&alone),
        want: Message::WantInventory(WantInventory { peer: key.device_id(), known }).to_frame().len() as u64,
        whole: whole.into_iter().map(|part| Message::Inventory(part).to_frame().len() as u64).sum(),
        memory: occupied * pool.peers as u64 / built as u64,
    }
}

fn author(number: usize) -> AuthorId {
    let mut id = [0; 32];
    // Spread over the whole range, as ids are.
    id[..8].copy_from_slice(&((number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes());
    AuthorId::from_bytes(id)
}

/// What one peer holds: each photo, a run of positions, with the probability that leads to the copies wanted.
fn held_by_one(pool: &Pool, chance: &mut Chance) -> Vec<HoldingChanges> {
    let authors = pool.authors() as u64;
    let photos = pool.chunks / CHUNKS_PER_PHOTO / authors;
    let (copies, peers) = (pool.copies() as u64, pool.peers as u64);
    let mut all: Vec<HoldingChanges> = (0..pool.authors())
        .map(|number| HoldingChanges {
            held: held_of_one_author(photos, copies, peers, chance),
            ..HoldingChanges::none(author(number))
        })
        .collect();
    all.sort_by_key(|changes| changes.author);
    all
}

fn held_of_one_author(photos: u64, copies: u64, peers: u64, chance: &mut Chance) -> Vec<Span> {
    let mut held: Vec<Span> = Vec::new();
    let mut photo = 0;
    loop {
        photo += gap(copies, peers, chance);
        if photo >= photos {
            return held;
        }
        let (start, count) = ((photo * CHUNKS_PER_PHOTO) as u32, CHUNKS_PER_PHOTO as u32);
        match held.last_mut() {
            Some(last) if last.start + last.count == start => last.count += count,
            _ => held.push(Span { start, count }),
        }
        photo += 1;
    }
}

/// How many photos in a row are not held.
fn gap(copies: u64, peers: u64, chance: &mut Chance) -> u64 {
    if copies == peers {
        return 0;
    }
    let uniform = (chance.below(1 << 53) + 1) as f64 / (1_u64 << 53) as f64;
    let missed = 1.0 - copies as f64 / peers as f64;
    (uniform.ln() / missed.ln()) as u64
}

fn one_change(pool: &Pool) -> Vec<HoldingChanges> {
    let step = (pool.peers / pool.copies()) as u64 * CHUNKS_PER_PHOTO;
    let spans = (0..pool.photos_per_change()).map(|photo| Span {
        start: (pool.chunks / pool.authors() as u64 + photo * step) as u32,
        count: CHUNKS_PER_PHOTO as u32,
    });
    let mut held: Vec<Span> = Vec::new();
    for span in spans {
        match held.last_mut() {
            Some(last) if last.start + last.count == span.start => last.count += span.count,
            _ => held.push(span),
        }
    }
    vec![HoldingChanges { held, ..HoldingChanges::none(author(0)) }]
}

fn head(key: &DeviceKey, holdings: &Holdings) -> SignedHead {
    let mut holdings = holdings.clone();
    let head = Head {
        peer: DeviceId::from_bytes(*key.device_id().as_bytes()),
        generation: Generation { counter: 300, nonce: u64::MAX / 3 },
        seq: 100_000,
        root: holdings.root(),
        held: holdings.held_count(),
        erased: 0,
        place: Some(PlaceId::from_bytes([7; 32])),
        time: WallTime(1_700_000_000_000),
    };
    SignedHead::sign(head, &LibraryId::from_bytes([1; 32]), key)
}
