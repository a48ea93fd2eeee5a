//! Nobody honest is refused: neither what an honest device writes nor that it says so.
//!
//! All nodes refuse the same, so what is refused wrongly is missed by no comparison.

use holdfast_library::Event;
use holdfast_protocol::id::AuthorId;
use holdfast_protocol::replica::DisconnectReason;

use super::Violation;
use crate::world::World;

/// A node says that something happened.
///
/// # Errors
/// When it refused what an honest device has written.
pub fn check_event(world: &World, node: usize, event: &Event) -> Result<(), Violation> {
    let (Event::ChangeRefused { author, reason, .. } | Event::BodyUnreadable { author, reason, .. }) = event else {
        return Ok(());
    };
    if world.is_shadow(author) {
        return Ok(());
    }
    Err(Violation::HonestRefused { node, whom: format!("author {}", author.short()), what: reason.clone() })
}

/// A node lets go of another.
///
/// # Errors
/// When it says that an honest one broke the protocol.
pub fn check_disconnect(world: &World, node: usize, link: u64, reason: &DisconnectReason) -> Result<(), Violation> {
    let honest = |other: &usize| !world.is_liar(*other);
    match (reason, world.network.other_end(link, node).filter(honest)) {
        (DisconnectReason::Misbehaved(what), Some(other)) => {
            Err(Violation::HonestRefused { node, whom: format!("node {other}"), what: what.to_string() })
        }
        _ => Ok(()),
    }
}

impl World {
    /// Whether somebody writes this log beside its own.
    fn is_shadow(&self, author: &AuthorId) -> bool {
        self.shadows.values().any(|shadow| shadow.author() == *author)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_crdt::DocumentId;
    use holdfast_protocol::replica::Misbehaviour;

    use super::*;
    use crate::options::Options;

    #[test]
    fn who_refuses_what_an_honest_device_wrote_is_found() {
        let world = World::new(3, Options::calm(3)).unwrap();
        let author = world.nodes[1].library.as_ref().unwrap().replica().author();
        let refused = |author| {
            let event =
                Event::ChangeRefused { author, document: DocumentId::Library, reason: "it is wrong".to_owned() };
            check_event(&world, 0, &event)
        };
        assert!(matches!(refused(author), Err(Violation::HonestRefused { node: 0, .. })));
    }

    #[test]
    fn who_accuses_an_honest_device_is_found() {
        let mut world = World::new(3, Options::calm(3)).unwrap();
        world.run_until(10_000).unwrap();
        let link = |node| world.network.between(0, node)[0];
        let accused = |node, what| check_disconnect(&world, 0, link(node), &what);
        let bad = DisconnectReason::Misbehaved(Misbehaviour::BadEnvelope);
        assert!(matches!(accused(1, bad.clone()), Err(Violation::HonestRefused { node: 0, .. })));
        assert_eq!(accused(1, DisconnectReason::Duplicate), Ok(()));
        // The last may have deserved it.
        assert_eq!(accused(2, bad), Ok(()));
    }
}
