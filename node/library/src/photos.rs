//! The photos of a library in memory: small fixed rows that answer "which photo is this" and "where are its chunks"
//! without opening a catalog document.
//!
//! Invariants: a photo has one slot for as long as the process runs; the rows of a document are what
//! [`PhotoTable::encode_document`] writes, so that a restart reads rows instead of catalog documents.

use hashbrown::HashTable;
use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use holdfast_crdt::DocumentId;
use holdfast_protocol::codec::{self, DecodeError};
use holdfast_protocol::id::PhotoId;
use holdfast_protocol::position::Run;

/// Bytes of one document's rows: forty thousand photos and room to spare.
const DOCUMENT_ROWS_BYTES_MAX: usize = 16 << 20;

/// One photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhotoRow {
    /// Which photo.
    pub photo: PhotoId,
    /// The positions of its chunks; the first is its manifest.
    pub run: Run,
    /// Bytes of the original.
    pub bytes: u64,
    /// Whether it is listed: neither trashed nor erased, nor an earlier version of an edited file.
    pub listed: bool,
    /// Whether the index has everything that its manifest and the catalog say of it.
    pub described: bool,
    /// Whether this device deposited the chunks under positions of its own as well.
    pub deposited_here: bool,
    /// Whether `run` is not the one of its record, which counts no more.
    pub is_moved: bool,
}

/// Every photo of the library, by slot and by id.
#[derive(Default)]
pub struct PhotoTable {
    rows: Vec<PhotoRow>,
    documents_of_rows: Vec<u32>,
    by_id: HashTable<u32>,
    documents: IndexSet<DocumentId>,
    slots_of_documents: Vec<Vec<u32>>,
}

impl PhotoTable {
    /// How many photos there are, listed or not. Slots are `0..len`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no photo.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The slot of a photo.
    #[must_use]
    pub fn slot(&self, photo: &PhotoId) -> Option<u32> {
        self.by_id.find(hash(photo), |slot| self.rows[*slot as usize].photo == *photo).copied()
    }

    /// The row in a slot.
    #[must_use]
    pub fn row(&self, slot: u32) -> &PhotoRow {
        &self.rows[slot as usize]
    }

    /// The row in a slot, to change.
    pub fn row_mut(&mut self, slot: u32) -> &mut PhotoRow {
        &mut self.rows[slot as usize]
    }

    /// The document that a photo stands in.
    #[must_use]
    pub fn document(&self, slot: u32) -> DocumentId {
        let document = self.documents_of_rows[slot as usize] as usize;
        self.documents[document]
    }

    /// The documents that have photos.
    pub fn documents(&self) -> impl Iterator<Item = DocumentId> + '_ {
        self.documents.iter().copied()
    }

    /// The slots of a document's photos.
    #[must_use]
    pub fn slots_of(&self, document: DocumentId) -> &[u32] {
        self.documents.get_index_of(&document).map_or(&[], |index| &self.slots_of_documents[index])
    }

    /// Gives back memory that growing left over.
    pub fn shrink(&mut self) {
        self.rows.shrink_to_fit();
        self.documents_of_rows.shrink_to_fit();
        self.slots_of_documents.iter_mut().for_each(Vec::shrink_to_fit);
    }

    /// Adds a photo and returns its slot; a photo that is there keeps its row.
    pub fn add(&mut self, document: DocumentId, row: PhotoRow) -> u32 {
        if let Some(slot) = self.slot(&row.photo) {
            return slot;
        }
        let slot = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let (index, _) = self.documents.insert_full(document);
        self.slots_of_documents.resize_with(self.documents.len(), Vec::new);
        self.slots_of_documents[index].push(slot);
        self.documents_of_rows.push(u32::try_from(index).unwrap_or(u32::MAX));
        self.rows.push(row);
        let rows = &self.rows;
        self.by_id.insert_unique(hash(&row.photo), slot, |slot| hash(&rows[*slot as usize].photo));
        slot
    }

    /// Bytes of the originals of all listed photos.
    #[must_use]
    pub fn listed_bytes(&self) -> u64 {
        self.rows.iter().filter(|row| row.listed).map(|row| row.bytes).sum()
    }

    /// The rows of a document as bytes.
    #[must_use]
    pub fn encode_document(&self, document: DocumentId) -> Vec<u8> {
        codec::encode(&self.slots_of(document).iter().map(|slot| self.row(*slot)).collect::<Vec<_>>())
    }

    /// Adds the rows that [`Self::encode_document`] wrote; returns their slots.
    ///
    /// # Errors
    /// When the bytes are not such rows.
    pub fn decode_document(&mut self, document: DocumentId, bytes: &[u8]) -> Result<Vec<u32>, DecodeError> {
        let rows: Vec<PhotoRow> = codec::decode(bytes, DOCUMENT_ROWS_BYTES_MAX)?;
        Ok(rows.into_iter().map(|row| self.add(document, row)).collect())
    }
}

/// Photo ids are keyed hashes: their first bytes are as good a hash as any.
fn hash(photo: &PhotoId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&photo.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::id::AuthorId;

    use super::*;

    fn row(n: u8) -> PhotoRow {
        let run = Run { author: AuthorId::from_bytes([7; 32]), start: u32::from(n) * 4, count: 4 };
        PhotoRow {
            photo: PhotoId::from_bytes([n; 32]),
            run,
            bytes: 1000,
            listed: true,
            described: false,
            deposited_here: n.is_multiple_of(2),
            is_moved: false,
        }
    }

    #[test]
    fn rows_survive_a_restart_and_photos_keep_their_slots() {
        let month = DocumentId::Month { year: 2021, month: 7 };
        let mut table = PhotoTable::default();
        for n in 0..50 {
            table.add(if n < 30 { month } else { DocumentId::Undated(n) }, row(n));
        }
        assert_eq!(table.add(month, row(3)), 3, "a known photo keeps its slot");
        let mut again = PhotoTable::default();
        for document in table.documents() {
            again.decode_document(document, &table.encode_document(document)).unwrap();
        }
        assert_eq!(again.len(), 50);
        for n in 0..50 {
            let slot = again.slot(&row(n).photo).unwrap();
            assert_eq!(again.row(slot), &row(n));
            assert_eq!(again.document(slot), table.document(u32::from(n)));
        }
        assert!(again.decode_document(month, &[255; 40]).is_err());
    }
}
