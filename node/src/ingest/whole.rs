//! Whether a file ends where its format says that it does.
//!
//! A download that stalled, a copy over a slow network, a card that was pulled out: half a file looks like a whole one by
//! its first bytes. What cannot be told is taken for whole.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use holdfast_protocol::media_type::MediaType;

/// How much of a file's end is looked at first.
const TAIL_BYTES: u64 = 64 << 10;
/// Boxes at the top level of a film, or chunks of a picture, that are looked at.
const BOXES_MAX: usize = 4096;
/// Segments of a JPEG that are looked at: profiles and extended metadata of tens of MiB have a few thousand.
const SEGMENTS_MAX: u32 = 1 << 16;
/// The name of a PNG's last chunk, and the checksum that it always has.
const PNG_END: &[u8] = b"IEND\xae\x42\x60\x82";

/// Whether a file of `length` bytes is cut off. Moves the file's cursor.
///
/// Sources: ITU-T T.81 B.1.1 (markers), PNG 3rd edition 5.3 (chunks), RIFF 1.0 (chunk sizes), ISO/IEC 14496-12 4.2 (boxes).
///
/// # Errors
/// When the file cannot be read.
pub(super) fn is_cut(file: &mut File, media: MediaType, length: u64) -> io::Result<bool> {
    match media {
        MediaType::Jpeg => jpeg_is_cut(file, length),
        MediaType::Png => png_is_cut(file, length),
        MediaType::Webp | MediaType::Avi => riff_is_cut(file, length),
        MediaType::Heic | MediaType::Avif | MediaType::Cr3 | MediaType::Mp4 | MediaType::Mov | MediaType::ThreeGp => {
            boxes_are_cut(file, length)
        }
        _ => Ok(false),
    }
}

/// Whether no end of image follows the first scan: those of the previews in front of it say nothing. Phones append films
/// behind it, longer than any tail.
fn jpeg_is_cut(file: &mut File, length: u64) -> io::Result<bool> {
    let mut at = 2; // behind the start of image
    let mut segments = 0..SEGMENTS_MAX;
    loop {
        if segments.next().is_none() {
            return Ok(false); // no camera's: nothing can be told
        }
        file.seek(SeekFrom::Start(at))?;
        let mut segment = Vec::with_capacity(4);
        file.take(4).read_to_end(&mut segment)?;
        match segment[..] {
            [0xff, 0xda, ..] => break,
            [0xff, 0xff, ..] => at += 1, // padding
            [0xff, _, high, low] => at += 2 + u64::from(u16::from_be_bytes([high, low]).max(2)),
            [_, _, _, _] => return Ok(false), // no segment: nothing can be told
            _ => return Ok(true),
        }
    }
    let tail = at.max(length.saturating_sub(TAIL_BYTES));
    Ok(!has_end_of_image(file, tail)? && (tail == at || !has_end_of_image(file, at)?))
}

fn has_end_of_image(file: &mut File, from: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(from))?;
    let mut scan = io::BufReader::with_capacity(TAIL_BYTES as usize, file);
    let mut follows_mark = false;
    loop {
        let bytes = scan.fill_buf()?;
        let Some(last) = bytes.last() else { return Ok(false) };
        if follows_mark && bytes[0] == 0xd9 || bytes.windows(2).any(|pair| pair == b"\xff\xd9") {
            return Ok(true);
        }
        follows_mark = *last == 0xff;
        let read = bytes.len();
        scan.consume(read);
    }
}

/// Whether the file ends before its last chunk does. What has more chunks than are looked at is told by its last bytes.
fn png_is_cut(file: &mut File, length: u64) -> io::Result<bool> {
    let mut at = 8; // behind the signature
    for _ in 0..BOXES_MAX {
        let mut head = Vec::with_capacity(8);
        file.seek(SeekFrom::Start(at))?;
        file.take(8).read_to_end(&mut head)?;
        let Some((size, name)) = head.split_first_chunk::<4>().filter(|(_, name)| name.len() == 4) else {
            return Ok(true);
        };
        at += 12 + u64::from(u32::from_be_bytes(*size));
        if name == b"IEND" || at > length {
            return Ok(at > length);
        }
    }
    let mut end = Vec::with_capacity(PNG_END.len());
    file.seek(SeekFrom::Start(length.saturating_sub(PNG_END.len() as u64)))?;
    file.take(PNG_END.len() as u64).read_to_end(&mut end)?;
    Ok(end != PNG_END)
}

