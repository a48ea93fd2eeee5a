//! What nom-exif reads: videos, Canon's CR3, Fujifilm's RAF, and stills that the first reader refuses.

use std::io::{Read, Seek};

use holdfast_protocol::manifest::{CaptureSource, CaptureTime, Dimensions, Facts, Location};
use nom_exif::{
    EntryValue, Exif, ExifDateTime, ExifTag, GPSInfo, MediaKind, MediaParser, MediaSource, TrackInfo, TrackInfoTag,
};

/// A longer video is a container's mistake: a year.
const DURATION_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// The facts in the EXIF of a still.
pub(super) fn still_facts<R: Read + Seek>(reader: R) -> Facts {
    let read = MediaSource::seekable(reader).and_then(|source| MediaParser::new().parse_exif(source));
    match read {
        Ok(entries) => exif_facts(&Exif::from(entries)),
        Err(error) => Facts::unreadable(format!("EXIF: {error}")),
    }
}

/// The facts in a video's container.
pub(super) fn video_facts<R: Read + Seek>(reader: R) -> Facts {
    let read = MediaSource::seekable(reader).and_then(|source| match source.kind() {
        MediaKind::Track => MediaParser::new().parse_track(source).map(|track| track_facts(&track)),
        MediaKind::Image => Ok(Facts::unreadable("named a video, but a still inside")),
    });
    read.unwrap_or_else(|error| Facts::unreadable(format!("the video's header: {error}")))
}

fn exif_facts(exif: &Exif) -> Facts {
    let text = |tag| exif.get(tag).and_then(EntryValue::as_str).map(|text| text.trim().to_owned());
    let number = |tag| exif.get(tag).and_then(EntryValue::try_as_integer).and_then(|number| u32::try_from(number).ok());
    let date =
        |tag, source| exif.get(tag).and_then(EntryValue::as_datetime).and_then(|date| capture_time(&date, source));
    let size = |width, height| Some(Dimensions { width: number(width)?, height: number(height)? });
    let orientation = number(ExifTag::Orientation).and_then(|number| u8::try_from(number).ok()).unwrap_or(1);
    Facts {
        captured: date(ExifTag::DateTimeOriginal, CaptureSource::Original)
            .or_else(|| date(ExifTag::CreateDate, CaptureSource::Digitized))
            .or_else(|| date(ExifTag::ModifyDate, CaptureSource::Modified)),
        dimensions: size(ExifTag::ExifImageWidth, ExifTag::ExifImageHeight)
            .or(size(ExifTag::ImageWidth, ExifTag::ImageHeight)),
        orientation: orientation.into(),
        location: exif.gps_info().and_then(location),
        camera_make: text(ExifTag::Make),
        camera_model: text(ExifTag::Model),
        lens: text(ExifTag::LensModel),
        ..Facts::default()
    }
}

fn track_facts(track: &TrackInfo) -> Facts {
    let text = |tag| track.get(tag).and_then(EntryValue::as_str).map(|text| text.trim().to_owned());
    let number =
        |tag| track.get(tag).and_then(EntryValue::try_as_integer).and_then(|number| u64::try_from(number).ok());
    let side = |tag| number(tag).and_then(|number| u32::try_from(number).ok());
    let size = || Some(Dimensions { width: side(TrackInfoTag::Width)?, height: side(TrackInfoTag::Height)? });
    let date = track.get(TrackInfoTag::CreateDate).and_then(EntryValue::as_datetime);
    Facts {
        captured: date.and_then(|date| {
            let time = capture_time(&date, CaptureSource::QuickTime)?;
            // The movie header knows only UTC; what has an offset comes from QuickTime's own date.
            let source = match time.offset_minutes {
                Some(0) | None => CaptureSource::Container,
                Some(_) => CaptureSource::QuickTime,
            };
            // 1904 is the header's zero: not set.
            Some(CaptureTime { source, ..time }).filter(|time| time.year > 1904)
        }),
        dimensions: size(),
        location: track.gps_info().and_then(location),
        camera_make: text(TrackInfoTag::Make),
        camera_model: text(TrackInfoTag::Model),
        duration_ms: number(TrackInfoTag::DurationMs).filter(|&duration| duration <= DURATION_MS_MAX),
        ..Facts::default()
    }
}

fn location(gps: &GPSInfo) -> Option<Location> {
    let e7 = |degrees: f64| (degrees.is_finite() && degrees.abs() <= 180.0).then(|| (degrees * 1e7).round() as i32);
    let altitude = gps.altitude_meters().filter(|meters| meters.is_finite() && meters.abs() < 1e6);
    Some(Location {
        latitude_e7: e7(gps.latitude_decimal()?)?,
        longitude_e7: e7(gps.longitude_decimal()?)?,
        altitude_mm: altitude.map(|meters| (meters * 1000.0).round() as i32),
    })
    .filter(Location::is_possible)
}

/// A date of nom-exif's, through its text, `2021-07-03 14:05:09.25 +02:00`.
fn capture_time(date: &ExifDateTime, source: CaptureSource) -> Option<CaptureTime> {
    let text = match date {
        ExifDateTime::Aware(date) => date.to_string(),
        ExifDateTime::Naive(date) => date.to_string(),
    };
    let mut words = text.split(' ');
    let (day, clock, offset) = (words.next()?, words.next()?, words.next());
    let mut day = day.split('-');
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.split(':');
    let millisecond: String = fraction.chars().chain("000".chars()).take(3).collect();
    let time = CaptureTime {
        year: day.next()?.parse().ok()?,
        month: day.next()?.parse().ok()?,
        day: day.next()?.parse().ok()?,
        hour: clock.next()?.parse().ok()?,
        minute: clock.next()?.parse().ok()?,
        second: clock.next()?.parse().ok()?,
        millisecond: millisecond.parse().ok()?,
        offset_minutes: offset.and_then(offset_minutes),
        source,
    };
    Some(time).filter(CaptureTime::is_possible)
}

fn offset_minutes(text: &str) -> Option<i16> {
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<i16>().ok()? * 60 + minutes.parse::<i16>().ok()?;
    Some(if text.starts_with('-') { -minutes } else { minutes })
}
