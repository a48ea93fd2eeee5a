//! Examining photos: through real worker processes, and real files where there are some.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests of a driver")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_media::{Examination, ExamineError, MediaPool, PoolConfig, WorkerCommand, examine_here};
use holdfast_protocol::manifest::{CaptureSource, Facts};
use holdfast_protocol::media_type::MediaType;
use image::imageops::rotate180;

fn config() -> PoolConfig {
    let program = env!("CARGO_BIN_EXE_holdfast").into();
    PoolConfig { workers: 2, ..PoolConfig::new(WorkerCommand { program, arguments: vec!["worker".into()] }) }
}

fn write_png(path: &Path, width: u32, height: u32) {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x / 8 + y / 8) as u8]));
    picture.save(path).unwrap();
}

#[test]
fn a_worker_sees_what_this_process_sees() {
    let directory = tempfile::tempdir().unwrap();
    let pool = MediaPool::new(config());
    let pending: Vec<_> = (1..20)
        .map(|number| {
            let path = directory.path().join(format!("{number}.png"));
            write_png(&path, 50 * number, 40 * number);
            (pool.examine(&path, MediaType::Png), path)
        })
        .collect();
    for (pending, path) in pending {
        let examination = pending.wait().unwrap();
        assert_eq!(examination, examine_here(&path, MediaType::Png).unwrap());
        assert!(examination.facts.unreadable.is_none() && examination.thumbnail.is_some());
    }
}

#[test]
fn a_file_that_went_away_is_an_error_and_not_a_fact() {
    let pool = MediaPool::new(config());
    let gone = pool.examine(Path::new("/nonexistent/photo.jpg"), MediaType::Jpeg).wait();
    assert!(matches!(gone, Err(ExamineError::Gone(_))), "{gone:?}");
}

#[test]
fn a_worker_that_takes_too_long_ends_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("photo.png");
    write_png(&path, 3000, 3000);
    let pool = MediaPool::new(PoolConfig { time_max: Duration::ZERO, ..config() });
    let begun = Instant::now();
    let examination = pool.examine(&path, MediaType::Png).wait().unwrap();
    assert!(examination.facts.unreadable.is_some_and(|reason| reason.contains("took longer")));
    assert!(begun.elapsed() < Duration::from_secs(4), "by itself, not by the pool");
}

/// Address space has a bound of its own only where the system knows one.
#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_needs_too_much_memory_leaves_the_facts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("photo.png");
    write_png(&path, 12_000, 8000);
    let pool = MediaPool::new(PoolConfig { memory_bytes_max: 200 << 20, ..config() });
    let examination = pool.examine(&path, MediaType::Png).wait().unwrap();
    assert_eq!(examination.facts.dimensions.map(|size| size.width), Some(12_000));
    assert!(examination.facts.unreadable.is_some(), "a picture larger than the memory allowed was decoded");
    write_png(&path, 80, 60);
    assert!(pool.examine(&path, MediaType::Png).wait().unwrap().thumbnail.is_some(), "the next worker serves");
}

/// The folder of real photos, if this machine has it.
fn real_photos() -> Option<PathBuf> {
    let folder = std::env::var_os("HOLDFAST_TEST_PHOTOS").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: HOLDFAST_TEST_PHOTOS names no folder of real photos");
    }
    folder
}

fn examine(path: &Path) -> Option<Examination> {
    let head = std::fs::read(path).unwrap();
    let extension = path.extension().and_then(|extension| extension.to_str());
    let media = MediaType::sniff(&head[..head.len().min(4096)], extension)?;
    Some(examine_here(path, media).unwrap())
}

fn facts(folder: &Path, name: &str) -> Facts {
    examine(&folder.join(name)).unwrap_or_else(|| panic!("{name} is not media")).facts
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap);
    files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn every_real_file_is_examined_in_bounded_time() {
    let Some(folder) = real_photos() else { return };
    for path in files_in(&folder) {
        let begun = Instant::now();
        let Some(examination) = examine(&path) else { continue };
        let shown = examination.thumbnail.as_ref().map(|thumbnail| thumbnail.dimensions);
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", path.display());
        assert_eq!(examination.facts.clone().normalized(), examination.facts, "{}", path.display());
        assert!(shown.is_none_or(|size| size.width.max(size.height) <= 512), "{}", path.display());
    }
}

#[test]
fn real_files_cut_short_anywhere_do_not_panic() {
    let Some(folder) = real_photos() else { return };
    let directory = tempfile::tempdir().unwrap();
    for path in files_in(&folder).iter().step_by(5) {
        let bytes = std::fs::read(path).unwrap();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let Some(media) = MediaType::sniff(&bytes[..bytes.len().min(4096)], Some(&extension)) else { continue };
        let cut = directory.path().join("cut");
        for eighth in [1, 5] {
            std::fs::write(&cut, &bytes[..bytes.len() * eighth / 8]).unwrap();
            let _ = examine_here(&cut, media).unwrap();
        }
    }
}

