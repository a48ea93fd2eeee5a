//! The node's end of the local socket.
//!
//! Invariants: only the owner's processes are answered; no line is read beyond its limit; a connection serves one
//! request at a time; what a client does can slow or close its own connection only.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast};

use super::line::{self, Line, REQUEST_BYTES_MAX, VersionOnly, Versioned};
use super::view::{Refusal, RefusalKind};
use super::{NodeHandle, Request, SCHEMA};

/// How often it is looked whether a client that says nothing more still reads.
const HANG_UP_INTERVAL: Duration = Duration::from_millis(200);
/// Connections that are served at once; others wait.
const CONNECTIONS_MAX: usize = 32;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The system refused.
    #[error("cannot listen on {}: {error}; check that its folder can be written to", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The listening socket. Dropping it removes the file.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens, for the owner alone. Call it inside the tokio runtime and with the home's lock held: a socket at `path`
    /// is then a dead node's, and replaced.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn bind(path: &Path) -> Result<Self, ServeError> {
        let listen = || {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            // Nobody else gets as far as the socket: it lies in a directory of the owner's alone.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match listen() {
            Ok(listener) => Ok(Self { listener, path: path.to_owned() }),
            Err(error) => Err(ServeError::Listen { path: path.to_owned(), error }),
        }
    }

    /// Serves until the future is dropped.
    pub async fn run(self, handle: NodeHandle) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, &handle).await {
                            tracing::debug!(%error, "a local connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a local connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(stream: UnixStream, handle: &NodeHandle) -> io::Result<()> {
    let owner = rustix::process::geteuid().as_raw();
    let caller = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    if caller != owner && caller != 0 {
        let refusal = Refusal::new(RefusalKind::NotAllowed, "this node belongs to another user", "run it as that user");
        return send(&mut writer, Line::Refused(refusal)).await;
    }
    let mut reader = BufReader::new(reader);
    while let Some(request) = receive(&mut reader).await? {
        match request {
            Ok(Request::Events { follow }) => events(handle, follow, &mut reader, &mut writer).await?,
            Ok(request) => answer(handle, request, &mut reader, &mut writer).await?,
            Err(refusal) => send(&mut writer, Line::Refused(refusal)).await?,
        }
    }
    Ok(())
}

/// The next request, or why it is none; `None` when the client has gone.
async fn receive(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Result<Request, Refusal>>> {
    let mut bytes = Vec::new();
    reader.take(REQUEST_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes).await?;
    if bytes.len() > REQUEST_BYTES_MAX {
        // The rest of the line is not worth reading, and without it the next one cannot be found.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is longer than 64 KiB"));
    }
    Ok((!bytes.is_empty()).then(|| parse(&bytes)))
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let unreadable = |error: serde_json::Error| {
        Refusal::new(RefusalKind::Usage, format!("not a request: {error}"), "CLI.md describes every request")
    };
    let VersionOnly { schema } = serde_json::from_slice(line).map_err(unreadable)?;
    if schema != SCHEMA {
        let message = format!("the request has schema {schema}, this node speaks {SCHEMA}");
        return Err(Refusal::new(RefusalKind::Schema, message, "use the `holdfast` that the node was started with"));
    }
    Ok(serde_json::from_slice::<Versioned<Request>>(line).map_err(unreadable)?.body)
}

async fn answer(
    handle: &NodeHandle,
    request: Request,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let mut pending = match handle.call(request) {
        Ok(pending) => pending,
        Err(refusal) => return send(writer, Line::Refused(refusal)).await,
    };
    loop {
        // Dropping `pending` on the way out tells the runtime that nobody waits any more.
        let progress = tokio::select! {
            progress = pending.progress() => progress,
            () = hung_up(reader, writer) => return Ok(()),
        };
        match progress {
            Some(progress) => send(writer, Line::Progress(progress)).await?,
            None => break,
        }
    }
    let line = match pending.answer().await {
        Ok(response) => Line::Answer(response),
        Err(refusal) => Line::Refused(refusal),
    };
    send(writer, line).await
}

async fn events(
    handle: &NodeHandle,
    follow: bool,
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let (recent, mut coming) = handle.events().follow();
    for event in recent {
        send(writer, Line::Event(event)).await?;
    }
    if follow {
        loop {
            let event = tokio::select! {
                event = coming.recv() => event,
                () = hung_up(reader, writer) => return Ok(()),
            };
            match event {
                Ok(event) => send(writer, Line::Event(event)).await?,
                // The numbers of the events show the gap.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
    }
    send(writer, Line::End).await
}

/// Completes when the client is gone. One that sends the next request early is still there, and so is one that has said
/// all it has to say and only reads on.
async fn hung_up(reader: &mut BufReader<OwnedReadHalf>, writer: &OwnedWriteHalf) {
    match reader.fill_buf().await {
        Ok([]) => {
            while writer.ready(Interest::WRITABLE).await.is_ok_and(|ready| !ready.is_write_closed()) {
                tokio::time::sleep(HANG_UP_INTERVAL).await;
            }
        }
        Ok(_) => std::future::pending().await,
        Err(_) => {}
    }
}

async fn send(writer: &mut OwnedWriteHalf, line: impl Serialize) -> io::Result<()> {
    let bytes = line::encode(line).map_err(io::Error::other)?;
    writer.write_all(&bytes).await
}
