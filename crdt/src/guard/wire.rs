//! Reads a raw Automerge change, as far as Holdfast writes them, with every count bounded.
//!
//! The form: `85 6f 4a 83 ‖ checksum 4 ‖ 01 ‖ length ‖ body`; the body is `dependencies ‖ actor ‖ seq ‖ start_op ‖ time ‖
//! message ‖ other actors ‖ column headers ‖ columns`. Numbers are LEB128. A column is run-length encoded: `n > 0, value`
//! repeats, `-n, values…` is literal, `0, n` are nulls. This reader is lenient where [`super::screen`] compares the
//! canonical encoding anyway, and strict in what it lets grow.

use crate::genesis::ACTOR_BYTES;
use crate::limits::{
    CHANGE_BYTES_MAX, DEPENDENCIES_MAX, KEY_BYTES_MAX, OPERATIONS_MAX, PREDECESSORS_MAX, VALUE_BYTES_MAX,
};
use crate::refusal::ChangeRefused;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const CHUNK_COMPRESSED: u8 = 2;
/// Column specifications: `id << 4 | type`.
const COLUMN_KEY: u32 = 1 << 4 | 5;
const COLUMN_INSERT: u32 = 3 << 4 | 4;
const COLUMN_ACTION: u32 = 4 << 4 | 2;
const COLUMN_VALUE_META: u32 = 5 << 4 | 6;
const COLUMN_VALUE: u32 = 5 << 4 | 7;
const COLUMN_PREDECESSOR_COUNT: u32 = 7 << 4;
const COLUMN_PREDECESSOR_ACTOR: u32 = 7 << 4 | 1;
const COLUMN_PREDECESSOR_COUNTER: u32 = 7 << 4 | 3;
const ACTION_PUT: u64 = 1;
const VALUE_TYPE_BYTES: u64 = 7;

/// A change as read, borrowed from its bytes.
#[derive(Debug)]
pub(crate) struct WireChange<'a> {
    pub(crate) dependencies: Vec<[u8; 32]>,
    pub(crate) actor: [u8; ACTOR_BYTES],
    pub(crate) sequence: u64,
    pub(crate) start_operation: u64,
    pub(crate) puts: Vec<WirePut<'a>>,
}

/// One operation: `key` becomes `value`, in place of the operations `predecessors`.
#[derive(Debug)]
pub(crate) struct WirePut<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
    pub(crate) predecessors: Vec<WireOperation>,
}

/// Operation counter and actor.
pub(crate) type WireOperation = (u64, [u8; ACTOR_BYTES]);

/// Reads a change.
pub(crate) fn read(bytes: &[u8]) -> Result<WireChange<'_>, ChangeRefused> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(ChangeRefused::TooLarge { bytes: bytes.len() });
    }
    let mut input = Reader(bytes);
    if input.take(4, "start")? != MAGIC {
        return Err(ChangeRefused::Malformed { what: "start" });
    }
    input.take(4, "checksum")?;
    match input.byte("kind")? {
        CHUNK_CHANGE => {}
        CHUNK_COMPRESSED => return Err(ChangeRefused::Foreign { what: "compression" }),
        _ => return Err(ChangeRefused::Foreign { what: "another kind of chunk" }),
    }
    let length = input.unsigned("length")?;
    if length != input.0.len() as u64 {
        return Err(ChangeRefused::Malformed { what: "length" });
    }
    read_body(input)
}

fn read_body(mut input: Reader<'_>) -> Result<WireChange<'_>, ChangeRefused> {
    let count = input.count("dependencies", DEPENDENCIES_MAX)?;
    let dependencies = (0..count).map(|_| input.array("dependencies")).collect::<Result<Vec<[u8; 32]>, _>>()?;
    let actor = input.actor()?;
    let sequence = input.unsigned("sequence number")?;
    let start_operation = input.unsigned("first operation")?;
    if input.signed("time")? != 0 {
        return Err(ChangeRefused::Foreign { what: "a time" });
    }
    if input.unsigned("message")? != 0 {
        return Err(ChangeRefused::Foreign { what: "a message" });
    }
    let count = input.count("actors", DEPENDENCIES_MAX)?;
    let mut actors = vec![actor];
    for _ in 0..count {
        actors.push(input.actor()?);
    }
    let columns = Columns::read(&mut input)?;
    if !input.0.is_empty() {
        return Err(ChangeRefused::Foreign { what: "extra data" });
    }
    Ok(WireChange { dependencies, actor, sequence, start_operation, puts: columns.puts(&actors)? })
}

/// The columns that puts of byte strings to the root map have; everything else is refused.
#[derive(Default)]
struct Columns<'a> {
    key: &'a [u8],
    insert: &'a [u8],
    action: &'a [u8],
    value_meta: &'a [u8],
    value: &'a [u8],
    predecessor_count: &'a [u8],
    predecessor_actor: &'a [u8],
    predecessor_counter: &'a [u8],
}

