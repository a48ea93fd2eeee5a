//! The entropy-coded data of a JPEG: its bits, its Huffman codes, and passing over what an eighth does not need.

use super::EighthRefused::{self, Malformed};
use super::next_marker;

/// Bits of the first-level tables.
const LOOKUP_BITS: u32 = 12;

/// A canonical Huffman code.
pub(super) struct Huffman {
    /// By the next bits: the code's length and symbol; length 0: longer than the table, or no code.
    lookup: Vec<(u8, u8)>,
    /// By length - 1: the first code, how many there are, and where their symbols begin.
    lengths: [(u32, u32, u32); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, EighthRefused> {
        let mut lookup = vec![(0, 0); 1 << LOOKUP_BITS];
        let mut lengths = [(0, 0, 0); 16];
        let (mut code, mut index) = (0u32, 0u32);
        for (length, &count) in (1u32..).zip(counts) {
            lengths[length as usize - 1] = (code, u32::from(count), index);
            for _ in 0..count {
                if code >= 1 << length {
                    return Err(Malformed("an impossible Huffman table"));
                }
                if length <= LOOKUP_BITS {
                    let spare = LOOKUP_BITS - length;
                    let from = (code << spare) as usize;
                    lookup[from..from + (1 << spare)].fill((length as u8, symbols[index as usize]));
                }
                code += 1;
                index += 1;
            }
            code <<= 1;
        }
        Ok(Self { lookup, lengths, symbols: symbols.to_vec() })
    }

    /// Reads one symbol, or nothing where no code matches.
    #[inline]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Option<u8> {
        let next = bits.peek_16();
        let (length, symbol) = self.lookup[(next >> (16 - LOOKUP_BITS)) as usize];
        if length > 0 {
            bits.skip(u32::from(length));
            return Some(symbol);
        }
        let (length, symbol) = self.long_symbol(next)?;
        bits.skip(length);
        Some(symbol)
    }

    #[cold]
    fn long_symbol(&self, next: u32) -> Option<(u32, u8)> {
        for (length, &(first, count, index)) in (1u32..).zip(&self.lengths) {
            let code = next >> (16 - length);
            if code.wrapping_sub(first) < count {
                return self.symbols.get((index + code - first) as usize).map(|&symbol| (length, symbol));
            }
        }
        None
    }
}

/// How far one look at the next bits carries through a block's AC coefficients.
#[derive(Clone, Copy, Default)]
struct Skip {
    /// Bits to drop; 0: this look can't tell.
    bits: u8,
    /// Coefficients passed.
    coefficients: u8,
    /// Whether the block ends here.
    ends: bool,
}

impl Skip {
    fn of(length: u32, symbol: u8) -> Self {
        let (run, size) = (symbol >> 4, symbol & 15);
        let coefficients = if size == 0 && run != 15 { 0 } else { run + 1 };
        Self { bits: length as u8 + size, coefficients, ends: coefficients == 0 }
    }
}

/// A Huffman code of AC coefficients, prepared for passing over them.
pub(super) struct AlternatingSkip {
    /// One coefficient at a time.
    single: Vec<Skip>,
    /// All that the bits of one look hold completely.
    several: Vec<Skip>,
    table: Huffman,
}

impl AlternatingSkip {
    pub(super) fn new(table: Huffman) -> Self {
        let single: Vec<Skip> = table
            .lookup
            .iter()
            .map(|&(length, symbol)| if length == 0 { Skip::default() } else { Skip::of(length.into(), symbol) })
            .collect();
        let several = (0..single.len())
            .map(|index| {
                let mut sum = single[index];
                while sum.bits > 0 && !sum.ends && u32::from(sum.bits) < LOOKUP_BITS {
                    let next = single[(index << sum.bits) & (single.len() - 1)];
                    // The bits past the look are unknown: a code must lie within it whole. Its value may lie outside.
                    let code_bits = table.lookup[(index << sum.bits) & (single.len() - 1)].0;
                    if next.bits == 0 || u32::from(sum.bits + code_bits) > LOOKUP_BITS || sum.bits + next.bits > 31 {
                        break;
                    }
                    sum = Skip {
                        bits: sum.bits + next.bits,
                        coefficients: sum.coefficients + next.coefficients,
                        ends: next.ends,
                    };
                }
                sum
            })
            .collect();
        Self { single, several, table }
    }

