//! Spans of consecutive positions, and lists of them as bytes.
//!
//! Layout of a list: `count varint ‖ count × (gap varint ‖ length varint)`, gap counted from the end of the span before.
//! Only the canonical list is taken: spans ascend, have a length, and never touch, so equal sets have equal bytes.

use std::ops::Range;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::deposit::POSITIONS_PER_AUTHOR_MAX;
use crate::varint;

/// `count` consecutive positions of an author, from `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first position.
    pub start: u32,
    /// How many positions.
    pub count: u32,
}

impl Span {
    /// The positions as a range; it saturates, so it is never a panic.
    #[must_use]
    pub const fn indices(&self) -> Range<u32> {
        self.start..self.start.saturating_add(self.count)
    }
}

impl From<Range<u32>> for Span {
    fn from(range: Range<u32>) -> Self {
        Self { start: range.start, count: range.end.saturating_sub(range.start) }
    }
}

/// The canonical list of the positions in `bitmap`.
#[must_use]
pub fn of_bitmap(bitmap: &RoaringBitmap) -> Vec<Span> {
    let mut positions = bitmap.iter();
    std::iter::from_fn(|| positions.next_range())
        .map(|range| Span { start: *range.start(), count: (*range.end() - *range.start()).saturating_add(1) })
        .collect()
}

/// Appends a canonical list to `out`.
pub(crate) fn put(out: &mut Vec<u8>, spans: &[Span]) {
    varint::put(out, spans.len() as u64);
    let mut end = 0;
    for span in spans {
        debug_assert!(span.start >= end && span.count > 0);
        varint::put(out, u64::from(span.start - end));
        varint::put(out, u64::from(span.count));
        end = span.start + span.count;
    }
}

/// Takes a canonical list off the front of `input`; `None` when it is anything else or has more than `limit` spans.
pub(crate) fn take(input: &mut &[u8], limit: usize) -> Option<Vec<Span>> {
    let count = usize::try_from(varint::take(input)?).ok()?;
    // A span takes at least two bytes, so a claimed count cannot reserve more than a few times the input.
    if count > limit || count > input.len() / 2 {
        return None;
    }
    let mut spans = Vec::with_capacity(count);
    let mut end = 0u32;
    for index in 0..count {
        let gap = varint::take_u32(input)?;
        let length = varint::take_u32(input)?;
        let start = end.checked_add(gap)?;
        end = start.checked_add(length)?;
        if length == 0 || (gap == 0 && index > 0) || end > POSITIONS_PER_AUTHOR_MAX {
            return None;
        }
        spans.push(Span { start, count: length });
    }
    Some(spans)
}

/// Canonical lists with at least `at_least` spans.
#[cfg(test)]
pub(crate) fn any_spans(at_least: usize) -> impl proptest::strategy::Strategy<Value = Vec<Span>> {
    use proptest::prelude::*;
    proptest::collection::vec((1u32..5000, 1u32..5000), at_least..20).prop_map(|pairs| {
        let mut end = 0;
        let place = |(gap, count)| {
            let start = end + gap;
            end = start + count;
            Span { start, count }
        };
        pairs.into_iter().map(place).collect()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(spans in any_spans(0)) {
            let mut bytes = Vec::new();
            put(&mut bytes, &spans);
            let mut input = bytes.as_slice();
            prop_assert_eq!(take(&mut input, 20), Some(spans.clone()));
            prop_assert!(input.is_empty());
            let mut bitmap = RoaringBitmap::new();
            for span in &spans {
                bitmap.insert_range(span.indices());
            }
            prop_assert_eq!(of_bitmap(&bitmap), spans);
        }

        #[test]
        fn what_is_taken_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut input = bytes.as_slice();
            if let Some(spans) = take(&mut input, 60) {
                let mut again = Vec::new();
                put(&mut again, &spans);
                prop_assert_eq!(&bytes[..bytes.len() - input.len()], again.as_slice());
            }
        }
    }
}
