//! `faults`: the classes, as the table in the code says.

use holdfast_sim::fault::{FaultClass, Rate};

pub(crate) fn list() {
    say!("{:<22} {:<14} {:<24} what it does", "class", "worlds", "strikes there");
    for class in FaultClass::ALL {
        let worlds = format!("one in {}", class.one_world_in());
        let strikes = match class.rate() {
            Rate::Every { from_ms, to_ms } => {
                format!("every {} to {} s", from_ms as f64 / 1000.0, to_ms as f64 / 1000.0)
            }
            Rate::OneIn(times) => format!("once in {times} occasions"),
        };
        say!("{:<22} {worlds:<14} {strikes:<24}{}", class.name(), class.about());
    }
}