impl<'a> Columns<'a> {
    fn read(input: &mut Reader<'a>) -> Result<Self, ChangeRefused> {
        let count = input.count("columns", 16)?;
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            headers.push((input.unsigned("column")?, input.unsigned("column")?));
        }
        let mut columns = Self::default();
        for (specification, length) in headers {
            let length = usize::try_from(length).map_err(|_| ChangeRefused::Malformed { what: "column" })?;
            let data = input.take(length, "column")?;
            let column = match u32::try_from(specification).map_err(|_| ChangeRefused::Malformed { what: "column" })? {
                COLUMN_KEY => &mut columns.key,
                COLUMN_INSERT => &mut columns.insert,
                COLUMN_ACTION => &mut columns.action,
                COLUMN_VALUE_META => &mut columns.value_meta,
                COLUMN_VALUE => &mut columns.value,
                COLUMN_PREDECESSOR_COUNT => &mut columns.predecessor_count,
                COLUMN_PREDECESSOR_ACTOR => &mut columns.predecessor_actor,
                COLUMN_PREDECESSOR_COUNTER => &mut columns.predecessor_counter,
                _ => return Err(ChangeRefused::Foreign { what: "nested objects, marks or unknown columns" }),
            };
            *column = data;
        }
        Ok(columns)
    }

    fn puts(&self, actors: &[[u8; ACTOR_BYTES]]) -> Result<Vec<WirePut<'a>>, ChangeRefused> {
        let keys = self.keys()?;
        let count = keys.len();
        self.only_puts(count)?;
        let values = self.values(count)?;
        let mut predecessors = self.predecessors(count, actors)?.into_iter();
        Ok(keys
            .into_iter()
            .zip(values)
            .map(|(key, value)| WirePut { key, value, predecessors: predecessors.next().unwrap_or_default() })
            .collect())
    }

    fn keys(&self) -> Result<Vec<&'a str>, ChangeRefused> {
        runs(self.key, OPERATIONS_MAX, "operations", |input| {
            let length = input.count("keys", KEY_BYTES_MAX)?;
            std::str::from_utf8(input.take(length, "key")?).map_err(|_| ChangeRefused::Malformed { what: "key" })
        })
    }

    fn only_puts(&self, count: usize) -> Result<(), ChangeRefused> {
        let actions = runs(self.action, OPERATIONS_MAX, "operations", |input| input.unsigned("action"))?;
        if actions.iter().any(|action| *action != ACTION_PUT) {
            return Err(ChangeRefused::NotAPut);
        }
        // Booleans are counts of alternating runs, false first: the only run is `count` times false.
        let mut insert = Reader(self.insert);
        if count > 0 && insert.unsigned("insertions")? != count as u64 || !insert.0.is_empty() {
            return Err(ChangeRefused::NotAPut);
        }
        if actions.len() != count {
            return Err(ChangeRefused::Malformed { what: "action" });
        }
        Ok(())
    }

    fn values(&self, count: usize) -> Result<Vec<&'a [u8]>, ChangeRefused> {
        let metas = runs(self.value_meta, OPERATIONS_MAX, "operations", |input| input.unsigned("value"))?;
        if metas.len() != count {
            return Err(ChangeRefused::Malformed { what: "value" });
        }
        let mut raw = Reader(self.value);
        let mut values = Vec::with_capacity(count);
        for meta in metas {
            if meta & 0xf != VALUE_TYPE_BYTES {
                return Err(ChangeRefused::Foreign { what: "a value that is not bytes" });
            }
            let length = usize::try_from(meta >> 4).unwrap_or(usize::MAX);
            if length > VALUE_BYTES_MAX {
                return Err(ChangeRefused::TooMany { what: "bytes in a value" });
            }
            values.push(raw.take(length, "value")?);
        }
        if raw.0.is_empty() { Ok(values) } else { Err(ChangeRefused::Malformed { what: "value" }) }
    }

    fn predecessors(
        &self,
        count: usize,
        actors: &[[u8; ACTOR_BYTES]],
    ) -> Result<Vec<Vec<WireOperation>>, ChangeRefused> {
        let counts = runs(self.predecessor_count, OPERATIONS_MAX, "operations", |input| {
            input.count("overwritten operations", PREDECESSORS_MAX)
        })?;
        if counts.len() != count {
            return Err(ChangeRefused::Malformed { what: "overwritten operations" });
        }
        let indices =
            runs(self.predecessor_actor, PREDECESSORS_MAX, "overwritten operations", |input| input.unsigned("actor"))?;
        let deltas = runs(self.predecessor_counter, PREDECESSORS_MAX, "overwritten operations", |input| {
            input.signed("counter")
        })?;
        let total: usize = counts.iter().sum();
        if total != indices.len() || total != deltas.len() {
            return Err(ChangeRefused::Malformed { what: "overwritten operations" });
        }
        let malformed = || ChangeRefused::Malformed { what: "overwritten operations" };
        let mut counter = 0_i64;
        let mut all = indices.into_iter().zip(deltas).map(|(index, delta)| {
            counter = counter.checked_add(delta).ok_or_else(malformed)?;
            let actor = usize::try_from(index).ok().and_then(|index| actors.get(index)).ok_or_else(malformed)?;
            Ok((u64::try_from(counter).map_err(|_| malformed())?, *actor))
        });
        counts.into_iter().map(|count| all.by_ref().take(count).collect()).collect()
    }
}

