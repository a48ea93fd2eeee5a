//! Everything that two Holdfast nodes must agree on, bytes and behaviour, without IO.

pub mod cutting;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod media_type;
pub mod metadata;
pub mod position;
pub mod time;
