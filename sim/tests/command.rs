//! The command: what it finds is in its exit code, and what it prints replays what it found.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn sim(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-sim")).args(line.split_whitespace()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A small world, so that each call takes a moment.
const SMALL: &str = "--seed 4 --nodes 2 --set faults_ms=8000 --set heal_ms=8000 --set gestures=3";

#[test]
fn exit_codes_tell_crash_broken_invariant_no_agreement_and_wrong_usage_apart() {
    let code = |line: &str| sim(line).status.code();
    assert_eq!(code(&format!("run {SMALL}")), Some(0));
    assert_eq!(code(&format!("run {SMALL} --set sabotage=false-acknowledgement")), Some(1));
    assert_eq!(code(&format!("run {SMALL} --faults gremlins")), Some(2));
    assert_eq!(code("replay /nonexistent/record"), Some(2));
    assert_eq!(code("fly"), Some(2));
    assert_eq!(code(&format!("run {SMALL} --set converge_ms=0")), Some(3));
    assert_eq!(code(&format!("run {SMALL} --set sabotage=panic")), Some(101));
}

#[test]
fn a_swarm_names_failing_seeds_with_the_command_that_replays_them_and_sums_up() {
    let small = "--nodes 2 --set faults_ms=8000 --set heal_ms=8000 --set gestures=2 --jobs 2";
    let clean = sim(&format!("swarm --seeds 5 --from 20 {small} --json"));
    let summary: serde_json::Value = serde_json::from_slice(&clean.stdout).unwrap();
    assert_eq!((clean.status.code(), &summary["seeds"]), (Some(0), &5.into()));
    assert_eq!((&summary["first_seed"], &summary["last_seed"]), (&20.into(), &24.into()));
    assert!(summary["acknowledged"].as_u64() > Some(0) && summary["cpu_seconds"].as_f64() > Some(0.0));

    let broken = sim(&format!("swarm --seeds 3 --from 7 {small} --set sabotage=panic"));
    assert_eq!(broken.status.code(), Some(101));
    let said = text(&broken);
    assert_eq!(said.lines().next(), Some("seeds 7 to 9"));
    assert!(said.lines().any(|line| line.starts_with("first and last") && line.ends_with(" 7 to 9")), "{said}");
    let command = said.lines().find(|line| line.contains("holdfast-sim replay --seed 8")).unwrap();
    let command = command.trim().trim_start_matches("holdfast-sim ").replace('\'', "");
    let replayed = sim(&command);
    assert_eq!(replayed.status.code(), Some(101), "{command}");
    assert!(text(&replayed).contains("is up"), "a replay tells what happened");
}

#[test]
fn a_record_replays_to_the_same_trace() {
    let path = std::env::temp_dir().join(format!("holdfast-sim-record-{}.json", std::process::id()));
    let file = path.display();
    assert_eq!(sim(&format!("run {SMALL} --record {file}")).status.code(), Some(0));
    let replayed = sim(&format!("replay {file}"));
    assert_eq!(replayed.status.code(), Some(0));
    assert!(!text(&replayed).contains("not what was recorded"));
    let record = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, record.replace("\"gestures\": 3", "\"gestures\": 4")).unwrap();
    assert!(text(&sim(&format!("replay {file}"))).contains("not what was recorded"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn shrinking_leaves_what_the_finding_needs_and_prints_how_to_see_it() {
    let shrunk = sim("shrink --seed 9 --nodes 4 --faults crash,cut --set sabotage=false-acknowledgement --tries 60");
    assert_eq!(shrunk.status.code(), Some(1));
    let said = text(&shrunk);
    let after = said.lines().find(|line| line.starts_with("after:")).unwrap();
    assert!(after.contains("2 nodes") && after.contains("0 classes") && after.contains(" 0 gestures"), "{said}");
    let command = said.lines().last().unwrap().trim_start_matches("holdfast-sim ").replace('\'', "");
    let replayed = sim(&command);
    assert_eq!(replayed.status.code(), Some(1), "{command}");
    assert!(text(&replayed).contains("FAILED: Unreadable"));
    assert_eq!(sim(&format!("shrink {SMALL}")).status.code(), Some(0), "a clean run is nothing to shrink");
}
