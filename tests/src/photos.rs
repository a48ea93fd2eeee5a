//! Photos made on the spot: valid JPEG and PNG files with the EXIF that a test asks for, so that no test needs files from
//! elsewhere.
//!
//! Equal descriptions make equal bytes. A change to the EXIF alone leaves the picture's bytes as they were, which is
//! what an edited date or caption looks like to Holdfast.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// A photo to be made.
#[derive(Debug, Clone)]
pub struct Photo {
    /// Decides what the picture shows; photos with other seeds have other bytes.
    pub seed: u64,
    /// Pixels from left to right.
    pub width: u16,
    /// Pixels from top to bottom.
    pub height: u16,
    /// Noise in each 8×8 block, 0 to 63: about half a byte per block and step. Only JPEGs have it.
    pub detail: u8,
    /// When it was taken, as EXIF writes it: `2021:07:03 14:05:09`.
    pub taken: Option<String>,
    /// The offset of that clock: `+02:00`.
    pub offset: Option<String>,
    /// The EXIF orientation, 1 to 8.
    pub orientation: u16,
    /// Degrees north and east.
    pub location: Option<(f64, f64)>,
    /// The camera's maker and model.
    pub camera: Option<(String, String)>,
    /// EXIF's description: a caption that an editor wrote into the file.
    pub caption: Option<String>,
}