    /// Passes over the 63 AC coefficients of one block.
    #[inline]
    pub(super) fn block(&self, bits: &mut Bits<'_>) -> Option<()> {
        let mut passed = 0u32;
        while passed < 63 {
            let next = bits.peek_16();
            let index = (next >> (16 - LOOKUP_BITS)) as usize;
            let several = self.several[index];
            let after = passed + u32::from(several.coefficients);
            // Exact only if no coefficient before the last one was already the block's last.
            if several.bits > 0 && after + u32::from(several.ends) <= 63 {
                bits.skip(several.bits.into());
                if several.ends {
                    return Some(());
                }
                passed = after;
                continue;
            }
            let mut skip = self.single[index];
            if skip.bits == 0 {
                let (length, symbol) = self.table.long_symbol(next)?;
                skip = Skip::of(length, symbol);
            }
            bits.skip(skip.bits.into());
            if skip.ends {
                return Some(());
            }
            passed += u32::from(skip.coefficients);
        }
        (passed == 63).then_some(())
    }
}

/// The bits of entropy-coded data; past its end come zeros, and `is_exhausted` says so.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// Unread bits, the next one highest.
    buffer: u64,
    available: u32,
    /// Bits that were made up after the data's end.
    invented: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at, buffer: 0, available: 0, invented: 0 }
    }

    #[inline]
    fn peek_16(&mut self) -> u32 {
        if self.available < 32 {
            self.refill();
        }
        (self.buffer >> 48) as u32
    }

    /// Drops at most 31 bits after a peek.
    #[inline]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.available -= bits;
    }

    /// Reads 1 to 16 bits.
    #[inline]
    pub(super) fn take(&mut self, bits: u32) -> u32 {
        let value = self.peek_16() >> (16 - bits);
        self.skip(bits);
        value
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<4>()) {
            let word = u32::from_be_bytes(*next);
            // No byte of the four is 0xFF: none of the complement is zero.
            let inverse = !word;
            if inverse.wrapping_sub(0x0101_0101) & !inverse & 0x8080_8080 == 0 {
                self.buffer |= u64::from(word) << (32 - self.available);
                self.available += 32;
                self.at += 4;
                return;
            }
        }
        self.refill_slowly();
    }

    fn refill_slowly(&mut self) {
        while self.available <= 48 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xFF), Some(0x00)) => {
                    self.at += 2;
                    0xFF
                }
                (Some(0xFF), _) | (None, _) => {
                    self.invented = self.invented.saturating_add(8);
                    0
                }
                (Some(&byte), _) => {
                    self.at += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.available);
            self.available += 8;
        }
    }

    /// Whether bits were read that the data did not hold.
    pub(super) fn is_exhausted(&self) -> bool {
        self.invented > self.available
    }

    fn forget(&mut self) {
        (self.buffer, self.available, self.invented) = (0, 0, 0);
    }

    /// Goes past the restart marker that is due here.
    pub(super) fn restart(&mut self) {
        if self.seek_restart() {
            self.at += 2;
        }
    }

    /// Goes to the next restart marker; stays and returns false when another marker or the end comes first.
    pub(super) fn seek_restart(&mut self) -> bool {
        match next_marker(self.data, self.at) {
            Some((0xD0..=0xD7, after)) => {
                self.forget();
                self.at = after - 2;
                true
            }
            _ => false,
        }
    }

    /// Where the next marker may be searched from.
    pub(super) fn at_marker(&self) -> usize {
        // Bytes already in the buffer hold no marker: refilling stops at one.
        self.at
    }
}
