//! 26: a seed replays to the same trace hash.

use super::Violation;
use crate::outcome::{Outcome, Verdict};

/// What came of a seed that was run twice: a clean run becomes a finding when the second was another.
#[must_use]
pub fn check(first: Outcome, second: &Outcome) -> Outcome {
    if first == *second || !first.verdict.is_clean() {
        return first;
    }
    let violation = Violation::NotReplayed { first: first.trace.clone(), second: second.trace.clone() };
    Outcome { verdict: Verdict::of(&violation), ..first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::outcome::run_unwatched;

    #[test]
    fn another_seed_is_another_trace_and_the_same_seed_is_not() {
        let run = |seed| run_unwatched(seed, &Options::calm(3));
        assert!(check(run(8), &run(8)).verdict.is_clean());
        assert_eq!(check(run(8), &run(9)).verdict.kind(), "NotReplayed");
    }

    #[test]
    fn what_the_first_run_found_comes_first() {
        let found = Verdict::NotConverged { what: "somebody is apart".to_owned() };
        let first = Outcome::without_world(found.clone());
        assert_eq!(check(first, &run_unwatched(9, &Options::calm(2))).verdict, found);
    }
}
