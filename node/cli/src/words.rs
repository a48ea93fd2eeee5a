//! Numbers, sizes, times and foreign text as people read them.

use holdfast_protocol::time::WallTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use unicode_width::UnicodeWidthStr as _;

/// `1204` → `1,204`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 photo`, `1,204 photos`, `2 copies`, `2 days`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let number_text = thousands(number);
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("{number_text} {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{number_text} {stem}ies"),
        _ => format!("{number_text} {noun}s"),
    }
}

/// Decimal units, two significant digits at least: `999 B`, `1.2 kB`, `12 MB`, `345 GB`.
pub(super) fn bytes(length: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if length < 1000 {
        return format!("{length} B");
    }
    let mut scaled = length as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 rounds to 1000, which belongs to the next unit.
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    // 9.95 rounds to 10.0, which is written 10.
    if scaled < 9.95 { format!("{scaled:.1} {}", UNITS[unit]) } else { format!("{scaled:.0} {}", UNITS[unit]) }
}

/// How long something takes, in one unit: `4 s`, `3 min`, `2 h`, `5 days`.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..90 => format!("{} s", seconds.max(1)),
        90..5_400 => format!("{} min", (seconds + 30) / 60),
        5_400..172_800 => format!("{} h", (seconds + 1_800) / 3_600),
        _ => count((seconds + 43_200) / 86_400, "day"),
    }
}

/// How long ago something was: `just now`, `3 min ago`. A clock that runs ahead makes it `just now`.
pub(super) fn ago(then: WallTime, now: WallTime) -> String {
    match seconds(then, now) {
        0..10 => "just now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

/// Whole seconds from one time to another; none when the other comes first.
pub(super) fn seconds(from: WallTime, to: WallTime) -> u64 {
    u64::try_from(to.0.saturating_sub(from.0) / 1000).unwrap_or(0)
}

/// `18:03:12` on the clock of `zone`.
pub(super) fn time_of_day(time: WallTime, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%H:%M:%S").to_string()
}

/// `2021-07-04 18:03` on the clock of `zone`.
pub(super) fn moment(time: WallTime, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%Y-%m-%d %H:%M").to_string()
}

fn zoned(time: WallTime, zone: &TimeZone) -> Zoned {
    // A time beyond the calendar is a broken clock; the epoch says so plainly.
    Timestamp::from_millisecond(time.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

/// Text from files and other devices with everything that could steer a terminal escaped: what differs looks different.
pub(super) fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if !steers(c) => printable.push(c),
            _ if c.is_ascii() => printable.push_str(&format!("\\x{:02X}", u32::from(c))),
            _ => printable.extend(c.escape_unicode()),
        }
    }
    printable
}

/// Rows as columns, each as wide as its widest cell, two spaces apart; the last one is ragged. Columns in `right` are
/// aligned to the right.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], right: &[usize]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(cell.width());
        }
    }
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.width());
            if column > 0 {
                line.push_str("  ");
            }
            if right.contains(&column) {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_in_thousands() {
        let cases = [(0, "0"), (7, "7"), (999, "999"), (1000, "1,000"), (1204, "1,204"), (1_000_000, "1,000,000")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(count(0, "photo"), "0 photos");
        assert_eq!(count(1, "photo"), "1 photo");
        assert_eq!(count(1204, "photo"), "1,204 photos");
        assert_eq!(count(1, "copy"), "1 copy");
        assert_eq!(count(2, "copy"), "2 copies");
        assert_eq!(count(2, "day"), "2 days");
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1234, "1.2 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (12_345_678, "12 MB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (1_200_000_000, "1.2 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (length, text) in cases {
            assert_eq!(bytes(length), text);
        }
    }

    #[test]
    fn durations_have_one_unit() {
        let cases = [
            (0, "1 s"),
            (4, "4 s"),
            (89, "89 s"),
            (90, "2 min"),
            (3_599, "60 min"),
            (5_400, "2 h"),
            (86_400, "24 h"),
            (172_800, "2 days"),
            (1_036_800, "12 days"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn what_was_heard_in_the_future_was_heard_just_now() {
        assert_eq!(ago(WallTime(0), WallTime(180_000)), "3 min ago");
        assert_eq!(ago(WallTime(1_000_000), WallTime(0)), "just now");
        assert_eq!(ago(WallTime(i64::MIN), WallTime(i64::MAX)).split(' ').nth(1), Some("days"));
    }

    #[test]
    fn times_are_the_zones() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(time_of_day(WallTime(1_625_421_792_000), &zone), "20:03:12");
        assert_eq!(moment(WallTime(1_625_421_792_000), &TimeZone::UTC), "2021-07-04 18:03");
        assert_eq!(moment(WallTime(i64::MAX), &TimeZone::UTC), "1970-01-01 00:00");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("IMG\u{1b}[2J\n\u{202e}gpj.exe"), r"IMG\x1B[2J\x0A\u{202e}gpj.exe");
        assert_eq!(printable("Übersicht 日本.heic"), "Übersicht 日本.heic");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a".into(), "1".into(), "x".into()], ["bcd".into(), "22".into(), String::new()]];
        assert_eq!(columns(&rows, &[1]), ["a     1  x", "bcd  22"]);
        // Letters that take two cells, and marks that take none.
        let rows = [["日本", "1"], ["Zoe\u{308}", "2"], ["abcde", "3"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows, &[]), ["日本   1", "Zoe\u{308}    2", "abcde  3"]);
    }
}
