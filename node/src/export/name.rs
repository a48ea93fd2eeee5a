//! Names for files, made of what other devices call them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use holdfast_library::FileName;

use super::probe::NameRules;

const DEPTH_MAX: usize = 64;
/// Bytes of a path below the export's directory: systems take 4096 in all.
const PATH_BYTES_MAX: usize = 2048;

/// The parts of a path without those that would lead elsewhere.
pub(crate) fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"." | b".."))
}

/// The path of a file below the export's directory: watched folder, folders, name. Parts that would lead elsewhere are
/// left out, what the file system refuses becomes `_`, and of what is too deep the first part and the last stay.
pub(super) fn relative(name: &FileName, rules: &NameRules) -> PathBuf {
    let parts = parts(name.folder.as_bytes()).chain(parts(name.path.as_bytes()));
    let mut parts: Vec<Vec<u8>> = parts.map(|part| rules.part(part)).collect();
    if parts.is_empty() {
        return PathBuf::from("photo");
    }
    let mut room = PATH_BYTES_MAX;
    let fits = |part: &&Vec<u8>| {
        room = room.saturating_sub(part.len() + 1);
        room > 0
    };
    let last = parts.iter().skip(1).rev().take(DEPTH_MAX - 1).take_while(fits).count();
    parts.drain(1..parts.len() - last);
    parts.into_iter().map(OsString::from_vec).collect()
}

/// `name.jpg`, `name (2).jpg`, `name (3).jpg`…
pub(super) fn numbered(path: &Path, number: u32, rules: &NameRules) -> PathBuf {
    if number < 2 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().as_bytes().to_vec();
    name.extend_from_slice(format!(" ({number})").as_bytes());
    if let Some(extension) = path.extension() {
        name.extend([b".", extension.as_bytes()].concat());
    }
    path.with_file_name(OsString::from_vec(rules.cut(name)))
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::super::probe::tests::{everything_taken, rules, strict};
    use super::*;

    fn named(folder: &str, path: &[u8], rules: &NameRules) -> PathBuf {
        let path = path.to_vec().into();
        relative(&FileName { folder: folder.into(), path, mtime_ns: 0, size: 0, mode: None, created_ns: None }, rules)
    }

    #[test]
    fn names_stay_as_they_are_unless_they_lead_elsewhere() {
        let named = |folder, path: &str| named(folder, path.as_bytes(), &everything_taken());
        assert_eq!(named("Pictures", "2021/07/Ätna.jpg"), Path::new("Pictures/2021/07/Ätna.jpg"));
        assert_eq!(named("Pictures", "../../etc/passwd"), Path::new("Pictures/etc/passwd"));
        assert_eq!(named("/mnt/a", "/b\0c\\d"), Path::new("mnt/a/b_c\\d"));
        assert_eq!(named("..", "."), Path::new("photo"));
        assert_eq!(named("C:", "10:30?/a\n*<b>|c.jpg. "), Path::new("C:/10:30?/a\n*<b>|c.jpg. "));
        let deep = named("Pictures", &format!("{}IMG_0001.jpg", "a folder/".repeat(400)));
        assert!(deep.starts_with("Pictures/a folder") && deep.ends_with("a folder/IMG_0001.jpg"));
        let wide =
            named("Pictures", &format!("{}/IMG_0001.jpg", ["w".repeat(300), "v".repeat(300)].join("/").repeat(20)));
        assert!(wide.starts_with("Pictures") && wide.ends_with("IMG_0001.jpg") && wide.as_os_str().len() < 2400);
    }

    #[test]
    fn what_a_file_system_refuses_is_replaced_and_nothing_else() {
        let named = |folder, path: &[u8]| named(folder, path, &strict());
        assert_eq!(named("C:", b"trip: \"Oslo\"?/a*<b>|c.jpg"), Path::new("C_/trip_ _Oslo__/a__b__c.jpg"));
        assert_eq!(named("a. . ", b".hidden/.../b.jpg."), Path::new("a____/.hidden/___/b.jpg_"));
        assert_eq!(named("a", b"caf\xe9.jpg"), Path::new("a/caf_.jpg"));
        assert_eq!(named("a", "😀 é.jpg".as_bytes()), Path::new("a/😀 é.jpg"));
    }

    #[test]
    fn namesakes_get_numbers_and_fit() {
        let numbered = |path: &str, number| numbered(Path::new(path), number, &strict());
        assert_eq!(numbered("a/b.c.jpg", 2), Path::new("a/b.c (2).jpg"));
        assert_eq!(numbered("a/b", 3), Path::new("a/b (3)"));
        let long = format!("{}.jpg", "ä".repeat(125));
        let cut = numbered(&long, 2);
        assert!(cut.as_os_str().len() <= 255 && cut.to_string_lossy().ends_with("ä (2).jpg"), "{cut:?}");
    }

    proptest! {
        #[test]
        fn no_name_leads_out(
            folder in ".{0,40}",
            path in prop_oneof![
                "([./\\\\a\u{0}]|.){0,600}".prop_map(String::into_bytes),
                prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..600),
            ],
            rules in rules(),
        ) {
            let relative = named(&folder, &path, &rules);
            prop_assert!(relative.components().all(|part| matches!(part, Component::Normal(name) if name.len() <= 255)));
            prop_assert!(relative.components().count() >= 1);
            prop_assert!(!relative.as_os_str().as_bytes().contains(&0));
            let numbered = numbered(&relative, 10_000, &rules);
            prop_assert_eq!(numbered.parent(), relative.parent());
            prop_assert!(numbered.file_name().is_some_and(|name| name.len() <= 255));
        }
    }
}
