//! Membership: what logs say about devices, and what follows from it.
//!
//! Bodies of [`Kind::Membership`](crate::envelope::Kind::Membership) envelopes are lists of [`Statement`]s. A
//! [`Registry`] takes statements in and answers who is a member.

mod registry;
mod resolve;
mod statement;
#[cfg(test)]
mod tests;

pub use registry::{Registry, RegistryChange, SEQ_CARRIED, StatementRefused};
pub use statement::{
    KEPT_DEVICES_MAX, Recipient, Removal, STATEMENTS_PER_BODY_MAX, Statement, StatementsMalformed, decode_statements,
    encode_statements,
};
