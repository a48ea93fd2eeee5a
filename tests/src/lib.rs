//! What the tests with real processes share.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests of real processes wait on real clocks, and print what they skip"
)]

pub mod folder;
pub mod node;
pub mod photos;
pub mod program;
pub mod surroundings;
