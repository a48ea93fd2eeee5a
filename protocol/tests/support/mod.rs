//! A small world for replicas: nodes connected directly, a fake chunk store each, virtual time, all chance from one seed.
//!
//! Control frames arrive in order or the link is cut; gossip may be lost, doubled and reordered. Chunks of one direction of
//! a link follow each other at a limited rate. A crash keeps only flushed metadata and stored chunks.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod keys;
pub(crate) mod memory;
pub(crate) mod world;

use holdfast_protocol::deposit::{DepositedChunk, NewRun, RunClass};
use holdfast_protocol::id::ChunkId;

pub(crate) use keys::{EPOCH, config, device_key, root};

/// A chunk's bytes, different for each number.
pub(crate) fn chunk_bytes(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.max(8)];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn chunk_id(bytes: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// A photo's run.
pub(crate) fn run(chunks: Vec<DepositedChunk>) -> NewRun {
    NewRun { class: RunClass::PHOTO, chunks }
}

pub(crate) fn deposited(bytes: &[u8]) -> DepositedChunk {
    DepositedChunk { chunk: chunk_id(bytes), length: bytes.len() as u32 }
}

/// The control frames that two nodes said to each other.
pub(crate) fn recorded(world: &mut world::World) -> Vec<(u8, bytes::Bytes)> {
    std::mem::take(&mut world.recorded)
}
