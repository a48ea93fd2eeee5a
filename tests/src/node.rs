//! A real node: a `holdfast` process with a home of its own, asked through the command line's JSON.
//!
//! Everything waits for a condition with a deadline, and says what it waited for when the deadline passes. A test that
//! fails shows what each of its nodes said.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast::api::Response;
use holdfast::api::view::{ExportOutcome, Peers, Photo, PhotoDetail, Status};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::program::program;

/// How long anything may take. Generous: it only matters to a test that fails.
const DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Lines of a node's log that a failure shows.
const LOG_LINES: usize = 40;

/// A device with a home; its node runs or not.
pub struct Node {
    name: String,
    home: PathBuf,
    log: PathBuf,
    /// Where it listens, in every run: others find it again without a search of the local network.
    listen: String,
    /// What every command is run with: `setpriv` and its options.
    wrapper: Vec<OsString>,
    process: Option<Child>,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; `None` when a signal ended it.
    pub exit: Option<i32>,
    /// The JSON lines of its standard output.
    pub lines: Vec<Value>,
    /// Its standard error.
    pub errors: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        let text = String::from_utf8(output.stdout).expect("answers are UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { exit: output.status.code(), lines: lines.collect(), errors }
    }

    /// The one line, as what it is.
    fn only<T: DeserializeOwned>(mut self) -> T {
        assert_eq!(self.lines.len(), 1, "{self:?}");
        let line = self.lines.remove(0);
        serde_json::from_value(line.clone()).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Node {
    /// A device called `name` with a home of that name in `directory`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        let home = directory.join(name);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let listen = format!("/ip4/127.0.0.1/tcp/{}", free.port());
        Self {
            name: name.to_owned(),
            log: home.with_extension("log"),
            home,
            listen,
            wrapper: Vec::new(),
            process: None,
        }
    }

    /// The same device, with every command run by `wrapper`.
    #[must_use]
    pub fn wrapped(mut self, wrapper: Vec<OsString>) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// Its home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Starts the node: with a new library the first time, else with what it has.
    pub fn up(&mut self, folders: &[&Path], options: &[&str]) {
        let folders = folders.iter().map(|folder| folder.as_os_str().to_owned());
        let options = options.iter().map(Into::into);
        self.start(["up".into()].into_iter().chain(folders).chain(options));
    }

    /// Joins with a ticket, which starts the node.
    pub fn join(&mut self, ticket: &str, options: &[&str]) {
        self.start(["join", ticket].iter().chain(options).map(Into::into));
    }

    fn start(&mut self, arguments: impl Iterator<Item = OsString>) {
        self.spawn(arguments);
        self.wait_until("its first answer", |_| true);
    }

    /// Starts the process without waiting for an answer.
    pub fn spawn(&mut self, arguments: impl IntoIterator<Item = OsString>) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be written");
        let mut command = self.command();
        command.args(arguments).args(["--listen", &self.listen, "--no-mdns", "--name", &self.name]);
        command.stdout(log.try_clone().expect("a file handle")).stderr(log);
        self.process = Some(command.spawn().expect("the program starts"));
    }

    fn command(&self) -> Command {
        let words: Vec<_> = self.wrapper.iter().cloned().chain([program().into()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"HOLDFAST_") {
                command.env_remove(name);
            }
        }
        command.arg("--home").arg(&self.home).arg("--json").stdin(Stdio::null());
        command
    }

    /// Runs a command beside the node and waits for its end.
    #[must_use]
    pub fn run<S: Into<OsString> + Clone>(&self, arguments: &[S]) -> Answer {
        let output = self.command().args(arguments.iter().cloned().map(Into::into)).output();
        Answer::of(output.expect("the program starts"))
    }

    fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> T {
        let answer = self.run(arguments);
        assert!(matches!(answer.exit, Some(0 | 3 | 4)), "{} {arguments:?}: {answer:?}", self.name);
        answer.only()
    }

    /// How safe the library is, if the node answers.
    #[must_use]
    pub fn try_status(&self) -> Option<Status> {
        let answer = self.run(&["status"]);
        if !matches!(answer.exit, Some(0 | 4)) {
            return None;
        }
        match answer.only() {
            Response::Status(status) => Some(*status),
            other => panic!("status answered {other:?}"),
        }
    }

