//! A member's change as raw bytes, or a good change with some bytes exchanged.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use world::{attack, world};

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    if mode & 1 == 0 {
        attack(data);
        return;
    }
    let mut change = world().attacker[usize::from(mode >> 1) % 2].clone();
    for patch in data.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % change.len();
        change[at] = patch[2];
    }
    attack(&change);
});
