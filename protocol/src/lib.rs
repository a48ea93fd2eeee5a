//! Everything that two Holdfast nodes must agree on, bytes and behaviour, without IO.

pub mod id;
pub mod limits;
pub mod metadata;
pub mod position;
pub mod time;
