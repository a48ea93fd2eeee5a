//! An inventory in pieces that fit into frames.

use bytes::Bytes;

use super::{MessageRefused, put_bytes, take_bytes, take_flag};
use crate::inventory::{HEAD_BYTES_MAX, HoldingChanges, SignedHead};
use crate::limits::{BULK_FRAME_BYTES_MAX, VECTOR_AUTHORS_MAX};
use crate::varint;

/// A piece of an inventory. Layout: `head length varint ‖ head ‖ base ‖ more u8 ‖ changes`, base being `0` for a whole
/// inventory or `1 ‖ varint` for one that follows that number of the same generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryPart {
    /// The head that the content, once complete, must match.
    pub head: Bytes,
    /// What the changes are relative to: nothing, or the inventory with this number in the same generation.
    pub base: Option<u64>,
    /// Whether more pieces with the same head and base follow.
    pub more: bool,
    /// The content.
    pub changes: Vec<HoldingChanges>,
}

impl InventoryPart {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = put_bytes(Vec::new(), &self.head);
        match self.base {
            None => body.push(0),
            Some(base) => {
                body.push(1);
                varint::put(&mut body, base);
            }
        }
        body.push(u8::from(self.more));
        HoldingChanges::put_all(&self.changes, &mut body);
        body
    }

    pub(crate) fn decode(body: &Bytes) -> Result<Self, MessageRefused> {
        Self::take(body).ok_or(MessageRefused::Malformed)
    }

    fn take(body: &Bytes) -> Option<Self> {
        let mut rest = body.as_ref();
        let head = take_bytes(body, &mut rest, HEAD_BYTES_MAX)?;
        let base = take_flag(&mut rest)?.then(|| varint::take(&mut rest));
        let base = match base {
            Some(None) => return None,
            Some(Some(base)) => Some(base),
            None => None,
        };
        let more = take_flag(&mut rest)?;
        let changes = HoldingChanges::take_all(&mut rest)?;
        rest.is_empty().then_some(Self { head, base, more, changes })
    }

    /// The pieces of a whole inventory, none larger than a frame.
    #[must_use]
    pub fn whole(head: &SignedHead, content: &[HoldingChanges]) -> Vec<Self> {
        const SPANS_PER_PART: usize = BULK_FRAME_BYTES_MAX / 16;
        let part = |changes| Self { head: head.wire().clone(), base: None, more: true, changes };
        let (mut parts, mut current, mut spans) = (Vec::new(), Vec::<HoldingChanges>::new(), 0);
        for changes in content {
            for (held, list) in [(true, &changes.held), (false, &changes.erased)] {
                for piece in list.chunks(SPANS_PER_PART / 2) {
                    if spans + piece.len() > SPANS_PER_PART || current.len() == VECTOR_AUTHORS_MAX {
                        parts.push(part(std::mem::take(&mut current)));
                        spans = 0;
                    }
                    spans += piece.len();
                    if current.last().is_none_or(|last| last.author != changes.author) {
                        current.push(HoldingChanges::none(changes.author));
                    }
                    if let Some(last) = current.last_mut() {
                        if held { &mut last.held } else { &mut last.erased }.extend_from_slice(piece);
                    }
                }
            }
        }
        parts.push(Self { more: false, ..part(current) });
        parts
    }
}
