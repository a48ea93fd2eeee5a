//! Runs the library that ships on a virtual network, virtual disks and virtual time; every fault comes from one seed.
//!
//! A run: devices join, people change their folders while faults happen, then everything heals and has to agree
//! within a bound. Checkers stand in [`check`], one file each. Nothing here knows tokio or libp2p, and nothing sleeps.

pub mod chance;
pub mod check;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod index;
mod liar;
pub mod metadata;
pub mod network;
mod newer;
pub mod node;
pub mod options;
pub mod outcome;
pub mod plot;
pub mod scale;
pub mod trace;
pub mod workload;
pub mod world;
