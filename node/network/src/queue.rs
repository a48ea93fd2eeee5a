//! Control frames on their way to one peer.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

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

    /// Counts bytes as written to the peer.
    pub(super) fn sent(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.unsent -= bytes;
        if queue.unsent == 0 {
            self.drained.notify_waiters();
        }
    }

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

    /// Waits for the next frames: one, or several small ones joined.
    pub(super) async fn next(&self) -> Bytes {
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