/// Decodes a run-length encoded column into at most `max` values; nulls are refused. A run's length is checked
/// before anything is repeated.
fn runs<'a, T: Clone>(
    column: &'a [u8],
    max: usize,
    what: &'static str,
    mut value: impl FnMut(&mut Reader<'a>) -> Result<T, ChangeRefused>,
) -> Result<Vec<T>, ChangeRefused> {
    let mut input = Reader(column);
    let mut values = Vec::new();
    while !input.0.is_empty() {
        let length = input.signed(what)?;
        let room = max - values.len();
        if length == 0 {
            return Err(ChangeRefused::Foreign { what: "nested objects or nulls" });
        }
        if length.unsigned_abs() > room as u64 {
            return Err(ChangeRefused::TooMany { what });
        }
        let count = length.unsigned_abs() as usize;
        if length > 0 {
            let value = value(&mut input)?;
            values.resize(values.len() + count, value);
        } else {
            for _ in 0..count {
                values.push(value(&mut input)?);
            }
        }
    }
    Ok(values)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], ChangeRefused> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ChangeRefused::Malformed { what })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ChangeRefused> {
        self.take(N, what)?.try_into().map_err(|_| ChangeRefused::Malformed { what })
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, ChangeRefused> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn actor(&mut self) -> Result<[u8; ACTOR_BYTES], ChangeRefused> {
        if self.unsigned("actor")? != ACTOR_BYTES as u64 {
            return Err(ChangeRefused::Malformed { what: "actor" });
        }
        self.array("actor")
    }

    /// A count that is followed by at least one byte for each thing counted, or is bounded by `max` alone.
    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, ChangeRefused> {
        let count = self.unsigned(what)?;
        if count > max as u64 {
            return Err(ChangeRefused::TooMany { what });
        }
        Ok(count as usize)
    }

    fn unsigned(&mut self, what: &'static str) -> Result<u64, ChangeRefused> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ChangeRefused::Malformed { what })
    }

    fn signed(&mut self, what: &'static str) -> Result<i64, ChangeRefused> {
        let mut value = 0_i64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let negative = byte & 0x40 != 0;
                if shift < 57 && negative {
                    value |= -1 << (shift + 7);
                }
                return Ok(value);
            }
        }
        Err(ChangeRefused::Malformed { what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_within_their_size() {
        assert_eq!(Reader(&[0xe5, 0x8e, 0x26]).unsigned(""), Ok(624_485));
        assert_eq!(Reader(&[0x7f]).signed(""), Ok(-1));
        assert_eq!(Reader(&[0x80, 0x7f]).signed(""), Ok(-128));
        let longest = [0xff; 9].into_iter().chain([1]).collect::<Vec<u8>>();
        assert_eq!(Reader(&longest).unsigned(""), Ok(u64::MAX));
        for bad in [&[0xff; 11][..], &[0x80; 11], &[0x80], &[]] {
            assert!(Reader(bad).unsigned("").is_err());
            assert!(Reader(bad).signed("").is_err());
        }
    }

    #[test]
    fn a_run_is_refused_before_it_is_expanded() {
        // A run of 2^62 values in eleven bytes.
        let mut column = vec![0xff; 8];
        column.extend([0x3f, 1]);
        let read = runs(&column, OPERATIONS_MAX, "operations", |input| input.unsigned(""));
        assert_eq!(read, Err(ChangeRefused::TooMany { what: "operations" }));
        let many: Vec<u8> = [0x88, 0x27, 1].repeat(3); // three runs of 5000
        let read = runs(&many, OPERATIONS_MAX, "operations", |input| input.unsigned(""));
        assert_eq!(read, Err(ChangeRefused::TooMany { what: "operations" }));
    }
}
