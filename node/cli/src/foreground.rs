//! What the node's own process shows: the recovery phrase once, then what happens.

use holdfast::api::{Event, EventLog, Happening, Progress};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::events;
use super::failure::Failure;
use super::paint::Paint;
use super::session::now;
use super::terminal::{Bar, Form, Terminal, Verbosity};

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
        "A new library. Write these 24 words on paper: with them it can be brought back\n\
        when every device is lost, and without them it cannot. Whoever has them can\n\
        read it. They are shown this once.\n",
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
    let (_, mut coming) = log.follow();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut screen = Screen::new(terminal);
            loop {
                match coming.blocking_recv() {
                    Ok(event) => {
                        let last = event.happening == Happening::Stopping;
                        // When nobody reads what is shown any more, the node still runs.
                        let _ = screen.show(event);
                        if last {
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

/// What the node's terminal shows of its events. Counts in motion are for the bar and for `status`; what they settle at is
/// news. Photos that arrive from a device are gathered into one line.
struct Screen<'a> {
    terminal: &'a Terminal,
    bar: Option<Bar>,
    news: News,
}

impl<'a> Screen<'a> {
    fn new(terminal: &'a Terminal) -> Self {
        Self { terminal, bar: None, news: News::default() }
    }

    fn show(&mut self, event: Event) -> Result<(), Failure> {
        if self.terminal.form() == Form::Json {
            return events::show(self.terminal, &event);
        }
        match &event.happening {
            &Happening::Importing { files, files_total, bytes, bytes_total } => {
                let bar = self.bar.get_or_insert_with(|| self.terminal.progress_bar("Importing"));
                bar.show(Progress { files, files_total, bytes, bytes_total });
            }
            Happening::ImportFinished { .. } | Happening::Stopping => self.bar = None,
            _ => {}
        }
        let worth_a_line = self.news.take(event, self.terminal.verbosity());
        let print = || worth_a_line.iter().try_for_each(|event| events::show(self.terminal, event));
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// Chooses what is worth a line.
#[derive(Debug, Default)]
struct News {
    importing: bool,
    /// The counts that were shown last.
    settled: Option<(u64, u64)>,
    /// Photos from one device that were not shown yet.
    gathered: Option<Event>,
}

impl News {
    /// The lines that `event` is the occasion for.
    fn take(&mut self, event: Event, verbosity: Verbosity) -> Vec<Event> {
        if verbosity == Verbosity::Quiet {
            return if matches!(event.happening, Happening::Problem(_)) { vec![event] } else { Vec::new() };
        }
        if let Happening::Received { photos, device, .. } = &event.happening {
            return match &mut self.gathered {
                Some(Event { happening: Happening::Received { photos: gathered, device: same, .. }, .. })
                    if same == device =>
                {
                    *gathered += photos;
                    Vec::new()
                }
                other => other.replace(event).into_iter().collect(),
            };
        }
        let worth_a_line = match &event.happening {
            Happening::Imported { .. } | Happening::Importing { .. } => {
                self.importing = true;
                verbosity == Verbosity::Verbose
            }
            Happening::ImportFinished { photos, failed } => {
                self.importing = false;
                photos + failed > 0
            }
            &Happening::Safety { photos, safe, moving_bytes } => {
                let settles = !self.importing && moving_bytes == 0 && photos > 0;
                settles && self.settled.replace((photos, safe)) != Some((photos, safe))
            }
            Happening::Listening { .. } => verbosity == Verbosity::Verbose,
            _ => true,
        };
        if worth_a_line { self.gathered.take().into_iter().chain([event]).collect() } else { Vec::new() }
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

    #[test]
    fn the_screen_shows_what_things_settle_at() {
        use holdfast_protocol::id::{DeviceId, PhotoId};
        use holdfast_protocol::time::WallTime;

        let received = |photos, device| Happening::Received {
            photos,
            device: DeviceId::from_bytes([device; 32]),
            name: device.to_string(),
        };
        let safety = |photos, safe, moving_bytes| Happening::Safety { photos, safe, moving_bytes };
        let imported = Happening::Imported { photo: PhotoId::from_bytes([1; 32]), name: "a".into(), bytes: 1 };
        let happenings = [
            Happening::Listening { address: "/a".into() },
            Happening::ImportFinished { photos: 0, failed: 0 },
            imported,
            safety(1, 0, 0),
            Happening::ImportFinished { photos: 2, failed: 0 },
            safety(2, 0, 0),
            safety(2, 1, 9),
            received(1, 7),
            received(2, 7),
            received(1, 8),
            safety(6, 6, 0),
            safety(6, 6, 0),
            Happening::Stopping,
        ];
        let mut news = News::default();
        let shown = happenings
            .into_iter()
            .flat_map(|happening| news.take(Event { number: 0, time_ms: WallTime(0), happening }, Verbosity::Normal));
        assert_eq!(
            shown.map(|event| event.happening).collect::<Vec<_>>(),
            [
                Happening::ImportFinished { photos: 2, failed: 0 },
                safety(2, 0, 0),
                received(3, 7),
                received(1, 8),
                safety(6, 6, 0),
                Happening::Stopping,
            ]
        );
    }
}
