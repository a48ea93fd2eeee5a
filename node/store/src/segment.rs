//! Segment files: a header, then records one behind the other, each a header and a chunk's sealed bytes.
//!
//! A segment describes itself: whatever index is lost can be made again from its records. `FORMAT.md` has the layout.

use std::io;
use std::path::{Path, PathBuf};

use holdfast_protocol::id::ChunkId;
use holdfast_protocol::limits::SEALED_CHUNK_BYTES_MAX;

use super::disk::DiskFile;

/// A segment that reached this size takes no further chunk: few files, and compacting one takes a moment.
pub(super) const SEGMENT_BYTES: u64 = 256 << 20;
/// Size of a segment's header and of a record's; records begin at multiples of it.
pub(super) const HEADER_BYTES: u64 = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"HFSEGMT1";
const LIVE: [u8; 8] = *b"HFCHUNK1";
const ERASED: [u8; 8] = *b"HFERASE1";
const FORMAT: u32 = 1;
const SCAN_BYTES: usize = 64 << 10;

/// Where a segment lies.
pub(super) fn path(directory: &Path, segment: u32) -> PathBuf {
    directory.join(format!("{segment:08}.segment"))
}

/// The number of the segment at `path`, when it is named like one.
pub(super) fn number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".segment")?;
    (name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
}

/// What a segment file begins with.
pub(super) fn file_header(segment: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&segment.to_le_bytes());
    seal_header(&mut header);
    header
}

/// Whether a whole, well-formed header says that a later version wrote this segment.
pub(super) fn is_from_a_newer_version(header: &[u8]) -> bool {
    header.len() == HEADER_BYTES as usize
        && header[..8] == SEGMENT_MAGIC
        && header[56..] == check(header)
        && header[8..12] != FORMAT.to_le_bytes()
}

/// A chunk in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) chunk: ChunkId,
    /// Where its header begins.
    pub(super) offset: u32,
    /// Its sealed bytes.
    pub(super) length: u32,
}

impl Record {
    pub(super) fn header(&self, segment: u32) -> [u8; HEADER_BYTES as usize] {
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(&LIVE);
        header[8..12].copy_from_slice(&self.length.to_le_bytes());
        header[12..16].copy_from_slice(&segment.to_le_bytes());
        header[16..48].copy_from_slice(self.chunk.as_bytes());
        header[48..52].copy_from_slice(&self.offset.to_le_bytes());
        seal_header(&mut header);
        header
    }

    /// Where its sealed bytes begin.
    pub(super) fn payload(&self) -> u64 {
        u64::from(self.offset) + HEADER_BYTES
    }

    /// Where the next record begins.
    pub(super) fn end(&self) -> u64 {
        self.payload() + padded(self.length)
    }

    /// Makes the record one that no scan takes for a chunk, and gives its space back. Durable after a sync.
    pub(super) fn erase(&self, file: &dyn DiskFile) -> io::Result<()> {
        file.write_at(&[&ERASED], u64::from(self.offset))?;
        file.punch_hole(self.payload(), padded(self.length))
    }

    /// Makes the record one that no scan takes for a chunk: its bytes are not the chunk's. Nothing happens when its
    /// header is not there either.
    pub(super) fn disown(&self, segment: u32, file: &dyn DiskFile) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut header, u64::from(self.offset))?;
        match Self::parse(&header, segment, u64::from(self.offset)) {
            Some((record, true)) if record == *self => file.write_at(&[&ERASED], u64::from(self.offset)),
            _ => Ok(()),
        }
    }

    /// The record whose header stands at `offset`, and whether it is live.
    fn parse(header: &[u8], segment: u32, offset: u64) -> Option<(Self, bool)> {
        let live = header.get(..8)? == LIVE;
        let length = u32::from_le_bytes(header.get(8..12)?.try_into().ok()?);
        let well_formed = (live || header[..8] == ERASED)
            && header.get(56..64)? == check(header)
            && header[12..16] == segment.to_le_bytes()
            && u64::from(u32::from_le_bytes(header[48..52].try_into().ok()?)) == offset
            && (1..=SEALED_CHUNK_BYTES_MAX).contains(&(length as usize));
        let chunk = ChunkId::from_bytes(header[16..48].try_into().ok()?);
        well_formed.then_some((Self { chunk, offset: u32::try_from(offset).ok()?, length }, live))
    }
}

