//! What the tests with real processes share.

pub mod folder;
pub mod node;
pub mod photos;
pub mod program;
