//! Certificates: parsed without panic, and kept byte for byte.
#![no_main]

use holdfast_protocol::certificate::{AuthorCertificate, DeviceCertificate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(certificate) = DeviceCertificate::parse(data) {
        assert_eq!(certificate.wire(), data);
    }
    if let Ok(certificate) = AuthorCertificate::parse(data) {
        assert_eq!(certificate.wire(), data);
    }
});
