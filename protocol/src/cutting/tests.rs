use std::io::Read;

use proptest::prelude::*;

use super::*;

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key("holdfast cutting tests")
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 2).expect("a short segment").to_be_bytes();
    [&[0xff, marker][..], &length, payload].concat()
}

fn jpeg(exif: &[u8], picture: &[u8]) -> Vec<u8> {
    let scan = segment(0xda, &[1, 1, 0, 0, 63, 0]);
    [&b"\xff\xd8"[..], &segment(0xe1, exif), &segment(0xdb, &[7; 65]), &scan, picture, b"\xff\xd9"].concat()
}

fn iso_box(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).expect("a short box").to_be_bytes();
    [&length[..], name, body].concat()
}

fn png_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short chunk").to_be_bytes();
    [&length[..], name, body, &[0; 4]].concat()
}

/// Cuts as `(start, length, kind)`, after checking what holds for every file.
fn cut(file: &[u8]) -> Vec<(usize, usize, CutKind)> {
    let mut position = 0;
    let mut sections = 0;
    let mut latest = None;
    let cuts: Vec<_> = cuts(file)
        .map(|cut| {
            assert!(cut.length > 0 && cut.length <= cut.kind.bounds().max);
            sections += usize::from(latest.replace(cut.kind) != Some(cut.kind));
            position += cut.length;
            (position - cut.length, cut.length, cut.kind)
        })
        .collect();
    assert_eq!(position, file.len(), "cuts cover the file");
    assert!(sections <= SECTIONS_MAX + 1);
    cuts
}

/// The sections that cuts form together: `(kind, bytes)`.
fn sections(file: &[u8]) -> Vec<(CutKind, usize)> {
    let mut sections: Vec<(CutKind, usize)> = Vec::new();
    for (_, length, kind) in cut(file) {
        match sections.last_mut() {
            Some((latest, bytes)) if *latest == kind => *bytes += length,
            _ => sections.push((kind, length)),
        }
    }
    sections
}

/// Chunks of `after` that are not chunks of `before`: what an edit stores and sends.
fn changed_bytes(before: &[u8], after: &[u8]) -> usize {
    let chunks = |file: &[u8]| -> Vec<_> {
        cut(file).iter().map(|(start, length, _)| blake3::hash(&file[*start..start + length])).collect()
    };
    let known = chunks(before);
    let new = cut(after).into_iter().zip(chunks(after)).filter(|(_, hash)| !known.contains(hash));
    new.map(|((_, length, _), _)| length).sum()
}

#[test]
fn a_jpeg_is_cut_at_its_scan() {
    let picture = noise(1, 300_000);
    let file = jpeg(&noise(2, 5000), &picture);
    let scan = file.len() - picture.len() - 2 - 10;
    assert_eq!(sections(&file), [(CutKind::Metadata, scan), (CutKind::Picture, file.len() - scan)]);
}

#[test]
fn iso_media_is_cut_around_mdat() {
    let mdat = noise(3, 700_000);
    let (ftyp, moov) = (iso_box(b"ftyp", b"isom\0\0\0\0mp41"), iso_box(b"moov", &noise(4, 3000)));
    let file = [&ftyp[..], &iso_box(b"mdat", &mdat), &moov].concat();
    assert_eq!(
        sections(&file),
        [(CutKind::Metadata, ftyp.len() + 8), (CutKind::Picture, mdat.len()), (CutKind::Metadata, moov.len())]
    );
    let long = [&1u32.to_be_bytes()[..], b"mdat", &(16 + mdat.len() as u64).to_be_bytes(), &mdat].concat();
    let file = [&ftyp[..], &long, &moov].concat();
    assert_eq!(sections(&file)[..2], [(CutKind::Metadata, ftyp.len() + 16), (CutKind::Picture, mdat.len())]);
    let open_ended = [&ftyp[..], b"\0\0\0\0mdat", &mdat].concat();
    assert_eq!(sections(&open_ended), [(CutKind::Metadata, ftyp.len() + 8), (CutKind::Picture, mdat.len())]);
}

#[test]
fn a_png_is_cut_around_its_image_data() {
    let (head, tail) = (png_chunk(b"IHDR", &[1; 13]), png_chunk(b"eXIf", &noise(5, 900)));
    let data = [png_chunk(b"IDAT", &noise(6, 65_000)), png_chunk(b"IDAT", &noise(7, 9_000))].concat();
    let file =
        [&b"\x89PNG\r\n\x1a\n"[..], &head, &data, &tail, &png_chunk(b"IEND", &[]), b"trailer after the end"].concat();
    assert_eq!(
        sections(&file),
        [
            (CutKind::Metadata, 8 + head.len()),
            (CutKind::Picture, data.len()),
            (CutKind::Metadata, tail.len() + 12),
            (CutKind::Picture, 21)
        ]
    );
}

#[test]
fn tiff_has_its_start_for_itself_and_unknown_files_are_all_picture() {
    let file = [b"II*\0", &noise(8, 300_000)[..]].concat();
    assert_eq!(sections(&file), [(CutKind::Metadata, 64 << 10), (CutKind::Picture, file.len() - (64 << 10))]);
    assert_eq!(sections(&noise(9, 100)), [(CutKind::Picture, 100)]);
    assert_eq!(sections(b"\xff\xd8\xff"), [(CutKind::Metadata, 2), (CutKind::Picture, 1)]);
    assert!(sections(b"").is_empty());
}

