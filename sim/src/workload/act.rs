//! A node does what its person does.

use holdfast_crdt::{AlbumId, EditRefused};
use holdfast_library::{EditError, Effect, LibraryError, PhotoEdit};
use holdfast_protocol::id::PhotoId;
use holdfast_protocol::replica::TaskId;

use super::{Act, fresh_picture, next_act};
use crate::chance::Chance;
use crate::check::Violation;
use crate::node::Edited;
use crate::world::{Completion, World};

impl World {
    /// The next act of a node's person: numbered, and with a chance of its own, so that leaving one out leaves the others
    /// as they were.
    pub(crate) fn act(&mut self, node: usize, number: u64, mut chance: Chance) {
        let of = &self.nodes[node];
        let table = of.library.as_ref().map(|library| library.photos());
        let photos: Vec<PhotoId> =
            table.map_or_else(Vec::new, |table| (0..table.len() as u32).map(|slot| table.row(slot).photo).collect());
        let fresh = fresh_picture(node, number);
        let act = next_act(&mut chance, &of.folder, &photos, &mut self.pictures, fresh);
        self.trace.note(self.now, Some(node), format_args!("gesture {node}:{number}: {act:?}"));
        match act {
            Act::Folder(gesture) => self.folder_changes(node, gesture),
            Act::Edit(edits) => self.edit(node, number, edits),
            Act::Album(album, name) => self.name_album(node, album, name.as_deref()),
        }
    }

    fn edit(&mut self, node: usize, number: u64, mut edits: Vec<(PhotoId, PhotoEdit)>) {
        let now = self.clock(node);
        let of = &mut self.nodes[node];
        let mut lost = Vec::new();
        // A caption needs the photo's manifest: whoever does not have it yet cannot write one.
        edits.retain_mut(|(photo, edit)| {
            let PhotoEdit::Caption { manifest, .. } = edit else { return true };
            let chunk = of.library.as_ref().and_then(|library| library.manifest_of(photo));
            let (read, loss) = chunk.map_or((None, None), |chunk| {
                let (read, loss) = of.serve_chunk(&chunk);
                (read.ok(), loss)
            });
            let is_read = read.is_some();
            lost.extend(loss);
            *manifest = read.map(Vec::from).unwrap_or_default();
            is_read
        });
        for input in lost {
            self.complete(node, 1, Completion::Done(Box::new(input)));
        }
        let tag = format!("gesture {node}:{number}");
        let edited: Vec<Edited> = edits.iter().map(|(photo, _)| Edited { photo: *photo, tag: tag.clone() }).collect();
        edits.extend(edited.iter().map(|edited| (edited.photo, PhotoEdit::Tag(tag.clone()))));
        let Some(library) = &mut self.nodes[node].library else { return };
        let outcome = library.edit_photos(now, edits);
        self.edited(node, outcome, edited);
    }

    fn name_album(&mut self, node: usize, album: AlbumId, name: Option<&str>) {
        let now = self.clock(node);
        let Some(library) = &mut self.nodes[node].library else { return };
        let outcome = library.name_album(now, album, name);
        self.edited(node, outcome, Vec::new());
    }

    fn edited(&mut self, node: usize, outcome: Result<(TaskId, Vec<Effect>), EditError>, edited: Vec<Edited>) {
        match outcome {
            Ok((task, effects)) => {
                self.nodes[node].edit_begins(task, edited);
                self.perform(node, effects);
            }
            // The person tries again another time.
            Err(EditError::Comparing | EditError::Removed | EditError::Refused(EditRefused::Behind { .. })) => {}
            Err(EditError::Library(error)) => self.library_failed(node, error),
            Err(refused) => self.fail(Violation::failed(node, LibraryError::Catalog(refused.to_string()))),
        }
    }
}
