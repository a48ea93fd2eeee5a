//! `scale`: the costs of pools, as a table.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_sim::scale::{Cost, Pool};

use super::{Bytes, Failure, Found};

/// Bytes of a page in `/proc/self/statm`.
const PAGE_BYTES: u64 = 4096;

const HEAD: &str = "| peers | chunks | copies | changes a day | received by a peer a day | deltas | gossip | relayed heads \
| inventories asked for | greetings | learned p50 | p99 | one inventory | memory |";

#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// How many peers; several sizes make several rows.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    peers: Vec<u32>,
    /// How many chunks.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000", value_parser = clap::value_parser!(u64).range(10_000..=1_000_000_000))]
    chunks: Vec<u64>,
    /// How many peers hold each photo; 0: all.
    #[arg(long, default_value_t = 3)]
    copies: usize,
    /// How often each peer restarts in a day.
    #[arg(long, default_value_t = 1)]
    restarts: u64,
    /// Which seed draws the network and the holdings.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Scale {
    pub(crate) fn perform(self) -> Result<Found, Failure> {
        let mut costs = Vec::new();
        for chunks in &self.chunks {
            for peers in &self.peers {
                let alone = self.peers.len() == 1 && self.chunks.len() == 1;
                costs.push(if alone { self.cost(*peers as usize, *chunks) } else { self.cost_apart(*peers, *chunks)? });
            }
        }
        if self.json {
            match costs.as_slice() {
                [cost] => say!("{}", serde_json::to_string_pretty(cost).unwrap_or_default()),
                costs => say!("{}", serde_json::to_string_pretty(costs).unwrap_or_default()),
            }
            return Ok(Found::Nothing);
        }
        say!("{HEAD}\n|{}", "--:|".repeat(HEAD.matches('|').count() - 1));
        for cost in &costs {
            say!("{}", row(cost));
        }
        Ok(Found::Nothing)
    }

    fn cost(&self, peers: usize, chunks: u64) -> Cost {
        let copies = if self.copies == 0 { peers } else { self.copies };
        Pool { peers, chunks, copies, restarts: self.restarts }.cost(self.seed, &mut occupied)
    }

    /// In a process of its own: memory that an earlier pool has left behind would hide what this one takes.
    fn cost_apart(&self, peers: u32, chunks: u64) -> Result<Cost, Failure> {
        let program = std::env::current_exe().map_err(Failure::file(Path::new("this program")))?;
        let (copies, restarts, seed) = (self.copies, self.restarts, self.seed);
        let line = format!(
            "scale --json --peers {peers} --chunks {chunks} --copies {copies} --restarts {restarts} --seed {seed}"
        );
        let output = Command::new(&program).args(line.split(' ')).stderr(Stdio::inherit()).output();
        let output = output.map_err(Failure::file(&program))?;
        serde_json::from_slice(&output.stdout).map_err(|error| Failure::Record { path: program, error })
    }
}

fn row(cost: &Cost) -> String {
    let pool = &cost.pool;
    let counts =
        format!("| {} | {} | {} | {} ", pool.peers, pool.chunks, pool.copies.min(pool.peers), cost.changes_per_day);
    let bytes = [
        cost.received_bytes(),
        cost.delta_bytes,
        cost.gossip_bytes,
        cost.head_bytes,
        cost.inventory_bytes,
        cost.greeting_bytes,
    ];
    let bytes: String = bytes.into_iter().map(|bytes| format!("| {} ", Bytes(bytes))).collect();
    let times = format!("| {:.1} s | {:.1} s ", cost.learned_p50_s, cost.learned_p99_s);
    format!("{counts}{bytes}{times}| {} | {} |", Bytes(cost.whole_bytes), Bytes(cost.memory_bytes))
}

/// Bytes of memory that this process occupies; 0 where the system does not say.
fn occupied() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}
