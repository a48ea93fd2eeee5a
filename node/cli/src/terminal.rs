//! What standard output and standard error can show, and writing to them.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use holdfast::api::{Progress, Versioned};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::tz::TimeZone;
use serde::Serialize;
use tracing::level_filters::LevelFilter;

use super::arguments::Arguments;
use super::failure::Failure;
use super::paint::Paint;
use super::words;

/// Where answers and notes go, and how they look there.
#[derive(Debug)]
pub(super) struct Terminal {
    form: Form,
    paint: Paint,
    verbosity: Verbosity,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    zone: TimeZone,
}

/// For whom the answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verbosity {
    /// The answer and errors.
    Quiet,
    /// What matters.
    Normal,
    /// Details.
    Verbose,
}

impl Terminal {
    pub(super) fn new(arguments: &Arguments) -> Self {
        let stdout_is_terminal = io::stdout().is_terminal();
        let verbosity = match arguments.verbose {
            _ if arguments.quiet => Verbosity::Quiet,
            0 => Verbosity::Normal,
            _ => Verbosity::Verbose,
        };
        Self {
            form: if arguments.json { Form::Json } else { Form::Human },
            paint: Paint::choose(stdout_is_terminal),
            verbosity,
            stdout_is_terminal,
            stderr_is_terminal: io::stderr().is_terminal(),
            zone: TimeZone::system(),
        }
    }

    pub(super) const fn form(&self) -> Form {
        self.form
    }

    pub(super) const fn paint(&self) -> Paint {
        self.paint
    }

    pub(super) const fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    pub(super) const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The columns of standard output when it is a terminal.
    pub(super) fn width(&self) -> Option<usize> {
        let size = self.stdout_is_terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()))?;
        size.ok().map(|size| usize::from(size.ws_col))
    }

    /// Writes lines to standard output.
    pub(super) fn answer(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        Ok(stdout.flush()?)
    }

    /// Writes one JSON line to standard output.
    pub(super) fn answer_json<T: Serialize>(&self, body: T) -> Result<(), Failure> {
        let mut line = serde_json::to_string(&Versioned::new(body)).map_err(io::Error::other)?;
        line.push('\n');
        self.answer(&line)
    }

    /// Writes a note for people to standard error; nothing with `--quiet` or `--json`.
    pub(super) fn note(&self, text: &str) {
        if self.form == Form::Human && self.verbosity > Verbosity::Quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Says why the command failed and what to do next.
    pub(super) fn fail(&self, failure: &Failure) {
        let text = match self.form {
            Form::Human => failure.lines(Paint::choose(self.stderr_is_terminal)),
            Form::Json => failure.json(),
        };
        if !text.is_empty() {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A bar on standard error when it is a terminal that a person watches; one that shows nothing otherwise.
    pub(super) fn progress_bar(&self, verb: &'static str) -> Bar {
        if !self.stderr_is_terminal || self.form == Form::Json || self.verbosity == Verbosity::Quiet {
            return Bar { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
        let template = "{prefix} {wide_bar} {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(verb);
        Bar { bar }
    }
}

/// How far something got, drawn or not. It disappears when it is dropped.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(super) fn show(&self, progress: Progress) {
        self.bar.set_length(progress.bytes_total.max(1));
        self.bar.set_position(progress.bytes.min(progress.bytes_total));
        let (files, bytes) = (words::thousands(progress.files), words::bytes(progress.bytes));
        let (files_total, bytes_total) = (words::thousands(progress.files_total), words::bytes(progress.bytes_total));
        let left = match self.bar.eta() {
            Duration::ZERO => String::new(),
            left => format!(", {} left", words::duration(left.as_secs())),
        };
        self.bar.set_message(format!("{files} of {files_total} ({bytes} of {bytes_total}{left})"));
    }

    /// Runs `print` with the bar out of the way.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Sends the log to standard error: warnings, with `-v` what happens, and what `HOLDFAST_LOG` selects when it is set.
pub(super) fn log_to_stderr(arguments: &Arguments) {
    let chosen = std::env::var("HOLDFAST_LOG").ok().filter(|directives| !directives.is_empty());
    let level = match arguments.verbose {
        _ if arguments.quiet => "error",
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let directives = directives(chosen.as_deref().unwrap_or(level));
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(directives);
    let colours = Paint::choose(io::stderr().is_terminal()) == Paint::Colours;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    // Fails only when an embedder has set one up already; then that one is right.
    let _ = subscriber.try_init();
}

/// A level alone is that of Holdfast's own words, which all its crates begin with: libraries tell much that is news to
/// nobody. What the search of the local
/// network cannot send now it sends a moment later.
fn directives(chosen: &str) -> String {
    match chosen.trim().parse::<LevelFilter>() {
        Ok(level) => format!("error,libp2p_mdns=off,holdfast={level}"),
        Err(_) => chosen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_not_for_libraries() {
        assert_eq!(directives("Info"), "error,libp2p_mdns=off,holdfast=info");
        assert_eq!(directives("warn,libp2p_swarm=debug"), "warn,libp2p_swarm=debug");
    }
}
