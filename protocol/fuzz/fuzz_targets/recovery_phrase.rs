//! A recovery phrase as a person types it.
#![no_main]

use holdfast_protocol::recovery::RecoveryPhrase;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match RecoveryPhrase::parse(text) {
        Ok(phrase) => assert!(RecoveryPhrase::parse(&phrase.to_string()).is_ok()),
        Err(refused) => drop(refused.to_string()),
    }
});
