//! Pairing: how a device joins a library.
//!
//! An owner's device makes an [`Invitation`], keeps it durably and shows its [`Ticket`] as text or QR code. The
//! joining device dials the inviter, whose transport identity the ticket names, and sends a [`JoinRequest`]; the
//! inviter answers with an [`Admission`] (a certificate and the library's secrets, sealed for the new device) or
//! says why not. Both sides prove with a MAC that they know the ticket's secret: the request's covers both devices
//! and everything in the request, the answer's covers the request as well.
//!
//! Invariants:
//! - a ticket admits one device; the same device may ask again and gets the same certificate, so a lost answer loses
//!   nothing;
//! - an invitation that saw [`FAILED_ATTEMPTS_MAX`] wrong proofs admits nobody any more;
//! - an invitation is stored, used or with its attempts counted, before the answer is sent; the caller does that.

mod address;
mod invitation;
mod join;
#[cfg(test)]
mod tests;
mod ticket;

pub use invitation::{FAILED_ATTEMPTS_MAX, INVITATION_BYTES_MAX, Invitation, InvitationId, Inviter};
pub use join::{Admission, AdmissionRefused, JoinAnswer, JoinMalformed, JoinRefused, JoinRequest, Joined};
pub use join::{JOIN_ANSWER_BYTES_MAX, JOIN_REQUEST_BYTES_MAX};
pub use ticket::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, InvalidTicket, Ticket};
