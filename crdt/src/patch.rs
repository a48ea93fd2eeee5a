//! What changed, in the words of the domain: the food of the index.

use holdfast_protocol::id::PhotoId;
use holdfast_protocol::position::Run;

use crate::key::{AlbumId, Key, NameId, TagId, decode_run};
use crate::name::Name;
use crate::state::State;

/// A value that people write, with what others wrote at the same time without knowing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Register {
    /// The value that holds; `None` when there is none or it was taken back.
    pub value: Option<Vec<u8>>,
    /// The other sides of a conflict, until someone writes the value again; `None` took it back.
    pub conflicts: Vec<Option<Vec<u8>>>,
}

/// One key's new value. Patches carry values, not differences: applying one twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patch {
    /// A photo is in the catalog.
    PhotoAdded {
        /// Which photo.
        photo: PhotoId,
        /// Its sealed record.
        record: Vec<u8>,
        /// Records that others wrote at the same time: they imported the same photo.
        others: Vec<Vec<u8>>,
    },
    /// An author deposited the photo's chunks once more.
    Run {
        /// Which photo.
        photo: PhotoId,
        /// Where its chunks lie among that author's positions.
        run: Run,
    },
    /// Favourite or not.
    Favourite {
        /// Which photo.
        photo: PhotoId,
        /// True when any of several concurrent values is.
        favourite: bool,
    },
    /// The caption.
    Caption {
        /// Which photo.
        photo: PhotoId,
        /// Sealed.
        caption: Register,
    },
    /// Tagged or not.
    Tag {
        /// Which photo.
        photo: PhotoId,
        /// Which tag.
        tag: TagId,
        /// True when any of several concurrent values is.
        present: bool,
    },
    /// The place of a photo in an album.
    Album {
        /// Which photo.
        photo: PhotoId,
        /// Which album.
        album: AlbumId,
        /// Sorts the photos of an album; `None` when it is not in it.
        position: Option<Vec<u8>>,
    },
    /// The date a person gave it.
    Date {
        /// Which photo.
        photo: PhotoId,
        /// Sealed.
        date: Register,
    },
    /// Shown, in the trash or erased.
    State {
        /// Which photo.
        photo: PhotoId,
        /// The decision that holds.
        state: State,
    },
    /// Where a file of the photo lies in its folder, or lay.
    Name {
        /// Which photo.
        photo: PhotoId,
        /// Which file.
        id: NameId,
        /// What it is called.
        name: Name,
    },
    /// The photo that an edited file became.
    Successor {
        /// The earlier photo.
        photo: PhotoId,
        /// The later one.
        successor: Option<PhotoId>,
    },
    /// The name of an album.
    AlbumNamed {
        /// Which album.
        album: AlbumId,
        /// Sealed; without a value when the album was removed.
        name: Register,
    },
    /// The name of a tag.
    TagNamed {
        /// Which tag.
        tag: TagId,
        /// Sealed.
        name: Register,
    },
    /// A setting of the library.
    Setting {
        /// Its name.
        name: String,
        /// Its value.
        value: Option<Vec<u8>>,
    },
}

impl Patch {
    /// The patch that says what `values`, in ascending order of their operations, mean for `key`.
    /// `None` for keys of a later version and for values that this version cannot read.
    pub(crate) fn of(key: Key, values: &[&[u8]]) -> Option<Self> {
        let last = *values.last()?;
        Some(match key {
            Key::Record(photo) => {
                let others = others(values).map(<[u8]>::to_vec).collect();
                Self::PhotoAdded { photo, record: last.to_vec(), others }
            }
            Key::Run(photo, author) => Self::Run { photo, run: decode_run(author, last)? },
            Key::Favourite(photo) => Self::Favourite { photo, favourite: any(values) },
            Key::Caption(photo) => Self::Caption { photo, caption: Register::of(values) },
            Key::Tag(photo, tag) => Self::Tag { photo, tag, present: any(values) },
            Key::Position(photo, album) => Self::Album { photo, album, position: last_present(values) },
            Key::Date(photo) => Self::Date { photo, date: Register::of(values) },
            Key::State(photo) => Self::State { photo, state: State::resolve(values.iter().copied()) },
            Key::Name(photo, id) => Self::Name { photo, id, name: Name::resolve(values)? },
            Key::Successor(photo) => {
                let successor = last_present(values).and_then(|id| Some(PhotoId::from_bytes(id.try_into().ok()?)));
                Self::Successor { photo, successor }
            }
            Key::AlbumName(album) => Self::AlbumNamed { album, name: Register::of(values) },
            Key::TagName(tag) => Self::TagNamed { tag, name: Register::of(values) },
            Key::Setting(name) => Self::Setting { name, value: present(last) },
            Key::Later => return None,
        })
    }
}

impl Register {
    fn of(values: &[&[u8]]) -> Self {
        let value = values.last().and_then(|value| present(value));
        Self { value, conflicts: others(values).map(present).collect() }
    }
}

/// The concurrent values that differ from the one that holds, each once.
fn others<'a>(values: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    let (last, rest) = values.split_last().map_or((None, &[][..]), |(last, rest)| (Some(*last), rest));
    rest.iter()
        .copied()
        .enumerate()
        .filter(move |(at, value)| Some(*value) != last && !rest[..*at].contains(value))
        .map(|(_, value)| value)
}

fn present(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// Adding wins over a concurrent removal.
fn last_present(values: &[&[u8]]) -> Option<Vec<u8>> {
    values.iter().rev().find_map(|value| present(value))
}

fn any(values: &[&[u8]]) -> bool {
    values.iter().any(|value| *value == [1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_shows_every_other_side_once() {
        let register = Register::of(&[b"a", b"b", b"a", b"", b"b", b"c"]);
        assert_eq!(register.value.as_deref(), Some(&b"c"[..]));
        assert_eq!(register.conflicts, vec![Some(b"a".to_vec()), Some(b"b".to_vec()), None]);
        assert_eq!(Register::of(&[b"same", b"same"]).conflicts, vec![]);
    }

    #[test]
    fn adding_wins_over_a_concurrent_removal() {
        let photo = PhotoId::from_bytes([1; 32]);
        let album = AlbumId::from_bytes([2; 16]);
        assert_eq!(
            Patch::of(Key::Position(photo, album), &[b"m", b""]),
            Some(Patch::Album { photo, album, position: Some(b"m".to_vec()) })
        );
        assert_eq!(Patch::of(Key::Favourite(photo), &[&[1], &[0]]), Some(Patch::Favourite { photo, favourite: true }));
    }
}
