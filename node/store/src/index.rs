//! The index of the segments, in the metadata table `Segment`: which chunks a stretch of a segment holds.
//!
//! Invariants:
//! - A block is committed only after its stretch of the segment was synced, so what is indexed is durable.
//! - The blocks of a segment that were committed follow each other without a gap. A gap, or a segment that is longer
//!   than its blocks, means that the index lost something: recovery scans there.
//! - Blocks are never the only word on a chunk: they can all be made again from the records.

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::metadata::{Batch, Metadata, StorageError, Table};

use super::segment::{HEADER_BYTES, Record};

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 40;
/// A block is rewritten while it grows, so it stays small; 256 entries are 10 KiB.
const BLOCK_RECORDS_MAX: usize = 256;
/// Blocks read at once.
const PAGE: usize = 64;

/// The records of the stretch `start..end` of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) segment: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) records: Vec<Record>,
}

impl Block {
    /// A block at the beginning of an empty segment.
    pub(super) const fn first(segment: u32) -> Self {
        Self::after(segment, HEADER_BYTES as u32)
    }

    pub(super) const fn after(segment: u32, end: u32) -> Self {
        Self { segment, start: end, end, records: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= BLOCK_RECORDS_MAX
    }

    /// Takes in the record that follows.
    pub(super) fn push(&mut self, record: Record) {
        self.end = u32::try_from(record.end()).unwrap_or(u32::MAX);
        self.records.push(record);
    }

    pub(super) fn put(&self, batch: &mut Batch) {
        let mut value = Vec::with_capacity(HEAD_BYTES + self.records.len() * ENTRY_BYTES);
        value.extend_from_slice(&[FORMAT, 0, 0, 0]);
        value.extend_from_slice(&self.end.to_le_bytes());
        for record in &self.records {
            value.extend_from_slice(record.chunk.as_bytes());
            value.extend_from_slice(&record.offset.to_le_bytes());
            value.extend_from_slice(&record.length.to_le_bytes());
        }
        batch.put(Table::Segment, key(self.segment, self.start), value);
    }

    pub(super) fn remove(&self, batch: &mut Batch) {
        batch.remove(Table::Segment, key(self.segment, self.start));
    }

    fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let word = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
        let segment = u32::from_be_bytes(key.get(..4)?.try_into().ok()?);
        let start = u32::from_be_bytes(key.get(4..)?.try_into().ok()?);
        let (head, entries) = value.split_at_checked(HEAD_BYTES)?;
        if head[0] != FORMAT || entries.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let end = word(&head[4..])?;
        let mut records = Vec::with_capacity(entries.len() / ENTRY_BYTES);
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let chunk = ChunkId::from_bytes(entry[..32].try_into().ok()?);
            let record = Record { chunk, offset: word(&entry[32..36])?, length: word(&entry[36..])? };
            if record.offset < start || record.end() > u64::from(end) {
                return None;
            }
            records.push(record);
        }
        Some(Self { segment, start, end, records })
    }
}

/// Cuts `records` of the stretch `start..end` into blocks that cover all of it.
pub(super) fn blocks_of(segment: u32, start: u32, end: u32, records: &[Record]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::after(segment, start);
    for record in records {
        if block.is_full() {
            let next = Block::after(segment, block.end);
            blocks.push(std::mem::replace(&mut block, next));
        }
        block.push(*record);
    }
    block.end = end;
    blocks.push(block);
    blocks
}

/// The readable blocks of `segment`, in order. One that is damaged is left out, which leaves a gap to be scanned.
pub(super) fn blocks(metadata: &dyn Metadata, segment: u32) -> Result<Vec<Block>, StorageError> {
    let mut blocks = Vec::new();
    let mut from = key(segment, 0).to_vec();
    loop {
        let page = metadata.scan(Table::Segment, &segment.to_be_bytes(), &from, PAGE)?;
        blocks.extend(page.iter().filter_map(|(key, value)| Block::parse(key, value)));
        match page.last() {
            Some((last, _)) if page.len() == PAGE => from = successor(last),
            _ => return Ok(blocks),
        }
    }
}

/// The first segment from `from` on that the index knows.
pub(super) fn next_segment(metadata: &dyn Metadata, from: u32) -> Result<Option<u32>, StorageError> {
    let page = metadata.scan(Table::Segment, &[], &key(from, 0), 1)?;
    Ok(page.first().and_then(|(key, _)| Some(u32::from_be_bytes(key.get(..4)?.try_into().ok()?))))
}

/// The least key after `key`.
pub(super) fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

fn key(segment: u32, start: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&segment.to_be_bytes());
    key[4..].copy_from_slice(&start.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_trip_and_damaged_ones_are_not_read() {
        let records: Vec<Record> = (0..600u32)
            .map(|index| Record {
                chunk: ChunkId::from_bytes([index as u8; 32]),
                offset: 64 + index * 192,
                length: 100,
            })
            .collect();
        let end = 64 + 600 * 192;
        let blocks = blocks_of(9, 64, end, &records);
        assert_eq!(blocks.len(), 3);
        assert!(blocks.windows(2).all(|pair| pair[0].end == pair[1].start) && blocks[2].end == end);
        let mut batch = Batch::new();
        blocks.iter().for_each(|block| block.put(&mut batch));
        for (change, block) in batch.changes().iter().zip(&blocks) {
            let (key, value) = (&change.1, change.2.as_ref().unwrap());
            assert_eq!(Block::parse(key, value).as_ref(), Some(block));
            assert_eq!(Block::parse(key, &value[..value.len() - 1]), None);
            assert_eq!(Block::parse(&key[1..], value), None);
        }
    }
}
