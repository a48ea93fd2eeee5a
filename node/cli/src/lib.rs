//! The `holdfast` command: asks the running node over its local socket and shows the answer, or is the node (`up`, `join`).
//!
//! - One file a command; each turns an answer into lines with a pure function, which its tests pin down.
//! - [`words`] formats numbers, [`terminal`] knows what standard output and error can show, [`failure`] what to do next.
//! - Answers go to standard output, everything else to standard error. With `--json` both are JSON lines (see `api`).

mod arguments;
mod connect;
mod events;
mod exit;
mod export;
mod failure;
mod folders;
mod foreground;
mod invite;
mod manual;
mod paint;
mod peers;
mod photos;
mod relay;
mod session;
mod show;
mod status;
mod terminal;
mod up;
mod words;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use exit::Exit;
use failure::Failure;
use session::Session;
use terminal::Terminal;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Usage errors, `--help` and `--version` end the process here: 2 and 0.
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Worker) {
        return holdfast_media::worker::run();
    }
    let terminal = Terminal::new(&arguments);
    terminal::log_to_stderr(&arguments);
    match run(arguments, &terminal) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            terminal.fail(&failure);
            failure.exit.into()
        }
    }
}

fn run(arguments: Arguments, terminal: &Terminal) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Completions { shell } => return manual::completions(shell, terminal),
        Command::Man { ref directory } => return manual::pages(directory, terminal),
        _ => {}
    }
    let session = Session::new(&arguments, terminal)?;
    match arguments.command {
        Command::Up(node) => up::up(&session, node),
        Command::Join { ticket, node } => up::join(&session, ticket, node),
        Command::Invite { minutes } => invite::run(&session, minutes),
        Command::Status => status::run(&session),
        Command::Photos { below_target, search, limit } => {
            photos::run(&session, photos::selection(below_target), search, limit)
        }
        Command::Show { photo } => show::run(&session, photo),
        Command::Folders { skipped, action } => folders::run(&session, skipped, action),
        Command::Peers => peers::run(&session),
        Command::Connect { device } => connect::run(&session, device),
        Command::Events { follow } => events::run(&session, follow),
        Command::Export { directory } => export::run(&session, &directory),
        Command::Relay(arguments) => relay::run(&session, arguments),
        Command::Stop => session.stop(),
        Command::Completions { .. } | Command::Man { .. } | Command::Worker => Ok(Exit::Done),
    }
}
