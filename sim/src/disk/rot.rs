//! Which chunk lies where on a disk, so that whoever destroys it knows what was destroyed.

use std::path::{Path, PathBuf};

use holdfast_protocol::id::ChunkId;
use holdfast_store::disk::{Access, Disk as _};
use holdfast_store::simulated::Failing;

use super::{FOLDER, Machine, SEGMENTS};
use crate::chance::Chance;

const HEADER_BYTES: u64 = 64;

impl Machine {
    /// A bit of a segment or of an original flips. Returns the chunk that it belonged to, if it was any chunk's.
    pub fn rot(&self, chance: &mut Chance, of_originals: bool) -> Option<ChunkId> {
        // What lies in an original only the store knows.
        if self.store.is_none() || self.failing != Failing::default() {
            return None;
        }
        let root = Path::new(if of_originals { FOLDER } else { SEGMENTS });
        let paths: Vec<PathBuf> = self.disk.paths().into_iter().filter(|path| path.starts_with(root)).collect();
        let path = chance.pick(&paths)?;
        let length = self.disk.open(path, Access::Read).ok()?.stat().ok()?.size;
        let at = chance.below(length);
        let hit = if of_originals { self.chunk_of_original(path, at) } else { self.chunk_in_segment(path, at) };
        self.disk.rot(path, at, chance.below(8) as u32);
        hit
    }

    fn chunk_of_original(&self, path: &Path, at: u64) -> Option<ChunkId> {
        // A file that was read and is not taken in yet will be taken in as it was read.
        let record = match self.record_as_read(path) {
            Some(record) => record.clone(),
            None => self.store.as_ref()?.file(path).ok()??,
        };
        let cut = record.cuts.iter().find(|cut| (cut.offset..cut.offset + u64::from(cut.length)).contains(&at))?;
        Some(cut.chunk)
    }

    /// The record that the index knows there, even if its header has rotted. One that is not committed yet is found by its
    /// header: the last before `at`, if it reaches beyond it.
    fn chunk_in_segment(&self, path: &Path, at: u64) -> Option<ChunkId> {
        if let Some(chunk) = self.store.as_ref()?.chunk_at(path, at).ok()? {
            return Some(chunk);
        }
        let file = self.disk.open(path, Access::Read).ok()?;
        let mut offset = at / HEADER_BYTES * HEADER_BYTES;
        let mut header = [0; HEADER_BYTES as usize];
        while offset >= HEADER_BYTES {
            if file.read_exact_at(&mut header, offset).is_ok() && header[..8] == *b"HFCHUNK1" {
                let length = u32::from_le_bytes(header[8..12].try_into().ok()?);
                // Without an index a chunk is only found by its header, so hits of the header count.
                let is_hit = at < offset + HEADER_BYTES + u64::from(length);
                return is_hit.then(|| header[16..48].try_into().map(ChunkId::from_bytes).ok())?;
            }
            offset -= HEADER_BYTES;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Keep;
    use crate::options::Options;
    use crate::workload::{Content, Gesture};
    use crate::world::World;

    #[test]
    fn what_rots_between_its_reading_and_its_record_is_named() {
        let mut world = World::new(3, Options::calm(4)).unwrap();
        let node = world.nodes.iter_mut().find(|node| node.machine.keep == Keep::InPlace).unwrap();
        let content = Content { picture: 1, revision: 0 };
        node.take_gesture(Gesture::Write { path: "IMG_0001.jpg".into(), content }).unwrap();
        let mut chance = Chance::new(1, "rot");
        let hit: Vec<ChunkId> = (0..20).filter_map(|_| node.machine.rot(&mut chance, true)).collect();
        node.adopt().unwrap();
        assert!(!hit.is_empty() && hit.iter().all(|chunk| node.machine.read(chunk).is_err()));
    }

    #[test]
    fn what_rots_behind_a_rotten_header_is_named() {
        let mut world = World::new(3, Options::calm(4)).unwrap();
        let node = world.nodes.iter_mut().find(|node| node.machine.keep == Keep::Copy).unwrap();
        let content = Content { picture: 1, revision: 0 };
        node.take_gesture(Gesture::Write { path: "IMG_0001.jpg".into(), content }).unwrap();
        node.adopt().unwrap();
        let machine = &node.machine;
        let segment = machine.disk.paths().into_iter().find(|path| path.starts_with(SEGMENTS)).unwrap();
        let (header, payload) = (HEADER_BYTES, 2 * HEADER_BYTES);
        let chunk = machine.chunk_in_segment(&segment, header).unwrap();
        machine.disk.rot(&segment, header, 0);
        assert!(machine.read(&chunk).is_ok());
        assert_eq!(machine.chunk_in_segment(&segment, payload), Some(chunk));
    }
}
