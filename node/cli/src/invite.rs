//! `holdfast invite`: a ticket, and its QR code.

use holdfast::api::view::Invitation;
use holdfast::api::{Request, Response};
use jiff::tz::TimeZone;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::exit::Exit;
use super::failure::Failure;
use super::paint::Paint;
use super::session::{Session, now, unexpected};
use super::words::{duration, moment};

pub(super) fn run(session: &Session<'_>, minutes: u32) -> Result<Exit, Failure> {
    let response = session.ask(&Request::Invite { minutes })?;
    let Response::Invite(invitation) = &response else { return Err(unexpected(&response)) };
    let terminal = session.terminal;
    session.show(&response, invitation, |invitation| {
        let seconds = u64::try_from(invitation.expires_ms.0.saturating_sub(now().0) / 1000).unwrap_or(0);
        let mut text = lines(invitation, seconds, terminal.zone());
        // A picture is for a person at a terminal that has room for it; into a pipe goes the ticket alone.
        if let Some(width) = terminal.width() {
            match qr(&invitation.ticket, terminal.paint()) {
                Some(picture) if picture.columns <= width => text = format!("{text}\n\n{}", picture.text),
                _ => text.push_str("\n\n(The terminal is too narrow for the QR code.)"),
            }
        }
        text
    })?;
    Ok(Exit::Done)
}

fn lines(invitation: &Invitation, seconds: u64, zone: &TimeZone) -> String {
    format!(
        "On the other device, within {} (until {}):\n\n    holdfast join {} --place PLACE\n\n\
        The ticket lets one device in. Give it to nobody else.",
        duration(seconds),
        moment(invitation.expires_ms, zone),
        invitation.ticket
    )
}

struct Picture {
    text: String,
    columns: usize,
}

/// The ticket as a QR code of half blocks; `None` when it is too long for one.
fn qr(ticket: &str, paint: Paint) -> Option<Picture> {
    // Tickets are case-insensitive, and capitals take a QR code two thirds of the room.
    let code = QrCode::with_error_correction_level(ticket.to_ascii_uppercase(), EcLevel::L).ok()?;
    let mut renderer = code.render::<Dense1x2>();
    // `Dense1x2::Dark` is what is drawn in the foreground's colour.
    let drawn = match paint {
        // Black on white, whatever the terminal's own colours are.
        Paint::Colours => {
            let drawn = renderer.dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
            drawn.lines().map(|line| format!("\u{1b}[30;107m{line}\u{1b}[0m")).collect::<Vec<_>>().join("\n")
        }
        // Most terminals are light on dark; cameras read the reverse as well, if less gladly.
        Paint::Plain => renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build(),
    };
    // The quiet zone is four modules on each side.
    Some(Picture { text: drawn, columns: code.width() + 8 })
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::time::WallTime;

    use super::*;

    #[test]
    fn the_ticket_stands_in_the_command_that_uses_it() {
        let invitation = Invitation { ticket: "holdfast1abc".into(), expires_ms: WallTime(1_625_421_792_000) };
        assert_eq!(
            lines(&invitation, 600, &TimeZone::UTC),
            "On the other device, within 10 min (until 2021-07-04 18:03):\n\n    \
            holdfast join holdfast1abc --place PLACE\n\n\
            The ticket lets one device in. Give it to nobody else."
        );
    }

    #[test]
    fn a_ticket_fits_a_terminal_as_a_qr_code() {
        // As long as a ticket with four addresses.
        let ticket = format!("holdfast1{}", "a2b3c4d".repeat(27));
        let picture = qr(&ticket, Paint::Plain).unwrap();
        let lines = picture.text.lines().count();
        assert!(picture.columns <= 80 && lines <= 30, "{} columns, {lines} lines", picture.columns);
        assert!(picture.text.lines().all(|line| line.chars().count() == picture.columns));
        assert!(!picture.text.contains('\u{1b}'));
        // The upper edge of the first finder pattern, behind a light margin of four modules.
        assert!(picture.text.lines().nth(2).unwrap().starts_with("████ ▄▄▄▄▄ █"));
        let coloured = qr(&ticket, Paint::Colours).unwrap().text;
        assert!(coloured.lines().nth(2).unwrap().starts_with("\u{1b}[30;107m    █▀▀▀▀▀█ "));
        assert!(coloured.lines().all(|line| line.ends_with("\u{1b}[0m")));
    }
}
