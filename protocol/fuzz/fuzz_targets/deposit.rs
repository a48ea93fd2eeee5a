//! Deposits and releases: any bytes are decoded or refused, and what is decoded encodes to the same bytes.
#![no_main]

use holdfast_protocol::deposit::Deposit;
use holdfast_protocol::release::Release;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(deposit) = Deposit::decode(data) {
        assert_eq!(deposit.encode(), data);
    }
    if let Ok(release) = Release::decode(data) {
        assert_eq!(release.encode(), data);
    }
});
