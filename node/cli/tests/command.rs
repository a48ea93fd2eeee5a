//! The `holdfast` command as a process, where no node is needed: exit codes, streams, and what to do next.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

fn holdfast(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLDFAST_") {
            command.env_remove(name);
        }
    }
    command.arg("--home").arg(home).args(arguments).output().expect("the command runs")
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(home: &Path, arguments: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = holdfast(home, arguments);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn without_a_library_every_question_says_how_to_get_one() {
    let home = home();
    for question in ["status", "photos", "peers", "events", "invite", "stop"] {
        let ended = run(home.path(), &[question]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(10), ""), "{question}");
        let home = home.path().display();
        assert_eq!(
            ended.stderr,
            format!(
                "error: there is no library in {home}\n  → create one with `holdfast --home {home} up FOLDER`, \
                or join one with `holdfast --home {home} join TICKET`\n"
            ),
            "{question}"
        );
    }
}

#[test]
fn a_home_with_a_library_and_no_node_says_how_to_start_it() {
    let home = home();
    std::fs::write(home.path().join("secrets"), "").expect("a file");
    // What a killed node leaves behind.
    drop(UnixListener::bind(home.path().join("node.sock")).expect("a socket"));
    let ended = run(home.path(), &["status", "--json"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(11), ""));
    assert!(ended.stderr.starts_with(r#"{"schema":1,"type":"error","exit":11,"kind":"not-running","message":"#));
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let home = home();
    let cases: [&[&str]; 5] = [
        &["fly"],
        &["invite", "--minutes", "0"],
        &["join"],
        &["join", "holdfast2abc", "--place", "office"],
        &["up", "/no/such/folder"],
    ];
    for arguments in cases {
        let ended = run(home.path(), arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: "), "{arguments:?}: {}", ended.stderr);
    }
    assert!(!home.path().join("secrets").exists());
}

#[test]
fn another_nodes_home_is_left_alone() {
    let home = home();
    std::fs::write(home.path().join("secrets"), "").expect("a file");
    let lock = std::fs::File::create(home.path().join("lock")).expect("a file");
    lock.lock().expect("a lock");
    let ended = run(home.path(), &["up"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("a node already runs on"), "{}", ended.stderr);
}

#[test]
fn pipes_get_no_colours_and_may_close_early() {
    let home = home();
    let ended = run(home.path(), &["completions", "bash"]);
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("holdfast") && !ended.stdout.contains('\u{1b}'));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["completions", "zsh"])
        .stdout(writer)
        .status()
        .expect("the command runs");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn manual_pages_are_written() {
    let home = home();
    let pages = home.path().join("man");
    let ended = run(home.path(), &["man", pages.to_str().expect("UTF-8"), "--quiet"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    assert!(pages.join("holdfast-status.1").exists());
}
