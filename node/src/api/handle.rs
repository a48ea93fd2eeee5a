//! Between the socket and the runtime: a bounded queue of calls, and the event log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_protocol::time::WallTime;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::view::{Progress, Refusal, RefusalKind, Response};
use super::{Event, Happening, Request};

/// Calls that wait for the runtime. Who asks when the queue is full is told that the node is busy.
const CALLS_MAX: usize = 64;
/// Events that a reader may lag behind before it misses some. Imports that waited for something are told of all at once, as
/// many as may be on their way.
const EVENT_LAG_MAX: usize = 2 * crate::ingest::IN_FLIGHT_MAX;
/// Events that are kept for `events` without `--follow`.
const EVENTS_KEPT: usize = 1000;

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Call {
    /// What is asked. Never [`Request::Events`].
    pub request: Request,
    /// Where the answer goes. Dropping it answers that the node is stopping.
    pub reply: Reply,
}

/// Where the answer to one request goes.
#[derive(Debug)]
pub struct Reply {
    done: oneshot::Sender<Result<Response, Refusal>>,
    progress: mpsc::Sender<Progress>,
}

impl Reply {
    /// Tells how far the work got. Never blocks: when the asker reads slowly, this one is left out.
    pub fn progress(&self, progress: Progress) {
        let _ = self.progress.try_send(progress);
    }

    /// Whether nobody waits for the answer any more, so that long work can stop.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.done.is_closed()
    }

    /// Gives the answer.
    pub fn finish(self, answer: Result<Response, Refusal>) {
        let _ = self.done.send(answer);
    }
}

/// An answer on its way: progress until it is closed, then the answer itself.
#[derive(Debug)]
pub struct Pending {
    done: oneshot::Receiver<Result<Response, Refusal>>,
    progress: mpsc::Receiver<Progress>,
}

impl Pending {
    /// The next progress, or `None` once only the answer is left.
    pub async fn progress(&mut self) -> Option<Progress> {
        self.progress.recv().await
    }

    /// The answer.
    ///
    /// # Errors
    /// What the runtime refused, or that it stopped before it answered.
    pub async fn answer(self) -> Result<Response, Refusal> {
        self.done.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// What the server (and an embedder) holds of a running node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    calls: mpsc::Sender<Call>,
    events: EventLog,
}

impl NodeHandle {
    /// A handle, and the queue that the runtime serves. `events` is shared with the runtime, which publishes.
    #[must_use]
    pub fn new(events: EventLog) -> (Self, mpsc::Receiver<Call>) {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        (Self { calls, events }, queue)
    }

    /// Puts a request into the runtime's queue.
    ///
    /// # Errors
    /// When the queue is full or the node is stopping; nothing was asked then.
    pub fn call(&self, request: Request) -> Result<Pending, Refusal> {
        let (done, answer) = oneshot::channel();
        let (progress, reports) = mpsc::channel(8);
        match self.calls.try_send(Call { request, reply: Reply { done, progress } }) {
            Ok(()) => Ok(Pending { done: answer, progress: reports }),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Refusal::new(RefusalKind::Busy, "the node is busy", "try again in a moment"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(stopping()),
        }
    }

    /// Asks and waits for the answer, without progress.
    ///
    /// # Errors
    /// When the node refuses, is busy or stops.
    pub async fn ask(&self, request: Request) -> Result<Response, Refusal> {
        self.call(request)?.answer().await
    }

    /// The events.
    #[must_use]
    pub const fn events(&self) -> &EventLog {
        &self.events
    }
}

fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Busy, "the node is stopping", "start it again with `holdfast up`")
}

/// The last events, and a broadcast of those to come. Cheap to clone; all clones are one log.
#[derive(Debug, Clone)]
pub struct EventLog {
    kept: Arc<Mutex<Kept>>,
    coming: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Kept {
    last_number: u64,
    events: VecDeque<Event>,
}

impl EventLog {
    /// A log without events.
    #[must_use]
    pub fn new() -> Self {
        let kept = Kept { last_number: 0, events: VecDeque::new() };
        Self { kept: Arc::new(Mutex::new(kept)), coming: broadcast::Sender::new(EVENT_LAG_MAX) }
    }

    /// Numbers what happened, keeps it and sends it to everyone who follows. Never blocks on a reader.
    pub fn publish(&self, time: WallTime, happening: Happening) {
        let mut kept = self.lock();
        kept.last_number += 1;
        let event = Event { number: kept.last_number, time_ms: time, happening };
        if event.happening.is_progress() {
            // A step of a long way says nothing once the next was made.
            kept.events.retain(|old| {
                !old.happening.is_progress()
                    || std::mem::discriminant(&old.happening) != std::mem::discriminant(&event.happening)
            });
        }
        if kept.events.len() == EVENTS_KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Sent under the lock, so that `follow` sees every event once: kept, or to come.
        let _ = self.coming.send(event);
    }

    /// The kept events, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Event> {
        self.lock().events.iter().cloned().collect()
    }

    /// The kept events and a receiver of those that follow, without a gap in between.
    #[must_use]
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.lock();
        let receiver = self.coming.subscribe();
        (kept.events.iter().cloned().collect(), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Happening {
    /// Whether this is one step of many, of which only the last is worth keeping.
    #[must_use]
    pub const fn is_progress(&self) -> bool {
        matches!(self, Self::Importing { .. } | Self::Safety { .. })
    }
}
