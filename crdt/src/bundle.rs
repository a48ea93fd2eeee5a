//! Bundles: an author's earlier catalog envelopes, merged.
//!
//! Automerge cannot forget history, so what can be saved is the envelopes around it. Each author merges its own: the raw
//! changes stay as they are, in their order, and the bundle names the envelopes that it replaces. Nobody competes, and
//! dropping the replaced envelopes loses no change.
//!
//! `format 1 ‖ zstd of: count u32, (first u64, last u64)… ‖ (document: length u8, text; change: length u32, bytes)…`, integers
//! little endian, to the end.

use std::io::{BufReader, Read, Write};
use std::ops::RangeInclusive;

use holdfast_protocol::limits::BUNDLE_BYTES_MAX;

use crate::body::{CatalogBody, put_change, put_document};
use crate::document::DocumentId;
use crate::limits::{BUNDLE_PLAIN_BYTES_MAX, CHANGE_BYTES_MAX};

const FORMAT: u8 = 1;
const LEVEL: i32 = 9;
const RANGES_MAX: u32 = 65_536;
const WINDOW_LOG_MAX: u32 = 23;

/// Why a bundle was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleRefused {
    /// A later version wrote it.
    #[error("a bundle of format {format} from a newer version; update Holdfast to read it")]
    Later {
        /// Its format.
        format: u8,
    },
    /// More than any device writes.
    #[error("a bundle with more {what} than any device writes")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
    },
    /// Not a bundle.
    #[error("a malformed bundle: {what}")]
    Malformed {
        /// What could not be read.
        what: &'static str,
    },
}

/// Merges one author's catalog bodies, given with the sequence numbers of their envelopes in ascending order.
#[must_use]
pub fn merge<'a>(envelopes: impl IntoIterator<Item = (u64, &'a CatalogBody)>) -> Vec<u8> {
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    let mut records = Vec::new();
    for (sequence, body) in envelopes {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == sequence => *last = *last.start()..=sequence,
            _ => ranges.push(sequence..=sequence),
        }
        for change in &body.changes {
            put_document(&mut records, body.document);
            put_change(&mut records, change);
        }
    }
    let mut head = u32::try_from(ranges.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for range in &ranges {
        head.extend_from_slice(&range.start().to_le_bytes());
        head.extend_from_slice(&range.end().to_le_bytes());
    }
    let compress = || {
        let mut encoder = zstd::stream::write::Encoder::new(vec![FORMAT], LEVEL)?;
        encoder.window_log(WINDOW_LOG_MAX)?;
        encoder.write_all(&head)?;
        encoder.write_all(&records)?;
        encoder.finish()
    };
    let compressed: std::io::Result<Vec<u8>> = compress();
    compressed.expect("compressing in memory does not fail")
}

/// A bundle being read, change by change: memory stays at one change and a window, however large the bundle is.
pub struct Bundle<'a> {
    replaces: Vec<RangeInclusive<u64>>,
    records: std::io::Take<zstd::stream::read::Decoder<'static, BufReader<&'a [u8]>>>,
    failed: bool,
}

