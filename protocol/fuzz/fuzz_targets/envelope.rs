//! An envelope from a peer: parsed without panic; what parses is exactly what came.
#![no_main]

use holdfast_protocol::codec;
use holdfast_protocol::envelope::{Envelope, ForkProof, NoFork, SignedEnvelope};
use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::limits::ENVELOPE_BYTES_MAX;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = SignedEnvelope::parse(bytes::Bytes::copy_from_slice(data));
    // Past the signature, which a fuzzer does not guess: the fields, signed by us.
    if let Ok(mut envelope) = codec::decode::<Envelope>(data, ENVELOPE_BYTES_MAX / 2) {
        let key = AuthorKey::from_seed(&[1; 32]);
        envelope.author = key.author_id();
        let signed = SignedEnvelope::sign(envelope, &key);
        assert_eq!(SignedEnvelope::parse(signed.wire().clone()).as_ref(), Ok(&signed));
        assert_eq!(ForkProof::new(signed.clone(), signed), Err(NoFork::Same));
    }
});
