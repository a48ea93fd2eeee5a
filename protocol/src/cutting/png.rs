//! PNG: chunks of image data are picture, the chunks before and after them metadata.

use super::sections::Part;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

#[derive(Debug, Clone, Default)]
pub(super) struct Png {
    ended: bool,
}

impl Png {
    pub(super) fn part(&mut self, header: &[u8]) -> Part {
        if header.starts_with(SIGNATURE) {
            return Part::metadata(SIGNATURE.len() as u64);
        }
        let &[a, b, c, d, ref name @ .., _, _, _, _] = header.get(..12).unwrap_or_default() else { return Part::REST };
        let length = u32::from_be_bytes([a, b, c, d]);
        if self.ended || length > i32::MAX.unsigned_abs() || !name.iter().all(u8::is_ascii_alphabetic) {
            return Part::REST;
        }
        self.ended = name == b"IEND";
        // Length, name and checksum come with the data.
        let bytes = u64::from(length) + 12;
        match name {
            b"IDAT" | b"fcTL" | b"fdAT" => Part::picture(bytes),
            _ => Part::metadata(bytes),
        }
    }
}
