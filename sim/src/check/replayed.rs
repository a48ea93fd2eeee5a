//! 26: a seed replays to the same trace hash.

use super::Violation;

/// Compares the trace hashes of two runs.
///
/// # Errors
/// When they differ.
pub fn check(first: &[u8; 32], second: &[u8; 32]) -> Result<(), Violation> {
    let text = |hash: &[u8; 32]| hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if first == second {
        return Ok(());
    }
    Err(Violation::NotReplayed { first: text(first), second: text(second) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::world::World;

    fn trace(seed: u64, options: &Options) -> [u8; 32] {
        let mut world = World::new(seed, options.clone()).unwrap();
        world.run_until(20_000).unwrap();
        world.trace_hash()
    }

    #[test]
    fn another_seed_is_another_trace_and_the_same_seed_is_not() {
        let options = &Options::calm(3);
        assert_eq!(check(&trace(8, options), &trace(8, options)), Ok(()));
        assert!(check(&trace(8, options), &trace(9, options)).is_err());
    }
}
