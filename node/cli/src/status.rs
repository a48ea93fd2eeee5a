//! `holdfast status`: how safe the library is, in one line, and what needs a person.

use std::fmt::Write as _;

use holdfast::api::view::{Connection, Peer, Status, Target};
use holdfast::api::{Request, Response};
use holdfast_protocol::time::WallTime;

use super::exit::Exit;
use super::failure::Failure;
use super::folders;
use super::paint::Paint;
use super::peers::{rows, trouble};
use super::session::{Session, now, unexpected};
use super::terminal::Verbosity;
use super::words::{bytes, count, duration, printable, seconds, thousands};

pub(super) fn run(session: &Session<'_>) -> Result<Exit, Failure> {
    let response = session.ask(&Request::Status)?;
    let Response::Status(status) = &response else { return Err(unexpected(&response)) };
    let (paint, verbosity) = (session.terminal.paint(), session.terminal.verbosity());
    let invite = session.command("invite");
    session.show(&response, status.as_ref(), |status| lines(status, now(), paint, verbosity, &invite))?;
    // Who does not know of any photo yet does not know that all are safe.
    let is_known = status.photos > 0 || status.catching_up_with.is_none();
    let is_safe = is_known && status.safe >= status.photos;
    Ok(if is_safe { Exit::Done } else { Exit::BelowTarget })
}

/// `in 2 places`, or `in 3 copies` when one place is enough, or both when they differ.
pub(super) fn goal(target: Target) -> String {
    let (copies, places) = (u64::from(target.copies), u64::from(target.places));
    match (copies, places) {
        (copies, 0 | 1) => format!("in {}", count(copies, "copy")),
        (copies, places) if copies > places => format!("in {} in {}", count(copies, "copy"), count(places, "place")),
        (_, places) => format!("in {}", count(places, "place")),
    }
}

fn lines(status: &Status, now: WallTime, paint: Paint, verbosity: Verbosity, invite: &str) -> String {
    let mut text = match &status.catching_up_with {
        Some(name) if status.photos == 0 => format!("Catching up with {}…", printable(name)),
        Some(name) => format!("{}\nStill catching up with {}…", headline(status, paint), printable(name)),
        None => headline(status, paint),
    };
    if status.photos > status.safe && status.peers_known == 0 {
        let _ = write!(text, "\nNo other device holds them. Make a ticket for one with {invite}.");
    }
    if status.importing.files > 0 {
        let importing = status.importing;
        let _ = write!(text, "\nImporting {} ({}).", count(importing.files, "file"), bytes(importing.bytes));
    }
    for peer in &status.peers {
        if let Some(sentence) = absence(peer, status.safe, now) {
            let _ = write!(text, "\n{sentence}");
        }
        if let Some(trouble) = trouble(peer, now) {
            let _ = write!(text, "\n{}: {trouble}.", printable(&peer.name));
        }
    }
    for folder in status.folders.iter().filter(|folder| !folder.present) {
        let path = folder.path.display().to_string();
        if status.problems.iter().any(|problem| problem.what.starts_with(&path)) {
            continue; // the problem says so
        }
        let path = printable(&path);
        let what = format!("{path} is missing; nothing in it counts as deleted");
        let _ = write!(text, "\n{} {what}\n  {} mount or create it", paint.bad("!"), paint.dim("→"));
    }
    for problem in &status.problems {
        let _ = write!(text, "\n{} {}", paint.bad("!"), printable(&problem.what));
        if let Some(next) = &problem.next {
            let _ = write!(text, "\n  {} {}", paint.dim("→"), printable(next));
        }
    }
    if verbosity == Verbosity::Verbose {
        details(&mut text, status, now);
    }
    text
}

fn headline(status: &Status, paint: Paint) -> String {
    if status.photos == 0 {
        return "No photos yet.".to_owned();
    }
    let goal = goal(status.target);
    let photos = count(status.photos, "photo");
    let below = status.photos.saturating_sub(status.safe);
    if below == 0 {
        let all = if status.photos == 1 { "" } else { "all " };
        let mut text = format!("{photos}, {}.", paint.good(&format!("{all}safe {goal}")));
        if status.moving.incoming > 0 {
            let left = time_left(status).map(|left| format!(" ({left})")).unwrap_or_default();
            let _ = write!(text, " {} still to come here{left}.", bytes(status.moving.incoming));
        }
        return text;
    }
    let safe = match status.safe {
        0 => paint.bad(&format!("none safe {goal}")),
        safe => format!("{} safe {goal}", thousands(safe)),
    };
    let mut text = format!("{photos}, {safe}.");
    let moving = status.moving.photos.min(below);
    if moving > 0 {
        let (number, bytes, left) = (thousands(moving), bytes(status.moving.bytes), time_left(status));
        let left = left.map(|left| format!(", {left}")).unwrap_or_default();
        let _ = write!(text, " {number} on {} way ({bytes}{left}).", their(moving));
    }
    match (below - moving, status.peers_connected) {
        (0, _) => {}
        (waiting, 0) => {
            let verb = if waiting == 1 { "waits" } else { "wait" };
            let _ = write!(text, " {} {verb} for another device.", thousands(waiting));
        }
        (waiting, _) => {
            let needs = if waiting == 1 { "needs" } else { "need" };
            let _ = write!(text, " {} {needs} a device in another place.", thousands(waiting));
        }
    }
    text
}

