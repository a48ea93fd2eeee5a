//! Networks in one process, on the loopback interface.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use holdfast_protocol::{
    id::{ChunkId, DeviceId},
    keys::DeviceKey,
    message::tag,
    replica::{Input as ReplicaInput, LinkId},
};
use tokio::{sync::mpsc, time::timeout};

use super::{ChunkSink, ChunkSource, Network, NetworkConfig, NetworkEvent, NetworkHandle, ReadFailure};

mod chunks;
mod control;
mod gossip;
mod links;
mod pairing;
mod relays;
mod throughput;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A store in memory that knows which of its chunks were committed.
#[derive(Default)]
struct Memory {
    chunks: Mutex<BTreeMap<ChunkId, Vec<u8>>>,
    appended: Mutex<Vec<ChunkId>>,
    committed: Mutex<Vec<ChunkId>>,
    reads: AtomicUsize,
}

impl Memory {
    /// Puts `bytes` under their own hash.
    fn put(&self, bytes: Vec<u8>) -> ChunkId {
        let chunk = id_of(&bytes);
        self.chunks.lock().unwrap().insert(chunk, bytes);
        chunk
    }

    fn committed(&self) -> Vec<ChunkId> {
        self.committed.lock().unwrap().clone()
    }

    fn source(self: &Arc<Self>) -> ChunkSource {
        let memory = self.clone();
        ChunkSource::new(move |chunk, bytes| {
            memory.reads.fetch_add(1, Ordering::Relaxed);
            let chunks = memory.chunks.lock().unwrap();
            let held = chunks.get(chunk).ok_or(ReadFailure::NotHeld)?;
            bytes.clear();
            bytes.extend_from_slice(held);
            Ok(())
        })
    }

    fn sink(self: &Arc<Self>) -> ChunkSink {
        let (appending, committing) = (self.clone(), self.clone());
        let append = move |chunk: &ChunkId, bytes: &[u8]| {
            appending.chunks.lock().unwrap().insert(*chunk, bytes.to_vec());
            appending.appended.lock().unwrap().push(*chunk);
            Ok(())
        };
        ChunkSink::new(append, move || {
            committing.committed.lock().unwrap().append(&mut committing.appended.lock().unwrap());
            Ok(())
        })
    }
}

fn id_of(bytes: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(bytes).as_bytes())
}

struct Node {
    device: DeviceId,
    handle: NetworkHandle,
    events: mpsc::Receiver<NetworkEvent>,
    addresses: Vec<String>,
    memory: Arc<Memory>,
}

impl Node {
    async fn start(seed: u8, listen: &[&str]) -> Self {
        Self::start_with(seed, listen, |_| {}).await
    }

    async fn start_with(seed: u8, listen: &[&str], configure: impl FnOnce(&mut NetworkConfig)) -> Self {
        let device = DeviceKey::from_seed(&[seed; 32]);
        let id = device.device_id();
        let mut config = NetworkConfig::new(device, listen.iter().map(|&address| address.to_owned()).collect());
        configure(&mut config);
        let memory = Arc::new(Memory::default());
        let (handle, events) = Network::start(config, memory.source(), memory.sink()).unwrap();
        let mut node = Self { device: id, handle, events, addresses: Vec::new(), memory };
        while node.addresses.len() < listen.len() {
            let NetworkEvent::Listening { addresses } = node.next().await else { continue };
            node.addresses = addresses;
        }
        node
    }

    async fn next(&mut self) -> NetworkEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a running network")
    }

    /// The first event that `pick` takes; others are dropped.
    async fn until<T>(&mut self, mut pick: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.next().await) {
                return picked;
            }
        }
    }

    async fn connected(&mut self) -> (LinkId, DeviceId) {
        self.until(|event| match event {
            NetworkEvent::Connected { link, peer, .. } => Some((link, peer)),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self) -> super::LinkEnd {
        self.until(|event| match event {
            NetworkEvent::Disconnected { end, .. } => Some(end),
            _ => None,
        })
        .await
    }

    async fn received(&mut self) -> (u8, Bytes) {
        self.until(|event| match event {
            NetworkEvent::Replica(ReplicaInput::Received { tag, body, .. }) => Some((tag, body)),
            _ => None,
        })
        .await
    }

    /// What happens within a moment, once everything that should have happened has.
    async fn rest(&mut self) -> Vec<NetworkEvent> {
        let mut events = Vec::new();
        while let Ok(Some(event)) = timeout(Duration::from_millis(300), self.events.recv()).await {
            events.push(event);
        }
        events
    }

    /// Says what a member says first.
    fn introduce(&self, link: LinkId) {
        self.handle.send(link, frame(tag::HELLO, b"hello"));
        self.handle.send(link, frame(tag::PROVE, b"proof"));
    }
}

/// Connects `a` to `b`: the link at each end.
async fn connect(a: &mut Node, b: &mut Node) -> (LinkId, LinkId) {
    a.handle.dial(b.device, b.addresses.clone());
    let (at_a, peer) = a.connected().await;
    assert_eq!(peer, b.device);
    let (at_b, peer) = b.connected().await;
    assert_eq!(peer, a.device);
    (at_a, at_b)
}

/// Connects two members that trust each other.
async fn befriend(a: &mut Node, b: &mut Node) -> (LinkId, LinkId) {
    let (at_a, at_b) = connect(a, b).await;
    a.handle.admit(at_a);
    b.handle.admit(at_b);
    (at_a, at_b)
}

fn frame(tag: u8, body: &[u8]) -> Bytes {
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.push(tag);
    frame.extend_from_slice(body);
    frame.into()
}
