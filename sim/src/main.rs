//! `holdfast-sim run --seed N [--count N] [--trace]`: runs worlds and says what broke.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::process::ExitCode;

use holdfast_sim::check::{Violation, replayed};
use holdfast_sim::options::Options;
use holdfast_sim::world::World;

const USAGE: &str = "usage: holdfast-sim run --seed N [--count N] [--trace]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((seed, count, is_verbose)) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut failed = 0_u64;
    for seed in seed..seed.saturating_add(count) {
        let options = Options::of(seed);
        println!("seed {seed}: {options:?}");
        match run(seed, &options, is_verbose) {
            Ok(line) => println!("seed {seed}: {line}"),
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: FAILED: {violation}");
            }
        }
    }
    println!("{count} run, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn parse(arguments: &[String]) -> Option<(u64, u64, bool)> {
    let (mut seed, mut count, mut is_verbose) = (None, 1, false);
    let mut words = arguments.iter();
    if words.next()? != "run" {
        return None;
    }
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" => seed = Some(words.next()?.parse().ok()?),
            "--count" => count = words.next()?.parse().ok()?,
            "--trace" => is_verbose = true,
            _ => return None,
        }
    }
    Some((seed?, count, is_verbose))
}

/// Runs a seed twice: once to see what breaks, once to see that it was the seed alone.
fn run(seed: u64, options: &Options, is_verbose: bool) -> Result<String, Violation> {
    let mut world = World::new(seed, options.clone())?;
    world.is_verbose = is_verbose;
    world.run()?;
    let first = world.trace_hash();
    let mut again = World::new(seed, options.clone())?;
    again.run()?;
    replayed::check(&first, &again.trace_hash())?;
    let acknowledged: usize = world.nodes.iter().map(|node| node.acknowledged.len()).sum();
    let hash: String = first[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{acknowledged} imports safe after {} virtual seconds, trace {hash}", world.now / 1000))
}
