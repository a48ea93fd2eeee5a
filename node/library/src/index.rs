//! What the index of a node is told: [`IndexChange`]s, which the library derives from changes of its catalog.

use std::fmt;

use holdfast_protocol::id::{DeviceId, PhotoId};
use holdfast_protocol::time::WallTime;

use crate::FilePath;

/// One change of what the index shows. Changes may come again: the last one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexChange {
    /// A photo is known, with its immutable facts. Names, captions, tags and albums that it had are forgotten: those that
    /// it has follow.
    Photo(Box<IndexedPhoto>),
    /// A photo is live, trashed or erased. Unset, it is live.
    State {
        /// The photo.
        photo: PhotoId,
        /// Its state.
        state: IndexedState,
    },
    /// What a photo is called: a file of it that is there, or the last one that was.
    Name {
        /// The photo.
        photo: PhotoId,
        /// The key of the name in the catalog.
        key: [u8; 16],
        /// Where the file lies, or lay.
        name: IndexedName,
    },
    /// A photo is a favourite or not.
    Favourite {
        /// The photo.
        photo: PhotoId,
        /// Whether it is.
        favourite: bool,
    },
    /// A photo's captions: none, one, or several that were written at the same time, the shown one first.
    Caption {
        /// The photo.
        photo: PhotoId,
        /// The captions.
        captions: Vec<String>,
    },
    /// A photo has a tag or not.
    Tag {
        /// The photo.
        photo: PhotoId,
        /// The tag's id in the catalog.
        tag: String,
        /// Whether it has it.
        tagged: bool,
    },
    /// A tag's name; `None` when it has none any more.
    TagName {
        /// The tag's id in the catalog.
        tag: String,
        /// What people call it.
        name: Option<String>,
    },
    /// A photo's place in an album; `None` when it is not in it.
    Album {
        /// The photo.
        photo: PhotoId,
        /// The album's id in the catalog.
        album: String,
        /// Sorts the photo among the others of the album.
        position: Option<String>,
    },
    /// An album's name; `None` when it has none any more.
    AlbumName {
        /// The album's id in the catalog.
        album: String,
        /// What people call it.
        name: Option<String>,
    },
    /// The date that a person set; `None` shows the camera's again.
    Date {
        /// The photo.
        photo: PhotoId,
        /// The date.
        captured: Option<Captured>,
    },
    /// The newer version of an edited file; it hides the older one from lists. `None` shows it again.
    Successor {
        /// The older photo.
        photo: PhotoId,
        /// The newer one.
        successor: Option<PhotoId>,
    },
}

/// The immutable facts of a photo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedPhoto {
    /// The photo.
    pub photo: PhotoId,
    /// The catalog document that it is in, as text: `m/2021-07`.
    pub document: String,
    /// The device that imported it.
    pub device: Option<DeviceId>,
    /// When it was taken, if that is known.
    pub captured: Option<Captured>,
    /// What it is: `image/jpeg`.
    pub media: String,
    /// The length of the original.
    pub bytes: u64,
    /// Pixels from left to right, before orientation; 0 when unknown.
    pub width: u32,
    /// Pixels from top to bottom, before orientation; 0 when unknown.
    pub height: u32,
    /// The Exif orientation, 1 to 8; 1 when unknown.
    pub orientation: u8,
    /// How long it plays, in milliseconds; 0 for a still.
    pub duration_ms: u64,
    /// Latitude and longitude in units of 10⁻⁷ degrees.
    pub location: Option<(i32, i32)>,
    /// The camera's maker, model and lens, as one line.
    pub camera: Option<String>,
    /// Why the metadata could not be read.
    pub unreadable: Option<String>,
}

/// Where a photo's file lies, or lay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedName {
    /// The path in its folder, the folder's name first.
    pub path: FilePath,
    /// When the file was last modified, in nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Who may read, write and execute it: nine bits; `None` when that is not known.
    pub mode: Option<u16>,
    /// Since when the file is known to be gone; `None` while it is there.
    pub gone_since: Option<WallTime>,
}

