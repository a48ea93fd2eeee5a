//! What a file has besides its bytes: when it was modified, and who may use it.

use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use holdfast_library::FileName;

use holdfast_store::FileStat;

/// File systems keep times as coarsely as this: FAT counts two seconds.
const GRANULARITY_NS: u64 = 2_000_000_000;
/// The owner may always read: what could not be read again would be there for nobody.
const OWNER_READS: u32 = 0o400;
/// Nine bits. What else a member may say gives nobody rights.
const PERMISSIONS: u32 = 0o777;

/// What a file is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    modified_ns: i64,
    mode: Option<u32>,
}

/// What came of giving a file its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It had them.
    AsTheyWere,
    /// It has them now, as exactly as the file system can.
    Repaired,
    /// The file system does not keep the date.
    WithoutDate,
}

impl Attributes {
    pub(super) fn of(name: &FileName) -> Self {
        let mode = name.mode.map(|mode| u32::from(mode) & PERMISSIONS | OWNER_READS);
        Self { modified_ns: name.mtime_ns, mode }
    }

    /// The mode to make a file with that nobody is to use who may not use it in the end.
    pub(super) fn mode_at_first(&self) -> u32 {
        self.mode.unwrap_or(0o666)
    }

    /// Gives them to an open file; where the file system keeps no permissions, the date alone.
    ///
    /// # Errors
    /// When the date cannot be set.
    pub(super) fn give(&self, file: &File) -> io::Result<()> {
        if let Some(mode) = self.mode {
            _ = file.set_permissions(Permissions::from_mode(mode));
        }
        let modified = system_time(self.modified_ns);
        file.set_times(FileTimes::new().set_accessed(modified).set_modified(modified))
    }

    /// Reads them back, and gives them again where they are not as they should be: some file systems date a file once more
    /// when it is closed, and a file that was there already may have been copied without.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub(super) fn repair(&self, path: &Path) -> io::Result<Kept> {
        let before = fs::symlink_metadata(path)?;
        if self.are_those_of(&before) {
            return Ok(Kept::AsTheyWere);
        }
        // What is refused shows when they are read once more.
        _ = File::open(path).and_then(|file| self.give(&file));
        let after = fs::symlink_metadata(path)?;
        let distance = modified_ns(&after).abs_diff(self.modified_ns);
        Ok(match (modified_ns(&before), before.mode()) == (modified_ns(&after), after.mode()) {
            _ if distance >= GRANULARITY_NS => Kept::WithoutDate,
            true => Kept::AsTheyWere,
            false => Kept::Repaired,
        })
    }

    fn are_those_of(&self, metadata: &Metadata) -> bool {
        let mode = metadata.mode() & PERMISSIONS;
        modified_ns(metadata) == self.modified_ns && self.mode.is_none_or(|wanted| wanted == mode)
    }
}

fn modified_ns(metadata: &Metadata) -> i64 {
    FileStat::of(metadata).mtime_ns
}

fn system_time(modified_ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(modified_ns.unsigned_abs());
    let moved = if modified_ns < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(modified_ns: i64, mode: Option<u16>) -> Attributes {
        let name = FileName {
            folder: String::new(),
            path: "a.jpg".into(),
            mtime_ns: modified_ns,
            size: 0,
            mode,
            created_ns: None,
        };
        Attributes::of(&name)
    }

    #[test]
    fn a_file_gets_back_its_date_and_mode_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jpg");
        fs::write(&path, b"photo").unwrap();
        for (modified_ns, mode) in [(1_600_000_000_123_456_789, Some(0o440)), (-5, Some(0o644)), (0, None)] {
            let wanted = attributes(modified_ns, mode);
            assert_eq!(wanted.repair(&path).unwrap(), Kept::Repaired);
            assert_eq!(wanted.repair(&path).unwrap(), Kept::AsTheyWere);
            let metadata = path.metadata().unwrap();
            assert_eq!((modified_ns, metadata.atime()), (super::modified_ns(&metadata), metadata.mtime()));
            assert_eq!(metadata.mode() & 0o777, mode.map_or(0o644, u32::from));
        }
    }

    #[test]
    fn the_owner_reads_and_nobody_gets_more_than_nine_bits() {
        let mode = |mode| attributes(0, mode).mode;
        assert_eq!(
            (mode(Some(0)), mode(Some(0o7777)), mode(Some(0o020)), mode(None)),
            (Some(0o400), Some(0o777), Some(0o420), None)
        );
    }
}
