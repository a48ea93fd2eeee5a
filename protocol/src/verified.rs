//! Signatures whose verdict is remembered: for a simulator, whose hundred nodes verify the same bytes on one thread.
//!
//! A verdict depends on nothing but key, message and signature, so what is remembered cannot differ from what would be
//! computed. A real node verifies most things once and leaves this off.

use std::cell::RefCell;

use hashbrown::HashMap;

use crate::keys::Signature;

/// More verdicts than a run needs at a time; about 4 MiB.
const REMEMBERED_MAX: usize = 1 << 16;

thread_local! {
    static REMEMBERED: RefCell<Option<HashMap<[u8; 32], bool>>> = const { RefCell::new(None) };
}

/// From now on verdicts on this thread are remembered.
pub fn remember() {
    REMEMBERED.with_borrow_mut(|remembered| *remembered = Some(remembered.take().unwrap_or_default()));
}

/// The verdict on a signature of `public` over `message`: recalled, or what `verify` says.
pub(crate) fn recall(public: &[u8; 32], message: &[u8], signature: &Signature, verify: impl FnOnce() -> bool) -> bool {
    REMEMBERED.with_borrow_mut(|remembered| {
        let Some(remembered) = remembered else { return verify() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(public).update(&signature.to_bytes()).update(message);
        let key = *hasher.finalize().as_bytes();
        if let Some(verdict) = remembered.get(&key) {
            return *verdict;
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        *remembered.entry(key).or_insert_with(verify)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signature_has_a_verdict_of_its_own() {
        let asked = |public: u8, message: &[u8], signature: u8, verdict| {
            let mut was_verified = false;
            let signature = Signature::from_bytes(&[signature; 64]);
            let said = recall(&[public; 32], message, &signature, || {
                was_verified = true;
                verdict
            });
            (said, was_verified)
        };
        assert_eq!(asked(1, b"photo", 3, true), (true, true));
        assert_eq!(asked(1, b"photo", 3, true), (true, true), "nothing is remembered unless that is asked for");
        remember();
        assert_eq!(asked(1, b"photo", 3, true), (true, true));
        assert_eq!(asked(1, b"photo", 3, false), (true, false));
        assert_eq!(asked(2, b"photo", 3, false), (false, true));
        assert_eq!(asked(1, b"phot0", 3, false), (false, true));
        assert_eq!(asked(1, b"photo", 4, false), (false, true));
        assert_eq!(asked(1, b"photo", 4, true), (false, false));
    }
}
