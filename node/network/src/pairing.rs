//! Pairing: one join request and one answer, between devices that share nothing but a ticket.
//!
//! `length (u32, little endian) ‖ request`, answered in the same form. Everything about it is scarce, because strangers
//! may try it: few exchanges a minute, one at a time for each peer, small messages, short deadlines.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::AsyncWriteExt;
use holdfast_protocol::{
    id::DeviceId,
    limits::{CONTROL_FRAME_BYTES_MAX, HELLO_BYTES_MAX},
};
use libp2p::PeerId;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{NetworkEvent, events::Events, frame::read_body, streams::Stream};

/// A join request.
const REQUEST_BYTES_MAX: usize = HELLO_BYTES_MAX;
/// An admission: certificates, addresses and the sealed secrets of every epoch.
const ANSWER_BYTES_MAX: usize = CONTROL_FRAME_BYTES_MAX;
/// A whole exchange.
const DEADLINE: Duration = Duration::from_secs(30);
/// Exchanges that may begin within [`RATE_WINDOW`].
const EXCHANGES_MAX: usize = 10;
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// An exchange that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairingId(u64);

/// Why a peer did not admit this device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// No address answered.
    #[error("no address of the inviting device answers: {detail}; check that it is on and reachable, then try again")]
    Unreachable {
        /// What went wrong.
        detail: String,
    },
    /// The exchange broke off.
    #[error("the inviting device ended the exchange; ask for a new ticket and try again")]
    Refused,
    /// No answer in time.
    #[error("the inviting device did not answer in time; try again")]
    Timeout,
    /// The request is too long to be sent.
    #[error("the join request has {length} bytes, at most {REQUEST_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The network was stopped.
    #[error("the network was stopped before the exchange was done")]
    Stopped,
}

/// The exchanges of strangers.
#[derive(Default)]
pub(super) struct Pairings {
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<PairingId, oneshot::Sender<Option<Bytes>>>,
    peers: Vec<PeerId>,
    begun: VecDeque<Instant>,
}

impl Pairings {
    pub(super) fn answer(&self, pairing: PairingId, answer: Option<Bytes>) {
        if let Some(waiting) = self.lock().waiting.remove(&pairing) {
            let _ = waiting.send(answer);
        }
    }

    /// Whether `peer` may begin an exchange now; counts it if so.
    fn begin(&self, peer: PeerId, now: Instant) -> bool {
        let mut state = self.lock();
        while state.begun.front().is_some_and(|begun| now.duration_since(*begun) > RATE_WINDOW) {
            state.begun.pop_front();
        }
        if state.begun.len() >= EXCHANGES_MAX || state.peers.contains(&peer) {
            return false;
        }
        state.begun.push_back(now);
        state.peers.push(peer);
        true
    }

    fn end(&self, peer: PeerId, pairing: PairingId) {
        let mut state = self.lock();
        state.peers.retain(|busy| *busy != peer);
        state.waiting.remove(&pairing);
    }

    fn wait(&self) -> (PairingId, oneshot::Receiver<Option<Bytes>>) {
        let pairing = PairingId(self.next.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        self.lock().waiting.insert(pairing, answer);
        (pairing, answered)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a stranger's request to the runtime and its answer back.
pub(super) async fn accept(
    pairings: Arc<Pairings>,
    events: Events,
    (peer, peer_id): (DeviceId, PeerId),
    mut stream: Stream,
) {
    if !pairings.begin(peer_id, Instant::now()) {
        tracing::info!(peer = %peer.short(), "pairing refused: too many attempts");
        return;
    }
    let (pairing, answered) = pairings.wait();
    let exchange = async {
        let body = read_body(&mut stream, REQUEST_BYTES_MAX).await?;
        events.tell(NetworkEvent::PairRequested { pairing, peer, body }).await;
        if let Ok(Some(answer)) = answered.await {
            write(&mut stream, &answer).await?;
            stream.close().await?;
        }
        io::Result::Ok(())
    };
    let _ = timeout(DEADLINE, exchange).await;
    pairings.end(peer_id, pairing);
}

/// Sends a request and waits for its answer.
pub(super) async fn request(mut stream: Stream, request: &[u8]) -> Result<Bytes, PairError> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err(PairError::TooLong { length: request.len() });
    }
    let exchange = async {
        write(&mut stream, request).await?;
        read_body(&mut stream, ANSWER_BYTES_MAX).await
    };
    match timeout(DEADLINE, exchange).await {
        Ok(answer) => answer.map_err(|_| PairError::Refused),
        Err(_) => Err(PairError::Timeout),
    }
}

async fn write(stream: &mut Stream, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = Vec::with_capacity(4 + body.len());
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message).await?;
    stream.flush().await
}
