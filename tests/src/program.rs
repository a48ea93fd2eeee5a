//! The `holdfast` program that is tested.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The program: the one that `HOLDFAST_BIN` names, else the one that was built for this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = std::env::var_os("HOLDFAST_BIN").map_or_else(beside_the_test, PathBuf::from);
        assert!(program.is_file(), "{} is missing; build it with `cargo build -p holdfast-tests`", program.display());
        program
    })
}

/// Cargo puts the programs of a package two folders above its tests.
fn beside_the_test() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    test.ancestors().nth(2).expect("tests lie in a target directory").join("holdfast-tests")
}
