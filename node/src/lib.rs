//! Holdfast: photos replicated between people's own devices, and how safe each one is.
//!
//! [`node::Node`] is the node for programs that embed it: the library with a real store, network, index and folders
//! around it. [`api`] is what it is asked, in the same process or over its socket.

pub mod api;
pub mod export;
pub mod home;
pub mod index;
pub mod ingest;
pub mod node;
