//! Gossip: small signed news for every member, also those that no session reaches.

use bytes::Bytes;

use super::{InventoryPart, LogPoint, MessageRefused, at_most, put_bytes, take_bytes};
use crate::codec;
use crate::limits::{GOSSIP_BYTES_MAX, VECTOR_AUTHORS_MAX};

const FORMAT: u8 = 1;

/// How far the publisher's logs reach, and what changed in its inventory. Layout: `format u8 ‖ points ‖ part`, each a byte
/// string with its length before it; the part is empty when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Logs that grew.
    pub points: Vec<LogPoint>,
    /// The publisher's newest inventory, as changes to the one before or as a head alone.
    pub inventory: Option<InventoryPart>,
}

impl Announcement {
    /// The message's bytes; `None` when they would exceed a gossiped message's bound.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let points = Bytes::from(codec::encode(&self.points));
        let inventory = Bytes::from(self.inventory.as_ref().map(InventoryPart::encode).unwrap_or_default());
        let message = put_bytes(put_bytes(vec![FORMAT], &points), &inventory);
        (message.len() <= GOSSIP_BYTES_MAX).then(|| message.into())
    }

    /// Decodes a gossiped message; `None` when it is of a newer format.
    ///
    /// # Errors
    /// When it is malformed or over a limit.
    pub fn decode(message: &Bytes) -> Result<Option<Self>, MessageRefused> {
        at_most(message.len(), GOSSIP_BYTES_MAX)?;
        let (&format, mut rest) = message.split_first().ok_or(MessageRefused::Malformed)?;
        if format != FORMAT {
            return Ok(None);
        }
        let mut part = || take_bytes(message, &mut rest, GOSSIP_BYTES_MAX).ok_or(MessageRefused::Malformed);
        let (points, inventory) = (part()?, part()?);
        if !rest.is_empty() {
            return Err(MessageRefused::Malformed);
        }
        let points: Vec<LogPoint> = codec::decode(&points, GOSSIP_BYTES_MAX)?;
        at_most(points.len(), VECTOR_AUTHORS_MAX)?;
        let inventory = if inventory.is_empty() { None } else { Some(InventoryPart::decode(&inventory)?) };
        Ok(Some(Self { points, inventory }))
    }
}
