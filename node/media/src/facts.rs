//! What a file says about itself, from whichever reader knows its format.

use std::io;

use holdfast_protocol::manifest::{Dimensions, Facts, Orientation};
use holdfast_protocol::media_type::MediaType;

use super::source::Source;
use super::{isobmff, jpeg_header, still_exif, tiff, track};

/// Reads the facts of a file.
///
/// # Errors
/// Fails only when the system can't read the file; what is wrong with its content is in `unreadable`.
pub(super) fn read_facts(source: &mut Source) -> io::Result<Facts> {
    use MediaType as M;
    let facts = match source.media {
        M::Jpeg | M::Png | M::Webp | M::Heic | M::Avif => container_still(source)?,
        M::Cr3 | M::Raf => track::still_facts(source.reader()?),
        M::Tiff | M::Crw | M::X3f => tiff_still(source)?,
        media if media.is_raw() => tiff_still(source)?,
        M::Mp4 | M::Mov | M::ThreeGp | M::Mkv | M::Webm => video(source)?,
        _ => other(&source.range(0, 64)?, source.media),
    };
    Ok(facts.normalized())
}

/// A still in a container that carries EXIF as a block of its own.
fn container_still(source: &mut Source) -> io::Result<Facts> {
    let media = source.media;
    let Some(data) = source.whole()? else {
        return Ok(Facts::unreadable("larger than any still picture"));
    };
    let mut facts = still_exif::container_facts(data);
    match media {
        MediaType::Jpeg => {
            facts.dimensions = jpeg_header::frame_header(data).map(|header| header.dimensions).or(facts.dimensions);
        }
        MediaType::Heic | MediaType::Avif => match isobmff::primary_picture(data) {
            Ok(picture) => {
                facts.dimensions = picture.dimensions.or(facts.dimensions);
                // The container's own transforms are what counts; EXIF repeats them, or forgot to change.
                facts.orientation = picture.orientation;
            }
            Err(reason) => {
                facts.unreadable.get_or_insert(reason);
            }
        },
        _ => facts.dimensions = dimensions(data, media).or(facts.dimensions),
    }
    if facts.dimensions.is_none() {
        facts.unreadable.get_or_insert_with(|| "the file holds no picture".to_owned());
    }
    Ok(facts)
}

/// A TIFF, or a RAW file that is a TIFF inside.
fn tiff_still(source: &mut Source) -> io::Result<Facts> {
    let head = source.head()?;
    let pictures = tiff::pictures(&head);
    let mut facts = match source.media {
        // Formats of their own, for which there is no reader yet.
        MediaType::Crw | MediaType::X3f => return Ok(Facts::default()),
        MediaType::Mrw => match tiff::inside_mrw(&head) {
            Some(inside) => still_exif::tiff_facts(inside.to_vec()),
            None => Facts::unreadable("the file's metadata block is missing"),
        },
        _ => {
            let facts = still_exif::tiff_facts(tiff::with_standard_header(head));
            // Values may lie behind the picture: then the whole file is needed.
            match (&facts.unreadable, source.is_all_head()) {
                (Some(_), false) => match source.whole()? {
                    Some(whole) => still_exif::tiff_facts(tiff::with_standard_header(whole.to_vec())),
                    None => facts,
                },
                _ => facts,
            }
        }
    };
    facts.dimensions = pictures.largest.max(facts.dimensions);
    Ok(facts)
}

fn video(source: &mut Source) -> io::Result<Facts> {
    let mut facts = track::video_facts(source.reader()?);
    if matches!(source.media, MediaType::Mp4 | MediaType::Mov | MediaType::ThreeGp)
        && let Some(movie) = isobmff::movie(source)?
    {
        facts.captured = facts.captured.or(movie.created);
        facts.duration_ms = movie.duration_ms;
        facts.live_photo = movie.content_identifier;
        if let Some((dimensions, orientation)) = movie.picture {
            // What the other reader knows less about, such as old QuickTime, is readable all the same.
            facts.unreadable = None;
            (facts.dimensions, facts.orientation) = (Some(dimensions), orientation);
        }
        if movie.is_broken {
            facts.unreadable.get_or_insert_with(|| "the video's header is damaged".to_owned());
        }
    }
    if facts.dimensions.is_none() {
        facts.unreadable.get_or_insert_with(|| "the video's header names no picture".to_owned());
    }
    Ok(facts)
}

fn other(head: &[u8], media: MediaType) -> Facts {
    Facts { dimensions: dimensions(head, media), ..Facts::default() }
}

/// The size of a picture whose format has it at a fixed place.
fn dimensions(head: &[u8], media: MediaType) -> Option<Dimensions> {
    let little = |at: usize, length: usize| {
        Some(head.get(at..at + length)?.iter().rev().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte)))
    };
    let big = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
    let (width, height) = match media {
        MediaType::Png if head.get(12..16)? == b"IHDR" => (big(16)?, big(20)?),
        MediaType::Gif => (little(6, 2)?, little(8, 2)?),
        MediaType::Bmp => (little(18, 4)?, little(22, 4)?.cast_signed().unsigned_abs()),
        MediaType::Psd => (big(18)?, big(14)?),
        MediaType::Webp => match head.get(12..16)? {
            b"VP8X" => (little(24, 3)? + 1, little(27, 3)? + 1),
            b"VP8 " => (little(26, 2)? & 0x3FFF, little(28, 2)? & 0x3FFF),
            b"VP8L" => ((little(21, 4)? & 0x3FFF) + 1, (little(21, 4)? >> 14 & 0x3FFF) + 1),
            _ => return None,
        },
        _ => return None,
    };
    Some(Dimensions { width, height })
}

/// The orientation that a rotation (counter-clockwise, in quarters) followed by a mirroring comes to.
pub(super) fn orientation_of(quarters: u8, mirror: Option<Mirror>) -> Orientation {
    let number = match (quarters & 3, mirror) {
        (0, None) => 1,
        (1, None) => 8,
        (2, None) => 3,
        (_, None) => 6,
        (0, Some(Mirror::LeftRight)) | (2, Some(Mirror::TopBottom)) => 2,
        (2, Some(Mirror::LeftRight)) | (0, Some(Mirror::TopBottom)) => 4,
        (1, Some(Mirror::LeftRight)) | (3, Some(Mirror::TopBottom)) => 7,
        (_, Some(_)) => 5,
    };
    number.into()
}

/// Which sides a mirroring exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mirror {
    LeftRight,
    TopBottom,
}
