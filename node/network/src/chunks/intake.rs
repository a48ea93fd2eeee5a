//! Intake: fetched bytes are verified and appended on one thread, committed on another.
//!
//! A commit covers whatever was appended while the one before it ran, so that a slow disk gets large batches and a fast
//! one short waits.

#![allow(clippy::disallowed_methods, reason = "a driver: commits are batched by real time")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use holdfast_protocol::{
    id::ChunkId,
    replica::{FetchOutcome, Input as ReplicaInput, LinkId, RequestId},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{Buffers, ChunkSink};
use crate::{NetworkEvent, events::Events};

/// Appended chunks that wait for their commit.
const APPENDED_MAX: usize = 4096;
/// A commit gathers this much, unless nothing more comes for a moment.
const COMMIT_BYTES: usize = 16 << 20;
const COMMIT_WAIT: Duration = Duration::from_millis(10);

/// A request whose chunks arrive one by one; its last outcome ends it.
#[derive(Debug)]
pub(super) struct Tracker {
    link: LinkId,
    request: RequestId,
    /// What is still on its way.
    open: AtomicUsize,
}

impl Tracker {
    pub(super) const fn new(link: LinkId, request: RequestId, chunks: usize) -> Self {
        Self { link, request, open: AtomicUsize::new(chunks) }
    }

    /// The same request once nobody waits for its end.
    pub(super) const fn unawaited(&self) -> Self {
        Self::new(self.link, self.request, usize::MAX)
    }

    /// Gives up `count` chunks that have not arrived; `FetchEnded` when nothing else is on its way.
    pub(super) fn give_up(&self, count: usize) -> Option<NetworkEvent> {
        let (link, request) = (self.link, self.request);
        let last = self.open.fetch_sub(count, Ordering::AcqRel) == count;
        last.then_some(NetworkEvent::Replica(ReplicaInput::FetchEnded { link, request }))
    }

    /// The events of one outcome: `Fetched`, and `FetchEnded` after the last.
    pub(super) fn outcome(&self, chunk: ChunkId, outcome: FetchOutcome) -> [Option<NetworkEvent>; 2] {
        let (link, request) = (self.link, self.request);
        let last = self.open.fetch_sub(1, Ordering::AcqRel) == 1;
        [
            Some(NetworkEvent::Replica(ReplicaInput::Fetched { link, request, chunk, outcome })),
            last.then_some(NetworkEvent::Replica(ReplicaInput::FetchEnded { link, request })),
        ]
    }
}

/// A chunk whose bytes have arrived: the first `length` of `buffer`.
pub(super) struct Arrived {
    pub(super) tracker: Arc<Tracker>,
    pub(super) chunk: ChunkId,
    pub(super) buffer: Vec<u8>,
    pub(super) length: usize,
    /// The bytes' share of the budget, given back once the store has them.
    pub(super) permit: OwnedSemaphorePermit,
}

struct Appended {
    tracker: Arc<Tracker>,
    chunk: ChunkId,
    length: usize,
}

pub(super) fn start(
    sink: ChunkSink,
    arrived: mpsc::Receiver<Arrived>,
    buffers: Arc<Buffers>,
    events: Events,
) -> io::Result<()> {
    let (appended, waiting) = std::sync::mpsc::sync_channel(APPENDED_MAX);
    let (verifying, committing) = (Context { sink: sink.clone(), events: events.clone() }, Context { sink, events });
    thread::Builder::new()
        .name("holdfast-verify".to_owned())
        .spawn(move || verify(&verifying, arrived, &buffers, &appended))?;
    thread::Builder::new().name("holdfast-commit".to_owned()).spawn(move || commit(&committing, &waiting))?;
    Ok(())
}

struct Context {
    sink: ChunkSink,
    events: Events,
}

impl Context {
    fn report(&self, tracker: &Tracker, chunk: ChunkId, outcome: FetchOutcome) {
        for event in tracker.outcome(chunk, outcome).into_iter().flatten() {
            self.events.tell_blocking(event);
        }
    }
}

fn verify(
    context: &Context,
    mut arrived: mpsc::Receiver<Arrived>,
    buffers: &Buffers,
    appended: &std::sync::mpsc::SyncSender<Appended>,
) {
    while let Some(Arrived { tracker, chunk, buffer, length, permit }) = arrived.blocking_recv() {
        let bytes = &buffer[..length];
        let outcome = if blake3::hash(bytes).as_bytes() != chunk.as_bytes() {
            Err(FetchOutcome::Corrupt)
        } else {
            (context.sink.append)(&chunk, bytes).map_err(FetchOutcome::StorageFailed)
        };
        buffers.give(buffer);
        drop(permit);
        match outcome {
            Ok(()) => {
                if appended.send(Appended { tracker, chunk, length }).is_err() {
                    return;
                }
            }
            Err(outcome) => context.report(&tracker, chunk, outcome),
        }
    }
}

fn commit(context: &Context, appended: &std::sync::mpsc::Receiver<Appended>) {
    let mut batch = Vec::new();
    while let Ok(first) = appended.recv() {
        let mut bytes = first.length;
        batch.push(first);
        let until = Instant::now() + COMMIT_WAIT;
        while bytes < COMMIT_BYTES {
            let Ok(next) = appended.recv_timeout(until.saturating_duration_since(Instant::now())) else { break };
            bytes += next.length;
            batch.push(next);
        }
        let committed = (context.sink.commit)();
        for Appended { tracker, chunk, .. } in batch.drain(..) {
            let outcome = match &committed {
                Ok(()) => FetchOutcome::Stored,
                Err(error) => FetchOutcome::StorageFailed(error.clone()),
            };
            context.report(&tracker, chunk, outcome);
        }
    }
}
