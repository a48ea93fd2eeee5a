//! What the tests with real processes share.

#![allow(clippy::disallowed_methods, reason = "tests of real processes wait on real clocks")]

pub mod folder;
pub mod node;
pub mod photos;
pub mod program;
pub mod surroundings;
