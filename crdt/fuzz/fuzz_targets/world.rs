//! A small library with an attacker in it: what every target feeds its bytes to.

use std::sync::OnceLock;

use holdfast_crdt::{Catalog, DocumentId, Lifecycle, TagId};
use holdfast_protocol::id::{AuthorId, DeviceId, PhotoId};
use holdfast_protocol::time::WallTime;

pub const MONTH: DocumentId = DocumentId::Month { year: 2021, month: 7 };
pub const ATTACKER: AuthorId = AuthorId::from_bytes([66; 32]);
pub const HONEST: AuthorId = AuthorId::from_bytes([1; 32]);

pub struct World {
    /// The document, saved, with everything below.
    pub saved: Vec<u8>,
    /// The attacker's changes so far.
    pub attacker: Vec<Vec<u8>>,
    /// The honest device's: two in the document and one that is still to come.
    pub honest: Vec<Vec<u8>>,
}

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let photo = |number| PhotoId::from_bytes([number; 32]);
        let mut attacker = Catalog::new(ATTACKER, 1);
        let mut honest = Catalog::new(HONEST, 1);
        attacker.open(MONTH, None).unwrap();
        honest.open(MONTH, None).unwrap();
        let first = attacker.edit(MONTH, |edit| {
            edit.put_photo(photo(1), b"record");
            edit.set_caption(photo(1), Some(b"caption"));
            edit.set_state(photo(1), Lifecycle::Trashed, WallTime(1), DeviceId::from_bytes([9; 32]));
        });
        let first = first.unwrap().unwrap().change;
        let beside = honest.edit(MONTH, |edit| edit.set_caption(photo(1), Some(b"beside"))).unwrap().unwrap().change;
        attacker.apply(MONTH, &[(HONEST, &beside)]).unwrap();
        let second = attacker.edit(MONTH, |edit| edit.set_tag(photo(2), TagId::from_bytes([2; 16]), true));
        let second = second.unwrap().unwrap().change;
        honest.apply(MONTH, &[(ATTACKER, &first)]).unwrap();
        let more = honest.edit(MONTH, |edit| edit.set_favourite(photo(1), true)).unwrap().unwrap().change;
        attacker.apply(MONTH, &[(HONEST, &more)]).unwrap();
        let saved = attacker.save(MONTH).unwrap();
        honest.apply(MONTH, &[(ATTACKER, &second)]).unwrap();
        let last = honest.edit(MONTH, |edit| edit.set_favourite(photo(1), false)).unwrap().unwrap().change;
        World { saved, attacker: vec![first, second], honest: vec![beside, more, last] }
    })
}

/// Applies the attacker's next change and then an honest one: whatever it is, the document goes on and opens again.
pub fn attack(change: &[u8]) {
    let world = world();
    let mut catalog = Catalog::new(AuthorId::from_bytes([2; 32]), 1);
    catalog.open(MONTH, Some(&world.saved)).unwrap();
    let before = catalog.heads(MONTH);
    let attacked = catalog.apply(MONTH, &[(ATTACKER, change)]).unwrap();
    assert_eq!(attacked.applied == 0, catalog.heads(MONTH) == before);
    if attacked.applied == 0 && attacked.patches.is_empty() && change.len() % 16 != 0 {
        // Nothing happened, which one of sixteen such changes is asked to prove at length.
        return;
    }
    let applied = catalog.apply(MONTH, &[(HONEST, &world.honest[2])]).unwrap();
    assert_eq!((applied.applied, applied.refused), (1, vec![]));
    let (heads, contents) = (catalog.heads(MONTH), catalog.contents(MONTH).collect::<Vec<_>>());
    let saved = catalog.save(MONTH).unwrap();
    catalog.close(MONTH);
    catalog.open(MONTH, Some(&saved)).unwrap();
    assert_eq!(catalog.heads(MONTH), heads);
    assert!(catalog.contents(MONTH).eq(contents));
    // The other way round ends at the same document.
    let mut other = Catalog::new(AuthorId::from_bytes([3; 32]), 1);
    other.open(MONTH, Some(&world.saved)).unwrap();
    other.apply(MONTH, &[(HONEST, &world.honest[2]), (ATTACKER, change)]).unwrap();
    assert_eq!(other.heads(MONTH), heads);
}
