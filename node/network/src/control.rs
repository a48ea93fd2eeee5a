//! Control frames: one stream for each direction of a link, opened by the side that sends.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_protocol::{message::Gate, replica::Input as ReplicaInput};
use tokio::sync::Notify;

use super::{
    LinkEnd, NetworkEvent, frame,
    frame::FrameEnd,
    links::{Link, Shared},
    streams::{self, Stream},
};

/// Bytes that wait for a peer to read them.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Small frames are written together up to this many bytes.
const WRITE_BYTES: usize = 64 << 10;

/// Frames on their way to one peer, bounded in bytes.
#[derive(Default)]
pub(super) struct ControlQueue {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    /// Bytes of `frames` and of what is being written.
    unsent: usize,
}

impl ControlQueue {
    /// Adds a frame; `false` when the queue is full.
    pub(super) fn push(&self, frame: Bytes) -> bool {
        let mut queue = self.lock();
        if queue.unsent + frame.len() > QUEUE_BYTES_MAX {
            return false;
        }
        queue.unsent += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Waits until the peer was sent everything.
    pub(super) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            if self.lock().unsent == 0 {
                return;
            }
            drained.await;
        }
    }

    fn sent(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.unsent -= bytes;
        if queue.unsent == 0 {
            self.drained.notify_waiters();
        }
    }

    /// Takes the next frames: one, or several small ones joined.
    fn take(&self) -> Option<Bytes> {
        let mut queue = self.lock();
        let first = queue.frames.pop_front()?;
        if queue.frames.front().is_none_or(|next| first.len() + next.len() > WRITE_BYTES) {
            return Some(first);
        }
        let mut joined = Vec::with_capacity(WRITE_BYTES);
        joined.extend_from_slice(&first);
        while let Some(next) = queue.frames.front()
            && joined.len() + next.len() <= WRITE_BYTES
        {
            joined.extend_from_slice(next);
            queue.frames.pop_front();
        }
        Some(joined.into())
    }

    async fn next(&self) -> Bytes {
        loop {
            if let Some(bytes) = self.take() {
                return bytes;
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the queue of a link to the peer until the link ends.
pub(super) async fn write(link: Arc<Link>) {
    let Some(mut stream) = link.open(streams::CONTROL).await else {
        link.end(LinkEnd::Lost);
        return;
    };
    loop {
        let bytes = tokio::select! {
            bytes = link.control.next() => bytes,
            () = link.closed.cancelled() => return,
        };
        let written = match frame::write_all(&mut stream, &bytes).await {
            Ok(()) => frame::flush(&mut stream).await,
            failed => failed,
        };
        if let Err(end) = written {
            link.end(end);
            return;
        }
        link.control.sent(bytes.len());
    }
}

/// Reads the peer's frames until its stream or the link ends. After its first two, a stranger waits to be admitted.
pub(super) async fn read(link: Arc<Link>, shared: Arc<Shared>, mut stream: Stream) {
    tokio::select! {
        end = frames(&link, &shared, &mut stream) => link.finish(end),
        () = link.closed.cancelled() => {}
    }
    link.control_ended.cancel();
}

async fn frames(link: &Link, shared: &Shared, stream: &mut Stream) -> LinkEnd {
    let mut gate = Gate::default();
    loop {
        let received = frame::read(stream, |header| {
            let header = gate.admit(header)?;
            Ok((header.tag, header.length))
        });
        let (tag, body) = match received.await {
            Ok(frame) => frame,
            Err(FrameEnd::Closed | FrameEnd::Lost) => return LinkEnd::Lost,
            Err(FrameEnd::Misbehaved(misbehaviour)) => return LinkEnd::Misbehaved(misbehaviour),
        };
        shared.tell(NetworkEvent::Replica(ReplicaInput::Received { link: link.id, tag, body })).await;
        if gate == Gate::Open {
            link.admission().await;
        }
    }
}
