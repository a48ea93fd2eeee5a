//! What a sealer of a library needs: a key for each epoch, and one for nonces that stays the same through all of them.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::id::LibraryId;
use crate::secrets::{EpochId, EpochKey, LibrarySecrets};

pub(super) struct Keys {
    pub(super) library: LibraryId,
    pub(super) nonce_key: Zeroizing<[u8; 32]>,
    pub(super) current: EpochId,
    pub(super) epochs: BTreeMap<EpochId, EpochKey>,
}

impl Keys {
    /// The keys of one kind of sealed bytes, kept apart from all others by the contexts that they are derived for.
    pub(super) fn derive(secrets: &LibrarySecrets, key_context: &'static str, nonce_context: &'static str) -> Self {
        let derived = |key: &EpochKey| EpochKey::derived(key_context, key);
        Self {
            library: secrets.library(),
            nonce_key: secrets.derive(nonce_context),
            current: secrets.current_epoch(),
            epochs: secrets.epoch_keys().iter().map(|(epoch, key)| (*epoch, derived(key))).collect(),
        }
    }
}
