//! The small picture of a photo.
//!
//! JPEGs of camera size are decoded at an eighth; smaller ones, PNG and WebP whole; a HEIC shows its own thumbnail if
//! that is large enough; a RAW file the preview that its camera embedded.

use std::io::{self, Cursor};

use holdfast_protocol::limits::THUMBNAIL_BYTES_MAX;
use holdfast_protocol::manifest::{Dimensions, Facts};
use holdfast_protocol::media_type::MediaType;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, ImageFormat, ImageReader, Limits};

use super::jpeg_eighth::{EighthRefused, decode_eighth};
use super::jpeg_header::frame_header;
use super::pixels::Pixels;
use super::source::Source;
use super::{Examination, ThumbnailImage, isobmff, tiff};

/// Pixels of a thumbnail's longest side at most.
pub const THUMBNAIL_SIDE: u32 = 512;
/// A JPEG whose longest side is at least eight times this is decoded at an eighth.
const EIGHTH_SIDE_MIN: u32 = 400;
/// A thumbnail that a HEIC brings along is used if its longest side is at least this.
const EMBEDDED_SIDE_MIN: u32 = 320;
/// Pixels of a picture that is decoded whole.
const PIXELS_MAX: u64 = 80_000_000;
/// Bytes that a whole decoder may allocate.
const DECODER_BYTES_MAX: u64 = 400 << 20;
/// Bytes of a preview embedded in a RAW file, and of it that are looked at for its size.
const PREVIEW_BYTES_MAX: u64 = 48 << 20;
const PREVIEW_HEAD_BYTES: u64 = 128 << 10;
/// Qualities tried until the thumbnail is small enough; noise needs the last.
const QUALITIES: [u8; 3] = [75, 50, 20];

/// Adds the thumbnail to `facts`; a picture too broken to show is noted in them.
///
/// # Errors
/// Fails only when the system can't read the file.
pub(super) fn complete(source: &mut Source, facts: Facts) -> io::Result<Examination> {
    let orientation = match source.media {
        // Its decoder has turned it.
        MediaType::Heic => 1,
        _ => facts.orientation.exif(),
    };
    Ok(match picture(source)? {
        Ok(None) => Examination { facts, thumbnail: None },
        Ok(Some(pixels)) => {
            let thumbnail = encode(&pixels.fitted(THUMBNAIL_SIDE).oriented(orientation));
            Examination { facts, thumbnail }
        }
        Err(reason) => broken(facts, &reason),
    })
}

/// What is known of a photo whose picture can't be shown.
pub(super) fn broken(mut facts: Facts, reason: &str) -> Examination {
    facts.unreadable.get_or_insert_with(|| format!("the picture: {reason}"));
    Examination { facts: facts.normalized(), thumbnail: None }
}

/// The picture at the size that was cheapest to have, or why there is none.
type Decoded = Result<Option<Pixels>, String>;

fn picture(source: &mut Source) -> io::Result<Decoded> {
    let media = source.media;
    Ok(match media {
        MediaType::Jpeg => source.whole()?.map(jpeg).transpose(),
        MediaType::Png => source.whole()?.map(|data| whole(data, ImageFormat::Png)).transpose(),
        MediaType::Webp => source.whole()?.map(|data| whole(data, ImageFormat::WebP)).transpose(),
        MediaType::Heic => source.whole()?.map(heic).transpose(),
        MediaType::Cr3 => isobmff::cr3_preview(source)?.map(|preview| jpeg(&preview)).transpose(),
        _ if media.is_raw() || media == MediaType::Tiff => preview(source)?,
        _ => Ok(None),
    })
}

fn jpeg(data: &[u8]) -> Result<Pixels, String> {
    let side = frame_header(data).map_or(0, |header| header.dimensions.width.max(header.dimensions.height));
    if side >= EIGHTH_SIDE_MIN * 8 {
        match decode_eighth(data) {
            Ok(pixels) => return Ok(pixels),
            Err(EighthRefused::Malformed(reason)) => return Err(reason.to_owned()),
            Err(EighthRefused::NotCovered(_)) => {}
        }
    }
    whole(data, ImageFormat::Jpeg)
}

