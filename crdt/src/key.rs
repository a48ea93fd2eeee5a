//! The schema: every key of a document and what its value may be.
//!
//! A document is one flat map from keys to byte strings. Keys are added by later versions and never re-typed, and
//! are never deleted: absence is an empty value. A name is never absent: its file may be gone.
//!
//! | key | value | document |
//! |---|---|---|
//! | `p/<photo>` | the photo's sealed record; written once | photos |
//! | `r/<photo>/<author>` | the run of chunks that this author deposited for it as well | photos |
//! | `f/<photo>` | favourite: `0` or `1` as one byte | photos |
//! | `c/<photo>` | sealed caption | photos |
//! | `t/<photo>/<tag>` | tagged: one byte | photos |
//! | `a/<photo>/<album>` | position in the album | photos |
//! | `d/<photo>` | sealed date that a person chose | photos |
//! | `x/<photo>` | [`State`] | photos |
//! | `n/<photo>/<name>` | [`Name`]: sealed place of a file of this photo (folder, name, time), there or gone | photos |
//! | `s/<photo>` | the photo that an edited file became | photos |
//! | `b/<album>` | sealed name of an album | library |
//! | `g/<tag>` | sealed name of a tag | library |
//! | `o/<name>` | a setting | library |
//!
//! Identifiers are base64url without padding. A family that this version does not know (another prefix of one to
//! eight lower-case letters or digits, in any document) is carried, merged and kept, and never interpreted.

use data_encoding::BASE64URL_NOPAD;
use holdfast_protocol::id::{AuthorId, PhotoId};
use holdfast_protocol::position::Run;

use crate::document::DocumentId;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::name::Name;
use crate::state::State;

macro_rules! short_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps the 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }
    };
}

short_id! {
    /// A tag. Made from the tag's name by a keyed hash, so that two devices that invent the same tag share it.
    TagId
}
short_id! {
    /// An album: random, because two albums may share a name.
    AlbumId
}
short_id! {
    /// One file of a photo: a keyed hash of where it lies.
    NameId
}

/// A key of this version's schema, or one of a later version's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Record(PhotoId),
    Run(PhotoId, AuthorId),
    Favourite(PhotoId),
    Caption(PhotoId),
    Tag(PhotoId, TagId),
    Position(PhotoId, AlbumId),
    Date(PhotoId),
    State(PhotoId),
    Name(PhotoId, NameId),
    Successor(PhotoId),
    AlbumName(AlbumId),
    TagName(TagId),
    Setting(String),
    Later,
}

impl Key {
    /// Reads a key; `None` when it fits neither this version's schema nor the form that later keys will have.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > KEY_BYTES_MAX {
            return None;
        }
        let (family, rest) = text.split_once('/')?;
        let pair = || rest.split_once('/');
        Some(match family {
            "p" => Self::Record(photo(rest)?),
            "r" => Self::Run(photo(pair()?.0)?, AuthorId::from_bytes(bytes(pair()?.1)?)),
            "f" => Self::Favourite(photo(rest)?),
            "c" => Self::Caption(photo(rest)?),
            "t" => Self::Tag(photo(pair()?.0)?, TagId(bytes(pair()?.1)?)),
            "a" => Self::Position(photo(pair()?.0)?, AlbumId(bytes(pair()?.1)?)),
            "d" => Self::Date(photo(rest)?),
            "x" => Self::State(photo(rest)?),
            "n" => Self::Name(photo(pair()?.0)?, NameId(bytes(pair()?.1)?)),
            "s" => Self::Successor(photo(rest)?),
            "b" => Self::AlbumName(AlbumId(bytes(rest)?)),
            "g" => Self::TagName(TagId(bytes(rest)?)),
            "o" => setting(rest).then(|| Self::Setting(rest.to_owned()))?,
            _ => later(family, rest).then_some(Self::Later)?,
        })
    }

    /// The key's text. Must not be called on [`Key::Later`], which keeps none.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Record(photo) => one("p", photo.as_bytes()),
            Self::Run(photo, author) => two("r", photo, author.as_bytes()),
            Self::Favourite(photo) => one("f", photo.as_bytes()),
            Self::Caption(photo) => one("c", photo.as_bytes()),
            Self::Tag(photo, tag) => two("t", photo, tag.as_bytes()),
            Self::Position(photo, album) => two("a", photo, album.as_bytes()),
            Self::Date(photo) => one("d", photo.as_bytes()),
            Self::State(photo) => one("x", photo.as_bytes()),
            Self::Name(photo, name) => two("n", photo, name.as_bytes()),
            Self::Successor(photo) => one("s", photo.as_bytes()),
            Self::AlbumName(album) => one("b", album.as_bytes()),
            Self::TagName(tag) => one("g", tag.as_bytes()),
            Self::Setting(name) => format!("o/{name}"),
            Self::Later => String::new(),
        }
    }

    /// The prefix of all keys of `photo` in `family`.
    pub(crate) fn prefix(family: char, photo: &PhotoId) -> String {
        format!("{family}/{}/", BASE64URL_NOPAD.encode(photo.as_bytes()))
    }

    /// Whether the key may stand in `document`.
    pub(crate) fn belongs_in(&self, document: DocumentId) -> bool {
        match (self, self.photo()) {
            (Self::Later, _) => true,
            (_, None) => document == DocumentId::Library,
            (_, Some(photo)) => match document {
                DocumentId::Library => false,
                DocumentId::Month { .. } => true,
                DocumentId::Undated(prefix) => photo.as_bytes()[0] == prefix,
            },
        }
    }

    /// Whether `value` has the form of this key's values.
    pub(crate) fn admits(&self, value: &[u8]) -> bool {
        match self {
            Self::Record(_) => !value.is_empty() && value.len() <= VALUE_BYTES_MAX,
            Self::Run(..) => value.is_empty() || value.len() == 8,
            Self::Favourite(_) | Self::Tag(..) => matches!(value, [0 | 1]),
            Self::State(_) => State::decode(value).is_some(),
            Self::Name(..) => Name::decode(value).is_some(),
            Self::Successor(_) => value.is_empty() || value.len() == 32,
            Self::Position(..) | Self::Date(_) => value.len() <= 256,
            Self::Caption(_) | Self::AlbumName(_) | Self::TagName(_) | Self::Setting(_) | Self::Later => {
                value.len() <= VALUE_BYTES_MAX
            }
        }
    }

    fn photo(&self) -> Option<&PhotoId> {
        match self {
            Self::Record(photo)
            | Self::Run(photo, _)
            | Self::Favourite(photo)
            | Self::Caption(photo)
            | Self::Tag(photo, _)
            | Self::Position(photo, _)
            | Self::Date(photo)
            | Self::State(photo)
            | Self::Name(photo, _)
            | Self::Successor(photo) => Some(photo),
            Self::AlbumName(_) | Self::TagName(_) | Self::Setting(_) | Self::Later => None,
        }
    }
}

