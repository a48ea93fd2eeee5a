//! Homes that are put back as they were: what was written since is gone, as far as this node alone knew it.

use std::collections::BTreeSet;

use holdfast_protocol::id::PhotoId;

use super::{Death, Machine};
use crate::fault::FaultClass;
use crate::index::VirtualIndex;
use crate::world::World;

/// What was kept of a node.
pub struct Backup {
    machine: Machine,
    index: VirtualIndex,
    /// What it had acknowledged: of two backups that are put back in turn, the second may be of another past.
    acknowledged: BTreeSet<PhotoId>,
    incarnation: u32,
}

impl World {
    /// A copy of a node's home.
    pub(crate) fn back_up(&self, node: usize) -> Backup {
        let of = &self.nodes[node];
        let acknowledged = of.acknowledged.iter().map(|acknowledged| acknowledged.photo).collect();
        let (machine, index) = (of.machine.backup(), of.index.clone());
        Backup { machine, index, acknowledged, incarnation: of.incarnation }
    }

    /// A node ends, its home is put back, and it starts again.
    pub(crate) fn restore(&mut self, node: usize, backup: &Backup) {
        // What was kept of a device whose disk was lost meanwhile is lost too.
        let is_another = self.nodes[node].incarnation != backup.incarnation;
        if is_another || self.nodes[node].library.is_none() {
            return self.faults.missed(FaultClass::BackupRestored);
        }
        self.trace.note(self.now, Some(node), format_args!("its home is put back as it was"));
        self.end(node, Death::Killed, 200);
        let of = &mut self.nodes[node];
        of.machine.restore(&backup.machine);
        of.index = backup.index.clone();
        // What it has said since it does not know any more: it is as safe as others know it.
        let acknowledged = std::mem::take(&mut of.acknowledged).into_iter();
        let (kept, forgotten): (Vec<_>, Vec<_>) =
            acknowledged.partition(|acknowledged| backup.acknowledged.contains(&acknowledged.photo));
        of.acknowledged = kept;
        of.edited.clear();
        for acknowledged in forgotten {
            if self.is_known_to_another(node, &acknowledged.photo) {
                self.excused.entrusted.push(acknowledged);
            } else {
                self.excused.photos.insert(acknowledged.photo);
            }
        }
        let folder = self.nodes[node].folder_name();
        self.excused.folders.insert(folder);
        // Some of it may be in the home as it was, or in the folder, and what a failed read hid may be neither: it is asked of
        // nobody.
        let taken = self.nodes[node].machine.taken.clone();
        self.excused.taken_along.extend(&taken);
        self.destroyed(node, taken);
        self.excuse_what_was_forgotten();
    }

    fn is_known_to_another(&self, node: usize, photo: &PhotoId) -> bool {
        let others = self.nodes.iter().filter(|other| other.number != node);
        others.filter_map(|other| other.library.as_ref()).any(|library| library.photos().slot(photo).is_some())
    }
}
