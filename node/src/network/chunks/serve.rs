//! The serving end of a chunk stream.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{AsyncReadExt, AsyncWriteExt, io::ReadHalf, io::WriteHalf};
use holdfast_protocol::{
    id::ChunkId,
    limits::{REQUESTS_PER_PEER_MAX, SEALED_CHUNK_BYTES_MAX},
    message::{CHUNK_HEADER_BYTES, ChunkHeader, Declined, FetchRequest, FetchStatus},
    replica::{Answer, RequestId},
};
use libp2p::Stream;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{ReadFailure, SERVE_BUFFER_BYTES, ServeCommand};
use crate::network::{
    LinkEnd, Misbehaviour, NetworkEvent,
    frame::{self, FrameEnd},
    links::{Link, Shared},
};

/// Filled buffers that wait for the socket, for each link.
const FILLED_MAX: usize = 3;
/// A buffer at most: all but full when the last chunk is added.
const FILLED_BYTES_MAX: u32 = (SERVE_BUFFER_BYTES + CHUNK_HEADER_BYTES + SEALED_CHUNK_BYTES_MAX) as u32;

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
    let (handle, filler) = (Handle::current(), shared.clone());
    // Ends when the link's queue of answers closes, or when the writer below is gone.
    tokio::task::spawn_blocking(move || fill(&handle, &filler, commands, &filled));
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
        shared.tell(NetworkEvent::FetchRequested { link: link.id, request }).await;
    }
}

/// Answers ready for the socket, in the order in which they leave.
struct Filled {
    buffer: Vec<u8>,
    answered: Vec<Answered>,
    /// The buffer's share of the budget.
    permit: OwnedSemaphorePermit,
}

enum Answered {
    Sent { request: RequestId, chunk: ChunkId, bytes: u32 },
    Ended { request: RequestId },
}

/// Reads chunks ahead of the socket, on a blocking thread.
fn fill(handle: &Handle, shared: &Shared, mut commands: mpsc::Receiver<ServeCommand>, filled: &mpsc::Sender<Filled>) {
    let mut filler = Filler { handle, shared, filled, current: None };
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
    handle: &'a Handle,
    shared: &'a Shared,
    filled: &'a mpsc::Sender<Filled>,
    current: Option<Filled>,
}

/// The link has ended.
struct Ended;

impl Filler<'_> {
    /// Hands the current buffer to the socket, with what it does not use of the budget given back.
    fn pass_on(&mut self) -> Result<(), Ended> {
        let Some(mut ready) = self.current.take() else { return Ok(()) };
        let unused = ready.permit.num_permits().saturating_sub(ready.buffer.len());
        drop(ready.permit.split(unused));
        self.filled.blocking_send(ready).map_err(|_| Ended)
    }

    /// The buffer to fill: a new one when the current one is large enough to leave.
    fn buffer(&mut self) -> Result<&mut Filled, Ended> {
        if self.current.as_ref().is_some_and(|current| current.buffer.len() >= SERVE_BUFFER_BYTES) {
            self.pass_on()?;
        }
        if self.current.is_none() {
            let budget = self.shared.chunks.serve_budget.clone();
            let permit = self.handle.block_on(budget.acquire_many_owned(FILLED_BYTES_MAX)).map_err(|_| Ended)?;
            let mut buffer = self.shared.chunks.serve_buffers.take();
            buffer.clear();
            self.current = Some(Filled { buffer, answered: Vec::new(), permit });
        }
        self.current.as_mut().ok_or(Ended)
    }

    fn answer(&mut self, request: RequestId, chunk: ChunkId, answer: Answer) -> Result<(), Ended> {
        let source = self.shared.chunks.source.clone();
        let Filled { buffer, answered, .. } = self.buffer()?;
        let at = buffer.len();
        let start = at + CHUNK_HEADER_BYTES;
        buffer.resize(start, 0);
        let status = match answer {
            Answer::Send => match (source.read)(&chunk, buffer) {
                Ok(()) if (start + 1..=start + SEALED_CHUNK_BYTES_MAX).contains(&buffer.len()) => {
                    FetchStatus::Sent { length: (buffer.len() - start) as u32 }
                }
                Ok(()) | Err(ReadFailure::NotHeld) => FetchStatus::Declined(Declined::NotHeld),
                Err(ReadFailure::Busy) => FetchStatus::Declined(Declined::Busy),
            },
            Answer::NotHeld => FetchStatus::Declined(Declined::NotHeld),
            Answer::Elsewhere(device) => FetchStatus::Declined(Declined::Elsewhere(device)),
            Answer::Busy => FetchStatus::Declined(Declined::Busy),
        };
        match status {
            FetchStatus::Sent { length } => answered.push(Answered::Sent { request, chunk, bytes: length }),
            FetchStatus::Declined(_) => buffer.truncate(start),
        }
        buffer[at..start].copy_from_slice(&ChunkHeader { request: request.0, chunk, status }.encode());
        Ok(())
    }

    fn end(&mut self, request: RequestId) -> Result<(), Ended> {
        if self.current.is_none() {
            self.buffer()?;
        }
        if let Some(current) = &mut self.current {
            current.answered.push(Answered::Ended { request });
        }
        Ok(())
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
    while let Some(Filled { buffer, answered, permit }) = filling.recv().await {
        if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
            return LinkEnd::Lost;
        }
        shared.chunks.serve_buffers.give(buffer);
        drop(permit);
        let link = link.id;
        for answered in answered {
            let event = match answered {
                Answered::Sent { request, chunk, bytes } => NetworkEvent::Served { link, request, chunk, bytes },
                Answered::Ended { request } => {
                    unanswered.fetch_sub(1, Ordering::AcqRel);
                    NetworkEvent::ServeEnded { link, request }
                }
            };
            shared.tell(event).await;
        }
    }
    LinkEnd::Closed
}
