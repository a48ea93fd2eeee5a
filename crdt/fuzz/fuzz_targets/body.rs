//! The opened body of a catalog envelope, and a bundle.
#![no_main]

use holdfast_crdt::bundle::Bundle;
use holdfast_crdt::{CatalogBody, DocumentId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(body) = CatalogBody::decode(data) {
        assert_eq!(CatalogBody::decode(&body.encode()), Ok(body));
    }
    if let Ok(bundle) = Bundle::open(data) {
        for record in bundle.take(10_000) {
            let _ = record;
        }
    }
    // Past the compression, which a fuzzer does not guess.
    let mut framed = vec![1];
    framed.extend(zstd::bulk::compress(data, 1).unwrap());
    let _ = CatalogBody::decode(&framed);
    let _ = Bundle::open(&framed).map(|bundle| bundle.take(10_000).count());
    if let Some(document) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<DocumentId>().ok()) {
        assert_eq!(document.to_string().as_bytes(), data);
    }
});
