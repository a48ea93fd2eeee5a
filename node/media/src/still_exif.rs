//! EXIF of stills: read by kamadak-exif, by nom-exif where that refuses the container.

use std::io::Cursor;

use exif::{DateTime, Error, Exif, In, Reader, Tag, Value};
use holdfast_protocol::manifest::{CaptureSource, CaptureTime, Dimensions, Facts, Location};

use super::track;

/// The facts in the EXIF block of a JPEG, PNG, WebP, HEIC or AVIF.
pub(super) fn container_facts(data: &[u8]) -> Facts {
    let read = reader().read_from_container(&mut Cursor::new(data));
    match facts_or_reason(read) {
        Ok(facts) => facts,
        Err(reason) => {
            let second = track::still_facts(Cursor::new(data));
            Facts { unreadable: Some(reason), ..second }
        }
    }
}

/// The facts in a TIFF's own directories.
pub(super) fn tiff_facts(data: Vec<u8>) -> Facts {
    facts_or_reason(reader().read_raw(data)).unwrap_or_else(Facts::unreadable)
}

fn reader() -> Reader {
    let mut reader = Reader::new();
    reader.continue_on_error(true);
    reader
}

/// What was read, in part or whole; a photo without EXIF has no facts and nothing unreadable.
fn facts_or_reason(read: Result<Exif, Error>) -> Result<Facts, String> {
    let mut trouble = None;
    let read = read.or_else(|error| {
        error.distill_partial_result(|errors| trouble = errors.first().map(|error| format!("EXIF: {error}")))
    });
    match read {
        Ok(exif) => Ok(Facts { unreadable: trouble, ..facts(&exif) }),
        Err(Error::NotFound(_)) => Ok(Facts::default()),
        Err(error) => Err(format!("EXIF: {error}")),
    }
}

fn facts(exif: &Exif) -> Facts {
    let orientation = number(exif, Tag::Orientation).and_then(|number| u8::try_from(number).ok()).unwrap_or(1);
    let size = |width, height| Some(Dimensions { width: number(exif, width)?, height: number(exif, height)? });
    Facts {
        captured: captured(exif),
        dimensions: size(Tag::PixelXDimension, Tag::PixelYDimension).or(size(Tag::ImageWidth, Tag::ImageLength)),
        orientation: orientation.into(),
        location: location(exif),
        camera_make: text(exif, Tag::Make),
        camera_model: text(exif, Tag::Model),
        lens: text(exif, Tag::LensModel),
        live_photo: value(exif, Tag::MakerNote).and_then(apple_content_identifier),
        ..Facts::default()
    }
}

fn value(exif: &Exif, tag: Tag) -> Option<&Value> {
    exif.get_field(tag, In::PRIMARY).map(|field| &field.value)
}

fn number(exif: &Exif, tag: Tag) -> Option<u32> {
    value(exif, tag)?.get_uint(0)
}

fn ascii(exif: &Exif, tag: Tag) -> Option<&[u8]> {
    match value(exif, tag)? {
        Value::Ascii(texts) => texts.first().map(Vec::as_slice),
        _ => None,
    }
}

fn text(exif: &Exif, tag: Tag) -> Option<String> {
    let bytes = ascii(exif, tag)?;
    let bytes = bytes.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(bytes).trim().to_owned()).filter(|text| !text.is_empty())
}

/// The first date that a clock can show: the shutter's, the scanner's, the satellites', the last change's.
fn captured(exif: &Exif) -> Option<CaptureTime> {
    let original = || {
        let tags = [Tag::DateTimeOriginal, Tag::SubSecTimeOriginal, Tag::OffsetTimeOriginal];
        wall_clock(exif, tags, CaptureSource::Original)
    };
    let digitized = || {
        let tags = [Tag::DateTimeDigitized, Tag::SubSecTimeDigitized, Tag::OffsetTimeDigitized];
        wall_clock(exif, tags, CaptureSource::Digitized)
    };
    let modified = || wall_clock(exif, [Tag::DateTime, Tag::SubSecTime, Tag::OffsetTime], CaptureSource::Modified);
    original().or_else(digitized).or_else(|| satellite_clock(exif)).or_else(modified)
}

