//! Which document of a catalog a photo lies in.

use std::fmt;
use std::str::FromStr;

use holdfast_protocol::id::PhotoId;

/// One document of a library's catalog.
///
/// A photo's document follows from the original file (its capture date, else its id) and never changes, whatever
/// date is shown for it later: two devices that import it alone meet in the same document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentId {
    /// Albums, the names of tags, settings.
    Library,
    /// The photos captured in one month of the camera's calendar.
    Month {
        /// 0 to 9999.
        year: i16,
        /// 1 to 12.
        month: u8,
    },
    /// Photos without a capture date, by the first byte of their id.
    Undated(u8),
}

/// Text that names no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a document of a catalog: expected `library`, `m/<year>-<month>` or `u/<two hexadecimal digits>`")]
pub struct InvalidDocumentId;

impl DocumentId {
    /// The document of a photo captured in `(year, month)`; a date that no calendar has counts as none.
    #[must_use]
    pub fn for_photo(captured: Option<(i16, u8)>, photo: &PhotoId) -> Self {
        match captured {
            Some((year @ 0..=9999, month @ 1..=12)) => Self::Month { year, month },
            _ => Self::Undated(photo.as_bytes()[0]),
        }
    }
}

/// The form used in keys: `library`, `m/2021-07`, `u/3f`.
impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library => f.write_str("library"),
            Self::Month { year, month } => write!(f, "m/{year:04}-{month:02}"),
            Self::Undated(prefix) => write!(f, "u/{prefix:02x}"),
        }
    }
}

impl FromStr for DocumentId {
    type Err = InvalidDocumentId;

    fn from_str(text: &str) -> Result<Self, InvalidDocumentId> {
        let id = if text == "library" {
            Self::Library
        } else if let Some((year, month)) = text.strip_prefix("m/").and_then(|month| month.split_once('-')) {
            let id = Self::Month {
                year: year.parse().map_err(|_| InvalidDocumentId)?,
                month: month.parse().map_err(|_| InvalidDocumentId)?,
            };
            if !matches!(id, Self::Month { year: 0..=9999, month: 1..=12 }) {
                return Err(InvalidDocumentId);
            }
            id
        } else if let Some(prefix) = text.strip_prefix("u/") {
            Self::Undated(u8::from_str_radix(prefix, 16).map_err(|_| InvalidDocumentId)?)
        } else {
            return Err(InvalidDocumentId);
        };
        // One text per document: no signs, no missing or extra zeros, no capitals.
        if id.to_string() == text { Ok(id) } else { Err(InvalidDocumentId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_has_one_text() {
        for id in [
            DocumentId::Library,
            DocumentId::Month { year: 2021, month: 7 },
            DocumentId::Month { year: 0, month: 12 },
            DocumentId::Undated(0x3f),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in
            ["", "m/2021-7", "m/2021-13", "m/-001-01", "m/+021-01", "m/20210-01", "u/3F", "u/3", "u/+f", "Library"]
        {
            assert_eq!(bad.parse::<DocumentId>(), Err(InvalidDocumentId), "{bad}");
        }
    }

    #[test]
    fn a_photo_without_a_usable_date_is_undated() {
        let photo = PhotoId::from_bytes([0xa7; 32]);
        assert_eq!(DocumentId::for_photo(Some((2021, 7)), &photo), DocumentId::Month { year: 2021, month: 7 });
        for captured in [None, Some((2021, 0)), Some((2021, 13)), Some((-1, 1)), Some((10_000, 1))] {
            assert_eq!(DocumentId::for_photo(captured, &photo), DocumentId::Undated(0xa7));
        }
    }
}
