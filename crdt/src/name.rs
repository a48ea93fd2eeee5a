//! What a photo is called: a name that went is the photo's last one, and stays.

use holdfast_protocol::time::WallTime;

use crate::limits::VALUE_BYTES_MAX;

const HERE: u8 = 0;
const GONE: u8 = 1;

/// The name of one file of a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Sealed: folder, path, time.
    pub sealed: Vec<u8>,
    /// When its device saw that the file is gone; `None` while it is there.
    pub gone_since: Option<WallTime>,
}

impl Name {
    /// The name of a file that is there.
    #[must_use]
    pub fn here(sealed: &[u8]) -> Self {
        Self { sealed: sealed.to_vec(), gone_since: None }
    }

    /// Whether the file is there.
    #[must_use]
    pub const fn is_here(&self) -> bool {
        self.gone_since.is_none()
    }

    /// The value of `n/`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self.gone_since {
            None => [&[HERE], &self.sealed[..]].concat(),
            // No honest clock stands before the epoch.
            Some(since) => [&[GONE], &since.0.max(0).to_le_bytes()[..], &self.sealed].concat(),
        }
    }

    /// `None` for what is no name of this version.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (gone_since, sealed) = match value.split_first()? {
            (&HERE, sealed) => (None, sealed),
            (&GONE, rest) => {
                let (since, sealed) = rest.split_first_chunk()?;
                (Some(WallTime(i64::try_from(u64::from_le_bytes(*since)).ok()?)), sealed)
            }
            _ => return None,
        };
        (value.len() <= VALUE_BYTES_MAX).then(|| Self { sealed: sealed.to_vec(), gone_since })
    }

    /// The one that holds of several written at the same time: one of a file that is there, else the one that went last.
    pub(crate) fn resolve(values: &[&[u8]]) -> Option<Self> {
        let names = values.iter().filter_map(|value| Self::decode(value));
        names.max_by_key(|name| (name.is_here(), name.gone_since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(sealed: &[u8], since: i64) -> Name {
        Name { sealed: sealed.to_vec(), gone_since: Some(WallTime(since)) }
    }

    #[test]
    fn names_round_trip_and_nothing_else_is_one() {
        for name in [Name::here(b"sealed"), Name::here(b""), gone(b"sealed", 1_700_000_000_000), gone(b"", 0)] {
            assert_eq!(Name::decode(&name.encode()), Some(name));
        }
        assert_eq!(Name::decode(&gone(b"sealed", -5).encode()), Some(gone(b"sealed", 0)));
        let late = [&[GONE][..], &u64::MAX.to_le_bytes()].concat();
        for value in [&b""[..], b"\x02sealed", b"\x01seven..", &late, &[0; VALUE_BYTES_MAX + 1]] {
            assert_eq!(Name::decode(value), None, "{value:?}");
        }
    }

    #[test]
    fn a_file_that_is_there_wins_over_one_that_went_at_the_same_time() {
        let resolved = |names: &[Name]| {
            let values: Vec<_> = names.iter().map(Name::encode).collect();
            Name::resolve(&values.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(resolved(&[Name::here(b"here"), gone(b"here", 9)]), Name::here(b"here"));
        assert_eq!(resolved(&[Name::here(b"a"), gone(b"b", 9), Name::here(b"c")]), Name::here(b"c"));
        assert_eq!(resolved(&[gone(b"late", 9), gone(b"early", 5)]), gone(b"late", 9));
    }
}
