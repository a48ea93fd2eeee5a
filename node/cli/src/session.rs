//! One command's surroundings: the home it is about, the node there, and the terminal.

use std::path::PathBuf;
use std::time::SystemTime;

use holdfast::api::client::{Client, ClientError};
use holdfast::api::{Progress, Request, Response};
use holdfast::home::Home;
use holdfast_protocol::time::WallTime;

use super::arguments::Arguments;
use super::exit::Exit;
use super::failure::Failure;
use super::terminal::{Form, Terminal};

#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) home: Home,
    pub(super) terminal: &'a Terminal,
    /// What has to be repeated so that another command finds the same home.
    home_option: String,
}

impl<'a> Session<'a> {
    pub(super) fn new(arguments: &Arguments, terminal: &'a Terminal) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = Home::locate(arguments.home.as_deref(), variable)?;
        let home_option = match &arguments.home {
            Some(chosen) if variable("HOLDFAST_HOME").as_ref() != Some(chosen) => {
                format!(" --home {}", chosen.display())
            }
            _ => String::new(),
        };
        Ok(Self { home, terminal, home_option })
    }

    /// A command that a person can type to continue: `holdfast --home DIR up FOLDER`.
    pub(super) fn command(&self, rest: &str) -> String {
        format!("`holdfast{} {rest}`", self.home_option)
    }

    /// Asks the running node.
    pub(super) fn ask(&self, request: &Request) -> Result<Response, Failure> {
        self.ask_with(request, |_| {})
    }

    /// Asks the running node, which tells how far it got.
    pub(super) fn ask_with(&self, request: &Request, progress: impl FnMut(Progress)) -> Result<Response, Failure> {
        Ok(self.connect()?.ask(request, progress)?)
    }

    pub(super) fn connect(&self) -> Result<Client, Failure> {
        match Client::connect(&self.home.socket()) {
            Ok(client) => Ok(client),
            Err(ClientError::NotRunning) if !self.home.has_library() => Err(self.no_library()),
            Err(ClientError::NotRunning) => {
                let message = format!("no node is running on {}", self.home.root().display());
                Err(Failure::new(Exit::NotRunning, message, format!("start it with {}", self.command("up"))))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn no_library(&self) -> Failure {
        let next =
            format!("create one with {}, or join one with {}", self.command("up FOLDER"), self.command("join TICKET"));
        Failure::new(Exit::NoLibrary, format!("there is no library in {}", self.home.root().display()), next)
    }

    /// Shows `response` as JSON, or what `lines` makes of it.
    pub(super) fn show<T>(
        &self,
        response: &Response,
        value: &T,
        lines: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.terminal.form() {
            Form::Json => self.terminal.answer_json(response),
            Form::Human => self.terminal.answer(&lines(value)),
        }
    }

    pub(super) fn stop(&self) -> Result<Exit, Failure> {
        let response = self.ask(&Request::Shutdown)?;
        self.show(&response, &(), |()| "The node stops.".to_owned())?;
        Ok(Exit::Done)
    }
}

/// The failure of an answer to another question, which a node of this version never gives.
pub(super) fn unexpected(response: &Response) -> Failure {
    tracing::debug!(?response, "an unexpected answer");
    Failure::new(Exit::Failed, "the node answered another question", "restart the node with this version of `holdfast`")
}

/// The wall clock, for display.
#[expect(clippy::disallowed_methods, reason = "a driver: commands show times relative to now")]
pub(super) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
