//! The socket's two ends against each other, with a runtime that answers from the test.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_protocol::time::WallTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::client::{Client, ClientError};
use super::server::Server;
use super::view::{ExportOutcome, Peers};
use super::{Call, EventLog, Happening, NodeHandle, Progress, Refusal, RefusalKind, Request, Response};

struct Node {
    _directory: tempfile::TempDir,
    socket: PathBuf,
    events: EventLog,
    calls: mpsc::Receiver<Call>,
    server: tokio::task::JoinHandle<()>,
}

impl Node {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("node.sock");
        let events = EventLog::new();
        let (handle, calls) = NodeHandle::new(events.clone());
        let server = tokio::spawn(Server::bind(&socket).unwrap().run(handle));
        Self { _directory: directory, socket, events, calls, server }
    }

    /// Asks from a thread, as a command would.
    fn ask(&self, request: Request) -> tokio::task::JoinHandle<(Result<Response, ClientError>, Vec<Progress>)> {
        let socket = self.socket.clone();
        tokio::task::spawn_blocking(move || {
            let mut steps = Vec::new();
            let answer = Client::connect(&socket).and_then(|mut client| client.ask(&request, |step| steps.push(step)));
            (answer, steps)
        })
    }
}

async fn raw(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    // A server that hangs up on an oversized request may do so while it is still being sent.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
    let node = Node::start();
    assert_eq!(std::fs::metadata(&node.socket).unwrap().permissions().mode() & 0o777, 0o600);
    node.server.abort();
    let _ = node.server.await;
    assert!(!node.socket.exists());
    assert!(matches!(Client::connect(&node.socket), Err(ClientError::NotRunning)));
}

#[tokio::test]
async fn a_dead_nodes_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(matches!(Client::connect(&socket), Err(ClientError::NotRunning)));
    let _server = Server::bind(&socket).unwrap();
    assert!(Client::connect(&socket).is_ok());
}

#[tokio::test]
async fn requests_are_answered_with_progress_before() {
    let mut node = Node::start();
    let asked = node.ask(Request::Export { directory: "/out".into() });
    let call = node.calls.recv().await.unwrap();
    assert_eq!(call.request, Request::Export { directory: "/out".into() });
    let step = Progress { files: 1, files_total: 2, bytes: 3, bytes_total: 4 };
    call.reply.progress(step);
    let outcome = ExportOutcome { directory: "/out".into(), written: 2, ..ExportOutcome::default() };
    call.reply.finish(Ok(Response::Export(outcome.clone())));
    let (answer, steps) = asked.await.unwrap();
    assert_eq!(answer.unwrap(), Response::Export(outcome));
    assert_eq!(steps, [step]);
}

#[tokio::test]
async fn refusals_reach_the_asker() {
    let mut node = Node::start();
    let asked = node.ask(Request::Show { photo: "x".into() });
    let refusal = Refusal::new(RefusalKind::NotFound, "no photo is called x", "list them with `holdfast photos`");
    node.calls.recv().await.unwrap().reply.finish(Err(refusal.clone()));
    assert!(matches!(asked.await.unwrap().0, Err(ClientError::Refused(refused)) if refused == refusal));
    // A reply that is dropped is a node that stops.
    let asked = node.ask(Request::Status);
    drop(node.calls.recv().await.unwrap());
    assert!(matches!(asked.await.unwrap().0, Err(ClientError::Refused(refused)) if refused.kind == RefusalKind::Busy));
}

#[tokio::test]
async fn an_asker_that_goes_away_is_noticed() {
    let mut node = Node::start();
    let mut stream = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
    stream.write_all(b"{\"schema\":1,\"request\":\"export\",\"directory\":\"/out\"}\n").await.unwrap();
    let call = node.calls.recv().await.unwrap();
    assert!(!call.reply.is_abandoned());
    drop(stream);
    while !call.reply.is_abandoned() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_asker_that_says_no_more_is_answered_and_noticed_when_it_goes() {
    let mut node = Node::start();
    let request = b"{\"schema\":1,\"request\":\"export\",\"directory\":\"/out\"}\n";
    let mut calls = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::UnixStream::connect(&node.socket).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        calls.push(node.calls.recv().await.unwrap());
        streams.push(stream);
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(calls.iter().all(|call| !call.reply.is_abandoned()));
    drop(streams.pop());
    while !calls[1].reply.is_abandoned() {
        tokio::task::yield_now().await;
    }
    calls.remove(0).reply.finish(Ok(Response::Stopping));
    let mut answer = String::new();
    streams[0].read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "{\"schema\":1,\"type\":\"stopping\"}\n");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_one_served() {
    let mut node = Node::start();
    tokio::spawn(async move {
        while let Some(call) = node.calls.recv().await {
            call.reply.finish(Ok(Response::Peers(Peers::default())));
        }
    });
    let lines = "nonsense\n{\"schema\":2,\"request\":\"peers\"}\n{\"schema\":1,\"request\":\"fly\"}\n\
        {\"schema\":1,\"request\":\"peers\"}\n";
    let answers = raw(&node.socket, lines.as_bytes()).await;
    let answers: Vec<_> = answers.lines().collect();
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert!(answers[0].contains(r#""kind":"usage""#));
    assert!(answers[1].contains(r#""kind":"schema""#));
    assert!(answers[2].contains(r#""kind":"usage""#));
    assert_eq!(answers[3], r#"{"schema":1,"type":"peers","peers":[],"photos":0}"#);
}

#[tokio::test]
async fn an_endless_line_ends_its_own_connection_only() {
    let mut node = Node::start();
    assert_eq!(raw(&node.socket, &vec![b'x'; 1 << 20]).await, "");
    let asked = node.ask(Request::Peers);
    node.calls.recv().await.unwrap().reply.finish(Ok(Response::Stopping));
    assert!(asked.await.unwrap().0.is_ok());
}

#[tokio::test]
async fn a_full_queue_answers_busy() {
    let (handle, _queue) = NodeHandle::new(EventLog::new());
    let pending: Vec<_> = std::iter::repeat_with(|| handle.call(Request::Status)).take_while(Result::is_ok).collect();
    assert_eq!(pending.len(), 64);
    assert_eq!(handle.call(Request::Status).unwrap_err().kind, RefusalKind::Busy);
}

#[tokio::test]
async fn events_are_kept_and_followed_without_a_gap() {
    let node = Node::start();
    for number in 0..3 {
        node.events.publish(WallTime(number), Happening::Listening { address: format!("/{number}") });
    }
    let socket = node.socket.clone();
    let followed = tokio::task::spawn_blocking(move || {
        let mut numbers = Vec::new();
        let each = |event: super::Event| {
            numbers.push(event.number);
            if numbers.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        Client::connect(&socket).unwrap().events(true, each).unwrap();
        numbers
    });
    while !followed.is_finished() {
        node.events.publish(WallTime(9), Happening::Listening { address: "/later".into() });
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(followed.await.unwrap(), [1, 2, 3, 4, 5]);
}

#[test]
fn the_event_log_is_bounded_and_keeps_the_last_step_only() {
    let log = EventLog::new();
    for number in 0..3000 {
        let happening = if number % 2 == 0 {
            Happening::Safety { photos: number, safe: number, moving_bytes: 0 }
        } else {
            Happening::Listening { address: number.to_string() }
        };
        log.publish(WallTime(0), happening);
    }
    let recent = log.recent();
    assert_eq!((recent.len(), recent.last().unwrap().number), (1000, 3000));
    assert_eq!(recent.iter().filter(|event| event.happening.is_progress()).count(), 1);
}
