//! The serving end of a chunk stream.

use std::{sync::Arc, thread};

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Chunks, ReadFailure, SERVE_BYTES, SMALL_CHUNK_BYTES, Supply};
use crate::{
    LinkEnd, NetworkEvent,
    command::ServeCommand,
    frame::{self, FrameEnd},
    links::Link,
    streams::Stream,
};

/// Filled buffers that wait for the socket, for each link.
const FILLED_MAX: usize = 3;
/// What is filled at most: all but enough to leave when the last chunk is added.
const FILLED_BYTES_MAX: u32 = (SERVE_BYTES + CHUNK_HEADER_BYTES + SEALED_CHUNK_BYTES_MAX) as u32;

/// Serves a peer on its chunk stream, once its link is admitted, until either ends.
pub(crate) async fn run(link: Arc<Link>, chunks: Arc<Chunks>, stream: Stream, commands: mpsc::Receiver<ServeCommand>) {
    tokio::select! {
        () = link.admission() => {}
        () = link.closed.cancelled() => return,
    }
    let (reader, writer) = stream.split();
    let slots = Semaphore::new(REQUESTS_PER_PEER_MAX);
    let (filled, filling) = mpsc::channel(FILLED_MAX);
    // A thread of its own, for a reader may wait for its disk, or for a slow peer, as long as the link stands. It ends
    // when the link's queue of answers closes, or when the writer below is gone.
    let supply = chunks.supply.clone();
    let thread = thread::Builder::new().name("holdfast-serve".to_owned());
    if thread.spawn(move || fill(&supply, commands, &filled)).is_err() {
        return link.finish(LinkEnd::Closed);
    }
    tokio::select! {
        end = requests(&link, &chunks, &slots, reader) => link.finish(end),
        end = write(&link, &chunks, &slots, writer, filling) => link.finish(end),
        () = link.closed.cancelled() => {}
    }
}

/// Takes requests to the runtime. Those for which there is no slot wait in the stream: a peer that asks for more at once is
/// neither refused nor at fault, for it may have all of an answer before this end knows that it is sent.
async fn requests(link: &Link, chunks: &Chunks, slots: &Semaphore, mut reader: ReadHalf<Stream>) -> LinkEnd {
    loop {
        // Given back when all answers of a request are sent.
        match slots.acquire().await {
            Ok(slot) => slot.forget(),
            Err(_) => return LinkEnd::Closed,
        }
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
        chunks.events.tell(NetworkEvent::Replica(ReplicaInput::FetchRequested { link: link.id, request })).await;
    }
}

/// Answers ready for the socket, in the order in which they leave.
struct Filled {
    /// Headers and small chunks joined, large chunks as they were read.
    parts: Vec<Vec<u8>>,
    bytes: usize,
    sent: Vec<Sent>,
    /// Requests whose last answer this is.
    ended: usize,
    /// The share of the budget.
    permit: OwnedSemaphorePermit,
}

struct Sent {
    request: RequestId,
    chunk: ChunkId,
    bytes: u32,
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
        if filler.end().is_err() {
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
            self.current = Some(Filled { parts: Vec::new(), bytes: 0, sent: Vec::new(), ended: 0, permit });
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
        };
        filled.join(&ChunkHeader { request: request.0, chunk, status }.encode());
        if let FetchStatus::Sent { length } = status {
            filled.sent.push(Sent { request, chunk, bytes: length });
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

    /// A request is answered. That leaves with its last answer, not with the first of the next request.
    fn end(&mut self) -> Result<(), Ended> {
        if self.current.is_none() {
            self.current()?;
        }
        if let Some(current) = &mut self.current {
            current.ended += 1;
        }
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
    chunks: &Chunks,
    slots: &Semaphore,
    mut writer: WriteHalf<Stream>,
    mut filling: mpsc::Receiver<Filled>,
) -> LinkEnd {
    while let Some(Filled { parts, sent, ended, permit, .. }) = filling.recv().await {
        for part in parts {
            if let Err(end) = frame::write_all(&mut writer, &part).await {
                return end;
            }
            if part.len() > SMALL_CHUNK_BYTES {
                chunks.supply.buffers.give(part);
            }
        }
        if let Err(end) = frame::flush(&mut writer).await {
            return end;
        }
        drop(permit);
        for Sent { request, chunk, bytes } in sent {
            let served = ReplicaInput::Served { link: link.id, request, chunk, bytes };
            chunks.events.tell(NetworkEvent::Replica(served)).await;
        }
        slots.add_permits(ended);
    }
    LinkEnd::Closed
}
