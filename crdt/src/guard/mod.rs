//! What stands between a member's bytes and Automerge.
//!
//! A member is authenticated, and still may be broken into: crafted changes make Automerge 0.12 allocate gigabytes,
//! panic, or accept what it later fails to load, which would poison the document on every device. So nothing but
//! changes that this crate itself could have written gets through:
//!
//! 1. [`wire`] reads the bytes with every count bounded, without expanding runs beyond the bounds and without
//!    Automerge: only puts of byte strings to keys of the root map.
//! 2. [`screen`](screen::screen) encodes what was read again and requires the very same bytes, checksum included, and
//!    checks what needs no history: the author's actor, the keys and the form of their values.
//! 3. [`overlay`] checks what needs the document: the next sequence number, operation counters, and that each
//!    operation overwrites exactly what its author saw.
//! 4. The caller applies to a copy, behind `catch_unwind`, and reads the changes back.
//!
//! Each check depends on the change, its ancestors and its author's earlier changes only, never on the order in which
//! changes of different authors arrive: all devices refuse the same changes.

pub(crate) mod overlay;
pub(crate) mod screen;
pub(crate) mod wire;
