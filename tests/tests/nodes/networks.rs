//! Networks that fail: the short ones of the scenarios in `tests/wan`, on networks of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use holdfast_tests::program::program;

/// The exit code of a scenario that the machine does not allow.
const SKIPPED: i32 = 77;

/// The measures of a scenario by their names; `None`, and printed why, where the machine does not allow it.
fn measures(scenario: &[&str]) -> Option<BTreeMap<String, String>> {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("wan/run");
    let output = match Command::new(&run).args(scenario).env("HOLDFAST", program()).output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped {scenario:?}: {error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    if output.status.code() == Some(SKIPPED) {
        return None;
    }
    assert!(output.status.success(), "{scenario:?}: {}", String::from_utf8_lossy(&output.stderr));
    let measures = said.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    Some(measures.collect())
}

#[test]
fn a_transfer_goes_on_after_a_cut() {
    let Some(measures) = measures(&["cut", "10", "tcp", "12"]) else { return };
    let after: f64 = measures["cut_10_tcp.bytes_after"].parse().expect("bytes flow again");
    assert!(after < 20.0, "bytes flowed again after {after} s");
    assert!(measures["cut_10_tcp.all_held"].parse::<f64>().is_ok(), "{measures:?}");
    assert_eq!(measures["cut_10_tcp.blamed"], "0");
}