impl Photo {
    /// A small photo, taken on a day that follows from `seed`, of some 20 KB.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (month, day, hour) = (1 + seed % 12, 1 + seed / 12 % 28, seed / 5 % 24);
        Self {
            seed,
            width: 320,
            height: 240,
            detail: 30,
            taken: Some(format!("2021:{month:02}:{day:02} {hour:02}:{:02}:{:02}", seed / 7 % 60, seed % 60)),
            offset: None,
            orientation: 1,
            location: None,
            camera: Some(("Holdfast".to_owned(), "Test Camera".to_owned())),
            caption: None,
        }
    }

    /// The same, large enough that its JPEG has about `bytes` (at least 100,000): 4:3, as noisy as a detailed photo.
    #[must_use]
    pub fn of_bytes(seed: u64, bytes: u32) -> Self {
        // A block of 48 noisy coefficients takes 26 bytes with its colours.
        let blocks = f64::from(bytes) / 26.0;
        let blocks_high = (blocks * 0.75).sqrt();
        let side = |blocks: f64| (blocks * 8.0).clamp(8.0, 65_000.0) as u16;
        Self { width: side(blocks / blocks_high), height: side(blocks_high), detail: 48, ..Self::new(seed) }
    }

    /// The photo as a JPEG file.
    #[must_use]
    pub fn jpeg(&self) -> Vec<u8> {
        let mut file = vec![0xFF, 0xD8];
        segment(&mut file, 0xE1, &[b"Exif\0\0", &self.exif()[..]].concat());
        // One step for every coefficient: means are exact.
        segment(&mut file, 0xDB, &[&[0][..], &[8; 64]].concat());
        let mut frame = vec![8];
        frame.extend_from_slice(&self.height.to_be_bytes());
        frame.extend_from_slice(&self.width.to_be_bytes());
        frame.extend_from_slice(&[3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
        segment(&mut file, 0xC0, &frame);
        // Sizes 0 to 11 in four bits each; three-bit coefficients in one bit, the block's end in two.
        let sizes =
            [&[0x00, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &(0..12).collect::<Vec<u8>>()].concat();
        segment(&mut file, 0xC4, &sizes);
        segment(&mut file, 0xC4, &[0x10, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x03, 0x00]);
        segment(&mut file, 0xDA, &[3, 1, 0, 2, 0, 3, 0, 0, 63, 0]);
        self.scan(&mut file);
        file.extend_from_slice(&[0xFF, 0xD9]);
        file
    }

    fn scan(&self, file: &mut Vec<u8>) {
        let (blocks_wide, blocks_high) = (self.width.div_ceil(8), self.height.div_ceil(8));
        let mut random = Random(self.seed);
        let mut bits = BitWriter::new(file);
        let mut before = [0i32; 3];
        for y in 0..blocks_high {
            for x in 0..blocks_wide {
                let means = self.colour(f32::from(x) / f32::from(blocks_wide), f32::from(y) / f32::from(blocks_high));
                for (component, mean) in means.into_iter().enumerate() {
                    bits.mean(mean - before[component]);
                    before[component] = mean;
                    let noise = if component == 0 { self.detail.min(63) } else { 0 };
                    (0..noise).for_each(|_| bits.write(random.next() as u32 & 7, 4));
                    if noise < 63 {
                        bits.write(0b10, 2);
                    }
                }
            }
        }
        bits.finish();
    }

    /// Brightness and colour at a point, each 0 to 1: slopes in the seed's colours. As differences from grey.
    fn colour(&self, x: f32, y: f32) -> [i32; 3] {
        let mut random = Random(self.seed ^ 0x5EED);
        let mut level = |along: f32| ((random.next() % 120) as f32 - 60.0 + 60.0 * (along - 0.5)) as i32;
        [level(x + y - 0.5), level(x), level(y)]
    }

    /// The photo as a PNG file, with the same EXIF.
    #[must_use]
    pub fn png(&self) -> Vec<u8> {
        let (width, height) = (u32::from(self.width), u32::from(self.height));
        let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
        header.extend_from_slice(&[8, 2, 0, 0, 0]);
        let mut rows = Vec::with_capacity((width as usize * 3 + 1) * height as usize);
        for y in 0..self.height {
            rows.push(0);
            for x in 0..self.width {
                let levels = self.colour(f32::from(x) / f32::from(self.width), f32::from(y) / f32::from(self.height));
                rows.extend(levels.map(|level| (level + 128) as u8));
            }
        }
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut file, b"IHDR", &header);
        chunk(&mut file, b"eXIf", &self.exif());
        chunk(&mut file, b"IDAT", &stored_zlib(&rows));
        chunk(&mut file, b"IEND", &[]);
        file
    }

    /// The EXIF block: a little-endian TIFF of three directories.
    fn exif(&self) -> Vec<u8> {
        let mut main = Directory::default();
        if let Some(caption) = &self.caption {
            main.text(0x010E, caption);
        }
        if let Some((make, model)) = &self.camera {
            main.text(0x010F, make);
            main.text(0x0110, model);
        }
        main.short(0x0112, self.orientation);
        let mut detail = Directory::default();
        if let Some(taken) = &self.taken {
            detail.text(0x9003, taken);
        }
        if let Some(offset) = &self.offset {
            detail.text(0x9011, offset);
        }
        let mut place = Directory::default();
        if let Some((north, east)) = self.location {
            place.text(1, if north < 0.0 { "S" } else { "N" });
            place.degrees(2, north.abs());
            place.text(3, if east < 0.0 { "W" } else { "E" });
            place.degrees(4, east.abs());
        }
        let detail_at = 8 + main.length() + 2 * 12;
        let place_at = detail_at + detail.length();
        main.long(0x8769, detail_at as u32);
        main.long(0x8825, place_at as u32);
        let mut tiff = b"II*\0\x08\0\0\0".to_vec();
        main.write(&mut tiff);
        detail.write(&mut tiff);
        place.write(&mut tiff);
        tiff
    }
}

/// Writes `count` JPEGs into folders by month, as a camera's import would, and returns their paths.
///
/// # Errors
/// Fails when a file can't be written.
pub fn write_library(folder: &Path, count: u64) -> io::Result<Vec<PathBuf>> {
    (0..count)
        .map(|seed| {
            let month = folder.join("2021").join(format!("{:02}", 1 + seed % 12));
            fs::create_dir_all(&month)?;
            let path = month.join(format!("IMG_{seed:04}.jpg"));
            write_settled(&path, &Photo::new(seed).jpeg(), seed)?;
            Ok(path)
        })
        .collect()
}

/// Writes a file that was last changed long ago, `number` seconds into some day of 2021: it is imported at once, and what
/// is exported is compared with that date.
///
/// # Errors
/// Fails when the file can't be written.
pub fn write_settled(path: &Path, bytes: &[u8], number: u64) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, bytes)?;
    let date = UNIX_EPOCH + Duration::from_secs(1_620_000_000 + number);
    File::options().write(true).open(&beside)?.set_modified(date)?;
    fs::rename(beside, path)
}

