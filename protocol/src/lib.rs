//! Everything that two Holdfast nodes must agree on, bytes and behaviour, without IO.

pub mod certificate;
pub mod codec;
pub mod copies;
pub mod cutting;
pub mod deposit;
pub mod envelope;
pub mod id;
pub mod inventory;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod media_type;
pub mod membership;
pub mod message;
pub mod metadata;
pub mod pairing;
pub mod position;
pub mod recovery;
pub mod release;
pub mod replica;
pub mod sealing;
pub mod secrets;
pub mod time;

mod varint;
mod xchacha;
