//! The size of a JPEG, from its frame header.

use holdfast_protocol::manifest::Dimensions;

/// What a JPEG's frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) dimensions: Dimensions,
    /// Whether common decoders can read it: not lossless, as the sensor data of RAW files often is.
    pub(super) is_lossy: bool,
}

/// The frame header of the JPEG that `data` begins with, as far as `data` reaches.
pub(super) fn frame_header(data: &[u8]) -> Option<FrameHeader> {
    let mut at = if data.starts_with(&[0xFF, 0xD8]) { 2 } else { return None };
    loop {
        while *data.get(at)? != 0xFF {
            at += 1;
        }
        let marker = *data.get(at + 1)?;
        match marker {
            0xFF => at += 1,
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            0xDA | 0xD9 => return None,
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                let fields: &[u8; 4] = data.get(at + 5..)?.first_chunk()?;
                let height = u16::from_be_bytes([fields[0], fields[1]]).into();
                let width = u16::from_be_bytes([fields[2], fields[3]]).into();
                let is_lossy = !matches!(marker, 0xC3 | 0xC7 | 0xCB | 0xCF);
                return Some(FrameHeader { dimensions: Dimensions { width, height }, is_lossy });
            }
            _ => {
                let length: &[u8; 2] = data.get(at + 2..)?.first_chunk()?;
                at += 2 + usize::from(u16::from_be_bytes(*length)).max(2);
            }
        }
    }
}
