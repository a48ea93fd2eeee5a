//! Real nodes: processes, sockets, disks.

mod replication;
