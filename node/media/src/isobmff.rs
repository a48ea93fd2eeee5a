//! What Holdfast itself reads of ISO base media files: how a HEIC's picture is turned, where a CR3 keeps its preview,
//! when a movie was made, how long it runs and which live photo it belongs to.

use std::io;

use heifer::heifer_isobmff::HeifFile;
use heifer::heifer_isobmff::boxes::Property;
use holdfast_protocol::manifest::{CaptureSource, CaptureTime, Dimensions, Orientation};

use super::facts::{Mirror, orientation_of};
use super::source::Source;

/// Boxes looked at on the file's top level.
const TOP_BOXES_MAX: usize = 256;
/// Bytes of a movie header, and of a CR3's preview box.
const BOX_BYTES_MAX: u64 = 32 << 20;
/// Seconds from 1904, where QuickTime's time begins, to 1970.
const QUICKTIME_EPOCH: i64 = 2_082_844_800;

/// The primary picture of a HEIC or AVIF.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PrimaryPicture {
    pub(super) dimensions: Option<Dimensions>,
    pub(super) orientation: Orientation,
}

/// Reads the primary picture's properties, or says why they can't be read.
pub(super) fn primary_picture(data: &[u8]) -> Result<PrimaryPicture, String> {
    let reason = |error| format!("the picture's description: {error}");
    let file = HeifFile::parse(data).map_err(reason)?;
    let (mut quarters, mut mirror, mut dimensions) = (0, None, None);
    for property in file.item_properties(file.primary_id).map_err(reason)? {
        match *property {
            Property::ImageSize { width, height } => dimensions = Some(Dimensions { width, height }),
            Property::Rotation(turns) => quarters = turns,
            Property::Mirror(top_bottom) => {
                mirror = Some(if top_bottom { Mirror::TopBottom } else { Mirror::LeftRight });
            }
            _ => {}
        }
    }
    Ok(PrimaryPicture { dimensions, orientation: orientation_of(quarters, mirror) })
}

/// What a movie's header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Movie {
    pub(super) created: Option<CaptureTime>,
    pub(super) duration_ms: Option<u64>,
    /// The first visible track's size and how it is turned when shown.
    pub(super) picture: Option<(Dimensions, Orientation)>,
    pub(super) content_identifier: Option<String>,
    /// Whether boxes of it reach beyond those that they are in.
    pub(super) is_broken: bool,
}

/// Reads a movie's header, wherever in the file it lies; nothing when there is none.
pub(super) fn movie(source: &mut Source) -> io::Result<Option<Movie>> {
    let Some(body) = top_level_box(source, |kind, _| kind == b"moov")? else { return Ok(None) };
    let mut movie = Movie::default();
    if let Some((created, duration_ms)) = child(&body, b"mvhd").and_then(movie_header) {
        (movie.created, movie.duration_ms) = (created, duration_ms);
    }
    let tracks = children(&body).filter(|(kind, _)| kind == b"trak");
    movie.picture = tracks.filter_map(|(_, track)| track_picture(child(track, b"tkhd")?)).next();
    movie.content_identifier = child(&body, b"meta").and_then(content_identifier);
    // What was cut off because it is long is not looked through.
    movie.is_broken = (body.len() as u64) < BOX_BYTES_MAX && !fits_together(&body);
    Ok(Some(movie))
}

/// Whether the boxes that lead to a movie's samples fill each other.
fn fits_together(mut body: &[u8]) -> bool {
    // QuickTime ends some lists of boxes with four zeros.
    while body.len() >= 8 {
        let Some((kind, this, rest)) = first_box(body) else { return false };
        if matches!(&kind, b"trak" | b"mdia" | b"minf" | b"stbl") && !fits_together(this) {
            return false;
        }
        body = rest;
    }
    true
}

/// The preview that a CR3 keeps beside its sensor data.
pub(super) fn cr3_preview(source: &mut Source) -> io::Result<Option<Vec<u8>>> {
    const PREVIEW: &[u8; 16] = b"\xea\xf4\x2b\x5e\x1c\x98\x4b\x88\xb9\xfb\xb7\xdc\x40\x6e\x4d\x16";
    let Some(body) = top_level_box(source, |kind, start| kind == b"uuid" && start == PREVIEW)? else { return Ok(None) };
    let start = body.windows(3).position(|bytes| bytes == b"\xFF\xD8\xFF");
    Ok(start.map(|start| body[start..].to_vec()))
}

