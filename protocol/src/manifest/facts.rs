//! What a photo says about itself.

use serde::{Deserialize, Serialize};

/// Characters of a text in [`Facts`].
pub const FACT_TEXT_CHARS_MAX: usize = 64;
/// Characters of [`Facts::unreadable`].
pub const UNREADABLE_CHARS_MAX: usize = 200;

/// What was read from a photo's own bytes; everything may be missing.
///
/// Equal content gives equal facts: nothing here comes from file names, file systems or clocks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// When it was taken.
    pub captured: Option<CaptureTime>,
    /// Its size as stored, before [`Facts::orientation`] is applied.
    pub dimensions: Option<Dimensions>,
    /// The EXIF orientation, 1 to 8; 1 (upright) when the photo does not say.
    pub orientation: Orientation,
    /// Where it was taken.
    pub location: Option<Location>,
    /// The camera's maker.
    pub camera_make: Option<String>,
    /// The camera's model.
    pub camera_model: Option<String>,
    /// The lens.
    pub lens: Option<String>,
    /// How long a video runs, in milliseconds.
    pub duration_ms: Option<u64>,
    /// What a still and its moving half share: the identifier that phones write into both files of a live photo.
    pub live_photo: Option<String>,
    /// Why the metadata could not be read, for a person: "the EXIF block ends early". The bytes are kept regardless.
    pub unreadable: Option<String>,
}

impl Facts {
    /// Facts of a file that is kept as bytes because nothing could be read from it.
    #[must_use]
    pub fn unreadable(reason: impl Into<String>) -> Self {
        Self { unreadable: Some(reason.into()), ..Self::default() }.normalized()
    }

    /// The same facts within their bounds: texts trimmed and shortened, impossible values dropped.
    ///
    /// Both ends call this, so a hostile camera or member cannot exceed the bounds.
    #[must_use]
    pub fn normalized(self) -> Self {
        Self {
            captured: self.captured.filter(CaptureTime::is_possible),
            dimensions: self.dimensions.filter(|size| size.width > 0 && size.height > 0),
            orientation: self.orientation,
            location: self.location.filter(Location::is_possible),
            camera_make: bounded(self.camera_make, FACT_TEXT_CHARS_MAX),
            camera_model: bounded(self.camera_model, FACT_TEXT_CHARS_MAX),
            lens: bounded(self.lens, FACT_TEXT_CHARS_MAX),
            duration_ms: self.duration_ms,
            live_photo: bounded(self.live_photo, FACT_TEXT_CHARS_MAX),
            unreadable: bounded(self.unreadable, UNREADABLE_CHARS_MAX),
        }
    }
}

fn bounded(text: Option<String>, characters_max: usize) -> Option<String> {
    let text: String = text?
        .trim_matches(|c: char| c.is_whitespace() || c.is_control())
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(characters_max)
        .collect();
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Where in its bytes a photo said when it was taken. Travels as a number, so that newer sources survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum CaptureSource {
    /// EXIF `DateTimeOriginal`: the shutter.
    Original,
    /// EXIF `DateTimeDigitized`: the scan of a slide, or a camera that writes nothing else.
    Digitized,
    /// EXIF `DateTime`: the last change, the weakest of the three.
    Modified,
    /// GPS date and time, which are UTC.
    Gps,
    /// QuickTime's creation date with its offset.
    QuickTime,
    /// A container's creation time in UTC, as in the movie header.
    Container,
    /// XMP.
    Xmp,
    /// A source that a newer version of Holdfast named.
    Other(u8),
}

impl From<u8> for CaptureSource {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Original,
            2 => Self::Digitized,
            3 => Self::Modified,
            4 => Self::Gps,
            5 => Self::QuickTime,
            6 => Self::Container,
            7 => Self::Xmp,
            other => Self::Other(other),
        }
    }
}

impl From<CaptureSource> for u8 {
    fn from(source: CaptureSource) -> Self {
        match source {
            CaptureSource::Original => 1,
            CaptureSource::Digitized => 2,
            CaptureSource::Modified => 3,
            CaptureSource::Gps => 4,
            CaptureSource::QuickTime => 5,
            CaptureSource::Container => 6,
            CaptureSource::Xmp => 7,
            CaptureSource::Other(number) => number,
        }
    }
}

/// What the clock on the wall showed when the photo was taken.
///
/// Without an offset the moment is unknown, only what the clock showed; nothing guesses a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CaptureTime {
    /// Year, 1 to 9999.
    pub year: i16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
    /// Millisecond, 0 to 999.
    pub millisecond: u16,
    /// Minutes east of UTC, when the photo says so.
    pub offset_minutes: Option<i16>,
    /// Where this was read.
    pub source: CaptureSource,
}

impl CaptureTime {
    /// The capture month: which catalog document the photo belongs to.
    #[must_use]
    pub const fn month(&self) -> (i16, u8) {
        (self.year, self.month)
    }

