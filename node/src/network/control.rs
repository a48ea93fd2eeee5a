//! Control frames: one stream for each direction of a link, opened by the side that sends.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::AsyncWriteExt;
use holdfast_protocol::limits::{BULK_FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use libp2p::Stream;
use tokio::{sync::Notify, time::timeout};

use super::{
    LinkEnd, NetworkEvent, frame,
    frame::FrameEnd,
    links::{Link, Shared},
    streams,
};

/// Bytes that wait for a peer to read them.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Small frames are written together up to this many bytes.
const WRITE_BYTES: usize = 64 << 10;
/// Time for the peer to take what is written.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Frames on their way to one peer, bounded in bytes.
#[derive(Default)]
pub(super) struct ControlQueue {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl ControlQueue {
    /// Adds a frame; `false` when the queue is full.
    pub(super) fn push(&self, frame: Bytes) -> bool {
        let mut queue = self.lock();
        if queue.bytes + frame.len() > QUEUE_BYTES_MAX {
            return false;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Takes the next frames: one, or several small ones joined.
    fn take(&self) -> Option<Bytes> {
        let mut queue = self.lock();
        let first = queue.frames.pop_front()?;
        queue.bytes -= first.len();
        if queue.frames.front().is_none_or(|next| first.len() + next.len() > WRITE_BYTES) {
            return Some(first);
        }
        let mut joined = Vec::with_capacity(WRITE_BYTES);
        joined.extend_from_slice(&first);
        while let Some(next) = queue.frames.front()
            && joined.len() + next.len() <= WRITE_BYTES
        {
            joined.extend_from_slice(next);
            queue.bytes -= next.len();
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

/// Writes the queue of a link to the peer until the link ends; then what is left, as far as it goes.
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
        if let Err(end) = write_all(&mut stream, &bytes).await {
            link.end(end);
            return;
        }
    }
}

async fn write_all(stream: &mut Stream, bytes: &[u8]) -> Result<(), LinkEnd> {
    let written = timeout(WRITE_DEADLINE, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(LinkEnd::Lost),
        Err(_) => Err(LinkEnd::TooSlow),
    }
}

/// Reads the peer's frames until its stream or the link ends. A stranger's frames are short.
pub(super) async fn read(link: Arc<Link>, shared: Arc<Shared>, mut stream: Stream) {
    loop {
        let limit = || if link.is_admitted() { BULK_FRAME_BYTES_MAX } else { HELLO_BYTES_MAX };
        let received = tokio::select! {
            received = frame::read(&mut stream, limit) => received,
            () = link.closed.cancelled() => return,
        };
        match received {
            Ok(frame) => {
                shared.tell(NetworkEvent::Received { link: link.id, tag: frame.tag, body: frame.body }).await;
            }
            Err(FrameEnd::Closed | FrameEnd::Lost) => {
                link.end(LinkEnd::Lost);
                return;
            }
            Err(FrameEnd::Misbehaved(misbehaviour)) => {
                link.misbehaved(misbehaviour);
                return;
            }
        }
    }
}
