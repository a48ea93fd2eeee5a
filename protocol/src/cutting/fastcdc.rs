//! FastCDC 2020: content-defined cuts with normalized chunking of level 2, two bytes an iteration.

/// How long chunks may be and how rarely they are cut.
#[derive(Debug)]
pub(super) struct Bounds {
    /// No cut before this many bytes.
    pub(super) min: usize,
    /// Cuts are rarer before this many bytes and likelier from there on.
    pub(super) normal: usize,
    /// A cut here at the latest.
    pub(super) max: usize,
    rare: u64,
    likely: u64,
}

impl Bounds {
    /// Bounds around a `normal` length that is a power of two; `min` is even.
    pub(super) const fn new(min: usize, normal: usize, max: usize) -> Self {
        assert!(normal.is_power_of_two() && min.is_multiple_of(2) && min < normal && normal < max);
        let bits = normal.trailing_zeros();
        Self { min, normal, max, rare: mask(bits + 2), likely: mask(bits - 2) }
    }

    /// Where content says that a chunk starting with `data` ends, if it says so within `data`.
    ///
    /// `data` is at most `max` long. A longer `data` with the same start gives the same answer, once there is one.
    pub(super) fn find(&self, data: &[u8]) -> Option<usize> {
        let mut hash = 0;
        let normal = self.normal.min(data.len());
        let before = data.get(self.min..normal)?;
        if let Some(found) = scan(&mut hash, before, self.rare) {
            return Some(self.min + found);
        }
        scan(&mut hash, &data[normal..], self.likely).map(|found| normal + found)
    }
}

/// `bits` ones below the highest bit, which the hash of two bytes at once needs for itself. High bits depend on the
/// last forty bytes and more.
const fn mask(bits: u32) -> u64 {
    (u64::MAX >> (64 - bits)) << (63 - bits)
}

/// Rolls `hash` over `data`; returns how many bytes precede the cut. An odd last byte is left out: a cut there is found
/// when more of the data is seen.
fn scan(hash: &mut u64, data: &[u8], mask: u64) -> Option<usize> {
    let (pairs, _) = data.as_chunks::<2>();
    let mut rolling = *hash;
    for (index, [first, second]) in pairs.iter().enumerate() {
        rolling = (rolling << 2).wrapping_add(GEAR_SHIFTED[*first as usize]);
        if rolling & (mask << 1) == 0 {
            return Some(index * 2);
        }
        rolling = rolling.wrapping_add(GEAR[*second as usize]);
        if rolling & mask == 0 {
            return Some(index * 2 + 1);
        }
    }
    *hash = rolling;
    None
}

/// A random number for each byte value, from SplitMix64 with a fixed seed: part of the format.
const GEAR: [u64; 256] = gear();
const GEAR_SHIFTED: [u64; 256] = {
    let mut table = gear();
    let mut index = 0;
    while index < 256 {
        table[index] <<= 1;
        index += 1;
    }
    table
};

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = u64::from_be_bytes(*b"holdfast");
    let mut index = 0;
    while index < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[index] = value ^ (value >> 31);
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_part_of_the_format() {
        let bytes: Vec<u8> = GEAR.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "b9546bbf86bde2bab42dac4356d5d6efd534e65f0cab672a42e96aa7e749acb2",
            "another table cuts every file elsewhere: give the cutter a new version"
        );
    }

    #[test]
    fn two_bytes_at_once_hash_like_one_at_a_time() {
        let data: Vec<u8> =
            (0..50_000u32).flat_map(|number| blake3::hash(&number.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
        let bounds = Bounds::new(64, 256, 4096);
        let mut from = 0;
        while from < data.len() {
            let rest = &data[from..data.len().min(from + bounds.max)];
            let mut hash = 0u64;
            let plain = (bounds.min..rest.len() & !1).find(|index| {
                hash = (hash << 1).wrapping_add(GEAR[rest[*index] as usize]);
                hash & if *index < bounds.normal { bounds.rare } else { bounds.likely } == 0
            });
            assert_eq!(bounds.find(rest), plain);
            from += plain.unwrap_or(rest.len());
        }
    }
}