/// Whether a photo is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IndexedState {
    /// It is in the library.
    #[default]
    Live,
    /// It is in the trash.
    Trashed,
    /// Its bytes are given up.
    Erased,
}

/// A date as the camera's own clock showed it, and how far that clock was from UTC when the file says so.
///
/// Dates sort by what the camera showed: a photo taken at noon stands at noon, wherever it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Captured {
    local_ms: i64,
    offset_minutes: Option<i16>,
}

const DAY_MS: i64 = 86_400_000;

impl Captured {
    /// `local_ms` milliseconds after 1970-01-01T00:00:00 on the camera's clock.
    #[must_use]
    pub const fn from_local_ms(local_ms: i64, offset_minutes: Option<i16>) -> Self {
        Self { local_ms, offset_minutes }
    }

    /// A date and a time of day; `None` when there is no such date or time. `second` may be 60 (a leap second).
    #[must_use]
    pub fn from_civil(
        (year, month, day): (i16, u8, u8),
        (hour, minute, second, millisecond): (u8, u8, u8, u16),
        offset_minutes: Option<i16>,
    ) -> Option<Self> {
        let in_range = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60
            && millisecond < 1000;
        let time_ms = ((i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second)) * 1000;
        let local_ms = days_from_civil(year, month, day) * DAY_MS + time_ms + i64::from(millisecond);
        in_range.then_some(Self { local_ms, offset_minutes })
    }

    /// Milliseconds after 1970-01-01T00:00:00 on the camera's clock.
    #[must_use]
    pub const fn local_ms(self) -> i64 {
        self.local_ms
    }

    /// Minutes that the camera's clock was ahead of UTC, when known.
    #[must_use]
    pub const fn offset_minutes(self) -> Option<i16> {
        self.offset_minutes
    }

    /// The year, month and day.
    #[must_use]
    pub fn date(self) -> (i64, u8, u8) {
        civil_from_days(self.local_ms.div_euclid(DAY_MS))
    }
}

/// `2021-07-04T18:03:12`, and `+02:00` behind it when the offset is known.
impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let seconds = self.local_ms.rem_euclid(DAY_MS) / 1000;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.offset_minutes {
            None => Ok(()),
            Some(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", minutes.unsigned_abs() / 60, minutes.unsigned_abs() % 60)
            }
        }
    }
}

fn days_in_month(year: i16, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Both directions of the proleptic Gregorian calendar, counted in eras of 400 years that begin on 1 March, as in
// Howard Hinnant's "chrono-compatible low-level date algorithms".

fn days_from_civil(year: i16, month: u8, day: u8) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_read_as_the_camera_showed_them() {
        let summer = Captured::from_civil((2021, 7, 4), (18, 3, 12, 250), None).unwrap();
        assert_eq!(summer.to_string(), "2021-07-04T18:03:12");
        assert_eq!(Captured::from_local_ms(summer.local_ms(), Some(120)).to_string(), "2021-07-04T18:03:12+02:00");
        assert_eq!(Captured::from_local_ms(0, Some(-210)).to_string(), "1970-01-01T00:00:00-03:30");
        assert_eq!(Captured::from_local_ms(-1, None).to_string(), "1969-12-31T23:59:59");
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        let noon = (12, 0, 0, 0);
        for date in [(2021, 2, 29), (1900, 2, 29), (2021, 0, 1), (2021, 13, 1), (2021, 4, 31), (2021, 1, 0)] {
            assert_eq!(Captured::from_civil(date, noon, None), None, "{date:?}");
        }
        for time in [(24, 0, 0, 0), (0, 60, 0, 0), (0, 0, 61, 0), (0, 0, 0, 1000)] {
            assert_eq!(Captured::from_civil((2021, 1, 1), time, None), None, "{time:?}");
        }
        assert!(Captured::from_civil((2024, 2, 29), noon, None).is_some());
    }

    proptest! {
        #[test]
        fn every_date_comes_back(year in 0i16..9999, month in 1u8..=12, day in 1u8..=28) {
            let captured = Captured::from_civil((year, month, day), (23, 59, 59, 999), None).unwrap();
            prop_assert_eq!(captured.date(), (i64::from(year), month, day));
        }
    }
}
