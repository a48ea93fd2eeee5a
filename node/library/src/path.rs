//! Paths as file systems have them: bytes, mostly UTF-8.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A path with `/` between its parts, in the bytes that its file system has for it.
///
/// It is shown in one way: UTF-8 as it is, every other byte as `\xE9`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilePath(Vec<u8>);

impl FilePath {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path of the same file behind `folder`.
    #[must_use]
    pub fn inside(&self, folder: &str) -> Self {
        Self([folder.as_bytes(), b"/", &self.0].concat())
    }

    /// The path as it is, or `…/` and the last of its parts, in no more than `bytes_max` bytes beside that mark.
    pub(super) fn end(&self, bytes_max: usize) -> Self {
        let Some(cut) = self.0.len().checked_sub(bytes_max).filter(|cut| *cut > 0) else { return self.clone() };
        let end = from_character(&self.0[cut..]);
        let whole = end.iter().position(|byte| *byte == b'/').map_or(end, |slash| &end[slash + 1..]);
        Self(["…/".as_bytes(), whole].concat())
    }
}

/// What is left of text that was cut at any byte, without the rest of a character.
#[must_use]
pub fn from_character(text: &[u8]) -> &[u8] {
    let continues = |byte: &&u8| **byte & 0xc0 == 0x80;
    &text[text.iter().take(3).take_while(continues).count()..]
}

impl From<&str> for FilePath {
    fn from(path: &str) -> Self {
        Self(path.as_bytes().to_vec())
    }
}

impl From<String> for FilePath {
    fn from(path: String) -> Self {
        Self(path.into_bytes())
    }
}

impl From<Vec<u8>> for FilePath {
    fn from(path: Vec<u8>) -> Self {
        Self(path)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02X}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_any_byte_look_different() {
        let shown = |bytes: &[u8]| FilePath::from(bytes.to_vec()).to_string();
        assert_eq!(shown("2021/Köln.jpg".as_bytes()), "2021/Köln.jpg");
        assert_eq!((shown(b"caf\xe9.jpg"), shown(b"caf\xe8.jpg")), (r"caf\xE9.jpg".into(), r"caf\xE8.jpg".into()));
        assert_eq!(shown(b"\xf0\x9f\x98"), r"\xF0\x9F\x98");
    }

    #[test]
    fn a_long_path_is_cut_where_a_part_begins_and_else_where_a_character_does() {
        let end = |path: &str, bytes_max| FilePath::from(path).end(bytes_max).to_string();
        assert_eq!((end("a/b.jpg", 7), end("a/b.jpg", 6)), ("a/b.jpg".into(), "…/b.jpg".into()));
        assert_eq!(end("ääää.jpg", 7), "…/ä.jpg");
        assert_eq!(FilePath::from(vec![0x80; 9]).end(8).as_bytes().len(), "…/".len() + 5);
    }
}
