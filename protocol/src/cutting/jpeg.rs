//! JPEG: everything before the scan is metadata (it holds EXIF, XMP, profiles and a few tables), the rest picture.

use super::sections::Part;

#[derive(Debug, Clone)]
pub(super) struct Jpeg;

impl Jpeg {
    pub(super) fn part(&mut self, header: &[u8]) -> Part {
        let [0xff, marker, length @ ..] = header else { return Part::REST };
        match marker {
            // Fill bytes may precede a marker.
            0xff => Part::metadata(1),
            // Start of image, and markers that stand alone.
            0xd8 | 0x01 | 0xd0..=0xd7 => Part::metadata(2),
            // Start of scan; end of image; stuffed data where a marker should be.
            0xda | 0xd9 | 0x00 => Part::REST,
            _ => match length {
                [high, low, ..] => match u64::from(u16::from_be_bytes([*high, *low])) {
                    0 | 1 => Part::REST,
                    length => Part::metadata(2 + length),
                },
                _ => Part::REST,
            },
        }
    }
}
