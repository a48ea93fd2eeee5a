//! Tickets: `holdfast1` and then, in base32, `inviter 32 ‖ secret 16 ‖ places ‖ checksum 3`.
//!
//! A ticket is typed, read out and scanned, so it holds nothing that the answer can say: not the library, which the
//! inviter's certificate names, nor when it expires, which the inviter knows.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::address::{self, PLACE_BYTES_MAX, PLACES_MAX, Place, PlacesRefused};
use super::invitation::InvitationId;
use crate::id::DeviceId;

/// Addresses of an admission at most.
pub const ADDRESSES_MAX: usize = 16;
/// Bytes of an address at most.
pub const ADDRESS_BYTES_MAX: usize = 256;

const PREFIX: &str = "holdfast";
const VERSION: &str = "1";
const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 3;
const TICKET_BYTES_MAX: usize = 32 + SECRET_BYTES + PLACES_MAX * PLACE_BYTES_MAX + CHECKSUM_BYTES;
/// Characters of a ticket's text at most, white space not counted.
const TEXT_CHARACTERS_MAX: usize = TICKET_BYTES_MAX * 8 / 5 + 32;

/// What the joining device needs: whom to dial, and the secret that both sides prove to know. Whoever has the
/// text may join once, so it is shown to one person and wiped here when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Ticket {
    #[zeroize(skip)]
    pub(super) inviter: DeviceId,
    pub(super) secret: [u8; SECRET_BYTES],
    #[zeroize(skip)]
    places: Vec<Place>,
}

/// Why text is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTicket {
    /// It does not begin like one.
    #[error("this is not a ticket: tickets begin with \"holdfast1\"; run `holdfast invite` on a device of the library")]
    NotATicket,
    /// Made by a version that this one does not understand.
    #[error("this ticket is from a newer version; update Holdfast on this device")]
    Newer,
    /// The end is missing.
    #[error("this ticket is incomplete; copy all of it, from \"holdfast1\" to the end")]
    Incomplete,
    /// A character is wrong, or something follows.
    #[error("this ticket was mistyped or changed; copy it again, or scan the QR code")]
    Mistyped,
}

impl Ticket {
    pub(super) fn new(inviter: DeviceId, secret: [u8; SECRET_BYTES], addresses: &[String]) -> Self {
        Self { inviter, secret, places: address::choose(addresses, &inviter) }
    }

    /// The device to dial.
    #[must_use]
    pub const fn inviter(&self) -> DeviceId {
        self.inviter
    }

    /// Where the inviter was reachable when the ticket was made, best first. Strangers' text: addresses to try, no more.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.places.iter().flat_map(Place::texts).collect()
    }

    /// Whether nobody outside of the inviter's own network can reach any of its addresses.
    #[must_use]
    pub fn is_local(&self) -> bool {
        address::are_local(&self.places)
    }

    /// The invitation that it belongs to.
    #[must_use]
    pub fn invitation(&self) -> InvitationId {
        InvitationId::of(&self.secret)
    }
}

/// The addresses that fit an admission: the first [`ADDRESSES_MAX`] of at most [`ADDRESS_BYTES_MAX`] bytes.
pub(super) fn usable_addresses(addresses: &[String]) -> Vec<String> {
    addresses.iter().filter(|address| address.len() <= ADDRESS_BYTES_MAX).take(ADDRESSES_MAX).cloned().collect()
}

pub(super) fn are_bounded(addresses: &[String]) -> bool {
    addresses.len() <= ADDRESSES_MAX && addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("holdfast 1 ticket checksum", bytes);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    checksum
}

/// The text of the ticket. It contains the secret.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(Vec::with_capacity(TICKET_BYTES_MAX));
        bytes.extend_from_slice(self.inviter.as_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&address::encode(&self.places));
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let text = Zeroizing::new(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase());
        write!(f, "{PREFIX}{VERSION}{}", text.as_str())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("inviter", &self.inviter).field("places", &self.places).finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = InvalidTicket;

    /// Reads a ticket in any letter case, with any white space in it.
    fn from_str(text: &str) -> Result<Self, InvalidTicket> {
        let text: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| !c.is_whitespace())
                .map(|c| c.to_ascii_lowercase())
                .take(TEXT_CHARACTERS_MAX + 1)
                .collect(),
        );
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| {
            let begun = !text.is_empty() && PREFIX.starts_with(text.as_str());
            if begun { InvalidTicket::Incomplete } else { InvalidTicket::NotATicket }
        })?;
        let Some(encoded) = rest.strip_prefix(VERSION) else {
            return Err(match rest.chars().next() {
                None => InvalidTicket::Incomplete,
                Some(version) if version.is_ascii_digit() => InvalidTicket::Newer,
                Some(_) => InvalidTicket::NotATicket,
            });
        };
        if text.len() > TEXT_CHARACTERS_MAX {
            return Err(InvalidTicket::Mistyped);
        }
        let (bytes, ends_well) = decode_base32(encoded)?;
        let ticket = parse(&bytes)?;
        if ends_well { Ok(ticket) } else { Err(InvalidTicket::Mistyped) }
    }
}

/// The whole bytes of `text`, and whether what is left over at its end is only the zeros that filled up the last
/// character.
fn decode_base32(text: &str) -> Result<(Zeroizing<Vec<u8>>, bool), InvalidTicket> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() * 5 / 8));
    let (mut bits, mut count) = (0_u16, 0);
    for c in text.bytes() {
        let value = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return Err(InvalidTicket::Mistyped),
        };
        bits = (bits << 5) | u16::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
            bits &= (1 << count) - 1;
        }
    }
    Ok((bytes, count < 5 && bits == 0))
}

fn parse(bytes: &[u8]) -> Result<Ticket, InvalidTicket> {
    let (inviter, rest) = bytes.split_first_chunk().ok_or(InvalidTicket::Incomplete)?;
    let (secret, mut rest) = rest.split_first_chunk().ok_or(InvalidTicket::Incomplete)?;
    let places = address::decode(&mut rest).map_err(|refused| match refused {
        PlacesRefused::CutOff => InvalidTicket::Incomplete,
        PlacesRefused::Malformed => InvalidTicket::Mistyped,
    })?;
    let told = &bytes[..bytes.len() - rest.len()];
    match rest.len() {
        0..CHECKSUM_BYTES => Err(InvalidTicket::Incomplete),
        CHECKSUM_BYTES if rest == checksum(told) => {
            Ok(Ticket { inviter: DeviceId::from_bytes(*inviter), secret: *secret, places })
        }
        _ => Err(InvalidTicket::Mistyped),
    }
}
