//! What the node's own process shows: the recovery phrase once, then what happens.

use std::sync::Mutex;
use std::sync::PoisonError;

use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::events;
use super::failure::Failure;
use super::session::now;
use super::terminal::{Bar, Form, Paint, Terminal, Verbosity};
use crate::api::{Event, EventLog, Happening, Progress};

/// Words in a line of the phrase.
const WORDS_PER_LINE: usize = 4;

/// Shows the recovery phrase of a new library. It is shown once and kept nowhere.
pub(super) fn phrase(terminal: &Terminal, words: &[&str]) -> Result<(), Failure> {
    #[derive(Serialize)]
    #[serde(tag = "type", rename = "recovery-phrase")]
    struct Phrase {
        phrase: String,
    }
    match terminal.form() {
        Form::Json => terminal.answer_json(Phrase { phrase: words.join(" ") }),
        Form::Human => terminal.answer(&phrase_lines(words, terminal.paint())),
    }
}

fn phrase_lines(words: &[&str], paint: Paint) -> String {
    let mut text = String::from(
        "A new library. Write these 24 words on paper: with them it can be brought back when every device is lost,\n\
        and without them it cannot. Whoever has them can read it. They are shown this once.\n",
    );
    for (line, words) in (0..).zip(words.chunks(WORDS_PER_LINE)) {
        let numbered = (line * WORDS_PER_LINE + 1..).zip(words).map(|(number, word)| format!("{number:>2} {word:<9}"));
        let line = numbered.collect::<Vec<_>>().join("  ");
        text.push_str(&format!("\n    {}", paint.strong(line.trim_end())));
    }
    text.push('\n');
    text
}

/// Runs the node with `run` and shows what it publishes until it returns.
pub(super) fn watch<T>(
    terminal: &Terminal,
    log: &EventLog,
    run: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let screen = Mutex::new(Screen { terminal, bar: None, settled: None });
    let (_, mut coming) = log.follow();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                match coming.blocking_recv() {
                    Ok(event) => {
                        let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
                        // When nobody reads what we show any more, the node still runs.
                        let _ = screen.show(&event);
                        if event.happening == Happening::Stopping {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        let outcome = run();
        // Ends the thread above, also when the node never came to say so itself.
        if log.recent().last().is_none_or(|event| event.happening != Happening::Stopping) {
            log.publish(now(), Happening::Stopping);
        }
        outcome
    })
}

struct Screen<'a> {
    terminal: &'a Terminal,
    bar: Option<Bar>,
    /// The counts that were shown last.
    settled: Option<(u64, u64)>,
}

impl Screen<'_> {
    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        if self.terminal.form() == Form::Json {
            return events::show(self.terminal, event);
        }
        match &event.happening {
            &Happening::Importing { files, files_total, bytes, bytes_total } => {
                let bar = self.bar.get_or_insert_with(|| self.terminal.progress_bar("Importing"));
                bar.show(Progress { files, files_total, bytes, bytes_total });
                return Ok(());
            }
            Happening::ImportFinished { .. } | Happening::Stopping => self.bar = None,
            _ => {}
        }
        if !self.is_worth_a_line(&event.happening) {
            return Ok(());
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| events::show(self.terminal, event)),
            None => events::show(self.terminal, event),
        }
    }

    fn is_worth_a_line(&mut self, happening: &Happening) -> bool {
        let verbosity = self.terminal.verbosity();
        match happening {
            Happening::Problem(_) => true,
            _ if verbosity == Verbosity::Quiet => false,
            // Counts in motion are for the bar and for `status`; what they settle at is news.
            &Happening::Safety { photos, safe, moving_bytes } => {
                let news = moving_bytes == 0 && photos > 0 && self.settled != Some((photos, safe));
                if news {
                    self.settled = Some((photos, safe));
                }
                news
            }
            Happening::Imported { .. } | Happening::Importing { .. } | Happening::Listening { .. } => {
                verbosity == Verbosity::Verbose
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phrase_is_numbered_in_lines_of_four() {
        let words: Vec<_> = (0..24).map(|number| ["abandon", "zoo"][number % 2]).collect();
        let text = phrase_lines(&words, Paint::Plain);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("    ")).collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0], "     1 abandon     2 zoo         3 abandon     4 zoo");
        assert_eq!(lines[5], "    21 abandon    22 zoo        23 abandon    24 zoo");
    }
}
