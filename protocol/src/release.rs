//! Releases: the clear body that names positions which no live photo needs any more.
//!
//! Layout: `format u8 = 1 ‖ authors varint ‖ authors × (author 32 ‖ spans)`, authors ascending and each with at least one
//! span; spans as in [`crate::inventory`]. A released position stays released for ever.

use std::collections::BTreeMap;

use crate::id::AuthorId;
use crate::inventory::{Span, spans};
use crate::limits::{ENVELOPE_BYTES_MAX, VECTOR_AUTHORS_MAX};
use crate::varint;

const FORMAT: u8 = 1;

/// Positions released, per author who deposited them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Release {
    /// Ascending spans that neither touch nor overlap, per author; none is empty.
    pub positions: BTreeMap<AuthorId, Vec<Span>>,
}

/// Why a release's body has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseRefused {
    /// A format that this version does not know.
    #[error("format {0} is not known here; update Holdfast")]
    UnknownFormat(u8),
    /// Bytes that do not follow the layout.
    #[error("malformed")]
    Malformed,
}

impl Release {
    /// The body of an envelope of kind Release.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![FORMAT];
        varint::put(&mut body, self.positions.len() as u64);
        for (author, positions) in &self.positions {
            body.extend(author.as_bytes());
            spans::put(&mut body, positions);
        }
        body
    }

    /// Decodes the body of an envelope of kind Release.
    ///
    /// # Errors
    /// When it is malformed or over a limit.
    pub fn decode(body: &[u8]) -> Result<Self, ReleaseRefused> {
        let (&format, mut rest) = body.split_first().ok_or(ReleaseRefused::Malformed)?;
        if format != FORMAT {
            return Err(ReleaseRefused::UnknownFormat(format));
        }
        Self::decode_authors(&mut rest).filter(|_| rest.is_empty()).ok_or(ReleaseRefused::Malformed)
    }

    fn decode_authors(rest: &mut &[u8]) -> Option<Self> {
        let authors = varint::take(rest).filter(|&authors| authors <= VECTOR_AUTHORS_MAX as u64)?;
        let mut positions = BTreeMap::<AuthorId, Vec<Span>>::new();
        for _ in 0..authors {
            let (id, after) = rest.split_first_chunk::<32>()?;
            *rest = after;
            let author = AuthorId::from_bytes(*id);
            let taken = spans::take(rest, ENVELOPE_BYTES_MAX)?;
            let ascending = positions.last_key_value().is_none_or(|(last, _)| *last < author);
            if !ascending || taken.is_empty() {
                return None;
            }
            positions.insert(author, taken);
        }
        Some(Self { positions })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(positions in proptest::collection::btree_map(any::<[u8; 32]>(), crate::inventory::spans::any_spans(1), 0..5)) {
            let positions = positions.into_iter().map(|(id, spans)| (AuthorId::from_bytes(id), spans)).collect();
            let release = Release { positions };
            prop_assert_eq!(Release::decode(&release.encode()), Ok(release));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(format) = bytes.first_mut() {
                *format = FORMAT;
            }
            if let Ok(release) = Release::decode(&bytes) {
                prop_assert_eq!(release.encode(), bytes);
            }
        }
    }
}
