//! `holdfast` itself, under a name of its own: cargo builds it for the tests of this package, with the features and the
//! profile of the test, where it would not build the program of another package.

fn main() -> std::process::ExitCode {
    holdfast_cli::main()
}
