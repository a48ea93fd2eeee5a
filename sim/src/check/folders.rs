//! What lists show is what lies in the folders: every file that was acknowledged under its name, as the photo that it is
//! now, listed; no file that is gone. A photo without files keeps its last name.

use std::collections::BTreeSet;

use holdfast_library::index::IndexedState;
use holdfast_protocol::id::PhotoId;

use super::{Violation, is_nameless};
use crate::index::ShownPhoto;
use crate::world::World;

/// Compares the folders of all nodes with every node's index and photos.
///
/// # Errors
/// The first file that is shown wrongly.
pub fn check(world: &World) -> Result<(), Violation> {
    let mut files = BTreeSet::new();
    let is_in = |folders: &BTreeSet<String>, path: &str| {
        folders.iter().any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
    };
    for node in &world.nodes {
        let folder = node.folder_name();
        if world.excused.copied_folders.contains(&folder) {
            continue;
        }
        files.extend(node.folder.iter().map(|(path, (_, photo))| (format!("{folder}/{path}"), *photo)));
    }
    for node in &world.nodes {
        let Some(library) = &node.library else { continue };
        let shown = node.index.files();
        // A node whose home was put back as it was may have forgotten that it told of a file which is gone since.
        let is_wrong = |entry: &&(String, PhotoId)| {
            let (path, photo) = *entry;
            let is_forgotten = is_in(&world.excused.folders, path) && !files.contains(*entry);
            !is_nameless(world, library, photo) && !is_forgotten && !is_in(&world.excused.copied_folders, path)
        };
        if let Some((path, photo)) = files.symmetric_difference(&shown).find(is_wrong) {
            let verb = if files.contains(&(path.clone(), *photo)) { "is missing" } else { "is gone" };
            let what = format!("{path} as {} {verb}", photo.short());
            return Err(Violation::WrongFiles { node: node.number, what });
        }
        let is_lost = |(_, shown): &(&PhotoId, &ShownPhoto)| shown.facts.is_some() && shown.names.is_empty();
        if let Some((photo, _)) = node.index.photos().iter().find(is_lost) {
            let what = format!("the name of {} is lost", photo.short());
            return Err(Violation::WrongFiles { node: node.number, what });
        }
        for (path, photo) in &files {
            // What an index shows of a photo begins with its manifest: one that is built anew shows nothing of this one.
            if is_nameless(world, library, photo) && !node.index.photos().contains_key(photo) {
                continue;
            }
            let row = library.photos().slot(photo).map(|slot| library.photos().row(slot));
            let shown = node.index.photos().get(photo);
            let is_hidden = shown.is_none_or(|shown| shown.successor.is_some());
            // What a person put into the trash is not listed, whatever lies in folders.
            let is_live = shown.is_some_and(|shown| shown.state == IndexedState::Live);
            if is_hidden || row.is_none_or(|row| row.listed != is_live) {
                let what = format!("{path} as {} is not listed as it should be", photo.short());
                return Err(Violation::WrongFiles { node: node.number, what });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_library::index::IndexChange;
    use holdfast_protocol::position::Position;

    use super::*;
    use crate::index::VirtualIndex;
    use crate::options::Options;

    #[test]
    fn a_file_that_nobody_was_told_of_is_found() {
        let mut world = World::new(6, Options::calm(2)).unwrap();
        world.run().unwrap();
        let (path, of) = world.nodes[0].folder.iter().next().map(|(path, of)| (path.clone(), *of)).unwrap();
        world.nodes[0].folder.insert(format!("{path} (2)"), of);
        assert!(matches!(check(&world), Err(Violation::WrongFiles { .. })));
    }

    #[test]
    fn an_index_built_anew_is_asked_for_every_photo_whose_manifest_is_somewhere() {
        let mut world = World::new(6, Options::calm(2)).unwrap();
        world.run().unwrap();
        world.nodes[0].index = VirtualIndex::default();
        assert!(matches!(check(&world), Err(Violation::WrongFiles { node: 0, .. })));
        let replica = world.nodes[0].library.as_ref().unwrap().replica();
        let photos = world.nodes[0].library.as_ref().unwrap().photos();
        let runs = (0..photos.len() as u32).map(|slot| photos.row(slot).run);
        let manifests = runs.map(|run| replica.chunk_at(&Position { author: run.author, index: run.start }).unwrap());
        world.excused.chunks.extend(manifests.map(|manifest| manifest.chunk));
        assert_eq!(check(&world), Ok(()));
    }

    #[test]
    fn a_photo_that_nobody_knows_the_name_of_is_found() {
        let mut world = World::new(6, Options::calm(2)).unwrap();
        world.run().unwrap();
        let index = &mut world.nodes[0].index;
        let is_here = |shown: &&ShownPhoto| shown.names.values().any(|name| name.gone_since.is_none());
        let without = index.photos().values().find(|shown| !is_here(shown)).and_then(|shown| shown.facts.clone());
        index.apply(1, vec![IndexChange::Photo(Box::new(without.expect("some file was deleted or edited")))]);
        assert!(matches!(check(&world), Err(Violation::WrongFiles { node: 0, .. })));
    }

    #[test]
    fn a_file_that_is_gone_and_still_shown_is_found() {
        let mut world = World::new(6, Options::calm(2)).unwrap();
        world.run().unwrap();
        world.nodes[0].folder.pop_first();
        assert!(matches!(check(&world), Err(Violation::WrongFiles { .. })));
    }
}