#[test]
fn malformed_files_say_what_is_unreadable() {
    let Some(folder) = real_photos() else { return };
    for path in files_in(&folder.join("malformed")) {
        let name = path.file_name().unwrap().to_string_lossy();
        // JPEGs that are whole: their XMP, which other readers stumbled over, is not read here.
        if name.starts_with("image0") {
            continue;
        }
        let Some(examination) = examine(&path) else { continue };
        assert!(examination.facts.unreadable.is_some(), "{name}: {:?}", examination.facts);
    }
    for path in files_in(&folder.join("video")) {
        let Some(examination) = examine(&path) else { continue };
        assert_ne!(
            examination.facts.unreadable.as_deref(),
            Some("the video's header is damaged"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn known_facts_of_real_files() {
    let Some(folder) = real_photos() else { return };
    let expected = [
        // name, taken, width × height, orientation, camera
        ("stills/exif.jpg", Some("2023-07-09T20:36:33+08:00"), (3072, 4096), 1, Some("vivo X90 Pro+")),
        ("stills/exif.avif", Some("2022-07-22T21:26:32+08:00"), (192, 256), 1, Some("iPhone 12 Pro")),
        ("stills/heic/mobile/iphone_13_pro_max.HEIC", Some("2022-02-16T12:55:41+01:00"), (4032, 3024), 6, None),
        ("stills/jpg/Canon_40D.jpg", Some("2008-05-30T15:56:01"), (100, 68), 1, Some("Canon EOS 40D")),
        ("stills/jpg/hdr/canon_hdr_NO.jpg", Some("2015-02-09T22:47:44"), (2048, 1536), 6, None),
        ("raw/canon-r6.cr3", Some("2025-09-06T20:24:47"), (5472, 3648), 1, Some("Canon EOS R6")),
        ("raw/Nikon.nef", Some("2004-06-09T16:02:35"), (3040, 2014), 1, Some("NIKON D70")),
        ("raw/FujiFilm.raf", Some("2007-05-22T13:58:30"), (1440, 960), 1, Some("FinePix S5Pro")),
        ("raw/Minolta.mrw", Some("2004-11-18T23:14:58"), (3264, 2448), 1, Some("DiMAGE A2")),
        ("raw/DNG.dng", Some("2005-08-03T18:59:18"), (3516, 2328), 1, Some("Canon EOS 350D DIGITAL")),
        ("video/meta.mov", Some("2019-02-12T15:27:12+08:00"), (720, 1280), 1, Some("iPhone X")),
        ("video/meta.mp4", Some("2024-02-03T07:05:38+00:00"), (1920, 1080), 6, None),
        ("video/mkv_640x360.mkv", Some("2008-08-08T08:08:08+00:00"), (640, 360), 1, None),
    ];
    for (name, taken, size, orientation, camera) in expected {
        let facts = facts(&folder, name);
        assert_eq!(facts.captured.map(|time| time.to_string()).as_deref(), taken, "{name}");
        assert_eq!(facts.dimensions.map(|size| (size.width, size.height)), Some(size), "{name}");
        assert_eq!(facts.orientation.exif(), orientation, "{name}");
        assert!(camera.is_none() || facts.camera_model.as_deref() == camera, "{name}: {:?}", facts.camera_model);
        assert_eq!(facts.unreadable, None, "{name}");
    }
    assert_eq!(facts(&folder, "video/meta.mp4").duration_ms, Some(1063));
    assert_eq!(facts(&folder, "video/meta.mov").captured.unwrap().source, CaptureSource::QuickTime);
    assert_eq!(facts(&folder, "stills/jpg/Canon_40D.jpg").captured.unwrap().offset_minutes, None);
    let live = facts(&folder, "stills/exif.avif").live_photo;
    assert_eq!(live.as_deref(), Some("242684F6-0839-44E0-8E39-A8FE43182C29"));
}

#[test]
fn known_places_of_real_files() {
    let Some(folder) = real_photos() else { return };
    let place =
        |name| facts(&folder, name).location.map(|place| (place.latitude_e7, place.longitude_e7, place.altitude_mm));
    // 43° 28' 2.814" N, 11° 53' 6.456" E
    assert_eq!(place("stills/jpg/gps/DSCN0010.jpg"), Some((434_674_483, 118_851_267, None)));
    // West of Greenwich, 639.59 m up.
    assert_eq!(place("stills/jpg/hdr/iphone_hdr_NO.jpg"), Some((404_469_722, -37_247_528, Some(639_588))));
    // South of the equator.
    assert_eq!(place("stills/jpg/Kodak_CX7530.jpg"), Some((-3_713_000, 360_564_167, None)));
    assert_eq!(place("video/meta.mov"), Some((271_281_000, 1_002_508_000, Some(0))));
    assert_eq!(place("stills/jpg/Nikon_D70.jpg"), None);
}

#[test]
fn real_orientations_come_out_upright() {
    let Some(folder) = real_photos() else { return };
    let thumbnail = |name: String| {
        let examination = examine(&folder.join(&name)).unwrap();
        let shown = image::load_from_memory(&examination.thumbnail.unwrap().bytes).unwrap().to_rgb8();
        (examination.facts, shown)
    };
    for shape in ["landscape", "portrait"] {
        let (_, upright) = thumbnail(format!("stills/jpg/orientation/{shape}_1.jpg"));
        for number in 2..=8 {
            let (facts, shown) = thumbnail(format!("stills/jpg/orientation/{shape}_{number}.jpg"));
            assert_eq!(facts.orientation.exif(), number);
            assert_eq!(shown.dimensions(), upright.dimensions());
            // The same view, but for the number painted on it and the camera's compression.
            let (same, turned) = (difference(&shown, &upright), difference(&shown, &rotate180(&upright)));
            assert!(same * 2 < turned, "{shape}_{number}: {same} from upright, {turned} from upside down");
        }
    }
}

fn difference(one: &image::RgbImage, other: &image::RgbImage) -> u64 {
    one.as_raw().iter().zip(other.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
}