/// The body of the first box on the top level of which kind and first 16 bytes are `wanted`.
fn top_level_box(source: &mut Source, wanted: impl Fn(&[u8; 4], &[u8]) -> bool) -> io::Result<Option<Vec<u8>>> {
    let mut at = 0u64;
    for _ in 0..TOP_BOXES_MAX {
        let head = source.range(at, 32)?;
        let Some((kind, head_length, length)) = box_header(&head) else { return Ok(None) };
        let length = if length == 0 { source.length.saturating_sub(at) } else { length };
        if wanted(&kind, head.get(head_length..head_length + 16).unwrap_or_default()) {
            let body = length.saturating_sub(head_length as u64).min(BOX_BYTES_MAX);
            return source.range(at + head_length as u64, body).map(Some);
        }
        match at.checked_add(length) {
            Some(next) if length >= 8 && next < source.length => at = next,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// A box's kind, and the lengths of its head and of all of it; 0: up to the end.
fn box_header(head: &[u8]) -> Option<([u8; 4], usize, u64)> {
    let length = u32::from_be_bytes(*head.first_chunk()?);
    let kind = *head.get(4..)?.first_chunk()?;
    match length {
        1 => Some((kind, 16, u64::from_be_bytes(*head.get(8..)?.first_chunk()?))),
        length => Some((kind, 8, length.into())),
    }
}

/// The bodies of the boxes in `body`.
fn children(mut body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (kind, this, rest) = first_box(body)?;
        body = rest;
        Some((kind, this))
    })
}

/// The kind and the body of the first box in `body`, and what is behind it.
fn first_box(body: &[u8]) -> Option<([u8; 4], &[u8], &[u8])> {
    let (kind, head_length, length) = box_header(body)?;
    let length = if length == 0 { body.len() } else { usize::try_from(length).ok()? };
    let (this, rest) = body.split_at_checked(length)?;
    Some((kind, this.get(head_length..)?, rest))
}

fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|(found, _)| found == kind).map(|(_, body)| body)
}

/// When a movie was made and how many milliseconds it runs.
fn movie_header(body: &[u8]) -> Option<(Option<CaptureTime>, Option<u64>)> {
    let long = |at: usize| Some(u64::from(u32::from_be_bytes(*body.get(at..)?.first_chunk()?)));
    let wide = |at: usize| Some(u64::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let (created, scale, duration) = match body.first()? {
        0 => (long(4)?, long(12)?, long(16)?),
        1 => (wide(4)?, long(20)?, wide(24)?),
        _ => return None,
    };
    let unknown = duration == u64::from(u32::MAX) || duration == u64::MAX;
    let duration_ms = duration.checked_mul(1000).filter(|_| !unknown).and_then(|duration| duration.checked_div(scale));
    Some((utc(created), duration_ms))
}

/// The size of a track and how its matrix turns it; nothing for sound.
fn track_picture(header: &[u8]) -> Option<(Dimensions, Orientation)> {
    let matrix = if *header.first()? == 0 { 40 } else { 52 };
    let fixed = |at: usize| Some(i32::from_be_bytes(*header.get(matrix + at..)?.first_chunk()?) >> 16);
    let turn = match (fixed(0)?, fixed(4)?, fixed(12)?, fixed(16)?) {
        (0, 1, -1, 0) => 6,
        (-1, 0, 0, -1) => 3,
        (0, -1, 1, 0) => 8,
        _ => 1,
    };
    let (width, height) = (fixed(36)?.unsigned_abs(), fixed(40)?.unsigned_abs());
    (width > 0 && height > 0).then_some((Dimensions { width, height }, turn.into()))
}

/// QuickTime's seconds as a clock in UTC shows them; its zero means that nobody set it.
fn utc(seconds: u64) -> Option<CaptureTime> {
    if seconds == 0 {
        return None;
    }
    let moment = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?.checked_sub(QUICKTIME_EPOCH)?).ok()?;
    let clock = jiff::tz::Offset::UTC.to_datetime(moment);
    Some(CaptureTime {
        year: clock.year(),
        month: clock.month().cast_unsigned(),
        day: clock.day().cast_unsigned(),
        hour: clock.hour().cast_unsigned(),
        minute: clock.minute().cast_unsigned(),
        second: clock.second().cast_unsigned(),
        millisecond: 0,
        offset_minutes: Some(0),
        source: CaptureSource::Container,
    })
}

/// The identifier that a live photo's video shares with its still.
fn content_identifier(meta: &[u8]) -> Option<String> {
    let keys = child(meta, b"keys")?;
    let index = children(keys.get(8..)?).position(|(_, name)| name == b"com.apple.quicktime.content.identifier")?;
    let number = u32::try_from(index).ok()?.checked_add(1)?.to_be_bytes();
    let item = child(child(meta, b"ilst")?, &number)?;
    // Behind the value's type and its language.
    let text = child(item, b"data")?.get(8..)?;
    Some(String::from_utf8_lossy(text).into_owned())
}
