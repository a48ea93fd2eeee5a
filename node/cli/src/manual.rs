//! `holdfast completions` and `holdfast man`.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::arguments::Arguments;
use super::exit::Exit;
use super::failure::Failure;
use super::terminal::Terminal;

pub(super) fn completions(shell: Shell, terminal: &Terminal) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "holdfast", &mut script);
    terminal.answer(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub(super) fn pages(directory: &Path, terminal: &Terminal) -> Result<Exit, Failure> {
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        clap_mangen::generate_to(Arguments::command(), directory)
    };
    write().map_err(|error| {
        let message = format!("cannot write manual pages to {}: {error}", directory.display());
        Failure::new(Exit::Failed, message, "choose a directory that this user can write to")
    })?;
    terminal.note(&format!("Read them with `man -l {}`.", directory.join("holdfast.1").display()));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_completions() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "holdfast", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("unsafe"), "{shell}");
        }
    }

    #[test]
    fn there_is_a_manual_page_for_each_command_that_people_use() {
        let directory = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Arguments::command(), directory.path()).unwrap();
        let page = |name: &str| directory.path().join(name);
        assert!(std::fs::read_to_string(page("holdfast.1")).unwrap().contains("below their target"));
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(page(&format!("holdfast-{}.1", command.get_name())).exists(), "{}", command.get_name());
        }
        assert!(!page("holdfast-worker.1").exists());
    }
}
