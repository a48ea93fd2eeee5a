//! The bounds of everything that a member can make a catalog hold.

use holdfast_protocol::limits::{BUNDLE_BYTES_MAX, ENVELOPE_BYTES_MAX, VECTOR_AUTHORS_MAX};

/// A raw change.
pub const CHANGE_BYTES_MAX: usize = 1 << 20;
/// Keys and values of one local edit, so that its change fits in an envelope even when nothing of it compresses.
pub const EDIT_BYTES_MAX: usize = ENVELOPE_BYTES_MAX - (48 << 10);
/// Operations of a change: keys that it sets.
pub const OPERATIONS_MAX: usize = 10_000;
/// Incarnations of one author that write in one document: actors cost every later change of it four bytes in memory.
pub const INCARNATIONS_MAX: usize = 256;
/// Operations that a change overwrites, over all its keys.
pub const PREDECESSORS_MAX: usize = 65_536;
/// Changes that a change names as its dependencies: at most one head for each author, and the author's own last one.
pub const DEPENDENCIES_MAX: usize = VECTOR_AUTHORS_MAX + 1;
/// A key.
pub const KEY_BYTES_MAX: usize = 256;
/// A value.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Changes of one origin that wait in one document for others that they build on.
pub const WAITING_CHANGES_MAX: usize = 4096;
/// Their bytes.
pub const WAITING_BYTES_MAX: usize = 8 << 20;
/// Changes of one catalog envelope.
pub const BODY_CHANGES_MAX: usize = 1024;
/// The body of a catalog envelope, decompressed.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// A bundle, decompressed.
pub const BUNDLE_PLAIN_BYTES_MAX: u64 = 4 * BUNDLE_BYTES_MAX as u64;
/// Changes that go to Automerge in one call.
pub(crate) const BATCH_CHANGES_MAX: usize = 8192;
