//! What the command line says to programs: exit codes, errors, permissions.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use holdfast_tests::node::{Answer, Node};
use holdfast_tests::photos::write_library;
use serde_json::Value;

/// The error line of a command that failed with `exit`.
fn error(answer: &Answer, exit: i32) -> Value {
    assert_eq!(answer.exit, Some(exit), "{answer:?}");
    let line = answer.errors.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON error: {answer:?}"));
    assert_eq!((&error["type"], &error["exit"]), (&"error".into(), &exit.into()));
    error
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn exit_codes_tell_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 3).unwrap();
    let mut node = Node::new(directory.path(), "home");
    for command in [&["status"][..], &["photos"], &["up"], &["invite"], &["stop"]] {
        let error = error(&node.run(command), 10);
        assert_eq!(error["kind"], "no-library");
        assert!(error["next"].as_str().unwrap().contains("up FOLDER"), "{error}");
    }
    assert_eq!(node.run(&["fly"]).exit, Some(2));
    error(&node.run(&["join", "holdfast1"]), 2);
    error(&node.run(&["up", "/no/such/folder"]), 2);

    node.up(&[&pictures], &[]);
    node.wait_until_held(3);
    assert_eq!(node.run(&["status"]).exit, Some(4), "alone, nothing is safe");
    assert_eq!(node.photos().len(), 3);
    assert_eq!(node.run(&["stop"]).exit, Some(0));
    assert!(node.ended().success());
    let error = error(&node.run(&["status"]), 11);
    assert!(error["next"].as_str().unwrap().contains("up"), "{error}");
}

#[test]
fn a_second_process_on_a_home_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 3).unwrap();
    let mut node = Node::new(directory.path(), "home");
    node.up(&[&pictures], &[]);
    let error = error(&node.run(&["up", "--no-mdns"]), 1);
    assert!(error["message"].as_str().unwrap().contains("already runs"), "{error}");
    // Whose process it is, and nothing of it was disturbed.
    node.wait_until_held(3);
    node.kill();
    // What a killed process leaves behind stops nobody.
    node.up(&[], &[]);
    node.wait_until_held(3);
}

#[test]
fn a_home_is_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 3).unwrap();
    let mut node = Node::new(directory.path(), "home");
    node.up(&[&pictures], &[]);
    node.wait_until_held(3);
    let home = node.home().to_owned();
    assert_eq!(mode(&home), 0o700);
    for secret in ["node.sock", "device.key", "secrets"] {
        assert_eq!(mode(&home.join(secret)), 0o600, "{secret}");
    }
    node.stop();
    assert!(!home.join("node.sock").exists(), "the socket goes with the node");
    fs::set_permissions(home.join("device.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = error(&node.run(&["up", "--no-mdns"]), 12);
    assert!(error["message"].as_str().unwrap().contains("device.key"), "{error}");
}
