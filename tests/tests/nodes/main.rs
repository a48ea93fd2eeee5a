//! Real nodes: processes, sockets, disks.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests of real processes: they wait on real clocks, print their seeds, and fail by panicking"
)]

mod changes;
mod command;
mod copies;
mod cuts;
mod damage;
mod networks;
mod originals;
mod replication;
mod strangers;
mod trouble;
