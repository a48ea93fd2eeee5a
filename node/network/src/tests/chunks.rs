use futures::{AsyncReadExt, AsyncWriteExt};
use holdfast_protocol::{
    limits::{REQUESTS_PER_PEER_MAX, SEALED_CHUNK_BYTES_MAX},
    message::{CHUNK_HEADER_BYTES, ChunkHeader, Declined, FetchRequest, FetchStatus},
    replica::{Answer, ChunkWanted, FetchOutcome, RequestId},
};

use super::*;
use crate::{LinkEnd, Misbehaviour, streams};

/// Chunks of many sizes, from one byte to the largest.
fn sizes() -> Vec<Vec<u8>> {
    [1, 77, 4096, 60_000, 65_536, 65_537, 300_000, 1 << 20, SEALED_CHUNK_BYTES_MAX, 5, 20_000]
        .iter()
        .enumerate()
        .map(|(index, &length)| (0..length).map(|byte| (byte * 31 + index) as u8).collect())
        .collect()
}

fn wanted(chunk: ChunkId, length: usize) -> ChunkWanted {
    ChunkWanted { chunk, length: length as u32 }
}

/// Answers every request of a node with what `answer` says until its link ends.
async fn serve(mut node: Node, answer: impl Fn(&ChunkId) -> Answer) -> (Node, u64) {
    let mut served = 0;
    loop {
        match node.next().await {
            NetworkEvent::Replica(ReplicaInput::FetchRequested { link, request }) => {
                let answers = request.chunks.iter().map(|chunk| (*chunk, answer(chunk))).collect();
                node.handle.serve(link, RequestId(request.request), answers);
            }
            NetworkEvent::Replica(ReplicaInput::Served { bytes, .. }) => served += u64::from(bytes),
            NetworkEvent::Disconnected { .. } => return (node, served),
            _ => {}
        }
    }
}

