//! `holdfast export`: the originals, byte for byte.

use std::path::Path;

use holdfast::api::view::ExportOutcome;
use holdfast::api::{Request, Response};

use super::exit::Exit;
use super::failure::Failure;
use super::paint::Paint;
use super::session::{Session, unexpected};
use super::words::{bytes, count, printable, thousands};

pub(super) fn run(session: &Session<'_>, directory: &Path) -> Result<Exit, Failure> {
    // The node has a working directory of its own.
    let directory = std::path::absolute(directory).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot use {}: {error}", directory.display()), "name another directory")
    })?;
    let response = {
        let bar = session.terminal.progress_bar("Exporting");
        session.ask_with(&Request::Export { directory }, |progress| bar.show(progress))?
    };
    let Response::Export(outcome) = &response else { return Err(unexpected(&response)) };
    session.show(&response, outcome, |outcome| lines(outcome, session.terminal.paint()))?;
    Ok(if missing(outcome) == 0 { Exit::Done } else { Exit::Partly })
}

/// Files that are missing; a node of an earlier version names them only.
fn missing(outcome: &ExportOutcome) -> u64 {
    outcome.missing.max(outcome.problems.len() as u64)
}

fn lines(outcome: &ExportOutcome, paint: Paint) -> String {
    let directory = printable(&outcome.directory.display().to_string());
    let mut text = format!("{} ({}) written to {directory}", count(outcome.written, "file"), bytes(outcome.bytes));
    if outcome.unchanged > 0 {
        text.push_str(&format!(", {} there already", count(outcome.unchanged, "file")));
    }
    if outcome.repaired > 0 {
        text.push_str(&format!(" ({} of them put right in date or permissions)", thousands(outcome.repaired)));
    }
    text.push('.');
    if let Some(watched) = &outcome.passed_over_by {
        let watched = printable(&watched.display().to_string());
        text.push_str(&format!(
            " It lies in the watched folder {watched}, and is passed over there: nothing in it is imported."
        ));
    }
    if outcome.undated > 0 {
        text.push_str(&format!(" The dates of {} could not be kept there.", count(outcome.undated, "file")));
    }
    let missing = missing(outcome);
    if missing > 0 {
        text.push_str(&format!(" {} missing:", count(missing, "file")));
    }
    for problem in &outcome.problems {
        text.push_str(&format!("\n{} {}", paint.bad("!"), printable(&problem.what)));
        if let Some(next) = &problem.next {
            text.push_str(&format!("\n  {} {}", paint.dim("→"), printable(next)));
        }
    }
    let unnamed = missing.saturating_sub(outcome.problems.len() as u64);
    if unnamed > 0 {
        text.push_str(&format!("\n{} {} more", paint.bad("!"), count(unnamed, "file")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast::api::view::Problem;

    #[test]
    fn an_export_says_what_is_there_and_what_is_missing() {
        let mut outcome =
            ExportOutcome { directory: "/out".into(), written: 1204, bytes: 5_200_000_000, ..ExportOutcome::default() };
        assert_eq!(lines(&outcome, Paint::Plain), "1,204 files (5.2 GB) written to /out.");
        outcome.unchanged = 1;
        outcome.problems =
            vec![Problem { what: "a.jpg: not on this device yet".into(), next: Some("export again later".into()) }];
        assert_eq!(
            lines(&outcome, Paint::Plain),
            "1,204 files (5.2 GB) written to /out, 1 file there already. 1 file missing:\n\
            ! a.jpg: not on this device yet\n  → export again later"
        );
        (outcome.repaired, outcome.undated, outcome.missing) = (1, 2, 0);
        outcome.problems.clear();
        assert_eq!(
            lines(&outcome, Paint::Plain),
            "1,204 files (5.2 GB) written to /out, 1 file there already (1 of them put right in date or permissions). \
            The dates of 2 files could not be kept there."
        );
        outcome.problems = vec![Problem { what: "a.jpg: not on this device yet".into(), next: None }];
        outcome.missing = 3001;
        let text = lines(&outcome, Paint::Plain);
        assert!(text.contains(" 3,001 files missing:\n") && text.ends_with("\n! 3,000 files more"), "{text}");
    }
}
