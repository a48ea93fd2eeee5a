//! The fetching end of a chunk stream.

#![allow(clippy::disallowed_methods, reason = "a driver: progress is told by real time")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    AsyncReadExt, AsyncWriteExt,
    io::{ReadHalf, WriteHalf},
};
use holdfast_protocol::{
    id::ChunkId,
    message::{CHUNK_HEADER_BYTES, ChunkHeader, FetchRequest, FetchStatus},
    replica::{ChunkWanted, FetchOutcome, Input as ReplicaInput, RequestId},
};
use tokio::sync::mpsc;

use super::{
    Chunks,
    intake::{Arrived, Tracker},
};
use crate::{
    LinkEnd, Misbehaviour, NetworkEvent,
    command::FetchCommand,
    frame::{self, FrameEnd},
    links::Link,
    streams::{self, Stream},
};

/// How often it is told at most that part of a chunk has come.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Serves the fetch commands of a link until it ends. The stream is opened with the first.
pub(crate) async fn run(link: Arc<Link>, chunks: Arc<Chunks>, mut commands: mpsc::Receiver<FetchCommand>) {
    let first = tokio::select! {
        first = commands.recv() => first,
        () = link.closed.cancelled() => return,
    };
    let Some(first) = first else { return };
    let Some(stream) = link.open(streams::CHUNKS).await else {
        link.end(LinkEnd::Lost);
        return;
    };
    let (reader, writer) = stream.split();
    let asked = Asked::default();
    tokio::select! {
        end = ask(&link, &chunks, &asked, writer, first, &mut commands) => link.finish(end),
        end = receive(&link, &chunks, &asked, reader) => link.finish(end),
        () = link.closed.cancelled() => {}
    }
}

/// The requests of a link that wait for answers.
#[derive(Default)]
struct Asked {
    requests: Mutex<BTreeMap<RequestId, Request>>,
}

struct Request {
    /// What is still to be answered.
    chunks: BTreeSet<ChunkId>,
    tracker: Arc<Tracker>,
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RequestId, Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the chunk that `header` answers out of its request.
    fn answered(&self, header: &ChunkHeader) -> Result<Arc<Tracker>, Misbehaviour> {
        let mut requests = self.lock();
        let id = RequestId(header.request);
        let request = requests.get_mut(&id).ok_or(Misbehaviour::Unasked)?;
        if !request.chunks.remove(&header.chunk) {
            return Err(Misbehaviour::Unasked);
        }
        let tracker = request.tracker.clone();
        if request.chunks.is_empty() {
            requests.remove(&id);
        }
        Ok(tracker)
    }

    /// Stops waiting for the rest of a request. What of it still comes is kept and told all the same: it has crossed the
    /// network.
    fn cancel(&self, request: RequestId) -> Option<NetworkEvent> {
        let mut requests = self.lock();
        let request = requests.get_mut(&request)?;
        let unawaited = Arc::new(request.tracker.unawaited());
        let given_up = std::mem::replace(&mut request.tracker, unawaited);
        given_up.give_up(request.chunks.len())
    }
}

/// Sends requests.
async fn ask(
    link: &Link,
    chunks: &Chunks,
    asked: &Asked,
    mut writer: WriteHalf<Stream>,
    first: FetchCommand,
    commands: &mut mpsc::Receiver<FetchCommand>,
) -> LinkEnd {
    let mut command = Some(first);
    loop {
        match command {
            Some(FetchCommand::Fetch { request, urgent, chunks: wanted }) => {
                let frame = register(link, asked, request, urgent, &wanted);
                if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
                    return LinkEnd::Lost;
                }
            }
            Some(FetchCommand::Cancel { request }) => {
                if let Some(ended) = asked.cancel(request) {
                    chunks.events.tell(ended).await;
                }
            }
            None => return LinkEnd::Closed,
        }
        command = commands.recv().await;
    }
}

fn register(link: &Link, asked: &Asked, request: RequestId, urgent: bool, chunks: &[ChunkWanted]) -> Vec<u8> {
    let wanted: BTreeSet<ChunkId> = chunks.iter().map(|wanted| wanted.chunk).collect();
    let tracker = Tracker::new(link.id, request, wanted.len());
    let frame = FetchRequest { request: request.0, urgent, chunks: chunks.iter().map(|wanted| wanted.chunk).collect() };
    asked.lock().insert(request, Request { chunks: wanted, tracker: Arc::new(tracker) });
    frame.to_frame()
}

/// Receives answers.
async fn receive(link: &Link, chunks: &Chunks, asked: &Asked, reader: ReadHalf<Stream>) -> LinkEnd {
    let mut receiver = Receiver { link, chunks, reader, told: Instant::now() };
    loop {
        let mut header = [0; CHUNK_HEADER_BYTES];
        if receiver.reader.read_exact(&mut header).await.is_err() {
            return LinkEnd::Lost;
        }
        let answered = ChunkHeader::decode(&header)
            .map_err(Misbehaviour::from)
            .and_then(|header| Ok((header, asked.answered(&header)?)));
        let (header, tracker) = match answered {
            Ok(answered) => answered,
            Err(misbehaviour) => return LinkEnd::Misbehaved(misbehaviour),
        };
        match header.status {
            FetchStatus::Sent { length } => {
                if let Err(end) = receiver.chunk(header.chunk, length, tracker).await {
                    return end;
                }
            }
            FetchStatus::Declined(declined) => {
                for event in tracker.outcome(header.chunk, FetchOutcome::Declined(declined)).into_iter().flatten() {
                    chunks.events.tell(event).await;
                }
            }
        }
    }
}

/// Takes chunks from the stream.
struct Receiver<'a> {
    link: &'a Link,
    chunks: &'a Chunks,
    reader: ReadHalf<Stream>,
    /// When it was last told that something comes.
    told: Instant,
}

impl Receiver<'_> {
    async fn chunk(&mut self, chunk: ChunkId, length: u32, tracker: Arc<Tracker>) -> Result<(), LinkEnd> {
        let chunks = self.chunks;
        let Ok(permit) = chunks.intake_budget.clone().acquire_many_owned(length).await else {
            return Err(LinkEnd::Closed);
        };
        let length = length as usize;
        let mut buffer = chunks.intake_buffers.take();
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        for piece in buffer[..length].chunks_mut(frame::PIECE_BYTES) {
            match frame::read_exact(&mut self.reader, piece).await {
                Ok(()) => {}
                Err(FrameEnd::Misbehaved(misbehaviour)) => return Err(LinkEnd::Misbehaved(misbehaviour)),
                Err(FrameEnd::Closed | FrameEnd::Lost) => return Err(LinkEnd::Lost),
            }
            self.progressed().await;
        }
        let arrived = Arrived { tracker, chunk, buffer, length, permit };
        chunks.intake.send(arrived).await.map_err(|_| LinkEnd::Closed)
    }

    /// More of a chunk has arrived: a slow path shows that it moves.
    async fn progressed(&mut self) {
        if self.told.elapsed() >= TELL_INTERVAL {
            self.told = Instant::now();
            self.chunks.events.tell(NetworkEvent::Replica(ReplicaInput::Arriving { link: self.link.id })).await;
        }
    }
}
