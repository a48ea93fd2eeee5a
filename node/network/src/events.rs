//! The way to the runtime, for all tasks of the network.

use tokio::sync::mpsc;

use super::NetworkEvent;

/// Events that wait for the runtime.
const EVENTS_MAX: usize = 1024;

/// Tells the runtime what happens. Nobody listens any more while the node stops.
#[derive(Clone)]
pub(super) struct Events(mpsc::Sender<NetworkEvent>);

impl Events {
    /// A bounded queue, and its end for the runtime.
    pub(super) fn channel() -> (Self, mpsc::Receiver<NetworkEvent>) {
        let (events, happening) = mpsc::channel(EVENTS_MAX);
        (Self(events), happening)
    }

    /// Waits while the runtime is busy.
    pub(super) async fn tell(&self, event: NetworkEvent) {
        let _ = self.0.send(event).await;
    }

    /// As [`Events::tell`], for threads.
    pub(super) fn tell_blocking(&self, event: NetworkEvent) {
        let _ = self.0.blocking_send(event);
    }

    /// Tells what the runtime can do without: nothing waits while it is busy.
    pub(super) fn hint(&self, event: NetworkEvent) {
        let _ = self.0.try_send(event);
    }
}
