//! Names for files, made of what other devices call them.

use std::path::{Path, PathBuf};

use crate::ingest::FileName;

/// Bytes of a name that file systems take, less what a number needs.
const PART_BYTES_MAX: usize = 240;
const DEPTH_MAX: usize = 64;
/// Bytes of a path below the export's directory: systems take 4096 in all.
const PATH_BYTES_MAX: usize = 2048;

/// The path of a file below the export's directory: watched folder, folders, name. Parts that would lead elsewhere are
/// left out, what a file system may refuse becomes `_` (exports go to memory cards and NTFS disks too), and of what is too
/// deep the first part and the last stay.
pub(super) fn relative(name: &FileName) -> PathBuf {
    let parts = name.folder.split('/').chain(name.path.split('/'));
    let mut parts: Vec<String> = parts.filter_map(part).collect();
    if parts.is_empty() {
        return PathBuf::from("photo");
    }
    let mut room = PATH_BYTES_MAX;
    let fits = |part: &&String| {
        room = room.saturating_sub(part.len() + 1);
        room > 0
    };
    let last = parts.iter().skip(1).rev().take(DEPTH_MAX - 1).take_while(fits).count();
    parts.drain(1..parts.len() - last);
    parts.into_iter().collect()
}

fn part(part: &str) -> Option<String> {
    if matches!(part, "" | "." | "..") {
        return None;
    }
    let is_refused = |c: char| c.is_control() || matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let end = part.trim_end_matches(['.', ' ']).len();
    let clean = part.char_indices().map(|(at, c)| if at >= end || is_refused(c) { '_' } else { c });
    let mut clean: String = clean.collect();
    if clean.len() > PART_BYTES_MAX {
        // The end says what kind of file it is.
        let from = (clean.len() - PART_BYTES_MAX..clean.len()).find(|at| clean.is_char_boundary(*at));
        clean = clean.split_off(from.unwrap_or(0));
    }
    Some(clean)
}

/// `name.jpg`, `name (2).jpg`, `name (3).jpg`…
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number < 2 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(match path.extension() {
        Some(extension) => format!("{stem} ({number}).{}", extension.to_string_lossy()),
        None => format!("{stem} ({number})"),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn named(folder: &str, path: &str) -> PathBuf {
        relative(&FileName { folder: folder.into(), path: path.into(), mtime_ns: 0, size: 0 })
    }

    #[test]
    fn names_stay_as_they_are_unless_they_lead_elsewhere() {
        assert_eq!(named("Pictures", "2021/07/Ätna.jpg"), Path::new("Pictures/2021/07/Ätna.jpg"));
        assert_eq!(named("Pictures", "../../etc/passwd"), Path::new("Pictures/etc/passwd"));
        assert_eq!(named("/mnt/a", "/b\0c\\d"), Path::new("mnt/a/b_c_d"));
        assert_eq!(named("..", "."), Path::new("photo"));
        assert_eq!(named("C:", "trip: \"Oslo\"?/a*<b>|c.jpg"), Path::new("C_/trip_ _Oslo__/a__b__c.jpg"));
        assert_eq!(named("a. . ", ".hidden/.../b.jpg."), Path::new("a____/.hidden/___/b.jpg_"));
        let deep = named("Pictures", &format!("{}IMG_0001.jpg", "a folder/".repeat(400)));
        assert!(deep.starts_with("Pictures/a folder") && deep.ends_with("a folder/IMG_0001.jpg"));
        let wide =
            named("Pictures", &format!("{}/IMG_0001.jpg", ["w".repeat(300), "v".repeat(300)].join("/").repeat(20)));
        assert!(wide.starts_with("Pictures") && wide.ends_with("IMG_0001.jpg") && wide.as_os_str().len() < 2300);
        assert_eq!(numbered(Path::new("a/b.c.jpg"), 2), Path::new("a/b.c (2).jpg"));
        assert_eq!(numbered(Path::new("a/b"), 3), Path::new("a/b (3)"));
    }

    proptest! {
        #[test]
        fn no_name_leads_out(folder in ".{0,40}", path in "([./\\\\a\u{0}]|.){0,600}") {
            let relative = named(&folder, &path);
            prop_assert!(relative.components().all(|part| matches!(part, Component::Normal(name) if name.len() <= 255)));
            prop_assert!(relative.components().count() >= 1);
        }
    }
}
