//! Holdfast: photos replicated between people's own devices, and how safe each one is.
//!
//! Without the feature `io` this crate is the pure library that the simulator runs; with it, the whole node.

#[cfg(feature = "io")]
pub mod api;
#[cfg(feature = "io")]
pub mod cli;
#[cfg(feature = "io")]
pub mod export;
#[cfg(feature = "io")]
pub mod home;
#[cfg(feature = "io")]
pub mod index;
#[cfg(feature = "io")]
pub mod ingest;
#[cfg(feature = "io")]
pub mod media;
#[cfg(feature = "io")]
pub mod network;
#[cfg(feature = "io")]
pub mod node;
pub mod store;
