//! Unsigned LEB128 in its shortest form, for the long lists that are laid out by hand.

/// Appends `value` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a value off the front of `input`; `None` when it is cut short, over 64 bits or longer than it needs to be.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || index == 0;
            *input = &input[index + 1..];
            return shortest.then_some(value);
        }
    }
    None
}

/// [`take`] for values that fit 32 bits.
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    take(input).and_then(|value| u32::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(value: u64, rest: Vec<u8>) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            bytes.extend(&rest);
            let mut input = bytes.as_slice();
            prop_assert_eq!(take(&mut input), Some(value));
            prop_assert_eq!(input, rest.as_slice());
        }

        #[test]
        fn only_the_shortest_form_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut input = bytes.as_slice();
            if let Some(value) = take(&mut input) {
                let mut again = Vec::new();
                put(&mut again, value);
                prop_assert_eq!(&bytes[..bytes.len() - input.len()], again.as_slice());
            }
        }
    }
}
