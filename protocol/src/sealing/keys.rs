//! What a sealer of a library needs: for each epoch a key and another one for nonces, so that whoever lacks an epoch cannot even
//! confirm what he suspects to have been sealed in it.

use std::collections::BTreeMap;

use crate::id::LibraryId;
use crate::secrets::{EpochId, EpochKey, LibrarySecrets};

pub(super) struct Keys {
    pub(super) library: LibraryId,
    pub(super) current: EpochId,
    pub(super) epochs: BTreeMap<EpochId, EpochKeys>,
}

/// The keys of one epoch.
pub(super) struct EpochKeys {
    pub(super) cipher: EpochKey,
    pub(super) nonce: EpochKey,
}

impl Keys {
    /// The keys of one kind of sealed bytes, kept apart from all others by the contexts that they are derived for.
    pub(super) fn derive(secrets: &LibrarySecrets, key_context: &'static str, nonce_context: &'static str) -> Self {
        let derived = |key: &EpochKey| EpochKeys {
            cipher: EpochKey::derived(key_context, key),
            nonce: EpochKey::derived(nonce_context, key),
        };
        Self {
            library: secrets.library(),
            current: secrets.current_epoch(),
            epochs: secrets.epoch_keys().iter().map(|(epoch, key)| (*epoch, derived(key))).collect(),
        }
    }
}
