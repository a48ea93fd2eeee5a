//! Real nodes: processes, sockets, disks.

mod changes;
mod command;
mod cuts;
mod damage;
mod originals;
mod replication;
mod strangers;
