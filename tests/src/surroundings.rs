//! What a test does to the system around its nodes: disks of its own, and users without the rights of root. Where the
//! system allows neither, the test says so and is skipped.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// Set in the process that has mounts of its own.
const OWN_MOUNTS: &str = "TEST_HAS_OWN_MOUNTS";
/// A user and group that own nothing.
const NOBODY: &str = "65534";

/// Runs the test called `test` once more, in a process whose mounts nobody else sees; true in that process. False in
/// the first one, which is then done: the other has passed, or the system allows none and that was printed.
///
/// # Panics
/// When the test fails there.
#[must_use]
pub fn has_own_mounts(test: &str) -> bool {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return true;
    }
    let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let works =
        |way: &&&[&str]| succeeds(Command::new("unshare").args(**way).args(["mount", "-t", "tmpfs", "none", "/mnt"]));
    let Some(way) = ways.iter().find(works) else {
        println!("skipped {test}: this user may not mount a disk for it");
        return false;
    };
    let mut command = Command::new("unshare");
    command.args(*way).arg(std::env::current_exe().expect("the test knows its own path"));
    command.args(["--exact", test, "--nocapture"]).env(OWN_MOUNTS, "1");
    let passed = command.status().is_ok_and(|status| status.success());
    assert!(passed, "{test} failed in a process with mounts of its own; what it said is above");
    false
}

/// Mounts an empty disk of `mebibytes` at `at`, which is created.
///
/// # Panics
/// When it cannot be mounted.
pub fn mount_disk(at: &Path, mebibytes: u32) {
    std::fs::create_dir_all(at).expect("the mount point can be made");
    mount(&["-t".into(), "tmpfs".into(), "-o".into(), format!("size={mebibytes}m").into(), "none".into(), at.into()]);
}

/// Mounts the folder `from` at `at`, as if its disk were connected there.
///
/// # Panics
/// When it cannot be mounted.
pub fn connect(from: &Path, at: &Path) {
    mount(&["--bind".into(), from.into(), at.into()]);
}

/// Mounts `at` again with other options.
///
/// # Panics
/// When the system refuses.
pub fn remount(at: &Path, options: &str) {
    mount(&["-o".into(), format!("remount,{options}").into(), at.into()]);
}

/// Takes away what is mounted at `at`.
///
/// # Panics
/// When it is in use.
pub fn disconnect(at: &Path) {
    assert!(succeeds(Command::new("umount").arg(at)), "{} cannot be unmounted", at.display());
}

fn mount(arguments: &[OsString]) {
    let output = Command::new("mount").args(arguments).output().expect("mount can be run");
    assert!(output.status.success(), "mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What to put before a command, so that permissions hold for it: nothing, unless this is root. `None`, and a printed
/// line, where root cannot put its rights down.
#[must_use]
pub fn without_privileges(test: &str) -> Option<Vec<OsString>> {
    if !rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let setpriv = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    if succeeds(Command::new(setpriv[0]).args(&setpriv[1..]).arg("true")) {
        return Some(setpriv.map(Into::into).into());
    }
    println!("skipped {test}: root cannot put its rights down here (setpriv)");
    None
}

/// Gives `path` and everything below it to the user that [`without_privileges`] runs as.
///
/// # Panics
/// When it cannot be given away.
pub fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let owner = format!("{NOBODY}:{NOBODY}");
        assert!(succeeds(Command::new("chown").arg("-R").arg(owner).arg(path)), "{} keeps its owner", path.display());
    }
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
