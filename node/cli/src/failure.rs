//! Why a command failed, and what to do next.

use std::io;

use holdfast::api::client::ClientError;
use holdfast::api::server::ServeError;
use holdfast::api::{Refusal, RefusalKind, Versioned};
use holdfast::home::HomeError;
use holdfast::node::{JoinError, NodeError};
use serde::Serialize;

use super::exit::Exit;
use super::paint::Paint;
use super::words;

/// The end of a command that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// Empty when nothing is to be said: the reader of our output has gone.
    message: String,
    next: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: Some(next.into()) }
    }

    /// A failure whose message already says what to do.
    pub(super) fn from_error(exit: Exit, error: &dyn std::error::Error) -> Self {
        // Messages carry the next step behind a semicolon.
        let text = error.to_string();
        match text.split_once("; ") {
            Some((message, next)) => Self::new(exit, message, next),
            None => Self { exit, message: text, next: None },
        }
    }

    /// For people: the message, and the next step under it.
    pub(super) fn lines(&self, paint: Paint) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let message = format!("{} {}", paint.bad("error:"), words::printable(&self.message));
        match &self.next {
            Some(next) => format!("{message}\n  {} {}", paint.dim("→"), words::printable(next)),
            None => message,
        }
    }

    /// For programs: one line.
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        #[serde(tag = "type", rename = "error", rename_all = "kebab-case")]
        struct Error<'a> {
            exit: u8,
            kind: &'a str,
            message: &'a str,
            next: Option<&'a str>,
        }
        if self.message.is_empty() {
            return String::new();
        }
        let error =
            Error { exit: self.exit as u8, kind: self.exit.name(), message: &self.message, next: self.next.as_deref() };
        serde_json::to_string(&Versioned::new(error)).unwrap_or_default()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // `holdfast photos | head`: whoever reads has seen enough.
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Done, message: String::new(), next: None },
            _ => Self { exit: Exit::Failed, message: format!("cannot write the answer: {error}"), next: None },
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        let exit = match &error {
            HomeError::Foreign { .. } => Exit::NotAllowed,
            HomeError::Unusable { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => Exit::NotAllowed,
            HomeError::Secret(holdfast::home::SecretError::Exposed { .. }) => Exit::NotAllowed,
            _ => Exit::Failed,
        };
        Self::from_error(exit, &error)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Home(error) => error.into(),
            NodeError::NoLibrary { .. } => Self::from_error(Exit::NoLibrary, &error),
            error => Self::from_error(Exit::Failed, &error),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Node(error) => error.into(),
            JoinError::Refused(_) => Self::from_error(Exit::NotAllowed, &error),
            error => Self::from_error(Exit::Failed, &error),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        Self::from_error(Exit::Failed, &error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.kind {
            RefusalKind::Usage => Exit::Usage,
            RefusalKind::NotAllowed => Exit::NotAllowed,
            RefusalKind::Failed | RefusalKind::NotFound | RefusalKind::Busy | RefusalKind::Schema => Exit::Failed,
        };
        Self { exit, message: refusal.message, next: refusal.next }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => refusal.into(),
            ClientError::NotRunning => Self::new(Exit::NotRunning, error.to_string(), "start it with `holdfast up`"),
            ClientError::NotAllowed { .. } => {
                Self::new(Exit::NotAllowed, error.to_string(), "run this as the user that started the node")
            }
            ClientError::Broken(_) => {
                Self::new(Exit::Failed, error.to_string(), "the node may have stopped; start it with `holdfast up`")
            }
            ClientError::Schema(_) | ClientError::Unreadable(_) => {
                Self::new(Exit::Failed, error.to_string(), "restart the node with this version of `holdfast`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do_next() {
        let failure = Failure::from(ClientError::NotRunning);
        assert_eq!(failure.lines(Paint::Plain), "error: no node is running here\n  → start it with `holdfast up`");
        assert_eq!(
            failure.json(),
            r#"{"schema":1,"type":"error","exit":11,"kind":"not-running","message":"no node is running here","next":"start it with `holdfast up`"}"#
        );
    }

    #[test]
    fn the_next_step_of_an_error_is_taken_from_its_message() {
        let error = HomeError::InUse { path: "/home/anna/h".into(), process: Some(42) };
        let failure = Failure::from(error);
        assert_eq!(
            failure.lines(Paint::Plain),
            "error: a node already runs on /home/anna/h (process 42)\n  → ask it with `holdfast status`, or stop it first"
        );
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(
            (failure.exit, failure.lines(Paint::Plain), failure.json()),
            (Exit::Done, String::new(), String::new())
        );
    }
}
