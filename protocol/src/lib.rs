//! Everything that two Holdfast nodes must agree on, bytes and behaviour, without IO.
//!
//! Three things are replicated, and whatever a person sees is derived from them: **logs** (what was said: signed,
//! chained [`envelope`]s), **inventories** (who has what) and **chunks** (sealed bytes named by their hash).
//!
//! Read in this order:
//! - *Who*: [`keys`] and the [`recovery`] phrase, the [`certificate`]s that make a device a member, [`membership`],
//!   which folds what logs say about devices, and [`pairing`], by which a device joins.
//! - *Secrets*: [`secrets`] are what members share; [`sealing`] turns bytes into chunks, bodies and facts that only
//!   they can read.
//! - *Bytes*: [`cutting`] decides where files are cut, [`manifest`] says what a photo is made of.
//! - *Said*: [`envelope`]s and their bodies ([`deposit`], [`release`], [`membership`], [`carried`]); [`codec`] is how all
//!   structures become bytes.
//! - *Held*: [`position`]s, [`inventory`], [`copies`].
//! - *Behaviour*: [`replica`] is the state machine of a node; [`message`] is what two of them say to each other.
//!
//! What this crate never sees: a clock, a socket, a file, the system's randomness. Time is an argument ([`time`]),
//! seeds are handed in, durable metadata goes through one trait ([`metadata`]). Every length that a peer claims is
//! checked against [`limits`] before anything is allocated, every signature covers its purpose and the bytes as they
//! came, and no input panics.

pub mod carried;
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
pub mod log;
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
pub mod verified;

mod varint;
mod xchacha;
