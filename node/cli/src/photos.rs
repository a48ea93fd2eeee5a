//! `holdfast photos`: a line a photo.

use holdfast::api::view::{Photo, PhotoPage, Status};
use holdfast::api::{PhotoSelection, Request, Response};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::paint::Paint;
use super::session::{Session, unexpected};
use super::status::goal;
use super::terminal::Form;
use super::words::{bytes, columns, count, printable, thousands};

/// Photos that are asked for at once.
const PAGE: u32 = 500;

/// A photo as a JSON line of its own.
#[derive(Serialize)]
#[serde(tag = "type", rename = "photo")]
struct PhotoLine<'a> {
    #[serde(flatten)]
    photo: &'a Photo,
}

pub(super) const fn selection(below_target: bool) -> PhotoSelection {
    if below_target { PhotoSelection::Unsafe } else { PhotoSelection::All }
}

pub(super) fn run(
    session: &Session<'_>,
    selection: PhotoSelection,
    search: Option<String>,
    limit: Option<u64>,
) -> Result<Exit, Failure> {
    let mut client = session.connect()?;
    let mut left = limit.unwrap_or(u64::MAX);
    let (mut shown, mut after) = (0_u64, None);
    while left > 0 {
        let limit = u32::try_from(left).map_or(PAGE, |left| left.min(PAGE));
        let request = Request::Photos { selection, search: search.clone(), after, limit };
        let response = client.ask(&request, |_| {})?;
        let Response::Photos(PhotoPage { photos, next }) = response else { return Err(unexpected(&response)) };
        match session.terminal.form() {
            Form::Json => photos.iter().try_for_each(|photo| session.terminal.answer_json(PhotoLine { photo }))?,
            Form::Human if photos.is_empty() => {}
            Form::Human => session.terminal.answer(&lines(&photos, session.terminal.paint()))?,
        }
        shown += photos.len() as u64;
        left -= (photos.len() as u64).min(left);
        after = next;
        if after.is_none() {
            break;
        }
    }
    let more = after.is_some() || limit == Some(0);
    let (summary, exit) = match (selection, &search) {
        // Of photos whose records are still on their way only the status knows.
        (PhotoSelection::Unsafe, None) => {
            let response = session.ask(&Request::Status)?;
            let Response::Status(status) = &response else { return Err(unexpected(&response)) };
            let exit = if status.safe < status.photos { Exit::BelowTarget } else { Exit::Done };
            (below_target(shown, more, status), exit)
        }
        (_, Some(words)) if shown == 0 => (format!("No photo matches `{}`.", printable(words)), Exit::Done),
        _ if shown == 0 => ("No photos yet.".to_owned(), Exit::Done),
        _ if more => (format!("The first {}; a higher --limit shows more.", count(shown, "photo")), Exit::Done),
        _ => (format!("{}.", count(shown, "photo")), Exit::Done),
    };
    if session.terminal.form() == Form::Human {
        session.terminal.note(&summary);
    }
    Ok(exit)
}

/// How many photos are below their target, whether they were shown or not.
fn below_target(shown: u64, more: bool, status: &Status) -> String {
    let (below, goal) = (status.photos.saturating_sub(status.safe), goal(status.target));
    match below.saturating_sub(shown) {
        0 if below == 0 && status.photos == 0 => "No photos yet.".to_owned(),
        0 if below == 0 => format!("Every photo is safe {goal}."),
        0 => format!("{} not safe {goal}.", count(below, "photo")),
        _ if more => format!("{} not safe {goal}; a higher --limit shows more.", count(below, "photo")),
        unlisted => format!(
            "{} not safe {goal}; {} of them cannot be listed here yet.",
            count(below, "photo"),
            thousands(unlisted)
        ),
    }
}

/// `2 copies in 2 places`.
pub(super) fn copies(photo: &Photo) -> String {
    format!("{} in {}", count(photo.copies.into(), "copy"), count(photo.places.into(), "place"))
}

/// `2021-07-04 18:03`: to the minute, without the offset.
fn day_and_minute(captured: Option<&str>) -> String {
    captured.and_then(|date| date.get(..16)).map_or_else(|| "undated".to_owned(), |date| date.replace('T', " "))
}

fn lines(photos: &[Photo], paint: Paint) -> String {
    let row = |photo: &Photo| {
        [
            photo.id.short(),
            day_and_minute(photo.captured.as_deref()),
            bytes(photo.bytes),
            copies(photo),
            if photo.safe { "safe" } else { "unsafe" }.to_owned(),
            printable(&photo.name),
        ]
    };
    let rows: Vec<_> = photos.iter().map(row).collect();
    let paint_line = |(photo, line): (&Photo, String)| if photo.safe { line } else { paint.bad(&line) };
    photos.iter().zip(columns(&rows, &[2])).map(paint_line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use holdfast_protocol::id::PhotoId;

    use super::*;
    use holdfast::api::view::{Evidence, Moving};

    pub(crate) fn photo(id: u8, name: &str, copies: u32) -> Photo {
        Photo {
            id: PhotoId::from_bytes([id; 32]),
            name: name.into(),
            captured: Some("2021-07-04T18:03:12+02:00".into()),
            media: "image/heic".into(),
            bytes: 2_100_000,
            width: 4032,
            height: 3024,
            copies,
            places: copies,
            safe: copies >= 2,
            evidence: Evidence::Claimed,
            favourite: false,
            caption: None,
        }
    }

    #[test]
    fn a_photo_is_a_line() {
        let mut undated = photo(0x0b, "scan\u{1b}[2J.png", 1);
        (undated.captured, undated.bytes) = (None, 980);
        assert_eq!(
            lines(&[photo(0xa7, "IMG_0412.HEIC", 2), undated], Paint::Plain),
            "a7a7a7a7  2021-07-04 18:03  2.1 MB  2 copies in 2 places  safe    IMG_0412.HEIC\n\
             0b0b0b0b  undated            980 B  1 copy in 1 place     unsafe  scan\\x1B[2J.png"
        );
    }

    #[test]
    fn photos_that_cannot_be_listed_yet_are_counted() {
        let status = |photos, safe| crate::status::tests::status(photos, safe, Moving::default());
        assert_eq!(below_target(0, false, &status(40, 40)), "Every photo is safe in 2 places.");
        assert_eq!(below_target(0, false, &status(0, 0)), "No photos yet.");
        assert_eq!(below_target(2, false, &status(40, 38)), "2 photos not safe in 2 places.");
        assert_eq!(
            below_target(500, true, &status(4000, 2000)),
            "2,000 photos not safe in 2 places; a higher --limit shows more."
        );
        assert_eq!(
            below_target(0, false, &status(4000, 2000)),
            "2,000 photos not safe in 2 places; 2,000 of them cannot be listed here yet."
        );
    }

    #[test]
    fn a_photo_is_a_json_line() {
        let line = serde_json::to_string(&holdfast::api::Versioned::new(PhotoLine { photo: &photo(1, "a.jpg", 2) }));
        assert_eq!(
            line.unwrap(),
            format!(
                r#"{{"schema":1,"type":"photo","id":"{}","name":"a.jpg","captured":"2021-07-04T18:03:12+02:00","media":"image/heic","bytes":2100000,"width":4032,"height":3024,"copies":2,"places":2,"safe":true,"evidence":"claimed","favourite":false,"caption":null}}"#,
                "01".repeat(32)
            )
        );
    }
}
