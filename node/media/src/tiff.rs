//! Just enough TIFF to find the pictures in a RAW file: how large the largest is and where JPEG previews lie.
//!
//! Every read is bounded: [`DIRECTORIES_MAX`] directories of [`ENTRIES_MAX`] entries, each visited once.

use std::collections::BTreeSet;

use holdfast_protocol::manifest::Dimensions;

const DIRECTORIES_MAX: usize = 32;
const ENTRIES_MAX: usize = 512;

/// What the directories of a TIFF-based file point to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pictures {
    /// The size of the largest picture.
    pub(super) largest: Option<Dimensions>,
    /// Offset and length of what may be JPEG previews.
    pub(super) previews: Vec<(u64, u64)>,
}

/// Reads the directories that `head`, the file's beginning, holds.
pub(super) fn pictures(head: &[u8]) -> Pictures {
    let mut pictures = Pictures::default();
    let Some(tiff) = Tiff::new(head) else { return pictures };
    let mut waiting: Vec<u32> = tiff.long(4).into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(directory) = waiting.pop() {
        if directory == 0 || !seen.insert(directory) || seen.len() > DIRECTORIES_MAX {
            continue;
        }
        tiff.directory(directory as usize, &mut pictures, &mut waiting);
    }
    pictures.previews.sort_unstable();
    pictures.previews.dedup();
    pictures
}

/// `head` with the header of a standard TIFF, for readers that know no other: several cameras use a number of their own.
pub(super) fn with_standard_header(mut head: Vec<u8>) -> Vec<u8> {
    match head.first_chunk::<4>() {
        Some(b"IIU\0" | b"IIRO" | b"IIRS") => head[2..4].copy_from_slice(&[42, 0]),
        Some(b"MMOR") => head[2..4].copy_from_slice(&[0, 42]),
        _ => {}
    }
    head
}

/// The TIFF inside a Minolta MRW file's beginning.
pub(super) fn inside_mrw(head: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?) as usize);
    let mut at = 8;
    for _ in 0..DIRECTORIES_MAX {
        let length = word(at + 4)?;
        if head.get(at..at + 4)? == b"\0TTW" {
            return head.get(at + 8..(at + 8).checked_add(length)?.min(head.len()));
        }
        at = at.checked_add(8)?.checked_add(length)?;
    }
    None
}

struct Tiff<'a> {
    bytes: &'a [u8],
    is_little_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.get(..2)? {
            b"II" => Some(Self { bytes, is_little_endian: true }),
            b"MM" => Some(Self { bytes, is_little_endian: false }),
            _ => None,
        }
    }

    fn is_panasonic(&self) -> bool {
        self.bytes.starts_with(b"IIU\0")
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.is_little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn directory(&self, at: usize, pictures: &mut Pictures, waiting: &mut Vec<u32>) {
        let Some(count) = self.short(at) else { return };
        let entries = (0..usize::from(count).min(ENTRIES_MAX)).map(|entry| at + 2 + entry * 12);
        let (mut width, mut height, mut compression) = (None, None, None);
        let (mut strip, mut strip_length) = (None, None);
        let (mut jpeg, mut jpeg_length) = (None, None);
        for entry in entries {
            let (Some(tag), Some(kind), Some(count), Some(offset)) =
                (self.short(entry), self.short(entry + 2), self.long(entry + 4), self.long(entry + 8))
            else {
                break;
            };
            let single =
                (count == 1).then(|| if kind == 3 { self.short(entry + 8).map(u32::from) } else { Some(offset) });
            let single = single.flatten();
            match tag {
                // Panasonic: the sensor.
                0x0002 if self.is_panasonic() => width = single,
                0x0003 if self.is_panasonic() => height = single,
                0x0100 => width = single,
                0x0101 => height = single,
                0x0103 => compression = single,
                0x0111 => strip = single,
                0x0117 => strip_length = single,
                0x0201 => jpeg = single,
                0x0202 => jpeg_length = single,
                // Panasonic: the preview is this entry's own value.
                0x002E if kind == 7 => pictures.previews.push((offset.into(), count.into())),
                0x014A if count == 1 => waiting.push(offset),
                0x014A => {
                    let table = offset as usize;
                    let entries =
                        (0..count.min(DIRECTORIES_MAX as u32) as usize).map_while(|n| self.long(table + n * 4));
                    waiting.extend(entries);
                }
                _ => {}
            }
        }
        if let (Some(width @ 1..), Some(height @ 1..)) = (width, height) {
            let area = |size: Dimensions| u64::from(size.width) * u64::from(size.height);
            let found = Dimensions { width, height };
            if pictures.largest.is_none_or(|largest| area(largest) < area(found)) {
                pictures.largest = Some(found);
            }
        }
        if let (Some(offset), Some(length)) = (jpeg, jpeg_length) {
            pictures.previews.push((offset.into(), length.into()));
        }
        if let (Some(6 | 7 | 34_892), Some(offset), Some(length)) = (compression, strip, strip_length) {
            pictures.previews.push((offset.into(), length.into()));
        }
        waiting.extend(self.long(at + 2 + usize::from(count) * 12));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_a_preview_and_the_larger_size() {
        let mut file = b"II*\0\x08\0\0\0".to_vec();
        let entry = |tag: u16, value: u32| {
            let mut entry = tag.to_le_bytes().to_vec();
            entry.extend_from_slice(&[4, 0, 1, 0, 0, 0]);
            entry.extend_from_slice(&value.to_le_bytes());
            entry
        };
        file.extend_from_slice(&[3, 0]);
        file.extend(entry(0x100, 160).into_iter().chain(entry(0x101, 120)).chain(entry(0x14A, 50)));
        file.extend_from_slice(&[0; 4]);
        assert_eq!(file.len(), 50);
        file.extend_from_slice(&[4, 0]);
        file.extend(entry(0x100, 6000).into_iter().chain(entry(0x101, 4000)));
        file.extend(entry(0x201, 1000).into_iter().chain(entry(0x202, 77)));
        // The next directory is the first one again: a loop.
        file.extend_from_slice(&8u32.to_le_bytes());
        let pictures = pictures(&file);
        assert_eq!(pictures.largest, Some(Dimensions { width: 6000, height: 4000 }));
        assert_eq!(pictures.previews, [(1000, 77)]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), big in any::<bool>()) {
            let head = [if big { b"MM\0*" } else { b"II*\0" }, &bytes[..]].concat();
            let _ = pictures(&head);
            let _ = inside_mrw(&bytes);
        }
    }
}