fn time_left(status: &Status) -> Option<String> {
    status.moving.seconds.map(|seconds| format!("about {}", duration(seconds)))
}

/// That a device is away on which safety rests: `12 of them rely on nas, offline for 3 days.`
fn absence(peer: &Peer, safe: u64, now: WallTime) -> Option<String> {
    if peer.connection != Connection::Offline || peer.photos_resting_on_it == 0 {
        return None;
    }
    let away = match peer.heard_ms {
        Some(heard) => format!("offline for {}", duration(seconds(heard, now))),
        None => "never heard".to_owned(),
    };
    let those = match peer.photos_resting_on_it {
        1 if safe == 1 => "It relies".to_owned(),
        resting if resting >= safe => "All of them rely".to_owned(),
        1 => "1 of them relies".to_owned(),
        resting => format!("{} of them rely", thousands(resting)),
    };
    Some(format!("{those} on {}, {away}.", printable(&peer.name)))
}

const fn their(number: u64) -> &'static str {
    if number == 1 { "its" } else { "their" }
}

fn details(text: &mut String, status: &Status, now: WallTime) {
    let place = status.place.as_deref().unwrap_or("no place given");
    let _ = write!(text, "\n\nlibrary    {}", status.library);
    let _ = write!(text, "\ndevice     {} ({}), {}", printable(&status.name), printable(place), status.device);
    let held = format!("{} of {}", thousands(status.held_here), count(status.photos, "photo"));
    let _ = write!(text, "\nheld here  {held}; the library is {}", bytes(status.bytes));
    let _ = write!(text, "\npeers      {} of {} connected", status.peers_connected, status.peers_known);
    for row in rows(&status.peers, status.photos, now) {
        let _ = write!(text, "\n           {row}");
    }
    for (what, moving) in [("to come", status.moving.incoming), ("to go", status.moving.outgoing)] {
        if moving > 0 {
            let _ = write!(text, "\n{what:<9}  {}", bytes(moving));
        }
    }
    for (what, histogram) in [("copies", &status.photos_by_copies), ("places", &status.photos_by_places)] {
        let counted = (0_usize..).zip(histogram).filter(|(_, photos)| **photos > 0);
        let counted: Vec<_> =
            counted.map(|(number, photos)| format!("{number}: {}", count(*photos, "photo"))).collect();
        let _ = write!(text, "\n{what:<9}  {}", counted.join(", "));
    }
    for folder in &status.folders {
        let _ = write!(text, "\nfolder     {}", folders::line(folder));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use holdfast_protocol::id::{DeviceId, LibraryId};

    use super::super::folders::tests::folder;
    use super::super::peers::tests::peer;
    use super::*;
    use holdfast::api::view::{Evidence, Importing, Moving, Problem, Traffic};

    pub(crate) fn status(photos: u64, safe: u64, moving: Moving) -> Status {
        Status {
            library: LibraryId::from_bytes([1; 32]),
            device: DeviceId::from_bytes([2; 32]),
            name: "laptop".into(),
            place: Some("home".into()),
            target: Target { copies: 2, places: 2 },
            photos,
            bytes: 5_200_000_000,
            safe,
            held_here: photos,
            evidence: Evidence::Claimed,
            photos_by_copies: vec![0, photos - safe, safe],
            photos_by_places: vec![0, photos - safe, safe],
            moving,
            traffic: Traffic::default(),
            importing: Importing::default(),
            folders: vec![folder("/home/anna/Pictures", photos)],
            peers_known: 1,
            peers_connected: 1,
            peers: vec![],
            catching_up_with: None,
            problems: vec![],
        }
    }

    fn plain(status: &Status) -> String {
        lines(status, WallTime(0), Paint::Plain, Verbosity::Normal, "`holdfast invite`")
    }

    #[test]
    fn one_line_says_how_safe_the_library_is() {
        let moving = Moving { photos: 6, bytes: 12_000_000, seconds: Some(4), ..Moving::default() };
        assert_eq!(
            plain(&status(1204, 1198, moving)),
            "1,204 photos, 1,198 safe in 2 places. 6 on their way (12 MB, about 4 s)."
        );
        assert_eq!(plain(&status(1204, 1204, Moving::default())), "1,204 photos, all safe in 2 places.");
        assert_eq!(plain(&status(1, 1, Moving::default())), "1 photo, safe in 2 places.");
        assert_eq!(plain(&status(0, 0, Moving::default())), "No photos yet.");
        let coming = Moving { bytes: 12_000_000, incoming: 12_000_000, seconds: Some(4), ..Moving::default() };
        assert_eq!(
            plain(&status(3, 3, coming)),
            "3 photos, all safe in 2 places. 12 MB still to come here (about 4 s)."
        );
        let one = Moving { photos: 1, bytes: 900, ..Moving::default() };
        assert_eq!(plain(&status(2, 1, one)), "2 photos, 1 safe in 2 places. 1 on its way (900 B).");
    }

    #[test]
    fn what_is_not_known_yet_is_not_said_to_be_nothing() {
        let catching_up =
            |photos| Status { catching_up_with: Some("nas".into()), ..status(photos, photos, Moving::default()) };
        assert_eq!(plain(&catching_up(0)), "Catching up with nas…");
        assert_eq!(plain(&catching_up(3)), "3 photos, all safe in 2 places.\nStill catching up with nas…");
    }

    #[test]
    fn what_does_not_move_says_what_it_waits_for() {
        let mut alone = status(3, 0, Moving::default());
        (alone.peers_connected, alone.peers_known) = (0, 0);
        assert_eq!(
            plain(&alone),
            "3 photos, none safe in 2 places. 3 wait for another device.\n\
            No other device holds them. Make a ticket for one with `holdfast invite`."
        );
        assert_eq!(
            plain(&status(3, 2, Moving::default())),
            "3 photos, 2 safe in 2 places. 1 needs a device in another place."
        );
    }

    #[test]
    fn work_and_problems_follow() {
        let mut status = status(2, 2, Moving::default());
        status.importing = Importing { files: 31, bytes: 1_200_000_000 };
        status.folders[0].present = false;
        status.problems =
            vec![Problem { what: "cannot read a\u{7}.jpg".into(), next: Some("make it readable".into()) }];
        assert_eq!(
            plain(&status),
            "2 photos, all safe in 2 places.\n\
            Importing 31 files (1.2 GB).\n\
            ! /home/anna/Pictures is missing; nothing in it counts as deleted\n  → mount or create it\n\
            ! cannot read a\\x07.jpg\n  → make it readable"
        );
    }

    #[test]
    fn who_is_away_is_named_when_safety_rests_on_it() {
        let away = |resting, connection| Peer { photos_resting_on_it: resting, ..peer("nas", None, connection, 3) };
        let said = |photos, safe, peer: Peer| {
            let status = Status { peers: vec![peer], ..status(photos, safe, Moving::default()) };
            lines(&status, WallTime(3 * 86_400_000), Paint::Plain, Verbosity::Normal, "")
        };
        let all_safe = "3 photos, all safe in 2 places.";
        assert_eq!(said(3, 3, away(3, Connection::Connected)), all_safe);
        assert_eq!(said(3, 3, away(0, Connection::Offline)), all_safe);
        assert_eq!(
            said(3, 3, away(3, Connection::Offline)),
            format!("{all_safe}\nAll of them rely on nas, offline for 3 days.")
        );
        assert_eq!(
            said(3, 3, away(1, Connection::Offline)),
            format!("{all_safe}\n1 of them relies on nas, offline for 3 days.")
        );
        assert!(said(1, 1, away(1, Connection::Offline)).ends_with("\nIt relies on nas, offline for 3 days."));
        let never = Peer { heard_ms: None, ..away(1, Connection::Offline) };
        assert!(said(2, 1, never).ends_with("\nIt relies on nas, never heard."));
        let still = Peer { still_since_ms: Some(WallTime(3 * 86_400_000 - 180_000)), ..away(0, Connection::Connected) };
        assert!(said(3, 2, still).ends_with("\nnas: connected, but nothing has moved for 3 min."));
    }

    #[test]
    fn verbose_adds_details() {
        let mut status = status(3, 2, Moving { incoming: 900, ..Moving::default() });
        status.peers = vec![peer("nas", Some("office"), Connection::Connected, 2)];
        let text = lines(&status, WallTime(0), Paint::Plain, Verbosity::Verbose, "");
        assert!(text.ends_with(
            "held here  3 of 3 photos; the library is 5.2 GB\n\
            peers      1 of 1 connected\n           \
            nas  office  connected  2 of 3 photos\n\
            to come    900 B\n\
            copies     1: 1 photo, 2: 2 photos\n\
            places     1: 1 photo, 2: 2 photos\n\
            folder     /home/anna/Pictures: 3 files"
        ));
    }

    #[test]
    fn goals_name_what_matters() {
        assert_eq!(goal(Target { copies: 2, places: 2 }), "in 2 places");
        assert_eq!(goal(Target { copies: 3, places: 1 }), "in 3 copies");
        assert_eq!(goal(Target { copies: 3, places: 2 }), "in 3 copies in 2 places");
        assert_eq!(goal(Target { copies: 1, places: 1 }), "in 1 copy");
    }
}