/// Writes a file as programs that care do: beside its place, then into it.
///
/// # Errors
/// Fails when the file can't be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, bytes)?;
    fs::rename(beside, path)
}

/// A JPEG segment.
fn segment(file: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    file.extend_from_slice(&[0xFF, marker]);
    file.extend_from_slice(&(payload.len() as u16 + 2).to_be_bytes());
    file.extend_from_slice(payload);
}

/// Entropy-coded bits of a JPEG.
struct BitWriter<'a> {
    file: &'a mut Vec<u8>,
    buffer: u32,
    length: u32,
}

impl<'a> BitWriter<'a> {
    fn new(file: &'a mut Vec<u8>) -> Self {
        Self { file, buffer: 0, length: 0 }
    }

    fn write(&mut self, bits: u32, length: u32) {
        self.buffer = self.buffer << length | bits;
        self.length += length;
        while self.length >= 8 {
            self.length -= 8;
            let byte = (self.buffer >> self.length) as u8;
            self.file.push(byte);
            if byte == 0xFF {
                self.file.push(0);
            }
        }
    }

    /// A mean's difference from the block before: its size in four bits, then itself.
    fn mean(&mut self, difference: i32) {
        let size = 32 - difference.unsigned_abs().leading_zeros();
        self.write(size, 4);
        let bits = if difference < 0 { difference + (1 << size) - 1 } else { difference };
        self.write(bits as u32, size);
    }

    fn finish(mut self) {
        self.write(0x7F, 7);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// A TIFF directory; entries must be added in the order of their tags.
#[derive(Default)]
struct Directory {
    entries: Vec<(u16, u16, u32, Vec<u8>)>,
}

impl Directory {
    fn text(&mut self, tag: u16, text: &str) {
        let bytes = [text.as_bytes(), &[0]].concat();
        self.entries.push((tag, 2, bytes.len() as u32, bytes));
    }

    fn short(&mut self, tag: u16, number: u16) {
        self.entries.push((tag, 3, 1, number.to_le_bytes().to_vec()));
    }

    fn long(&mut self, tag: u16, number: u32) {
        self.entries.push((tag, 4, 1, number.to_le_bytes().to_vec()));
    }

    /// Degrees, minutes and ten-thousandths of seconds.
    fn degrees(&mut self, tag: u16, degrees: f64) {
        let rest = degrees.fract() * 60.0;
        let parts = [(degrees as u32, 1), (rest as u32, 1), ((rest.fract() * 600_000.0).round() as u32, 10_000)];
        let bytes = parts.iter().flat_map(|(over, under)| [u32::to_le_bytes(*over), u32::to_le_bytes(*under)].concat());
        self.entries.push((tag, 5, 3, bytes.collect()));
    }

    /// Bytes of the directory and of the values behind it.
    fn length(&self) -> usize {
        let behind = |bytes: &Vec<u8>| if bytes.len() > 4 { bytes.len().next_multiple_of(2) } else { 0 };
        2 + 12 * self.entries.len() + 4 + self.entries.iter().map(|(.., bytes)| behind(bytes)).sum::<usize>()
    }

    fn write(self, tiff: &mut Vec<u8>) {
        let mut behind_at = tiff.len() + 2 + 12 * self.entries.len() + 4;
        let mut behind = Vec::new();
        tiff.extend_from_slice(&(self.entries.len() as u16).to_le_bytes());
        for (tag, kind, count, mut bytes) in self.entries {
            tiff.extend_from_slice(&[tag.to_le_bytes(), kind.to_le_bytes()].concat());
            tiff.extend_from_slice(&count.to_le_bytes());
            if bytes.len() > 4 {
                tiff.extend_from_slice(&(behind_at as u32).to_le_bytes());
                bytes.resize(bytes.len().next_multiple_of(2), 0);
                behind_at += bytes.len();
                behind.extend_from_slice(&bytes);
            } else {
                bytes.resize(4, 0);
                tiff.extend_from_slice(&bytes);
            }
        }
        tiff.extend_from_slice(&[0; 4]);
        tiff.extend_from_slice(&behind);
    }
}

/// A PNG chunk.
fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], payload: &[u8]) {
    file.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    let checked_from = file.len();
    file.extend_from_slice(kind);
    file.extend_from_slice(payload);
    let checksum = crc32(&file[checked_from..]);
    file.extend_from_slice(&checksum.to_be_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 })
    })
}

