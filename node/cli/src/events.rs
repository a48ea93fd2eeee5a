//! `holdfast events`: what happened, a line each.

use std::ops::ControlFlow;

use holdfast::api::{Event, Happening};
use jiff::tz::TimeZone;

use super::exit::Exit;
use super::failure::Failure;
use super::paint::Paint;
use super::session::Session;
use super::terminal::{Form, Terminal};
use super::words::{bytes, count, printable, thousands, time_of_day};

pub(super) fn run(session: &Session<'_>, follow: bool) -> Result<Exit, Failure> {
    let mut written = Ok(());
    session.connect()?.events(follow, |event| {
        written = show(session.terminal, &event);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written.map(|()| Exit::Done)
}

/// An event as a JSON line of its own.
#[derive(serde::Serialize)]
#[serde(tag = "type", rename = "event")]
struct EventLine<'a> {
    #[serde(flatten)]
    event: &'a Event,
}

/// Writes an event to standard output.
pub(super) fn show(terminal: &Terminal, event: &Event) -> Result<(), Failure> {
    match terminal.form() {
        Form::Json => terminal.answer_json(EventLine { event }),
        Form::Human => terminal.answer(&line(event, terminal.zone(), terminal.paint())),
    }
}

fn line(event: &Event, zone: &TimeZone, paint: Paint) -> String {
    format!("{}  {}", paint.dim(&time_of_day(event.time_ms, zone)), sentence(&event.happening, paint))
}

/// What happened, without a full stop.
fn sentence(happening: &Happening, paint: Paint) -> String {
    match happening {
        Happening::Started { version } => format!("Holdfast {} started", printable(version)),
        Happening::Listening { address } => format!("listening on {}", printable(address)),
        Happening::FolderScanned { path, files, new, skipped } => {
            let path = printable(&path.display().to_string());
            let text = format!("watching {path}: {}, {} new or changed", count(*files, "file"), thousands(*new));
            match skipped.values().sum::<u64>() {
                0 => text,
                skipped => format!("{text}, {} passed over", thousands(skipped)),
            }
        }
        Happening::Importing { files, files_total, bytes: done, bytes_total } => {
            let (files, done) = (thousands(*files), bytes(*done));
            format!("importing: {files} of {} ({done} of {})", count(*files_total, "file"), bytes(*bytes_total))
        }
        Happening::Imported { name, bytes: length, .. } => format!("imported {} ({})", printable(name), bytes(*length)),
        Happening::ImportFinished { photos, failed: 0 } => format!("import finished: {} new", count(*photos, "photo")),
        Happening::ImportFinished { photos, failed } => {
            let photos = count(*photos, "photo");
            paint.bad(&format!("import finished: {photos} new, {} not read", count(*failed, "file")))
        }
        Happening::Received { photos, name, .. } => format!("{} from {}", count(*photos, "photo"), printable(name)),
        Happening::Joined { name, place, .. } => match place {
            Some(place) => format!("{} joined, in {}", printable(name), printable(place)),
            None => format!("{} joined", printable(name)),
        },
        Happening::Connected { name, .. } => format!("{} connected", printable(name)),
        Happening::Disconnected { name, reason, .. } => {
            format!("{} disconnected: {}", printable(name), printable(reason))
        }
        Happening::Safety { photos, safe, moving_bytes } => {
            let text = format!("{} of {} safe", thousands(*safe), count(*photos, "photo"));
            match moving_bytes {
                0 if safe == photos => paint.good(&text),
                0 => text,
                moving => format!("{text}, {} on the way", bytes(*moving)),
            }
        }
        Happening::Problem(problem) => {
            let what = paint.bad(&printable(&problem.what));
            match &problem.next {
                Some(next) => format!("{what}; {}", printable(next)),
                None => what,
            }
        }
        Happening::Stopping => "Holdfast stops".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_protocol::id::{DeviceId, PhotoId};
    use holdfast_protocol::time::WallTime;

    use super::*;
    use holdfast::api::view::Problem;
    use holdfast::ingest::SkipReason;

    #[test]
    fn an_event_is_a_line() {
        let device = DeviceId::from_bytes([1; 32]);
        let cases = [
            (Happening::Started { version: "0.1.0".into() }, "Holdfast 0.1.0 started"),
            (
                Happening::FolderScanned {
                    path: "/p".into(),
                    files: 1204,
                    new: 3,
                    skipped: BTreeMap::from([(SkipReason::Link, 2)]),
                },
                "watching /p: 1,204 files, 3 new or changed, 2 passed over",
            ),
            (
                Happening::Importing { files: 1, files_total: 2, bytes: 3000, bytes_total: 12_000_000 },
                "importing: 1 of 2 files (3.0 kB of 12 MB)",
            ),
            (
                Happening::Imported { photo: PhotoId::from_bytes([1; 32]), name: "a.jpg".into(), bytes: 2_100_000 },
                "imported a.jpg (2.1 MB)",
            ),
            (Happening::ImportFinished { photos: 1, failed: 0 }, "import finished: 1 photo new"),
            (Happening::ImportFinished { photos: 2, failed: 1 }, "import finished: 2 photos new, 1 file not read"),
            (Happening::Received { photos: 7, device, name: "nas".into() }, "7 photos from nas"),
            (Happening::Joined { device, name: "nas".into(), place: Some("office".into()) }, "nas joined, in office"),
            (Happening::Connected { device, name: "nas".into() }, "nas connected"),
            (
                Happening::Disconnected { device, name: "nas".into(), reason: "it went away".into() },
                "nas disconnected: it went away",
            ),
            (
                Happening::Safety { photos: 1204, safe: 1198, moving_bytes: 12_000_000 },
                "1,198 of 1,204 photos safe, 12 MB on the way",
            ),
            (
                Happening::Problem(Problem { what: "the disk is full".into(), next: Some("free some space".into()) }),
                "the disk is full; free some space",
            ),
            (Happening::Stopping, "Holdfast stops"),
        ];
        for (happening, text) in cases {
            let event = Event { number: 1, time_ms: WallTime(1_625_421_792_000), happening };
            assert_eq!(line(&event, &TimeZone::UTC, Paint::Plain), format!("18:03:12  {text}"));
        }
    }
}