/// The outcomes of a request, in the order reported, up to its end.
async fn outcomes(node: &mut Node, of: RequestId) -> Vec<(ChunkId, FetchOutcome)> {
    let mut outcomes = Vec::new();
    loop {
        match node.next().await {
            NetworkEvent::Replica(ReplicaInput::Fetched { request, chunk, outcome, .. }) if request == of => {
                outcomes.push((chunk, outcome))
            }
            NetworkEvent::Replica(ReplicaInput::FetchEnded { request, .. }) if request == of => return outcomes,
            NetworkEvent::Disconnected { end, .. } => panic!("link ended: {end}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_arrive_verified_and_are_reported_once_durable() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = (Node::start(1, &[transport]).await, Node::start(2, &[transport]).await);
        let (_, at_b) = befriend(&mut a, &mut b).await;
        let chunks: Vec<ChunkWanted> =
            sizes().into_iter().map(|bytes| wanted(a.memory.put(bytes.clone()), bytes.len())).collect();
        let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        let source = a.memory.clone();
        let serving = tokio::spawn(serve(a, |_| Answer::Send));
        for (number, part) in chunks.chunks(4).enumerate() {
            b.handle.fetch(at_b, RequestId(number as u64), false, part.to_vec());
        }
        for (number, part) in chunks.chunks(4).enumerate() {
            let outcomes = outcomes(&mut b, RequestId(number as u64)).await;
            assert_eq!(outcomes.len(), part.len());
            let committed = b.memory.committed();
            for (chunk, outcome) in outcomes {
                assert_eq!(outcome, FetchOutcome::Stored, "{transport}");
                assert!(committed.contains(&chunk), "reported before it was durable");
            }
        }
        assert_eq!(*b.memory.chunks.lock().unwrap(), *source.chunks.lock().unwrap());
        b.handle.disconnect(at_b);
        assert_eq!(serving.await.unwrap().1, total, "every byte was reported as served");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sent_and_what_is_corrupt_is_told_for_each_chunk() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (_, at_b) = befriend(&mut a, &mut b).await;
    let good = a.memory.put(vec![1; 1000]);
    let rotten = id_of(&[2; 1000]);
    a.memory.chunks.lock().unwrap().insert(rotten, vec![3; 1000]);
    let [gone, elsewhere] = [4, 5].map(|byte| id_of(&[byte; 1000]));
    let other = b.device;
    let serving = tokio::spawn(serve(a, move |chunk| match *chunk {
        chunk if chunk == elsewhere => Answer::Elsewhere(other),
        _ => Answer::Send,
    }));
    let all = [good, rotten, gone, elsewhere];
    b.handle.fetch(at_b, RequestId(1), true, all.map(|chunk| wanted(chunk, 1000)).to_vec());
    let told: BTreeMap<ChunkId, FetchOutcome> = outcomes(&mut b, RequestId(1)).await.into_iter().collect();
    assert_eq!(told[&good], FetchOutcome::Stored);
    assert_eq!(told[&rotten], FetchOutcome::Corrupt);
    assert_eq!(told[&gone], FetchOutcome::Declined(Declined::NotHeld));
    assert_eq!(told[&elsewhere], FetchOutcome::Declined(Declined::Elsewhere(other)));
    assert!(!b.memory.chunks.lock().unwrap().contains_key(&rotten), "corrupt bytes are not kept");
    b.handle.disconnect(at_b);
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_is_taken_whatever_length_its_depositors_claim() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (_, at_b) = befriend(&mut a, &mut b).await;
    let [shorter, longer] = [1, 2].map(|byte| a.memory.put(vec![byte; 1000]));
    let serving = tokio::spawn(serve(a, |_| Answer::Send));
    b.handle.fetch(at_b, RequestId(1), false, vec![wanted(shorter, 999), wanted(longer, 70_000)]);
    for (_, outcome) in outcomes(&mut b, RequestId(1)).await {
        assert_eq!(outcome, FetchOutcome::Stored);
    }
    b.handle.disconnect(at_b);
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_ends_and_the_next_one_goes_on() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (at_a, at_b) = befriend(&mut a, &mut b).await;
    let chunk = a.memory.put(vec![1; 100_000]);
    b.handle.fetch(at_b, RequestId(1), false, vec![wanted(chunk, 100_000)]);
    let request = a
        .until(|event| match event {
            NetworkEvent::Replica(ReplicaInput::FetchRequested { request, .. }) => Some(request),
            _ => None,
        })
        .await;
    b.handle.cancel_fetch(at_b, RequestId(1));
    assert_eq!(outcomes(&mut b, RequestId(1)).await, []);
    a.handle.serve(at_a, RequestId(request.request), vec![(chunk, Answer::Send)]);
    let serving = tokio::spawn(serve(a, |_| Answer::Send));
    // What still comes has crossed the network: it is kept, and told of under the request that was given up.
    let late = b.until(|event| match event {
        NetworkEvent::Replica(ReplicaInput::Fetched { request, outcome, .. }) => Some((request, outcome)),
        _ => None,
    });
    assert_eq!(late.await, (RequestId(1), FetchOutcome::Stored));
    b.handle.fetch(at_b, RequestId(2), false, vec![wanted(chunk, 100_000)]);
    assert_eq!(outcomes(&mut b, RequestId(2)).await, [(chunk, FetchOutcome::Stored)]);
    b.handle.disconnect(at_b);
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_served_nothing() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (_, at_b) = connect(&mut a, &mut b).await;
    let chunk = a.memory.put(vec![1; 1000]);
    b.handle.fetch(at_b, RequestId(1), false, vec![wanted(chunk, 1000)]);
    let heard = a.rest().await;
    assert!(
        !heard.iter().any(|event| matches!(event, NetworkEvent::Replica(ReplicaInput::FetchRequested { .. }))),
        "{heard:?}"
    );
}

/// What a peer's raw bytes on a chunk stream make of the link at the serving end.
async fn verdict(bytes: Vec<u8>) -> LinkEnd {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (_, at_b) = befriend(&mut a, &mut b).await;
    let link = b.handle.shared.link(at_b).unwrap();
    let mut stream = link.open(streams::CHUNKS).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
    a.disconnected().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_and_oversize_requests_end_the_link() {
    assert!(matches!(verdict(vec![0xff; 64]).await, LinkEnd::Misbehaved(Misbehaviour::Message(_))));
    let garbage = [&100u32.to_le_bytes()[..], &[0xee; 100]].concat();
    assert!(matches!(verdict(garbage).await, LinkEnd::Misbehaved(Misbehaviour::Message(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_limit_wait_until_one_is_answered() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (at_a, at_b) = befriend(&mut a, &mut b).await;
    let chunk = a.memory.put(vec![1; 1000]);
    for request in 0..=REQUESTS_PER_PEER_MAX as u64 {
        b.handle.fetch(at_b, RequestId(request), false, vec![wanted(chunk, 1000)]);
    }
    let asked = |event| match event {
        NetworkEvent::Replica(ReplicaInput::FetchRequested { request, .. }) => Some(RequestId(request.request)),
        _ => None,
    };
    for request in 0..REQUESTS_PER_PEER_MAX as u64 {
        assert_eq!(a.until(asked).await, RequestId(request));
    }
    assert_eq!(a.rest().await.into_iter().filter_map(asked).collect::<Vec<_>>(), []);
    a.handle.serve(at_a, RequestId(0), vec![(chunk, Answer::Send)]);
    assert_eq!(a.until(asked).await, RequestId(REQUESTS_PER_PEER_MAX as u64));
    assert_eq!(outcomes(&mut b, RequestId(0)).await, [(chunk, FetchOutcome::Stored)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_asked_for_end_the_link() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (at_a, at_b) = befriend(&mut a, &mut b).await;
    let chunk = a.memory.put(vec![1; 1000]);
    b.handle.fetch(at_b, RequestId(1), false, vec![wanted(chunk, 1000)]);
    a.until(|event| matches!(event, NetworkEvent::Replica(ReplicaInput::FetchRequested { .. })).then_some(())).await;
    let other = a.memory.put(vec![2; 1000]);
    a.handle.serve(at_a, RequestId(1), vec![(other, Answer::Send)]);
    assert_eq!(b.disconnected().await, LinkEnd::Misbehaved(Misbehaviour::Unasked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_served_bytes_are_what_the_protocol_says() {
    let (mut a, mut b) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (_, at_b) = befriend(&mut a, &mut b).await;
    let chunk = a.memory.put(vec![9; 70_000]);
    let mut stream = b.handle.shared.link(at_b).unwrap().open(streams::CHUNKS).await.unwrap();
    let serving = tokio::spawn(serve(a, |_| Answer::Send));
    let request = FetchRequest { request: 17, urgent: false, chunks: vec![chunk, id_of(b"missing")] };
    stream.write_all(&request.to_frame()).await.unwrap();
    stream.flush().await.unwrap();
    let mut header = [0; CHUNK_HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let status = FetchStatus::Sent { length: 70_000 };
    assert_eq!(ChunkHeader::decode(&header), Ok(ChunkHeader { request: 17, chunk, status }));
    let mut bytes = vec![0; 70_000];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(id_of(&bytes), chunk);
    stream.read_exact(&mut header).await.unwrap();
    let status = FetchStatus::Declined(Declined::NotHeld);
    assert_eq!(ChunkHeader::decode(&header).unwrap().status, status);
    b.handle.disconnect(at_b);
    serving.await.unwrap();
}
