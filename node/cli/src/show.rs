//! `holdfast show`: one photo, and who holds it.

use super::exit::Exit;
use super::failure::Failure;
use super::paint::Paint;
use super::photos::copies;
use super::session::{Session, now, unexpected};
use super::status::goal;
use super::words::{ago, bytes, columns, count, moment, printable};

use holdfast::api::view::{Evidence, Holder, PhotoDetail};
use holdfast::api::{Request, Response};
use holdfast_protocol::time::WallTime;
use jiff::tz::TimeZone;

pub(super) fn run(session: &Session<'_>, photo: String) -> Result<Exit, Failure> {
    let response = session.ask(&Request::Show { photo })?;
    let Response::Show(detail) = &response else { return Err(unexpected(&response)) };
    session.show(&response, detail.as_ref(), |detail| {
        lines(detail, now(), session.terminal.zone(), session.terminal.paint())
    })?;
    Ok(Exit::Done)
}

fn lines(detail: &PhotoDetail, now: WallTime, zone: &TimeZone, paint: Paint) -> String {
    let photo = &detail.photo;
    let mut facts = vec![("photo", photo.id.to_string()), ("taken", taken(photo.captured.as_deref()))];
    let mut file = vec![photo.media.clone()];
    if photo.width > 0 {
        file.push(format!("{} × {}", photo.width, photo.height));
    }
    file.extend([bytes(photo.bytes), count(detail.chunks.into(), "chunk")]);
    facts.push(("file", file.join(", ")));
    facts.extend(detail.unreadable.iter().map(|why| ("metadata", format!("unreadable: {why}"))));
    facts.extend(detail.camera.iter().map(|camera| ("camera", camera.clone())));
    facts.extend(detail.location.iter().map(|(north, east)| ("location", format!("{north}, {east}"))));
    if photo.favourite {
        facts.push(("favourite", "yes".to_owned()));
    }
    facts.extend(photo.caption.iter().map(|caption| ("caption", caption.clone())));
    facts.extend(detail.other_captions.iter().map(|caption| ("or", format!("{caption} (written at the same time)"))));
    if !detail.tags.is_empty() {
        facts.push(("tags", detail.tags.join(", ")));
    }
    facts.extend(detail.paths.iter().map(|path| ("path", path.clone())));
    let last = detail.last_path.iter().zip(detail.gone_since_ms);
    facts
        .extend(last.map(|(path, since)| ("path", format!("{path} (its file is gone since {})", moment(since, zone)))));
    let rows: Vec<_> = facts.into_iter().map(|(what, value)| [what.to_owned(), printable(&value)]).collect();

    let safety =
        if photo.safe { paint.good("safe") } else { paint.bad(&format!("not safe {} yet", goal(detail.target))) };
    let mut text = vec![paint.strong(&printable(&photo.name))];
    text.extend(columns(&rows, &[]).into_iter().map(|line| format!("  {line}")));
    text.push(format!("{}: {safety} ({})", copies(photo), evidence(photo.evidence)));
    let holders: Vec<_> = detail.holders.iter().map(|holder| holder_row(holder, detail.chunks, now)).collect();
    text.extend(columns(&holders, &[]).into_iter().map(|line| format!("  {line}")));
    text.join("\n")
}

/// What a camera wrote says nothing of a time zone unless it wrote that too.
fn taken(captured: Option<&str>) -> String {
    match captured {
        None => "date unknown".to_owned(),
        Some(date) if date.len() > 19 => format!("{} {}", date[..19].replace('T', " "), &date[19..]),
        Some(date) => format!("{} (offset unknown)", date.replace('T', " ")),
    }
}

const fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Claimed => "as each device says of itself",
        Evidence::Audited => "audited",
        Evidence::ReadInFull => "read in full",
    }
}

fn holder_row(holder: &Holder, chunks: u32, now: WallTime) -> [String; 4] {
    let held = match holder.chunks {
        0 => "nothing".to_owned(),
        held if held >= chunks => "whole".to_owned(),
        held => format!("{held} of {}", count(chunks.into(), "chunk")),
    };
    let heard = match (holder.this_device, holder.heard_ms) {
        (true, _) => "this device".to_owned(),
        (false, Some(then)) => format!("heard {}", ago(then, now)),
        (false, None) => "never heard".to_owned(),
    };
    let place = printable(holder.place.as_deref().unwrap_or("no place given"));
    [printable(&holder.name), place, held, heard]
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::DeviceId;

    use super::super::photos::tests::photo;
    use super::*;
    use holdfast::api::view::Target;

    fn holder(name: &str, place: Option<&str>, chunks: u32, this_device: bool) -> Holder {
        Holder {
            device: DeviceId::from_bytes([3; 32]),
            name: name.into(),
            place: place.map(str::to_owned),
            chunks,
            evidence: Evidence::Claimed,
            this_device,
            heard_ms: (!this_device).then_some(WallTime(0)),
        }
    }

    #[test]
    fn a_photo_shows_who_holds_it() {
        let mut detail = PhotoDetail {
            photo: photo(0xa7, "IMG_0412.HEIC", 1),
            target: Target { copies: 2, places: 2 },
            paths: vec!["2021/IMG_0412.HEIC".into()],
            last_path: None,
            gone_since_ms: None,
            camera: Some("Apple iPhone 12".into()),
            location: Some(("48.1371000".into(), "11.5754000".into())),
            other_captions: vec![],
            tags: vec!["beach".into(), "family".into()],
            unreadable: None,
            chunks: 5,
            holders: vec![holder("laptop", Some("home"), 5, true), holder("nas", None, 3, false)],
        };
        detail.photo.captured = Some("2021-07-04T18:03:12".into());
        assert_eq!(
            lines(&detail, WallTime(300_000), &TimeZone::UTC, Paint::Plain),
            format!(
                "IMG_0412.HEIC\n\
                \x20 photo     {}\n\
                \x20 taken     2021-07-04 18:03:12 (offset unknown)\n\
                \x20 file      image/heic, 4032 × 3024, 2.1 MB, 5 chunks\n\
                \x20 camera    Apple iPhone 12\n\
                \x20 location  48.1371000, 11.5754000\n\
                \x20 tags      beach, family\n\
                \x20 path      2021/IMG_0412.HEIC\n\
                1 copy in 1 place: not safe in 2 places yet (as each device says of itself)\n\
                \x20 laptop  home            whole          this device\n\
                \x20 nas     no place given  3 of 5 chunks  heard 5 min ago",
                "a7".repeat(32)
            )
        );
        (detail.last_path, detail.gone_since_ms) = (detail.paths.pop(), Some(WallTime(1_700_000_000_000)));
        let text = lines(&detail, WallTime(300_000), &TimeZone::UTC, Paint::Plain);
        let path = "  path      2021/IMG_0412.HEIC (its file is gone since 2023-11-14 22:13)\n";
        assert!(text.contains(path), "{text}");
    }

    #[test]
    fn a_known_offset_is_shown() {
        assert_eq!(taken(Some("2021-07-04T18:03:12+02:00")), "2021-07-04 18:03:12 +02:00");
        assert_eq!(taken(None), "date unknown");
    }
}
