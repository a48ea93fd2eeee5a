//! The change that every document starts with, and who writes under which actor.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ROOT};
use holdfast_protocol::id::AuthorId;

use crate::document::DocumentId;

/// The one key that no change may touch.
const KEY: &str = "genesis";
const FORMAT: u8 = 1;
/// Bytes of the actor that wrote the genesis: nobody's.
const NOBODY_BYTES: usize = 16;
/// Bytes of an actor that say whose it is.
const OWNER_BYTES: usize = 16;
/// Bytes of an actor.
pub(crate) const ACTOR_BYTES: usize = OWNER_BYTES + 4;

/// The actor under which an incarnation of `author` writes, in every document.
///
/// Automerge needs an actor of its own for each installation and each restore, because a sequence number that is used
/// twice refuses whole batches. So the actor follows from the author, and nobody can write under another's; and from the
/// incarnation, because a device that was restored or copied goes on as its author until it learns of that.
pub(crate) fn actor_of(author: &AuthorId, incarnation: u32) -> ActorId {
    ActorId::from([&owner(author)[..], &incarnation.to_le_bytes()].concat())
}

/// Whether an incarnation of `author` writes under `actor`.
pub(crate) fn is_actor_of(author: &AuthorId, actor: &[u8; ACTOR_BYTES]) -> bool {
    actor.starts_with(&owner(author))
}

/// Whether one author writes under both actors.
pub(crate) fn have_one_owner(a: &ActorId, b: &ActorId) -> bool {
    matches!((a.to_bytes().get(..OWNER_BYTES), b.to_bytes().get(..OWNER_BYTES)), (Some(a), Some(b)) if a == b)
}

fn owner(author: &AuthorId) -> [u8; OWNER_BYTES] {
    let mut owner = [0; OWNER_BYTES];
    owner.copy_from_slice(&blake3::derive_key("holdfast/1/catalog actor", author.as_bytes())[..OWNER_BYTES]);
    owner
}

/// `document` before anybody wrote to it: the same change on every device, so that all changes have a common
/// ancestor and a change of one document finds no footing in another.
pub(crate) fn document(document: DocumentId) -> Automerge {
    let mut automerge = Automerge::new().with_actor(ActorId::from(&[0; NOBODY_BYTES][..]));
    let mut value = vec![FORMAT];
    value.extend_from_slice(document.to_string().as_bytes());
    let mut transaction = automerge.transaction();
    // A scalar put on the root map has no way to fail.
    let put = transaction.put(ROOT, KEY, value);
    debug_assert!(put.is_ok());
    transaction.commit_with(CommitOptions::default().with_time(0));
    automerge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genesis_is_the_same_everywhere_and_different_in_each_document() {
        let month = DocumentId::Month { year: 2021, month: 7 };
        assert_eq!(document(month).get_heads(), document(month).get_heads());
        assert_ne!(document(month).get_heads(), document(DocumentId::Library).get_heads());
        // Devices of every version must start from these very heads.
        assert_eq!(
            document(month).get_heads()[0].to_string(),
            "3e2e1063d7540bb1bff6c676ab5472199ae89c06df4b6bb3bf7622552e00bc58"
        );
    }
}
