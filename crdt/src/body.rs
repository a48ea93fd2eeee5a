//! The plaintext of a catalog envelope.
//!
//! `format 1 ‖ zstd of: document (length u8, text) ‖ change (length u32, bytes)…`, integers little endian, to the end.

use std::io::Read;

use crate::document::DocumentId;
use crate::guard::wire;
use crate::key::Key;
use crate::limits::{BODY_BYTES_MAX, BODY_CHANGES_MAX, CHANGE_BYTES_MAX};
use crate::patch::Patch;

const FORMAT: u8 = 1;
const LEVEL: i32 = 3;
/// zstd's window: enough for the largest body.
const WINDOW_LOG_MAX: u32 = BODY_BYTES_MAX.trailing_zeros();

/// Changes of one document, in the order in which their author made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogBody {
    /// The document.
    pub document: DocumentId,
    /// Raw changes.
    pub changes: Vec<Vec<u8>>,
}

/// Why a catalog body was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefused {
    /// A later version wrote it.
    #[error("a catalog body of format {format} from a newer version; update Holdfast to read it")]
    Later {
        /// Its format.
        format: u8,
    },
    /// More than any device writes.
    #[error("a catalog body with more {what} than any device writes")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
    },
    /// Not a catalog body.
    #[error("a malformed catalog body: {what}")]
    Malformed {
        /// What could not be read.
        what: &'static str,
    },
}

impl CatalogBody {
    /// The bytes to seal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        put_document(&mut plain, self.document);
        for change in &self.changes {
            put_change(&mut plain, change);
        }
        let mut out = vec![FORMAT];
        out.extend(zstd::bulk::compress(&plain, LEVEL).expect("compressing in memory does not fail"));
        out
    }

    /// What the changes set, each by itself and whatever else is set; what is no change sets nothing.
    pub fn patches(&self) -> impl Iterator<Item = Patch> + '_ {
        let read = self.changes.iter().filter_map(|change| wire::read(change).ok());
        let puts = read.flat_map(|change| change.puts);
        puts.filter_map(|put| Patch::of(Key::parse(put.key)?, &[put.value]))
    }

    /// Reads opened bytes; never decompresses more than [`BODY_BYTES_MAX`].
    ///
    /// # Errors
    /// When they are not a catalog body, or one beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyRefused> {
        let malformed = |what| BodyRefused::Malformed { what };
        let (&format, compressed) = bytes.split_first().ok_or(malformed("empty"))?;
        if format != FORMAT {
            return Err(BodyRefused::Later { format });
        }
        let mut plain = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(|_| malformed("compression"))?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| malformed("compression"))?;
        decoder.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut plain).map_err(|_| malformed("compression"))?;
        if plain.len() > BODY_BYTES_MAX {
            return Err(BodyRefused::TooLarge { what: "bytes" });
        }
        let mut rest = plain.as_slice();
        let length = take(&mut rest, 1).ok_or(malformed("document"))?[0];
        let text = take(&mut rest, usize::from(length)).ok_or(malformed("document"))?;
        let document =
            std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(malformed("document"))?;
        let mut changes = Vec::new();
        while !rest.is_empty() {
            if changes.len() == BODY_CHANGES_MAX {
                return Err(BodyRefused::TooLarge { what: "changes" });
            }
            let length = take(&mut rest, 4).and_then(|length| length.try_into().ok()).ok_or(malformed("change"))?;
            let length = u32::from_le_bytes(length) as usize;
            if length > CHANGE_BYTES_MAX {
                return Err(BodyRefused::TooLarge { what: "bytes in a change" });
            }
            changes.push(take(&mut rest, length).ok_or(malformed("change"))?.to_vec());
        }
        Ok(Self { document, changes })
    }
}

pub(crate) fn put_document(out: &mut Vec<u8>, document: DocumentId) {
    let text = document.to_string();
    // The longest text is that of a month.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_change(out: &mut Vec<u8>, change: &[u8]) {
    out.extend_from_slice(&u32::try_from(change.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(change);
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> CatalogBody {
        let document = DocumentId::Month { year: 2021, month: 7 };
        CatalogBody { document, changes: vec![b"first".to_vec(), Vec::new(), b"third".to_vec()] }
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend(zstd::bulk::compress(plain, 19).unwrap());
        out
    }

    #[test]
    fn a_body_comes_back() {
        assert_eq!(CatalogBody::decode(&body().encode()), Ok(body()));
    }

    #[test]
    fn a_body_that_is_cut_or_changed_never_panics() {
        let bytes = body().encode();
        for at in 0..bytes.len() {
            assert!(CatalogBody::decode(&bytes[..at]).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            let _ = CatalogBody::decode(&changed);
        }
        assert_eq!(CatalogBody::decode(&[2, 0]), Err(BodyRefused::Later { format: 2 }));
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_limit() {
        let bomb = sealed(&vec![0; 256 << 20]);
        assert!(bomb.len() < 64 << 10, "{}", bomb.len());
        // Either its window is refused at once or reading stops behind the limit.
        assert!(CatalogBody::decode(&bomb).is_err());
        let many: Vec<u8> = [&[7][..], b"library", &[0; 4 * (BODY_CHANGES_MAX + 1)]].concat();
        assert_eq!(CatalogBody::decode(&sealed(&many)), Err(BodyRefused::TooLarge { what: "changes" }));
        let long: Vec<u8> = [&[7][..], b"library", &[0xff; 4]].concat();
        assert_eq!(CatalogBody::decode(&sealed(&long)), Err(BodyRefused::TooLarge { what: "bytes in a change" }));
    }
}