impl<'a> Bundle<'a> {
    /// Begins to read a bundle.
    ///
    /// # Errors
    /// When its beginning is not that of a bundle.
    pub fn open(bytes: &'a [u8]) -> Result<Self, BundleRefused> {
        let malformed = |what| BundleRefused::Malformed { what };
        if bytes.len() > BUNDLE_BYTES_MAX {
            return Err(BundleRefused::TooLarge { what: "bytes" });
        }
        let (&format, compressed) = bytes.split_first().ok_or(malformed("empty"))?;
        if format != FORMAT {
            return Err(BundleRefused::Later { format });
        }
        let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(|_| malformed("compression"))?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| malformed("compression"))?;
        let mut records = decoder.take(BUNDLE_PLAIN_BYTES_MAX);
        let mut count = [0; 4];
        records.read_exact(&mut count).map_err(|_| malformed("ranges"))?;
        let count = u32::from_le_bytes(count);
        if count > RANGES_MAX {
            return Err(BundleRefused::TooLarge { what: "ranges" });
        }
        let mut replaces: Vec<RangeInclusive<u64>> = Vec::new();
        for _ in 0..count {
            let mut number = || {
                let mut bytes = [0; 8];
                records.read_exact(&mut bytes).map_err(|_| malformed("ranges"))?;
                Ok(u64::from_le_bytes(bytes))
            };
            let (first, last) = (number()?, number()?);
            if first > last || replaces.last().is_some_and(|before| *before.end() >= first) {
                return Err(malformed("ranges"));
            }
            replaces.push(first..=last);
        }
        Ok(Self { replaces, records, failed: false })
    }

    /// The envelopes that the bundle replaces, as ranges of sequence numbers in ascending order.
    #[must_use]
    pub fn replaces(&self) -> &[RangeInclusive<u64>] {
        &self.replaces
    }

    fn record(&mut self) -> Result<Option<(DocumentId, Vec<u8>)>, BundleRefused> {
        let malformed = |what| BundleRefused::Malformed { what };
        let mut length = [0];
        if self.records.read(&mut length).map_err(|_| malformed("compression"))? == 0 {
            return if self.records.limit() == 0 { Err(BundleRefused::TooLarge { what: "bytes" }) } else { Ok(None) };
        }
        let mut text = vec![0; usize::from(length[0])];
        self.records.read_exact(&mut text).map_err(|_| malformed("document"))?;
        let text = String::from_utf8(text).map_err(|_| malformed("document"))?;
        let document = text.parse().map_err(|_| malformed("document"))?;
        let mut length = [0; 4];
        self.records.read_exact(&mut length).map_err(|_| malformed("change"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > CHANGE_BYTES_MAX {
            return Err(BundleRefused::TooLarge { what: "bytes in a change" });
        }
        let mut change = vec![0; length];
        self.records.read_exact(&mut change).map_err(|_| malformed("change"))?;
        Ok(Some((document, change)))
    }
}

/// The changes with their documents, each document's in the order of the author's log.
impl Iterator for Bundle<'_> {
    type Item = Result<(DocumentId, Vec<u8>), BundleRefused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.record().transpose()?;
        self.failed = record.is_err();
        Some(record)
    }
}

impl std::fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("replaces", &self.replaces).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> Vec<(u64, CatalogBody)> {
        let month = DocumentId::Month { year: 2021, month: 7 };
        vec![
            (3, CatalogBody { document: month, changes: vec![b"a".to_vec(), b"b".to_vec()] }),
            (4, CatalogBody { document: DocumentId::Library, changes: vec![b"c".to_vec()] }),
            (9, CatalogBody { document: month, changes: vec![vec![7; 100_000]] }),
        ]
    }

    fn merged() -> Vec<u8> {
        merge(bodies().iter().map(|(sequence, body)| (*sequence, body)))
    }

    #[test]
    fn a_bundle_holds_every_change_in_order_and_names_what_it_replaces() {
        let bytes = merged();
        let bundle = Bundle::open(&bytes).unwrap();
        assert_eq!(bundle.replaces(), [3..=4, 9..=9]);
        let read: Vec<_> = bundle.map(Result::unwrap).collect();
        let expected: Vec<_> = bodies()
            .into_iter()
            .flat_map(|(_, body)| body.changes.into_iter().map(move |change| (body.document, change)))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_cut_or_changed_bundle_ends_with_an_error_and_never_panics() {
        let bytes = merged();
        for at in 0..bytes.len() {
            let cut = Bundle::open(&bytes[..at]).map(|bundle| bundle.last());
            assert!(matches!(cut, Err(_) | Ok(Some(Err(_)))), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 0x41;
            if let Ok(bundle) = Bundle::open(&changed) {
                assert!(bundle.count() < 10);
            }
        }
        assert_eq!(Bundle::open(&[2]).unwrap_err(), BundleRefused::Later { format: 2 });
    }

    #[test]
    fn a_bomb_is_read_piece_by_piece_and_refused() {
        let mut plain = 0_u32.to_le_bytes().to_vec();
        put_document(&mut plain, DocumentId::Library);
        plain.extend_from_slice(&u32::MAX.to_le_bytes());
        plain.resize(64 << 20, 0);
        let mut bytes = vec![FORMAT];
        bytes.extend(zstd::bulk::compress(&plain, 3).unwrap());
        let read: Vec<_> = Bundle::open(&bytes).map(Iterator::collect).unwrap_or_default();
        assert!(!read.iter().any(Result::is_ok));
        let mut plain = u32::MAX.to_le_bytes().to_vec();
        plain.resize(1 << 20, 0);
        let mut bytes = vec![FORMAT];
        bytes.extend(zstd::bulk::compress(&plain, 3).unwrap());
        assert_eq!(Bundle::open(&bytes).unwrap_err(), BundleRefused::TooLarge { what: "ranges" });
    }
}