/// Decodes all of a picture.
fn whole(data: &[u8], format: ImageFormat) -> Result<Pixels, String> {
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|error| error.to_string())?;
    Ok(pixels(decoded))
}

fn pixels(decoded: DynamicImage) -> Pixels {
    let (width, height) = (decoded.width(), decoded.height());
    if decoded.color().has_alpha() {
        Pixels::on_white(width, height, decoded.into_rgba8().as_raw())
    } else {
        Pixels { width, height, rgb: decoded.into_rgb8().into_raw() }
    }
}

/// A HEIC's own thumbnail, or all of its picture.
fn heic(data: &[u8]) -> Result<Pixels, String> {
    if let Some(pixels) = heic_thumbnail(data) {
        return Ok(pixels);
    }
    let options = heifer::Options { max_threads: 1, max_pixels: PIXELS_MAX };
    let decoded = match heifer::decode_srgb_rgba8(data, &options) {
        // A colour space that can't be converted is shown as it is coded.
        Err(heifer::Error::Unsupported(_)) => heifer::decode_rgba8(data, &options),
        decoded => decoded,
    };
    let decoded = decoded.map_err(|error| error.to_string())?;
    Ok(Pixels::on_white(decoded.width, decoded.height, &decoded.data))
}

fn heic_thumbnail(data: &[u8]) -> Option<Pixels> {
    let file = heifer::heifer_isobmff::HeifFile::parse(data).ok()?;
    let thumbnails = file.referencing_items(file.primary_id, b"thmb").into_iter();
    let side = |id| file.image_size(id).ok().flatten().map_or(0, |(width, height)| width.max(height));
    let (_, id) = thumbnails.map(|id| (side(id), id)).filter(|&(side, _)| side >= EMBEDDED_SIDE_MIN).min()?;
    let decoded = heifer::decode_item(&file, id, 0).ok()?;
    Some(Pixels::on_white(decoded.width, decoded.height, &decoded.to_rgba8()))
}

/// The preview in a RAW file that suits best: the smallest that fills a thumbnail, or else the largest.
fn preview(source: &mut Source) -> io::Result<Decoded> {
    let mut candidates = Vec::new();
    for (offset, length) in preview_places(source)? {
        if offset >= source.length || length > PREVIEW_BYTES_MAX {
            continue;
        }
        let head = source.range(offset, length.min(PREVIEW_HEAD_BYTES))?;
        if let Some(header) = frame_header(&head).filter(|header| header.is_lossy) {
            let side = header.dimensions.width.max(header.dimensions.height);
            candidates.push((side < THUMBNAIL_SIDE, side.abs_diff(THUMBNAIL_SIDE), offset, length));
        }
    }
    candidates.sort_unstable();
    for (_, _, offset, length) in candidates {
        // Many a preview of a damaged file is cut off; the next one may be whole.
        if let Ok(pixels) = jpeg(&source.range(offset, length)?) {
            return Ok(Ok(Some(pixels)));
        }
    }
    Ok(Ok(None))
}

fn preview_places(source: &mut Source) -> io::Result<Vec<(u64, u64)>> {
    let head = source.head()?;
    if source.media == MediaType::Raf {
        let long = |at: usize| Some(u64::from(u32::from_be_bytes(*head.get(at..)?.first_chunk()?)));
        return Ok(long(84).zip(long(88)).into_iter().collect());
    }
    Ok(tiff::pictures(&head).previews)
}

/// The thumbnail's file; nothing when even the lowest quality is too large.
fn encode(pixels: &Pixels) -> Option<ThumbnailImage> {
    let dimensions = Dimensions { width: pixels.width, height: pixels.height };
    QUALITIES.into_iter().find_map(|quality| {
        let mut bytes = Vec::with_capacity(64 << 10);
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode(&pixels.rgb, pixels.width, pixels.height, ExtendedColorType::Rgb8)
            .ok()?;
        let fits = bytes.len() <= THUMBNAIL_BYTES_MAX;
        fits.then_some(ThumbnailImage { bytes, dimensions, media: MediaType::Jpeg })
    })
}
