//! Imports a folder once into a fresh store and says how fast that went, durably.
//!
//!     cargo run --release --example ingest_speed -- CORPUS HOME [--copy] [--media]
//!
//! Prints `metric value unit` lines. HOME is kept, so that a second run shows what an unchanged folder costs.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark: it reads the clock and prints")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast::ingest::{ImportEvent, Ingest, IngestConfig, Keep, WatchedFolder, Watching};
use holdfast_disk::{SledMetadata, SystemDisk};
use holdfast_media::{MediaPool, PoolConfig, WorkerCommand};
use holdfast_protocol::id::LibraryId;
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_store::{ChunkStore, StoreConfig};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return holdfast_media::worker::run();
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("missing {what}"));
    let (corpus, home) = (PathBuf::from(next("CORPUS")?), PathBuf::from(next("HOME")?));
    let rest: Vec<String> = arguments.collect();
    let keep = if rest.iter().any(|argument| argument == "--copy") { Keep::Copy } else { Keep::InPlace };
    let with_media = rest.iter().any(|argument| argument == "--media");
    let media = match with_media {
        true => Some(Arc::new(MediaPool::new(PoolConfig::new(WorkerCommand::this_program()?)))),
        false => None,
    };

    std::fs::create_dir_all(&home)?;
    let secrets = LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32]);
    let metadata = SledMetadata::open(&home.join("metadata"))?;
    let config = StoreConfig { directory: home.join("store"), fingerprint_key: [3; 32] };
    let sealer = ChunkSealer::new(&secrets);
    let (store, _) = ChunkStore::open(config, Arc::new(SystemDisk), Box::new(metadata.clone()), Some(sealer))?;
    let store = Arc::new(store);

    let before = cpu_seconds();
    let start = Instant::now();
    let mut config = IngestConfig::new(vec![WatchedFolder { path: corpus, keep, label: None }]);
    config.watching = Watching::OnRequest;
    config.quiet = Duration::ZERO;
    let (ingest, mut events) = Ingest::start(config, store.clone(), secrets, media)?;
    let (mut bytes, mut acknowledged) = (0, Vec::new());
    let summary = loop {
        match events.blocking_recv().ok_or("ingest ended early")? {
            ImportEvent::Imported(imported) => {
                bytes += imported.name.size;
                acknowledged.push(imported.import);
                if acknowledged.len() >= 100 {
                    ingest.catalogued(std::mem::take(&mut acknowledged));
                }
            }
            ImportEvent::NameRemoved(removed) => acknowledged.push(removed.import),
            ImportEvent::ChunksLost(chunks) => println!("lost {} chunks", chunks.len()),
            ImportEvent::Problem(problem) => println!("problem {problem}"),
            ImportEvent::FolderMoved { .. } | ImportEvent::MoveFinished { .. } | ImportEvent::FolderLeft { .. } => {}
            ImportEvent::ScanFinished(summary) => break summary,
        }
    };
    ingest.catalogued(acknowledged);
    metadata.flush()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(ingest);
    metadata.flush()?;
    let stats = store.stats();
    println!("files {} count", summary.files);
    println!("imported {} count", summary.imported);
    println!("unchanged {} count", summary.unchanged);
    println!("wall {seconds:.3} s");
    println!("cpu {:.3} s", cpu_seconds() - before);
    println!("speed {:.0} MB/s", bytes as f64 / 1e6 / seconds);
    println!("segments {:.3} MiB", stats.segment_bytes as f64 / 1048576.0);
    println!("segment_chunks {} count", stats.segment_chunks);
    println!("in_place {:.1} MiB", stats.in_place_bytes as f64 / 1048576.0);
    println!("peak_memory {:.1} MiB", peak_memory_mib());
    Ok(())
}

/// Seconds of processor time of this process, in user and kernel mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn peak_memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
