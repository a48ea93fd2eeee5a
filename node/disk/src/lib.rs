//! What a real node keeps things on: the system's file systems behind the store's [`Disk`](holdfast_store::disk::Disk),
//! and sled behind the protocol's [`Metadata`](holdfast_protocol::metadata::Metadata).
//!
//! The simulator has its own of both, and never sees this crate.

mod sled_metadata;
mod system_disk;

pub use sled_metadata::SledMetadata;
pub use system_disk::SystemDisk;