/// `bytes` as a zlib stream that does not compress.
fn stored_zlib(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = bytes.chunks(65_535);
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        stream.push((index == last).into());
        let length = block.len() as u16;
        stream.extend_from_slice(&[length.to_le_bytes(), (!length).to_le_bytes()].concat());
        stream.extend_from_slice(block);
    }
    let (low, high) = bytes.iter().fold((1u32, 0u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    stream.extend_from_slice(&(high << 16 | low).to_be_bytes());
    stream
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_media::{Examination, examine_here};
    use holdfast_protocol::media_type::MediaType;

    fn examine(bytes: &[u8], media: MediaType) -> Examination {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("photo");
        write(&path, bytes).unwrap();
        examine_here(&path, media).unwrap()
    }

    fn described() -> Photo {
        Photo {
            taken: Some("2021:07:03 14:05:09".to_owned()),
            offset: Some("+02:00".to_owned()),
            orientation: 6,
            location: Some((-33.856_789, 151.215_3)),
            ..Photo::new(7)
        }
    }

    #[test]
    fn what_was_asked_for_is_what_is_read() {
        for (bytes, media) in [(described().jpeg(), MediaType::Jpeg), (described().png(), MediaType::Png)] {
            assert_eq!(MediaType::sniff(&bytes, None), Some(media));
            let Examination { facts, thumbnail } = examine(&bytes, media);
            assert_eq!(facts.unreadable, None, "{media:?}");
            assert_eq!(facts.captured.unwrap().to_string(), "2021-07-03T14:05:09+02:00");
            assert_eq!(facts.orientation.exif(), 6);
            assert_eq!(facts.dimensions.map(|size| (size.width, size.height)), Some((320, 240)));
            assert_eq!(facts.camera_model.as_deref(), Some("Test Camera"));
            let place = facts.location.unwrap();
            assert!(place.latitude_e7.abs_diff(-338_567_890) < 5 && place.longitude_e7.abs_diff(1_512_153_000) < 5);
            let shown = thumbnail.unwrap().dimensions;
            assert_eq!((shown.width, shown.height), (240, 320));
        }
    }

    #[test]
    fn a_caption_changes_the_metadata_alone() {
        let plain = described().jpeg();
        let captioned = Photo { caption: Some("Sydney, from the ferry".to_owned()), ..described() }.jpeg();
        let picture = |bytes: &[u8]| {
            let scan = bytes.windows(2).position(|marker| marker == [0xFF, 0xDA]).unwrap();
            bytes[scan..].to_vec()
        };
        assert_ne!(plain, captioned);
        assert_eq!(picture(&plain), picture(&captioned));
        assert_eq!(examine(&captioned, MediaType::Jpeg).facts, examine(&plain, MediaType::Jpeg).facts);
    }

    #[test]
    fn seeds_and_sizes_make_the_files_they_promise() {
        assert_eq!(Photo::new(3).jpeg(), Photo::new(3).jpeg());
        assert_ne!(Photo::new(3).jpeg(), Photo::new(4).jpeg());
        let large = Photo::of_bytes(1, 3_000_000).jpeg();
        assert!((2_700_000..3_300_000).contains(&large.len()), "{}", large.len());
        let examination = examine(&large, MediaType::Jpeg);
        assert!(examination.facts.unreadable.is_none() && examination.thumbnail.is_some());
    }

    #[test]
    fn a_library_has_its_folders() {
        let directory = tempfile::tempdir().unwrap();
        let paths = write_library(directory.path(), 14).unwrap();
        assert!(paths[13].ends_with("2021/02/IMG_0013.jpg") && paths.iter().all(|path| path.exists()));
    }
}
