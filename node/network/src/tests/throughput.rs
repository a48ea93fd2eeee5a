//! Bulk between two processes on loopback, from memory: `cargo test --release -p holdfast-network --lib
//! tests::throughput -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods, reason = "a measurement")]

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use holdfast_protocol::replica::{Answer, ChunkWanted, FetchOutcome, Input as ReplicaInput, RequestId};

use super::*;
use crate::{ChunkSink, ChunkSource};

const CHUNK_BYTES: usize = 1 << 20;
const DISTINCT: usize = 64;
/// 2 GiB, as the transport was measured with.
const CHUNKS: usize = 2048;
const PER_REQUEST: usize = 8;
const IN_FLIGHT: usize = 8;
const SERVER: &str = "HOLDFAST_THROUGHPUT_SERVER";

fn chunk(index: usize) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK_BYTES];
    blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The serving process: prints its address and serves until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test below"]
async fn throughput_server() {
    if env::var_os(SERVER).is_none() {
        return;
    }
    let transport = env::var(SERVER).unwrap();
    let mut node = Node::start(1, &[&transport]).await;
    for index in 0..DISTINCT {
        node.memory.put(chunk(index));
    }
    println!("address {}", node.addresses[0]);
    while let Some(event) = node.events.recv().await {
        match event {
            NetworkEvent::Connected { link, .. } => node.handle.admit(link),
            NetworkEvent::Replica(ReplicaInput::FetchRequested { link, request }) => {
                let answers = request.chunks.iter().map(|chunk| (*chunk, Answer::Send)).collect();
                node.handle.serve(link, RequestId(request.request), answers);
            }
            _ => {}
        }
    }
}

#[test]
#[ignore = "a measurement; needs --release"]
fn throughput() {
    for transport in [TCP, QUIC] {
        let mut server = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "tests::throughput::throughput_server"])
            .env(SERVER, transport)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        let address =
            lines.find_map(|line| line.split_once("address ").map(|(_, address)| address.to_owned())).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut before = cpu_seconds("self") + cpu_seconds(&server.id().to_string());
        for round in 0..3 {
            let seconds = runtime.block_on(fetch(2 + round, address.clone()));
            let cpu = cpu_seconds("self") + cpu_seconds(&server.id().to_string());
            let (gib, spent) = (CHUNKS as f64 / 1024.0, cpu - std::mem::replace(&mut before, cpu));
            let rate = CHUNKS as f64 / seconds;
            println!("{transport}: {rate:.0} MiB/s, {:.2} CPU s a GiB, peak {} MiB", spent / gib, peak_mib());
        }
        drop(runtime);
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// User and system time of a process, of both ends together a measure that other load disturbs less than the rate.
fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse().ok()).unwrap_or(0u64) / 1024
}

async fn fetch(seed: u8, address: String) -> f64 {
    let config = NetworkConfig::new(DeviceKey::from_seed(&[seed; 32]), Vec::new());
    let source = ChunkSource::new(|_, _| Err(ReadFailure::NotHeld));
    let sink = ChunkSink::new(|_, _| Ok(()), || Ok(()));
    let (handle, mut events) = Network::start(config, source, sink).unwrap();
    handle.dial_address(address);
    let ids: Vec<ChunkId> = (0..DISTINCT).map(|index| id_of(&chunk(index))).collect();
    let link = loop {
        if let Some(NetworkEvent::Connected { link, .. }) = events.recv().await {
            break link;
        }
    };
    handle.admit(link);
    let begun = Instant::now();
    let (mut asked, mut ended, mut stored) = (0, 0, 0);
    while ended * PER_REQUEST < CHUNKS {
        while asked - ended < IN_FLIGHT && asked * PER_REQUEST < CHUNKS {
            let first = asked * PER_REQUEST;
            let chunks = (first..first + PER_REQUEST)
                .map(|index| ChunkWanted { chunk: ids[index % DISTINCT], length: CHUNK_BYTES as u32 })
                .collect();
            handle.fetch(link, RequestId(asked as u64), false, chunks);
            asked += 1;
        }
        match events.recv().await {
            Some(NetworkEvent::Replica(ReplicaInput::Fetched { outcome, .. })) => {
                assert_eq!(outcome, FetchOutcome::Stored);
                stored += 1;
            }
            Some(NetworkEvent::Replica(ReplicaInput::FetchEnded { .. })) => ended += 1,
            Some(NetworkEvent::Disconnected { end, .. }) => panic!("{end}"),
            _ => {}
        }
    }
    assert_eq!(stored, CHUNKS);
    begun.elapsed().as_secs_f64()
}