fn wall_clock(exif: &Exif, [date, fraction, offset]: [Tag; 3], source: CaptureSource) -> Option<CaptureTime> {
    let mut read = DateTime::from_ascii(ascii(exif, date)?).ok()?;
    // A fraction or an offset that can't be read leaves the date as it is.
    if let Some(fraction) = ascii(exif, fraction) {
        let _ = read.parse_subsec(fraction);
    }
    if let Some(offset) = ascii(exif, offset) {
        let _ = read.parse_offset(offset);
    }
    let time = CaptureTime {
        year: i16::try_from(read.year).ok()?,
        month: read.month,
        day: read.day,
        hour: read.hour,
        minute: read.minute,
        second: read.second,
        millisecond: read.nanosecond.map_or(0, |nanosecond| (nanosecond / 1_000_000).min(999) as u16),
        offset_minutes: read.offset.filter(|offset| offset.unsigned_abs() <= 18 * 60),
        source,
    };
    Some(time).filter(CaptureTime::is_possible)
}

fn satellite_clock(exif: &Exif) -> Option<CaptureTime> {
    let date = std::str::from_utf8(ascii(exif, Tag::GPSDateStamp)?).ok()?;
    let mut date = date.trim_end_matches('\0').split([':', '-']).map(|part| part.trim().parse::<u16>().ok());
    let Value::Rational(clock) = value(exif, Tag::GPSTimeStamp)? else { return None };
    let whole = |index: usize| {
        let part: &exif::Rational = clock.get(index)?;
        u8::try_from(part.num.checked_div(part.denom)?).ok()
    };
    let time = CaptureTime {
        year: i16::try_from(date.next()??).ok()?,
        month: u8::try_from(date.next()??).ok()?,
        day: u8::try_from(date.next()??).ok()?,
        hour: whole(0)?,
        minute: whole(1)?,
        second: whole(2)?,
        millisecond: 0,
        offset_minutes: Some(0),
        source: CaptureSource::Gps,
    };
    Some(time).filter(CaptureTime::is_possible)
}

fn location(exif: &Exif) -> Option<Location> {
    let axis = |tag, reference, negative: u8| {
        let Value::Rational(parts) = value(exif, tag)? else { return None };
        let degrees = degrees_e7(parts)?;
        let is_negative = ascii(exif, reference)?.first()?.eq_ignore_ascii_case(&negative);
        Some(if is_negative { -degrees } else { degrees })
    };
    let altitude = || {
        let Value::Rational(parts) = value(exif, Tag::GPSAltitude)? else { return None };
        let height = i32::try_from(ratio(parts.first()?, 1000)?).ok()?;
        Some(if number(exif, Tag::GPSAltitudeRef) == Some(1) { -height } else { height })
    };
    Some(Location {
        latitude_e7: axis(Tag::GPSLatitude, Tag::GPSLatitudeRef, b'S')?,
        longitude_e7: axis(Tag::GPSLongitude, Tag::GPSLongitudeRef, b'W')?,
        altitude_mm: altitude(),
    })
    .filter(Location::is_possible)
}

/// Degrees, minutes and seconds as degrees × 10⁷; minutes and seconds may be missing.
fn degrees_e7(parts: &[exif::Rational]) -> Option<i32> {
    // In thousandths of 1/3600 × 10⁻⁷ degrees, so that rounding happens once.
    let [degrees, minutes, seconds] = [(0, 3600), (1, 60), (2, 1)].map(|(index, weight)| match parts.get(index) {
        Some(part) => ratio(part, weight * 10_000_000 * 1000),
        None if index > 0 => Some(0),
        None => None,
    });
    let sum = degrees?.checked_add(minutes.unwrap_or(0))?.checked_add(seconds.unwrap_or(0))?;
    i32::try_from((sum + 1_800_000) / 3_600_000).ok()
}

/// `part` × `factor`, rounded to the nearest whole number.
fn ratio(part: &exif::Rational, factor: i128) -> Option<i128> {
    let denominator = i128::from(part.denom);
    (denominator > 0).then(|| (i128::from(part.num) * factor + denominator / 2) / denominator)
}

/// What Apple's maker note shares between a live photo's still and its video: entry 17.
fn apple_content_identifier(note: &Value) -> Option<String> {
    let Value::Undefined(note, _) = note else { return None };
    if !note.starts_with(b"Apple iOS\0") || note.get(12..14)? != b"MM" {
        return None;
    }
    let short = |at: usize| Some(u16::from_be_bytes(*note.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u32::from_be_bytes(*note.get(at..)?.first_chunk()?) as usize);
    for entry in 0..usize::from(short(14)?).min(256) {
        let at = 16 + entry * 12;
        if short(at)? == 17 && short(at + 2)? == 2 {
            let (length, offset) = (long(at + 4)?, long(at + 8)?);
            let text = note.get(offset..offset.checked_add(length)?)?;
            let text = text.split(|&byte| byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty());
        }
    }
    None
}
