//! What is known of the file systems that folders lie on.

use std::collections::HashMap;
use std::path::Path;

/// File systems that others change without this machine's system hearing of it: NFS, SMB, 9P, AFS, Ceph, and those in user
/// space. Source: linux/magic.h.
#[cfg(target_os = "linux")]
const REMOTE: [u32; 8] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x5346_414f, 0x00c3_6400, 0x6573_5546];

/// Whether changes in `folder` may go unnoticed, so that it has to be walked through more often.
#[cfg(target_os = "linux")]
pub(super) fn is_remote(folder: &Path) -> bool {
    // The number has 32 bits, and a different type on each platform.
    rustix::fs::statfs(folder).is_ok_and(|system| REMOTE.contains(&(system.f_type as u32)))
}

/// Whether changes in `folder` may go unnoticed, so that it has to be walked through more often.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_remote(_folder: &Path) -> bool {
    false
}

/// The disks and cards that are connected, told apart by what they were given when they were formatted: the system gives the
/// next card in a reader the number of the one before.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// A number made of the volume's own identifier, by the system's for the device.
    known: HashMap<u64, u64>,
}

impl Volumes {
    pub(super) fn connected() -> Self {
        Self::listed(Path::new("/dev/disk/by-uuid"))
    }

    /// `list` has a link to each device, named by the identifier of what is on it.
    fn listed(list: &Path) -> Self {
        let mut known = HashMap::new();
        #[cfg(unix)]
        for entry in list.read_dir().into_iter().flatten().flatten() {
            use std::os::unix::fs::MetadataExt as _;
            if let Ok(device) = entry.path().metadata() {
                let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(entry.file_name().as_encoded_bytes()).as_bytes();
                known.insert(device.rdev(), u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
        }
        Self { known }
    }

    /// The number of the volume on a device; that of the device where nothing is known of it.
    pub(super) fn of(&self, device: u64) -> u64 {
        self.known.get(&device).copied().unwrap_or(device)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn volumes_are_told_apart_by_their_own_identifiers() {
        let list = tempfile::tempdir().unwrap();
        let device = PathBuf::from("/dev/null");
        let number = device.metadata().unwrap().rdev();
        let volume = |name: &str| {
            std::os::unix::fs::symlink(&device, list.path().join(name)).unwrap();
            let volume = Volumes::listed(list.path()).of(number);
            std::fs::remove_file(list.path().join(name)).unwrap();
            volume
        };
        assert_eq!(volume("6234-1B0F"), volume("6234-1B0F"));
        assert_ne!(volume("6234-1B0F"), volume("9016-4EF8"));
        assert_eq!(Volumes::listed(list.path()).of(number), number);
        assert_eq!(Volumes::listed(&list.path().join("not there")).of(7), 7);
    }
}
