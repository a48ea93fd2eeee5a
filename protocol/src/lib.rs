//! Everything that two Holdfast nodes must agree on, bytes and behaviour, without IO.

pub mod codec;
pub mod cutting;
pub mod envelope;
pub mod id;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod media_type;
pub mod metadata;
pub mod position;
pub mod recovery;
pub mod sealing;
pub mod secrets;
pub mod time;

mod xchacha;
