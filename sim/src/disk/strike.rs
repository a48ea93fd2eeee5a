//! Faults of disks.
