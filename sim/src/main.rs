//! `holdfast-sim`: runs worlds, says what broke, and makes it small.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    command::run(command::Cli::parse())
}