/// `length` rounded up to where the next record may begin.
pub(super) fn padded(length: u32) -> u64 {
    u64::from(length).next_multiple_of(HEADER_BYTES)
}

/// The check covers all but the state in front, which changes when a chunk is erased.
fn check(header: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(&header[8..56]);
    std::array::from_fn(|index| hash.as_bytes()[index])
}

fn seal_header(header: &mut [u8; HEADER_BYTES as usize]) {
    let check = check(header);
    header[56..].copy_from_slice(&check);
}

/// How much of a record a scan looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// The headers: for segments that were synced as a whole.
    Headers,
    /// The bytes too, against their hash: for what a crash may have torn.
    Bytes,
}

/// What a scan of one segment found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whole, live records in order.
    pub(super) records: Vec<Record>,
    /// The end of the last whole record, erased ones included: where the next one may be written.
    pub(super) end: u64,
    /// Bytes before `end` that belong to no whole record.
    pub(super) damaged_bytes: u64,
    /// Records with whole headers and other bytes than the chunk's.
    pub(super) torn: Vec<Record>,
}

/// Finds the records of `segment` in `file` between `from`, where a record may begin, and `to`. Behind a damaged
/// place bytes are always checked: a chunk may hold what looks like a record.
pub(super) fn scan(file: &dyn DiskFile, segment: u32, from: u64, to: u64, mut how: Scan) -> io::Result<Found> {
    let mut found = Found { end: from, ..Found::default() };
    let mut payload = Vec::new();
    let mut header = [0; HEADER_BYTES as usize];
    let mut offset = from;
    while offset + HEADER_BYTES <= to {
        file.read_exact_at(&mut header, offset)?;
        let parsed = Record::parse(&header, segment, offset)
            .filter(|(record, _)| record.payload() + u64::from(record.length) <= to);
        let whole = match parsed {
            Some((record, true)) if how == Scan::Bytes => {
                payload.resize(record.length as usize, 0);
                file.read_exact_at(&mut payload, record.payload())?;
                *blake3::hash(&payload).as_bytes() == *record.chunk.as_bytes()
            }
            Some(_) => true,
            None => false,
        };
        match parsed {
            Some((record, live)) if whole => {
                found.damaged_bytes += offset - found.end;
                found.records.extend(live.then_some(record));
                found.end = record.end();
                offset = record.end();
            }
            _ => {
                how = Scan::Bytes;
                found.torn.extend(parsed.map(|(record, _)| record));
                match next_header(file, offset + HEADER_BYTES, to)? {
                    Some(next) => offset = next,
                    None => break,
                }
            }
        }
    }
    Ok(found)
}

/// The next place from `offset` on that looks like a record's header.
fn next_header(file: &dyn DiskFile, mut offset: u64, to: u64) -> io::Result<Option<u64>> {
    let mut window = vec![0; SCAN_BYTES];
    while offset + HEADER_BYTES <= to {
        let length = window.len().min(usize::try_from(to - offset).unwrap_or(usize::MAX));
        file.read_exact_at(&mut window[..length], offset)?;
        let headers = window[..length].chunks_exact(HEADER_BYTES as usize);
        if let Some(index) = headers.into_iter().position(|bytes| bytes[..8] == LIVE || bytes[..8] == ERASED) {
            return Ok(Some(offset + index as u64 * HEADER_BYTES));
        }
        offset += (length as u64 / HEADER_BYTES) * HEADER_BYTES;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_left_alone() {
        let directory = Path::new("segments");
        assert_eq!(number(&path(directory, 17)), Some(17));
        for other in ["17.segment", "00000017.tmp", "+0000017.segment", "lock"] {
            assert_eq!(number(&directory.join(other)), None, "{other}");
        }
    }

    #[test]
    fn a_record_is_only_valid_where_it_was_written() {
        let record = Record { chunk: ChunkId::from_bytes([3; 32]), offset: 640, length: 100 };
        let mut header = record.header(7);
        assert_eq!(Record::parse(&header, 7, 640), Some((record, true)));
        assert_eq!(Record::parse(&header, 8, 640), None);
        assert_eq!(Record::parse(&header, 7, 704), None);
        header[..8].copy_from_slice(&ERASED);
        assert_eq!(Record::parse(&header, 7, 640), Some((record, false)));
        for byte in 0..header.len() {
            let mut flipped = header;
            flipped[byte] ^= 1;
            assert_eq!(Record::parse(&flipped, 7, 640), None, "byte {byte}");
        }
    }
}