    /// Whether a clock can show this.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let days = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return false,
        };
        (1..=9999).contains(&self.year)
            && (1..=days).contains(&self.day)
            && self.hour <= 23
            && self.minute <= 59
            && self.second <= 60
            && self.millisecond <= 999
            && self.offset_minutes.is_none_or(|offset| offset.unsigned_abs() <= 18 * 60)
    }

    /// Seconds since the Unix epoch: of the moment when the offset is known, of the same wall clock in UTC when it is
    /// not. Sorts a timeline; is not a moment to compare with other clocks.
    #[must_use]
    pub fn sort_seconds(&self) -> i64 {
        // Days from the civil date, counting years from March so that leap days come last.
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days * 86_400 + seconds - i64::from(self.offset_minutes.unwrap_or(0)) * 60
    }
}

impl std::fmt::Display for CaptureTime {
    /// As ISO 8601, without an offset when it is unknown: `2021-07-03T14:05:09+02:00`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { year, month, day, hour, minute, second, .. } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.offset_minutes {
            Some(offset) => {
                let sign = if offset < 0 { '-' } else { '+' };
                let offset = offset.unsigned_abs();
                write!(f, "{sign}{:02}:{:02}", offset / 60, offset % 60)
            }
            None => Ok(()),
        }
    }
}

/// A size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dimensions {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// How a picture is turned and mirrored before it is shown, in EXIF's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub struct Orientation(u8);

impl Orientation {
    /// Shown as stored.
    pub const UPRIGHT: Self = Self(1);

    /// EXIF's number, 1 to 8.
    #[must_use]
    pub const fn exif(self) -> u8 {
        self.0
    }

    /// Whether width and height swap when it is shown.
    #[must_use]
    pub const fn swaps_sides(self) -> bool {
        self.0 >= 5
    }
}

impl Default for Orientation {
    fn default() -> Self {
        Self::UPRIGHT
    }
}

impl From<u8> for Orientation {
    /// Anything that EXIF does not define counts as upright.
    fn from(number: u8) -> Self {
        if (1..=8).contains(&number) { Self(number) } else { Self::UPRIGHT }
    }
}

impl From<Orientation> for u8 {
    fn from(orientation: Orientation) -> Self {
        orientation.0
    }
}

/// A point on Earth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Degrees north × 10⁷.
    pub latitude_e7: i32,
    /// Degrees east × 10⁷.
    pub longitude_e7: i32,
    /// Millimetres above sea level.
    pub altitude_mm: Option<i32>,
}

impl Location {
    /// Whether it lies on Earth.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.latitude_e7.unsigned_abs() <= 900_000_000 && self.longitude_e7.unsigned_abs() <= 1_800_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(year: i16, month: u8, day: u8) -> CaptureTime {
        CaptureTime {
            year,
            month,
            day,
            hour: 14,
            minute: 5,
            second: 9,
            millisecond: 0,
            offset_minutes: None,
            source: CaptureSource::Original,
        }
    }

    #[test]
    fn a_clock_without_an_offset_stays_without_one() {
        let captured = time(2021, 7, 3);
        assert_eq!(captured.to_string(), "2021-07-03T14:05:09");
        assert_eq!(CaptureTime { offset_minutes: Some(-150), ..captured }.to_string(), "2021-07-03T14:05:09-02:30");
        assert_eq!(captured.sort_seconds(), 1_625_321_109);
        assert_eq!(CaptureTime { offset_minutes: Some(60), ..captured }.sort_seconds(), 1_625_321_109 - 3600);
        assert_eq!(time(1970, 1, 1).sort_seconds(), 14 * 3600 + 5 * 60 + 9);
    }

    #[test]
    fn impossible_values_are_dropped() {
        assert!(time(2024, 2, 29).is_possible());
        for (year, month, day) in [(2023, 2, 29), (0, 1, 1), (2020, 0, 1), (2020, 13, 1), (2020, 4, 31), (2020, 1, 0)] {
            assert!(!time(year, month, day).is_possible(), "{year}-{month}-{day}");
        }
        let facts = Facts {
            captured: Some(time(0, 0, 0)),
            dimensions: Some(Dimensions { width: 0, height: 5 }),
            location: Some(Location { latitude_e7: i32::MIN, longitude_e7: 0, altitude_mm: None }),
            camera_make: Some("  \0".to_owned()),
            camera_model: Some(format!("a\nb{}", "ß".repeat(100))),
            ..Facts::default()
        }
        .normalized();
        assert_eq!(facts.captured, None);
        assert_eq!(facts.dimensions, None);
        assert_eq!(facts.location, None);
        assert_eq!(facts.camera_make, None);
        let model = facts.camera_model.clone().unwrap_or_default();
        assert!(model.starts_with("a bß") && model.chars().count() == FACT_TEXT_CHARS_MAX, "{model}");
        assert_eq!(facts.clone().normalized(), facts);
        assert_eq!(Facts::unreadable("x".repeat(999)).unreadable.map(|text| text.len()), Some(UNREADABLE_CHARS_MAX));
    }

    #[test]
    fn orientations_outside_exif_are_upright() {
        assert_eq!(Orientation::from(6).exif(), 6);
        assert!(Orientation::from(6).swaps_sides());
        assert_eq!(Orientation::from(0), Orientation::UPRIGHT);
        assert_eq!(Orientation::from(9), Orientation::UPRIGHT);
    }
}
