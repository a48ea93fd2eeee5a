//! The answer to a request to join, and an invitation read back from disk.
#![no_main]

use holdfast_protocol::pairing::{Invitation, JoinAnswer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(answer) = JoinAnswer::parse(data) {
        assert_eq!(JoinAnswer::parse(&answer.to_bytes()).as_ref(), Ok(&answer));
    }
    if let Ok(invitation) = Invitation::from_bytes(data) {
        assert_eq!(Invitation::from_bytes(&invitation.to_bytes()).as_ref(), Ok(&invitation));
    }
});
