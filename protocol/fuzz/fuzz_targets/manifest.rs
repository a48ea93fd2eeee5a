//! A manifest that a member made up: refused or within its bounds, and the same after sealing and opening.
#![no_main]

use holdfast_protocol::id::LibraryId;
use holdfast_protocol::manifest::{CHUNKS_MAX, FACT_TEXT_CHARS_MAX, Manifest, ManifestRefused, THUMBNAILS_MAX};
use holdfast_protocol::sealing::ChunkSealer;
use holdfast_protocol::secrets::LibrarySecrets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let further = |chunk: &_| match data.len() {
        0..64 => Err(ManifestRefused::Incomplete { chunk: *chunk }),
        // The tail of the input plays the further chunks.
        length => Ok(data[length - 48..].to_vec()),
    };
    let Ok(manifest) = Manifest::parse(data, further) else { return };
    assert!(manifest.content.chunks.len() <= CHUNKS_MAX && manifest.thumbnails.len() <= THUMBNAILS_MAX);
    assert!(manifest.facts.lens.as_ref().is_none_or(|lens| lens.chars().count() <= FACT_TEXT_CHARS_MAX));
    assert_eq!(manifest.facts.clone().normalized(), manifest.facts);
    let _ = manifest.facts.captured.map(|captured| (captured.to_string(), captured.sort_seconds()));

    let sealer = ChunkSealer::new(&LibrarySecrets::generate(LibraryId::from_bytes([1; 32]), &[2; 32]));
    let sealed = manifest.seal(&sealer).expect("what was opened is not too long");
    let opened = Manifest::open(&sealer, &sealed[0].id, &sealed[0].bytes, |id| {
        Some(sealed.iter().find(|chunk| chunk.id == *id)?.bytes.clone())
    });
    assert_eq!(opened, Ok(manifest));
});