/// The value of `r/`: where the run starts and how long it is; its author stands in the key.
pub(crate) fn encode_run(run: &Run) -> [u8; 8] {
    let mut value = [0; 8];
    value[..4].copy_from_slice(&run.start.to_le_bytes());
    value[4..].copy_from_slice(&run.count.to_le_bytes());
    value
}

pub(crate) fn decode_run(author: AuthorId, value: &[u8]) -> Option<Run> {
    let &[a, b, c, d, e, f, g, h] = value else { return None };
    Some(Run { author, start: u32::from_le_bytes([a, b, c, d]), count: u32::from_le_bytes([e, f, g, h]) })
}

fn one(family: &str, id: &[u8]) -> String {
    format!("{family}/{}", BASE64URL_NOPAD.encode(id))
}

fn two(family: &str, photo: &PhotoId, id: &[u8]) -> String {
    format!("{family}/{}/{}", BASE64URL_NOPAD.encode(photo.as_bytes()), BASE64URL_NOPAD.encode(id))
}

fn photo(text: &str) -> Option<PhotoId> {
    bytes(text).map(PhotoId::from_bytes)
}

/// Base64url of exactly `N` bytes; the decoder refuses stray trailing bits, so each id has one text.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut decoded = [0; N];
    if BASE64URL_NOPAD.decode_len(text.len()) != Ok(N) {
        return None;
    }
    BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut decoded).ok()?;
    Some(decoded)
}

/// The name of a setting.
pub(crate) fn setting(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

fn later(family: &str, rest: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=8).contains(&family.len())
        && family.bytes().all(lower)
        && family.as_bytes()[0].is_ascii_lowercase()
        && !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTO: PhotoId = PhotoId::from_bytes([0xa7; 32]);

    fn every_key() -> Vec<Key> {
        vec![
            Key::Record(PHOTO),
            Key::Run(PHOTO, AuthorId::from_bytes([1; 32])),
            Key::Favourite(PHOTO),
            Key::Caption(PHOTO),
            Key::Tag(PHOTO, TagId([2; 16])),
            Key::Position(PHOTO, AlbumId([3; 16])),
            Key::Date(PHOTO),
            Key::State(PHOTO),
            Key::Name(PHOTO, NameId([4; 16])),
            Key::Successor(PHOTO),
            Key::AlbumName(AlbumId([5; 16])),
            Key::TagName(TagId([6; 16])),
            Key::Setting("policy.copies".to_owned()),
        ]
    }

    #[test]
    fn every_key_has_one_text() {
        for key in every_key() {
            assert_eq!(Key::parse(&key.text()).as_ref(), Some(&key));
            assert_eq!(Key::parse(&format!("{}=", key.text())), None);
        }
    }

    #[test]
    fn keys_stand_in_their_kind_of_document() {
        for key in every_key() {
            let photo = key.photo().is_some();
            assert_eq!(key.belongs_in(DocumentId::Library), !photo, "{key:?}");
            assert_eq!(key.belongs_in(DocumentId::Month { year: 2021, month: 7 }), photo);
            assert_eq!(key.belongs_in(DocumentId::Undated(0xa7)), photo);
            assert!(!key.belongs_in(DocumentId::Undated(0xa8)));
        }
    }

    #[test]
    fn later_families_pass_and_malformed_keys_do_not() {
        for text in ["z/anything", "face2/x/y", "q/~"] {
            assert_eq!(Key::parse(text), Some(Key::Later), "{text}");
        }
        let long = format!("z/{}", "x".repeat(KEY_BYTES_MAX));
        let padded = format!("p/{}=", BASE64URL_NOPAD.encode(&[0; 32]));
        let short = format!("p/{}", BASE64URL_NOPAD.encode(&[0; 31]));
        for text in
            ["", "p", "p/", "/x", "P/x", "9/x", "z/", "z/a b", "z/é", "abcdefghi/x", "o/A", &long, &padded, &short]
        {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }
}
