//! The serving end of a chunk stream.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{AsyncReadExt, AsyncWriteExt, io::ReadHalf, io::WriteHalf};
use holdfast_protocol::{
    id::ChunkId,
    limits::{REQUESTS_PER_PEER_MAX, SEALED_CHUNK_BYTES_MAX},
};
use libp2p::Stream;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{
    ReadFailure, SERVE_BUFFER_BYTES, ServeCommand,
    wire::{ChunkHeader, FetchRequest, HEADER_BYTES, REQUEST_BYTES_MAX},
};
use crate::network::{
    Answer, LinkEnd, Misbehaviour, NetworkEvent,
    frame::{self, FrameEnd},
    links::{Link, Shared},
};

/// Filled buffers that wait for the socket, for each link.
const FILLED_MAX: usize = 3;

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
    let end = tokio::select! {
        end = requests(&link, &shared, &unanswered, reader) => end,
        end = write(&link, &shared, &unanswered, writer, filling) => end,
        () = link.closed.cancelled() => return,
    };
    match end {
        LinkEnd::Misbehaved(misbehaviour) => link.misbehaved(misbehaviour),
        end => link.end(end),
    }
}

/// Takes requests to the runtime.
async fn requests(link: &Link, shared: &Shared, unanswered: &AtomicUsize, mut reader: ReadHalf<Stream>) -> LinkEnd {
    loop {
        let frame = match frame::read(&mut reader, || REQUEST_BYTES_MAX).await {
            Ok(frame) => frame,
            Err(FrameEnd::Closed | FrameEnd::Lost) => return LinkEnd::Lost,
            Err(FrameEnd::Misbehaved(misbehaviour)) => return LinkEnd::Misbehaved(misbehaviour),
        };
        let FetchRequest { request, urgent, chunks } = match FetchRequest::decode(frame.tag, &frame.body) {
            Ok(request) => request,
            Err(misbehaviour) => return LinkEnd::Misbehaved(misbehaviour),
        };
        if unanswered.fetch_add(1, Ordering::AcqRel) >= REQUESTS_PER_PEER_MAX {
            return LinkEnd::Misbehaved(Misbehaviour::TooMany);
        }
        shared.tell(NetworkEvent::FetchRequested { link: link.id, request, chunks, urgent }).await;
    }
}

/// Answers ready for the socket.
struct Filled {
    buffer: Vec<u8>,
    served: Vec<(u64, ChunkId, u32)>,
    /// Requests whose last answer this buffer holds.
    completed: usize,
    permit: OwnedSemaphorePermit,
}

/// Reads chunks ahead of the socket, on a blocking thread.
fn fill(handle: &Handle, shared: &Shared, mut commands: mpsc::Receiver<ServeCommand>, filled: &mpsc::Sender<Filled>) {
    let mut current: Option<Filled> = None;
    loop {
        // What is ready leaves before this thread waits for more to do.
        let command = match commands.try_recv() {
            Ok(command) => command,
            Err(_) => {
                if let Some(ready) = current.take()
                    && filled.blocking_send(ready).is_err()
                {
                    return;
                }
                let Some(command) = commands.blocking_recv() else { return };
                command
            }
        };
        for (chunk, answer) in command.answers {
            if current.as_ref().is_some_and(|buffer| buffer.buffer.len() >= SERVE_BUFFER_BYTES)
                && let Some(ready) = current.take()
                && filled.blocking_send(ready).is_err()
            {
                return;
            }
            let next = match current.take() {
                Some(next) => next,
                None => {
                    let Ok(permit) = handle.block_on(shared.chunks.serve_budget.clone().acquire_owned()) else {
                        return;
                    };
                    let mut buffer = shared.chunks.serve_buffers.take();
                    buffer.clear();
                    Filled { buffer, served: Vec::new(), completed: 0, permit }
                }
            };
            current = Some(answer_one(shared, next, command.request, chunk, answer));
        }
        if let Some(current) = &mut current {
            current.completed += 1;
        }
        if filled.is_closed() {
            return;
        }
    }
}

fn answer_one(shared: &Shared, mut filled: Filled, request: u64, chunk: ChunkId, answer: Answer) -> Filled {
    let at = filled.buffer.len();
    let start = at + HEADER_BYTES;
    filled.buffer.resize(start, 0);
    let mut header = ChunkHeader { request, chunk, answer, length: 0 };
    if answer == Answer::Send {
        match (shared.chunks.source.read)(&chunk, &mut filled.buffer) {
            Ok(()) if (start..=start + SEALED_CHUNK_BYTES_MAX).contains(&filled.buffer.len()) => {
                header.length = (filled.buffer.len() - start) as u32;
                filled.served.push((request, chunk, header.length));
            }
            Ok(()) | Err(ReadFailure::NotHeld) => header.answer = Answer::NotHeld,
            Err(ReadFailure::Busy) => header.answer = Answer::Busy,
        }
        filled.buffer.resize(start + header.length as usize, 0);
    }
    filled.buffer[at..start].copy_from_slice(&header.encode());
    filled
}

/// Writes what is filled, a buffer at a time.
async fn write(
    link: &Link,
    shared: &Shared,
    unanswered: &AtomicUsize,
    mut writer: WriteHalf<Stream>,
    mut filling: mpsc::Receiver<Filled>,
) -> LinkEnd {
    while let Some(Filled { buffer, served, completed, permit }) = filling.recv().await {
        if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
            return LinkEnd::Lost;
        }
        shared.chunks.serve_buffers.give(buffer);
        drop(permit);
        unanswered.fetch_sub(completed, Ordering::AcqRel);
        for (request, chunk, bytes) in served {
            shared.tell(NetworkEvent::Served { link: link.id, request, chunk, bytes }).await;
        }
    }
    LinkEnd::Closed
}
