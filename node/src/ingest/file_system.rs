//! What is known of the file systems that folders lie on.

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
