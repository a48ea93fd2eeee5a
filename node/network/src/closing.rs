//! Connections that close in time.
//!
//! A multiplexer says goodbye before it closes, and waits until the path has taken that: over a path that is dead, until
//! the system gives up after a quarter of an hour. Until then the connection would count against its peer's limit.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::time::{Sleep, sleep};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A multiplexer that is closed soon after it is told to.
pub(super) struct Closing<M> {
    muxer: M,
    /// When closing is over, once it has begun.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<M> Closing<M> {
    pub(super) const fn new(muxer: M) -> Self {
        Self { muxer, deadline: None }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Closing<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(context)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.muxer).poll_close(context) {
            return Poll::Ready(closed);
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(GOODBYE)));
        deadline.as_mut().poll(context).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.muxer).poll(context)
    }
}