    /// How safe the library is.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.ask(&["status"]) {
            Response::Status(status) => *status,
            other => panic!("status answered {other:?}"),
        }
    }

    /// All photos, if the node answers.
    #[must_use]
    pub fn try_photos(&self) -> Option<Vec<Photo>> {
        let answer = self.run(&["photos"]);
        let parse = |line| serde_json::from_value(line).expect("a line is a photo");
        (answer.exit == Some(0)).then(|| answer.lines.into_iter().map(parse).collect())
    }

    /// All photos.
    #[must_use]
    pub fn photos(&self) -> Vec<Photo> {
        self.try_photos().unwrap_or_else(|| panic!("{} does not list its photos", self.name))
    }

    /// One photo by its name, path or id, if there is one.
    #[must_use]
    pub fn try_show(&self, photo: &str) -> Option<PhotoDetail> {
        let answer = self.run(&["show", photo]);
        if answer.exit != Some(0) {
            return None;
        }
        match answer.only() {
            Response::Show(detail) => Some(*detail),
            other => panic!("show answered {other:?}"),
        }
    }

    /// One photo by its name, path or id.
    #[must_use]
    pub fn show(&self, photo: &str) -> PhotoDetail {
        self.try_show(photo).unwrap_or_else(|| panic!("{} shows no {photo}", self.name))
    }

    /// The library's devices.
    #[must_use]
    pub fn peers(&self) -> Peers {
        match self.ask(&["peers"]) {
            Response::Peers(peers) => peers,
            other => panic!("peers answered {other:?}"),
        }
    }

    /// A ticket.
    #[must_use]
    pub fn invite(&self) -> String {
        match self.ask(&["invite"]) {
            Response::Invite(invitation) => invitation.ticket,
            other => panic!("invite answered {other:?}"),
        }
    }

    /// What happened since the node started, as far as it remembers: the events of one kind.
    #[must_use]
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let answer = self.run(&["events"]);
        assert_eq!(answer.exit, Some(0), "{}: {answer:?}", self.name);
        answer.lines.into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// Waits until all folders were walked through since the start.
    pub fn wait_until_scanned(&self) {
        self.wait_for("the folders to be walked through", || self.events("folder-scanned").pop());
    }

    /// Writes all originals into `directory`.
    #[must_use]
    pub fn export(&self, directory: &Path) -> ExportOutcome {
        let answer = self.run(&["export".into(), directory.as_os_str().to_owned()]);
        assert!(matches!(answer.exit, Some(0 | 3)), "{}: {answer:?}", self.name);
        match answer.only() {
            Response::Export(outcome) => outcome,
            other => panic!("export answered {other:?}"),
        }
    }

    /// Waits until the status satisfies `is_reached`, and returns it.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_until(&self, what: &str, is_reached: impl Fn(&Status) -> bool) -> Status {
        self.wait_for(what, || self.try_status().filter(&is_reached))
    }

    /// Waits until `condition` gives something, and returns it.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn wait_for<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(reached) = condition() {
                return reached;
            }
            let status = || self.try_status();
            assert!(begin.elapsed() < DEADLINE, "{} waited for {what}; its status is {:#?}", self.name, status());
            sleep(POLL_INTERVAL);
        }
    }

    /// Waits until nothing is left to import and `photos` photos are held here.
    pub fn wait_until_held(&self, photos: u64) -> Status {
        self.wait_until(&format!("{photos} photos to be held"), |status| {
            status.photos == photos && status.held_here == photos && status.importing.files == 0
        })
    }

    /// Waits until `photos` photos are all held here and safe.
    pub fn wait_until_safe(&self, photos: u64) -> Status {
        self.wait_until(&format!("{photos} photos to be held and safe"), |status| {
            status.photos == photos && status.held_here == photos && status.safe == photos
        })
    }

    /// The multiaddress on which it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// What the node said since its first start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the process at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the process can be killed");
            process.wait().expect("the process ends");
        }
    }

    /// Stops the node in order.
    ///
    /// # Panics
    /// When it does not stop, or not well.
    pub fn stop(&mut self) {
        let process = self.process.as_ref().expect("the node runs");
        let id = Pid::from_child(process);
        kill_process(id, Signal::TERM).expect("the process can be told");
        let status = self.ended();
        assert!(status.success(), "{} stopped with {status}", self.name);
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the node runs");
        let begin = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("a process can be waited for") {
                return status;
            }
            if begin.elapsed() > DEADLINE {
                self.process = Some(process);
                panic!("{} waited for its end", self.name);
            }
            sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            eprintln!("--- {} said last:\n{}\n---", self.name, last.join("\n"));
        }
    }
}
