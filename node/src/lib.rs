//! Holdfast: photos replicated between people's own devices, and how safe each one is.

pub mod api;
pub mod export;
pub mod home;
pub mod index;
pub mod ingest;
pub mod node;