fn riff_is_cut(file: &mut File, length: u64) -> io::Result<bool> {
    let mut head = [0; 8];
    file.rewind()?;
    if file.read_exact(&mut head).is_err() {
        return Ok(true);
    }
    let [.., a, b, c, d] = head;
    // Recorders that do not know the length write 0 or the largest number.
    let claimed = u32::from_le_bytes([a, b, c, d]);
    Ok(claimed != u32::MAX && u64::from(claimed) + 8 > length)
}

fn boxes_are_cut(file: &mut File, length: u64) -> io::Result<bool> {
    let mut at = 0;
    for _ in 0..BOXES_MAX {
        if at >= length {
            return Ok(at > length);
        }
        let mut head = Vec::with_capacity(16);
        file.seek(SeekFrom::Start(at))?;
        file.take(16).read_to_end(&mut head)?;
        let size = match head.first_chunk::<4>().map(|size| u32::from_be_bytes(*size)) {
            None => return Ok(true),
            Some(0) => return Ok(false), // to the end of the file
            Some(1) => match head.get(8..16).and_then(|size| size.try_into().ok()).map(u64::from_be_bytes) {
                Some(size) if size >= 16 => size,
                _ => return Ok(head.len() < 16),
            },
            Some(size) if size >= 8 => u64::from(size),
            // No box: something was appended, or it is another format's.
            Some(_) => return Ok(false),
        };
        at = at.saturating_add(size);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn is_cut_at(media: MediaType, bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        is_cut(&mut file, media, bytes.len() as u64).unwrap()
    }

    #[test]
    fn halves_are_told_from_whole_files() {
        let jpeg = [&b"\xff\xd8\xff\xe1\0\x04\xff\xd9\xff\xda\0\x02"[..], &[7; 100_000], b"\xff\xd9"].concat();
        let png =
            [&b"\x89PNG\r\n\x1a\n"[..], b"\0\0\x03\xe8IDAT", &[7; 1004], b"\0\0\0\0IEND\xae\x42\x60\x82"].concat();
        let webp = [&b"RIFF\xf0\x03\0\0WEBP"[..], &[7; 0x3f0 - 4]].concat();
        let film =
            [&b"\0\0\0\x10ftypisom\0\0\0\0"[..], b"\0\0\0\x01mdat\0\0\0\0\0\0\x04\x10", &[7; 0x400], b"\0\0\0\x08moov"]
                .concat();
        for (media, whole) in
            [(MediaType::Jpeg, &jpeg), (MediaType::Png, &png), (MediaType::Webp, &webp), (MediaType::Mp4, &film)]
        {
            assert!(!is_cut_at(media, whole), "{media:?}");
            for end in [whole.len() / 2, whole.len() - 3] {
                assert!(is_cut_at(media, &whole[..end]), "{media:?} at {end}");
            }
        }
        for (media, whole) in [(MediaType::Jpeg, jpeg), (MediaType::Png, png)] {
            assert!(!is_cut_at(media, &[&whole[..], &[1; 200_000]].concat()), "{media:?} with more behind its end");
        }
        assert!(!is_cut_at(MediaType::Mov, b"\0\0\0\x08wide\0\0\0\0mdat"), "to the end of the file");
    }

    #[test]
    fn a_jpeg_of_nothing_but_segments_is_left_at_some_point() {
        for nothing in [&b"\xff"[..], b"\xff\xe0\0\x02"] {
            let bytes: Vec<u8> = b"\xff\xd8".iter().chain(nothing.iter().cycle().take(4 << 20)).copied().collect();
            assert!(!is_cut_at(MediaType::Jpeg, &bytes));
        }
    }

    #[test]
    fn no_bytes_keep_it_busy_or_make_it_panic() {
        for size in [0u32, 1, 7, 8, u32::MAX] {
            let bytes: Vec<u8> = size.to_be_bytes().iter().copied().cycle().take(100_000).collect();
            for media in MediaType::ALL {
                let _ = is_cut_at(*media, &bytes);
            }
        }
    }
}
