//! `holdfast folders`: the watched folders, what was passed over in them, and which they are to be.

use std::path::{Path, PathBuf};

use holdfast::api::view::{Folder, Folders};
use holdfast::api::{Request, Response};
use holdfast::ingest::{SkipReason, real_path};
use holdfast_protocol::time::WallTime;

use super::arguments::FolderAction;
use super::exit::Exit;
use super::failure::Failure;
use super::session::{Session, now, unexpected};
use super::words::{count, duration, printable, seconds, thousands};

pub(super) fn run(session: &Session<'_>, skipped: bool, action: Option<FolderAction>) -> Result<Exit, Failure> {
    let request = match action {
        None => Request::Folders { skipped },
        Some(FolderAction::Add { folder }) => Request::WatchFolder { path: real(&folder)? },
        Some(FolderAction::Move { from, to }) => Request::MoveFolder { from: real(&from)?, to: real(&to)? },
        Some(FolderAction::Remove { folder }) => Request::LeaveFolder { path: real(&folder)? },
        Some(FolderAction::Forget { folder }) => Request::ForgetFolder { path: real(&folder)? },
    };
    let response = session.ask(&request)?;
    let Response::Folders(folders) = &response else { return Err(unexpected(&response)) };
    session.show(&response, folders, |folders| lines(folders, now()))?;
    Ok(Exit::Done)
}

/// The folder as the node names it: by its real path, or where it was, relative to what is there of it.
fn real(folder: &Path) -> Result<PathBuf, Failure> {
    Ok(real_path(&std::path::absolute(folder)?))
}

fn lines(folders: &Folders, now: WallTime) -> String {
    let mut lines: Vec<String> = Vec::new();
    for folder in &folders.folders {
        lines.push(line(folder));
        if !folder.present {
            lines.push("  not there; nothing in it counts as deleted, it continues when it is back".to_owned());
        }
        for missed in &folder.missed {
            let (path, files) = (path(&missed.path), count(missed.files, "file"));
            lines.push(format!("  {path} has been missing for {}: {files}", duration(seconds(missed.since_ms, now))));
        }
        if folder.skipped.values().any(|things| *things > 0) {
            lines.push(format!("  passed over: {}", reasons(folder)));
        }
    }
    for leaving in &folders.leaving {
        lines.push(format!("{}: watched no longer; what this device holds of it is being copied", path(leaving)));
    }
    for excluded in &folders.excluded {
        lines.push(format!("{}: an export, passed over; `holdfast folders add` takes it in", path(excluded)));
    }
    lines.extend(folders.skipped.iter().map(|skipped| format!("{}: {}", path(&skipped.path), skipped.reason.words())));
    if lines.is_empty() {
        lines.push("No folder is watched. Watch one with `holdfast folders add DIR`.".to_owned());
    }
    lines.join("\n")
}

/// A folder in one line: where it is, what it is called if that is something else, and how much of it is in the library.
pub(super) fn line(folder: &Folder) -> String {
    let own_name = folder.path.file_name().map(|name| name.to_string_lossy());
    let label = match own_name {
        Some(name) if name == folder.label => String::new(),
        _ if folder.label.is_empty() => String::new(),
        _ => format!(" (called {})", printable(&folder.label)),
    };
    format!("{}{label}: {}", path(&folder.path), count(folder.files, "file"))
}

/// What may surprise comes first.
fn reasons(folder: &Folder) -> String {
    let mut reasons: Vec<(SkipReason, u64)> =
        folder.skipped.iter().map(|(reason, things)| (*reason, *things)).collect();
    reasons.sort_by_key(|(reason, things)| (!reason.is_surprising(), std::cmp::Reverse(*things)));
    let words: Vec<String> =
        reasons.iter().map(|(reason, things)| format!("{} {}", thousands(*things), reason.words())).collect();
    words.join(", ")
}

fn path(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use holdfast::api::view::{MissedFolder, SkippedPath};

    pub(crate) fn folder(path: &str, files: u64) -> Folder {
        let label = path.rsplit('/').next().unwrap_or_default().to_owned();
        Folder { path: path.into(), files, present: true, label, missed: vec![], skipped: BTreeMap::new() }
    }

    #[test]
    fn a_folder_says_what_is_in_the_library_and_what_is_not() {
        let since_ms = WallTime(0);
        let pictures = Folder {
            missed: vec![MissedFolder { path: "/home/anna/Pictures/nas".into(), files: 5, since_ms }],
            skipped: BTreeMap::from([(SkipReason::Hidden, 1204), (SkipReason::Empty, 2)]),
            ..folder("/home/anna/Pictures", 3)
        };
        let photos = Folder { label: "Pictures 2".into(), present: false, ..folder("/mnt/usb/Photos", 1) };
        let skipped = vec![SkippedPath { path: "/home/anna/Pictures/a\u{7}.jpg".into(), reason: SkipReason::Empty }];
        let folders = Folders {
            folders: vec![pictures, photos],
            leaving: vec!["/old".into()],
            excluded: vec!["/a".into()],
            skipped,
        };
        assert_eq!(
            lines(&folders, WallTime(7_200_000)),
            "/home/anna/Pictures: 3 files\n  \
            /home/anna/Pictures/nas has been missing for 2 h: 5 files\n  \
            passed over: 2 empty, 1,204 hidden\n\
            /mnt/usb/Photos (called Pictures 2): 1 file\n  \
            not there; nothing in it counts as deleted, it continues when it is back\n\
            /old: watched no longer; what this device holds of it is being copied\n\
            /a: an export, passed over; `holdfast folders add` takes it in\n\
            /home/anna/Pictures/a\\x07.jpg: empty"
        );
        assert!(lines(&Folders::default(), WallTime(0)).starts_with("No folder is watched."));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_by_what_is() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&home, home.join("link")).unwrap();
        assert_eq!(real(&home.join("link/gone/2020")).unwrap(), home.join("gone/2020"));
        assert_eq!(real(&home.join("link")).unwrap(), home);
    }
}
