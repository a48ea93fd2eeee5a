//! Threads that look things up in the index and on the disk for whoever asks: a question may wait, the library does not.
//!
//! A question goes to them with what they need of the library's state, as it is at that moment; what they found comes back to
//! the library's thread, which adds what it alone knows and answers.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_protocol::id::PhotoId;
use holdfast_store::ChunkStore;
use tokio::sync::mpsc;

use super::NodeError;
use super::destination::Destination;
use super::workers::spawn;
use crate::api::{Refusal, RefusalKind, Reply};
use crate::home::Settings;
use crate::index::{IndexError, IndexReader, IndexedFile, PhotoPage, PhotoQuery, PhotoRow};

/// Questions that wait; who asks beyond that is told to ask later.
const QUESTIONS_MAX: usize = 256;
/// Answers that wait for the library.
const FOUND_MAX: usize = 64;

/// Something to look up.
#[derive(Debug)]
pub(super) enum Question {
    /// A page of photos.
    Photos {
        /// Which ones.
        among: Among,
        search: Option<String>,
        after: Option<String>,
        limit: usize,
    },
    /// Photos that may be meant by a name or the beginning of an identifier.
    Named { text: String, limit: usize },
    /// Every file, for an export, and where that would write.
    Export { directory: PathBuf, settings: Box<Settings> },
}

/// Photos to choose from.
#[derive(Debug)]
pub(super) enum Among {
    All,
    /// Those whose identifiers begin so, in ascending order.
    Only(Vec<[u8; 8]>),
}

impl Among {
    pub(super) fn only(photos: impl Iterator<Item = PhotoId>) -> Self {
        let mut photos: Vec<_> = photos.map(|photo| beginning(&photo)).collect();
        photos.sort_unstable();
        Self::Only(photos)
    }

    fn has(&self, photo: &PhotoId) -> bool {
        match self {
            Self::All => true,
            Self::Only(photos) => photos.binary_search(&beginning(photo)).is_ok(),
        }
    }
}

fn beginning(photo: &PhotoId) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *photo.as_bytes();
    [a, b, c, d, e, f, g, h]
}

/// What was looked up.
#[derive(Debug)]
pub(super) enum Found {
    Photos(PhotoPage),
    Named { text: String, rows: Vec<PhotoRow> },
    Export { directory: PathBuf, destination: Destination, files: Vec<IndexedFile> },
}

/// What was found for whom.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) found: Result<Found, Refusal>,
    pub(super) reply: Reply,
}

/// The threads' queue.
pub(super) struct Readers {
    questions: SyncSender<(Question, Reply)>,
}

impl Readers {
    /// Starts a thread for each of `indexes`.
    pub(super) fn start(
        indexes: Vec<IndexReader>,
        store: &Arc<ChunkStore>,
    ) -> Result<(Self, mpsc::Receiver<Answer>), NodeError> {
        let (questions, queue) = sync_channel(QUESTIONS_MAX);
        let (answers, receiver) = mpsc::channel(FOUND_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for index in indexes {
            let reader = Reader { index, store: store.clone() };
            let (queue, answers) = (queue.clone(), answers.clone());
            spawn("question", move || reader.run(&queue, &answers))?;
        }
        Ok((Self { questions }, receiver))
    }

    /// Looks something up for whoever waits for `reply`.
    pub(super) fn ask(&self, question: Question, reply: Reply) {
        let refused = match self.questions.try_send((question, reply)) {
            Ok(()) => return,
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => refused,
        };
        let message = "too many questions wait for an answer";
        refused.1.finish(Err(Refusal::new(RefusalKind::Busy, message, "ask again in a moment")));
    }
}

struct Reader {
    index: IndexReader,
    store: Arc<ChunkStore>,
}

impl Reader {
    fn run(self, queue: &Mutex<Receiver<(Question, Reply)>>, answers: &mpsc::Sender<Answer>) {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((question, reply)) = next else { return };
            if reply.is_abandoned() {
                continue;
            }
            let found = self.look_up(question);
            if answers.blocking_send(Answer { found, reply }).is_err() {
                return;
            }
        }
    }

    fn look_up(&self, question: Question) -> Result<Found, Refusal> {
        let failed = |error: IndexError| Refusal::failed(&error);
        match question {
            Question::Photos { among, search, after, limit } => {
                let query = PhotoQuery { search: search.as_deref(), after: after.as_deref(), limit };
                self.index.photos(&query, |photo| among.has(photo)).map(Found::Photos).map_err(failed)
            }
            Question::Named { text, limit } => {
                let rows = self.index.find(&text, limit).map_err(failed)?;
                Ok(Found::Named { text, rows })
            }
            Question::Export { directory, settings } => {
                let files = self.index.files().map_err(failed)?;
                let names = files.iter().map(|file| &file.path);
                let destination = Destination::of(&directory, &settings, names, &self.store)?;
                Ok(Found::Export { directory, destination, files })
            }
        }
    }
}
