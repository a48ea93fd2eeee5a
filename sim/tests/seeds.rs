//! A fixed batch of seeds, and those that once found something.

use holdfast_sim::options::Options;
use holdfast_sim::world::World;

fn run(seed: u64) -> Option<String> {
    let outcome = World::new(seed, Options::of(seed)).and_then(|mut world| world.run());
    outcome.err().map(|violation| format!("seed {seed}: {violation}"))
}

fn run_all(seeds: impl Iterator<Item = u64>) {
    let broken: Vec<String> = seeds.filter_map(run).collect();
    assert!(broken.is_empty(), "replay with `cargo run -p holdfast-sim -- run --seed N`\n{}", broken.join("\n"));
}

#[test]
fn a_fixed_batch_of_seeds_breaks_nothing() {
    run_all(100..120);
}

#[test]
fn seeds_that_found_something_find_it_no_more() {
    // 1, 5: a file gone before its import was catalogued stayed in lists. 2, 6: places of devices whose inventory was
    // still on its way were each counted as one more. 9, 23: two imports of one photo counted by what was learned first.
    // 42: a photo whose last known file was edited stayed hidden although another device had imported it.
    run_all([1, 2, 5, 6, 9, 23, 25, 42].into_iter());
}
