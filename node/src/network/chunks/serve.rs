//! The serving end of a chunk stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use futures::{
    AsyncReadExt,
    executor::block_on,
    io::{ReadHalf, WriteHalf},
};
use holdfast_protocol::{
    id::ChunkId,
    limits::{REQUESTS_PER_PEER_MAX, SEALED_CHUNK_BYTES_MAX},
    message::{CHUNK_HEADER_BYTES, ChunkHeader, Declined, FetchRequest, FetchStatus},
    replica::{Answer, Input as ReplicaInput, RequestId},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{ReadFailure, SERVE_BYTES, SMALL_CHUNK_BYTES, ServeCommand, Supply};
use crate::network::{
    LinkEnd, Misbehaviour, NetworkEvent,
    frame::{self, FrameEnd},
    links::{Link, Shared},
    streams::Stream,
};

/// Filled buffers that wait for the socket, for each link.
const FILLED_MAX: usize = 3;
/// What is filled at most: all but enough to leave when the last chunk is added.
const FILLED_BYTES_MAX: u32 = (SERVE_BYTES + CHUNK_HEADER_BYTES + SEALED_CHUNK_BYTES_MAX) as u32;

/// Serves a peer on its chunk stream, once its link is admitted, until either ends.
pub(in crate::network) async fn run(
    link: Arc<Link>,
    shared: Arc<Shared>,
    stream: Stream,
    commands: mpsc::Receiver<ServeCommand>,
) {
    tokio::select! {
        () = link.admission() => {}
        () = link.closed.cancelled() => return,
    }
    let (reader, writer) = stream.split();
    let unanswered = AtomicUsize::new(0);
    let (filled, filling) = mpsc::channel(FILLED_MAX);
    // A thread of its own, for a reader may wait for its disk, or for a slow peer, as long as the link stands. It ends
    // when the link's queue of answers closes, or when the writer below is gone.
    let supply = shared.chunks.supply.clone();
    let thread = thread::Builder::new().name("holdfast-serve".to_owned());
    if thread.spawn(move || fill(&supply, commands, &filled)).is_err() {
        return link.finish(LinkEnd::Closed);
    }
    tokio::select! {
        end = requests(&link, &shared, &unanswered, reader) => link.finish(end),
        end = write(&link, &shared, &unanswered, writer, filling) => link.finish(end),
        () = link.closed.cancelled() => {}
    }
}

/// Takes requests to the runtime.
async fn requests(link: &Link, shared: &Shared, unanswered: &AtomicUsize, mut reader: ReadHalf<Stream>) -> LinkEnd {
    loop {
        let received = frame::read(&mut reader, |prefix| Ok(((), FetchRequest::body_length(*prefix)?)));
        let body = match received.await {
            Ok(((), body)) => body,
            Err(FrameEnd::Closed | FrameEnd::Lost) => return LinkEnd::Lost,
            Err(FrameEnd::Misbehaved(misbehaviour)) => return LinkEnd::Misbehaved(misbehaviour),
        };
        let request = match FetchRequest::decode(&body) {
            Ok(request) => request,
            Err(refused) => return LinkEnd::Misbehaved(refused.into()),
        };
        if unanswered.fetch_add(1, Ordering::AcqRel) >= REQUESTS_PER_PEER_MAX {
            return LinkEnd::Misbehaved(Misbehaviour::TooMany);
        }
        shared.tell(NetworkEvent::Replica(ReplicaInput::FetchRequested { link: link.id, request })).await;
    }
}

/// Answers ready for the socket, in the order in which they leave.
struct Filled {
    /// Headers and small chunks joined, large chunks as they were read.
    parts: Vec<Vec<u8>>,
    bytes: usize,
    answered: Vec<Answered>,
    /// The share of the budget.
    permit: OwnedSemaphorePermit,
}

enum Answered {
    Sent { request: RequestId, chunk: ChunkId, bytes: u32 },
    Ended { request: RequestId },
}

/// Reads chunks ahead of the socket.
fn fill(supply: &Supply, mut commands: mpsc::Receiver<ServeCommand>, filled: &mpsc::Sender<Filled>) {
    let mut filler = Filler { supply, filled, current: None };
    loop {
        // What is ready leaves before this thread waits for more to do.
        let command = match commands.try_recv() {
            Ok(command) => command,
            Err(_) => {
                if filler.pass_on().is_err() {
                    return;
                }
                let Some(command) = commands.blocking_recv() else { return };
                command
            }
        };
        let request = command.request;
        for (chunk, answer) in command.answers {
            if filler.answer(request, chunk, answer).is_err() {
                return;
            }
        }
        if filler.end(request).is_err() {
            return;
        }
    }
}

struct Filler<'a> {
    supply: &'a Supply,
    filled: &'a mpsc::Sender<Filled>,
    current: Option<Filled>,
}

