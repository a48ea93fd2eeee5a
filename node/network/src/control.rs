//! Control frames: one stream for each direction of a link, opened by the side that sends.

use std::sync::Arc;

use holdfast_protocol::{message::Gate, replica::Input as ReplicaInput};

use super::{
    LinkEnd, NetworkEvent,
    events::Events,
    frame::{self, FrameEnd},
    links::Link,
    streams::{self, Stream},
};

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
pub(super) async fn read(link: Arc<Link>, events: Events, mut stream: Stream) {
    tokio::select! {
        end = frames(&link, &events, &mut stream) => link.finish(end),
        () = link.closed.cancelled() => {}
    }
    link.control_ended.cancel();
}

async fn frames(link: &Link, events: &Events, stream: &mut Stream) -> LinkEnd {
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
        events.tell(NetworkEvent::Replica(ReplicaInput::Received { link: link.id, tag, body })).await;
        if gate == Gate::Open {
            link.admission().await;
        }
    }
}
