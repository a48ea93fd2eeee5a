//! 1 and 5 for edits: what was told as done stays done. Agreement is not enough: all could agree that it never was.
//!
//! Each gesture that edits photos also gives them a tag that nobody takes away.

use std::collections::BTreeMap;

use super::{Violation, is_nameless};
use crate::index::VirtualIndex;
use crate::node::Edited;
use crate::world::World;

/// Looks for every edit that was told as done in the index of every node.
///
/// # Errors
/// The first that some index does not show.
pub fn check(world: &World) -> Result<(), Violation> {
    for node in &world.nodes {
        let Some(library) = &node.library else { continue };
        let tags = tags(&node.index);
        let is_shown = |edited: &Edited| {
            let (tag, shown) = (tags.get(edited.tag.as_str()), node.index.photos().get(&edited.photo));
            shown.zip(tag).is_some_and(|(shown, tag)| shown.tags.contains(*tag))
        };
        let told = world.nodes.iter().flat_map(|of| &of.edited);
        let lost = told.filter(|edited| !is_nameless(world, library, &edited.photo)).find(|edited| !is_shown(edited));
        if let Some(Edited { photo, tag }) = lost {
            return Err(Violation::EditLost { node: node.number, photo: photo.short(), tag: tag.clone() });
        }
    }
    Ok(())
}

/// The identifiers of tags, by their names.
fn tags(index: &VirtualIndex) -> BTreeMap<&str, &str> {
    let labels = index.labels().iter();
    labels.filter_map(|(label, name)| Some((name.as_str(), label.strip_prefix("tag ")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn an_edit_that_was_told_as_done_and_is_shown_nowhere_is_found() {
        let mut world = World::new(6, Options::calm(2)).unwrap();
        world.run().unwrap();
        assert_eq!(check(&world), Ok(()));
        let told = world.nodes.iter_mut().flat_map(|node| &mut node.edited).next().unwrap();
        told.tag = "never".to_owned();
        assert!(matches!(check(&world), Err(Violation::EditLost { node: 0, .. })));
    }
}