/// The link has ended.
struct Ended;

impl Filler<'_> {
    /// Hands what is filled to the socket, with what it does not use of the budget given back.
    fn pass_on(&mut self) -> Result<(), Ended> {
        let Some(mut ready) = self.current.take() else { return Ok(()) };
        let unused = ready.permit.num_permits().saturating_sub(ready.bytes);
        drop(ready.permit.split(unused));
        self.filled.blocking_send(ready).map_err(|_| Ended)
    }

    /// What is being filled: a new one when the current one is large enough to leave.
    fn current(&mut self) -> Result<&mut Filled, Ended> {
        if self.current.as_ref().is_some_and(|current| current.bytes >= SERVE_BYTES) {
            self.pass_on()?;
        }
        if self.current.is_none() {
            let budget = self.supply.budget.clone();
            let permit = block_on(budget.acquire_many_owned(FILLED_BYTES_MAX)).map_err(|_| Ended)?;
            self.current = Some(Filled { parts: Vec::new(), bytes: 0, answered: Vec::new(), permit });
        }
        self.current.as_mut().ok_or(Ended)
    }

    fn answer(&mut self, request: RequestId, chunk: ChunkId, answer: Answer) -> Result<(), Ended> {
        let supply = self.supply;
        let mut bytes = supply.buffers.take();
        let filled = self.current()?;
        let status = match answer {
            Answer::Send => match (supply.source.read)(&chunk, &mut bytes) {
                Ok(()) if (1..=SEALED_CHUNK_BYTES_MAX).contains(&bytes.len()) => {
                    FetchStatus::Sent { length: bytes.len() as u32 }
                }
                Ok(()) | Err(ReadFailure::NotHeld) => FetchStatus::Declined(Declined::NotHeld),
                Err(ReadFailure::Busy) => FetchStatus::Declined(Declined::Busy),
            },
            Answer::NotHeld => FetchStatus::Declined(Declined::NotHeld),
            Answer::Elsewhere(device) => FetchStatus::Declined(Declined::Elsewhere(device)),
            Answer::Busy => FetchStatus::Declined(Declined::Busy),
        };
        filled.join(&ChunkHeader { request: request.0, chunk, status }.encode());
        if let FetchStatus::Sent { length } = status {
            filled.answered.push(Answered::Sent { request, chunk, bytes: length });
            if bytes.len() > SMALL_CHUNK_BYTES {
                filled.bytes += bytes.len();
                filled.parts.push(bytes);
                return Ok(());
            }
            filled.join(&bytes);
        }
        supply.buffers.give(bytes);
        Ok(())
    }

    fn end(&mut self, request: RequestId) -> Result<(), Ended> {
        self.current()?.answered.push(Answered::Ended { request });
        Ok(())
    }
}

impl Filled {
    /// Adds small bytes behind others.
    fn join(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        match self.parts.last_mut() {
            Some(part) if part.len() <= SMALL_CHUNK_BYTES => part.extend_from_slice(bytes),
            _ => {
                let mut part = Vec::with_capacity(bytes.len().max(4 * CHUNK_HEADER_BYTES));
                part.extend_from_slice(bytes);
                self.parts.push(part);
            }
        }
    }
}

/// Writes what is filled, a buffer at a time.
async fn write(
    link: &Link,
    shared: &Shared,
    unanswered: &AtomicUsize,
    mut writer: WriteHalf<Stream>,
    mut filling: mpsc::Receiver<Filled>,
) -> LinkEnd {
    while let Some(Filled { parts, answered, permit, .. }) = filling.recv().await {
        // Before the last byte leaves: the peer may ask anew as soon as it has it.
        let completed = answered.iter().filter(|answered| matches!(answered, Answered::Ended { .. })).count();
        unanswered.fetch_sub(completed, Ordering::AcqRel);
        for part in parts {
            if let Err(end) = frame::write_all(&mut writer, &part).await {
                return end;
            }
            if part.len() > SMALL_CHUNK_BYTES {
                shared.chunks.supply.buffers.give(part);
            }
        }
        if let Err(end) = frame::flush(&mut writer).await {
            return end;
        }
        drop(permit);
        let link = link.id;
        for answered in answered {
            let event = match answered {
                Answered::Sent { request, chunk, bytes } => {
                    NetworkEvent::Replica(ReplicaInput::Served { link, request, chunk, bytes })
                }
                Answered::Ended { request } => NetworkEvent::Replica(ReplicaInput::ServeEnded { link, request }),
            };
            shared.tell(event).await;
        }
    }
    LinkEnd::Closed
}
