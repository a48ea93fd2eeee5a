//! The bounds of everything that a peer can make a node hold, checked before anything is allocated.

/// Plaintext bytes of a chunk.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Bytes that sealing adds to a chunk at most.
pub const SEAL_OVERHEAD_MAX: usize = 64;
/// Sealed bytes of a chunk.
pub const SEALED_CHUNK_BYTES_MAX: usize = CHUNK_BYTES_MAX + SEAL_OVERHEAD_MAX;
/// A control frame that carries no envelope and no inventory.
pub const CONTROL_FRAME_BYTES_MAX: usize = 64 << 10;
/// The first frame of a session.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// A signed envelope.
pub const ENVELOPE_BYTES_MAX: usize = 256 << 10;
/// A frame of envelopes or of an inventory: a few whole envelopes.
pub const BULK_FRAME_BYTES_MAX: usize = 1 << 20;
/// A bundle, compressed.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;
/// A gossiped message.
pub const GOSSIP_BYTES_MAX: usize = 64 << 10;
/// Entries of a deposit.
pub const DEPOSIT_ENTRIES_MAX: usize = 4096;
/// Authors of a version vector.
pub const VECTOR_AUTHORS_MAX: usize = 256;
/// Members and keepers of a library.
pub const PEERS_MAX: usize = 256;
/// Connections of a node.
pub const CONNECTIONS_MAX: u32 = 64;
/// Connections to one peer.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 2;
/// Streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 32;
/// Fetch requests of one peer that are being served at once.
pub const REQUESTS_PER_PEER_MAX: usize = 8;
/// Chunks named by one fetch request.
pub const CHUNKS_PER_REQUEST_MAX: usize = 64;
/// Bytes requested from one peer and not yet arrived.
pub const WINDOW_BYTES_MAX: u64 = 64 << 20;
/// A thumbnail.
pub const THUMBNAIL_BYTES_MAX: usize = 256 << 10;
