//! The asking end of the local socket. It blocks: a command has nothing else to do.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::line::{self, ANSWER_BYTES_MAX, Line, VersionOnly, Versioned};
use super::view::{Progress, Refusal, Response};
use super::{Event, Request, SCHEMA};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node listens.
    #[error("no node is running here")]
    NotRunning,
    /// The socket may not be opened.
    #[error("{} may not be opened by this user", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to the node broke: {0}")]
    Broken(#[from] io::Error),
    /// The node answered what this program does not understand.
    #[error("the node's answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The node speaks another schema.
    #[error("the node speaks schema {0}, this program {SCHEMA}")]
    Schema(u32),
    /// The node refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A connection to a running node.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the node that listens on `socket`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when none does; [`ClientError::NotAllowed`] when it is another user's.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Self { reader: BufReader::new(stream) }),
            Err(error) => Err(match error.kind() {
                // A socket that nobody listens on is what a killed node leaves behind.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path: socket.to_owned() },
                _ => ClientError::Broken(error),
            }),
        }
    }

    /// Asks, and waits for the answer; `progress` hears how far a long request got.
    ///
    /// # Errors
    /// When the node refuses, or goes away before it answered.
    pub fn ask(&mut self, request: &Request, mut progress: impl FnMut(Progress)) -> Result<Response, ClientError> {
        self.send(request)?;
        loop {
            match self.receive()? {
                Line::Progress(step) => progress(step),
                Line::Answer(response) => return Ok(response),
                Line::Refused(refusal) => return Err(refusal.into()),
                Line::Event(_) | Line::End => return Err(unexpected("an event where an answer was due")),
            }
        }
    }

    /// Hands the kept events to `each`, and with `follow` those to come, until it breaks or the node stops.
    ///
    /// # Errors
    /// When the node refuses, or the connection breaks.
    pub fn events(&mut self, follow: bool, mut each: impl FnMut(Event) -> ControlFlow<()>) -> Result<(), ClientError> {
        self.send(&Request::Events { follow })?;
        loop {
            match self.receive() {
                Ok(Line::Event(event)) => {
                    if each(event).is_break() {
                        return Ok(());
                    }
                }
                Ok(Line::End) => return Ok(()),
                Ok(Line::Refused(refusal)) => return Err(refusal.into()),
                Ok(Line::Progress(_) | Line::Answer(_)) => return Err(unexpected("an answer where an event was due")),
                // A node that stops just closes the stream.
                Err(ClientError::Broken(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let bytes = line::encode(request)?;
        Ok(self.reader.get_mut().write_all(&bytes)?)
    }

    fn receive(&mut self) -> Result<Line, ClientError> {
        let mut bytes = Vec::new();
        (&mut self.reader).take(ANSWER_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
        if bytes.last() != Some(&b'\n') {
            let kind =
                if bytes.len() == ANSWER_BYTES_MAX { io::ErrorKind::InvalidData } else { io::ErrorKind::UnexpectedEof };
            return Err(io::Error::new(kind, "the answer is incomplete").into());
        }
        let VersionOnly { schema } = serde_json::from_slice(&bytes)?;
        if schema != SCHEMA {
            return Err(ClientError::Schema(schema));
        }
        Ok(serde_json::from_slice::<Versioned<Line>>(&bytes)?.body)
    }
}

fn unexpected(what: &'static str) -> ClientError {
    io::Error::new(io::ErrorKind::InvalidData, what).into()
}