#[test]
fn an_edited_description_changes_kilobytes() {
    let picture = noise(10, 6 << 20);
    let before = jpeg(&noise(11, 400), &picture);
    for (exif, changed_max) in [(noise(12, 400), 600), (noise(13, 9_000), 9_500), (noise(14, 60_000), 64_000)] {
        let changed = changed_bytes(&before, &jpeg(&exif, &picture));
        assert!(changed <= changed_max, "{changed} bytes changed for {} of EXIF", exif.len());
    }
}

#[test]
fn an_insertion_moves_only_nearby_cuts() {
    let before = noise(15, 24 << 20);
    let middle = before.len() / 2;
    let after = [&before[..middle], b"inserted", &before[middle..]].concat();
    let changed = changed_bytes(&before, &after);
    assert!(changed <= 2 * CHUNK_BYTES_MAX, "{changed} bytes changed");
}

#[test]
fn chunks_are_about_a_mebibyte() {
    let file = noise(16, 96 << 20);
    let mean = file.len() / cut(&file).len();
    assert!((800 << 10..1400 << 10).contains(&mean), "{mean}");
}

#[test]
fn hostile_containers_do_not_multiply_chunks() {
    let pairs = [iso_box(b"mdat", &[0; 8]), iso_box(b"free", &[])].concat().repeat(20_000);
    let file = [iso_box(b"ftyp", b"isom\0\0\0\0"), pairs].concat();
    assert!(cut(&file).len() <= SECTIONS_MAX + 4);
    let fill = [b"\xff\xd8".to_vec(), vec![0xff; 1 << 20]].concat();
    assert!(cut(&fill).len() <= 6);
}

/// Yields what it is told to, however much was asked for.
struct Dribble<'a>(&'a [u8], std::iter::Cycle<std::vec::IntoIter<usize>>);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.next().unwrap_or(1).min(buffer.len()).min(self.0.len());
        let (now, later) = self.0.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.0 = later;
        Ok(count)
    }
}

/// Files of all kinds of containers, whole and damaged.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let containers =
        (0usize..6, 0usize..5000, 0usize..3_000_000, any::<u64>()).prop_map(|(kind, small, large, seed)| {
            let (head, body) = (noise(seed, small), noise(seed ^ 1, large));
            match kind {
                0 => jpeg(&head, &body),
                1 => [
                    iso_box(b"ftyp", b"heic\0\0\0\0"),
                    iso_box(b"meta", &head),
                    iso_box(b"mdat", &body),
                    iso_box(b"free", &head),
                ]
                .concat(),
                2 => [
                    b"\x89PNG\r\n\x1a\n".to_vec(),
                    png_chunk(b"tEXt", &head),
                    png_chunk(b"IDAT", &body),
                    png_chunk(b"IEND", &[]),
                ]
                .concat(),
                3 => [b"MM\0*".to_vec(), head, body].concat(),
                4 => [head, vec![0; large]].concat(),
                _ => body,
            }
        });
    (
        containers,
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut file, damage, end)| {
            for (index, byte) in &damage {
                if !file.is_empty() {
                    // Most damage that matters hits the headers.
                    let index = index.index(file.len().min(64));
                    file[index] = *byte;
                }
            }
            if damage.len() == 3 {
                file.truncate(end.index(file.len() + 1));
            }
            file
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn streaming_cuts_like_memory(file in files(), reads in proptest::collection::vec(1usize..3_000_000, 1..8)) {
        let expected = cut(&file);
        let mut buffer = Vec::new();
        let mut pieces = Pieces::new(Dribble(&file, reads.into_iter().cycle()), &mut buffer);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next().expect("memory does not fail") {
            let start = usize::try_from(piece.offset).expect("a small file");
            prop_assert_eq!(piece.bytes, &file[start..start + piece.bytes.len()]);
            found.push((start, piece.bytes.len(), piece.kind));
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn windows_of_any_size_give_the_same_cuts(file in files(), steps in proptest::collection::vec(1usize..200_000, 1..6)) {
        let mut cutter = Cutter::new();
        let (mut start, mut end, mut found) = (0, 0, Vec::new());
        for step in steps.into_iter().cycle() {
            end = file.len().min(end + step);
            let following = if end == file.len() { Following::Nothing } else { Following::Unknown };
            while let Some(cut) = cutter.next_cut(&file[start..end], following) {
                found.push((start, cut.length, cut.kind));
                start += cut.length;
            }
            if following == Following::Nothing {
                break;
            }
        }
        prop_assert_eq!(found, cut(&file));
    }

    #[test]
    fn hostile_bytes_are_cut_too(head in proptest::collection::vec(any::<u8>(), 0..2000), kind in 0usize..4) {
        let magics: [&[u8]; 4] = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x10ftypheic\0\0\0\0", b"\0\0\0\x01mdat\xff\xff\xff\xff"];
        cut(&[magics[kind], &head].concat());
    }
}
