//! ISO base media (HEIC, AVIF, MP4, MOV, CR3): the contents of `mdat` are picture, other boxes metadata.

use super::sections::Part;

/// Other boxes of this size hold pictures too, like the previews of CR3. The tables of long videos may be larger and
/// are metadata nonetheless.
const LARGE_BOX_BYTES: u64 = 512 << 10;

#[derive(Debug, Clone)]
pub(super) struct IsoMedia;

impl IsoMedia {
    /// Whether a file that begins with `head` is one.
    pub(super) fn begins(head: &[u8]) -> bool {
        let name = head.get(4..8).unwrap_or_default();
        [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"].iter().any(|known| name == *known)
    }

    pub(super) fn part(&mut self, header: &[u8]) -> Part {
        let Some((short, name)) = header.get(..8).and_then(|start| start.split_first_chunk::<4>()) else {
            return Part::REST;
        };
        let long =
            || header.get(8..16).and_then(|bytes| bytes.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
        let (head, length) = match u32::from_be_bytes(*short) {
            // To the end of the file.
            0 => return Part { metadata: 8, picture: u64::MAX },
            1 => match long() {
                Some(length) => (16, length),
                None => return Part::REST,
            },
            length => (8, u64::from(length)),
        };
        if length < head || !name.iter().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | 0xa9)) {
            return Part::REST;
        }
        match name {
            // Of a fragmented video, a few seconds each.
            b"moof" => Part::REST,
            b"mdat" => Part { metadata: head, picture: length - head },
            b"moov" | b"meta" | b"free" | b"skip" => Part::metadata(length),
            _ if length >= LARGE_BOX_BYTES => Part { metadata: head, picture: length - head },
            _ => Part::metadata(length),
        }
    }
}
