//! 25: what a newer version says is kept and passed on byte for byte by versions that do not know it.

use holdfast_protocol::envelope::SignedEnvelope;

use super::Violation;
use crate::fault::FaultClass;
use crate::world::World;

/// Compares what every node keeps of the log that a newer version wrote with what it wrote. That all know it equally far
/// [`converged`](super::converged) sees.
///
/// # Errors
/// The first envelope that is another.
pub fn check(world: &World) -> Result<(), Violation> {
    let Some(shadow) = world.shadows.get(&FaultClass::NewerVersion) else { return Ok(()) };
    let written = shadow.written();
    for node in &world.nodes {
        let Some(library) = &node.library else { continue };
        let kept = library.replica().read_log(&shadow.author(), 0, written.len());
        let kept = kept.map_err(|error| Violation::failed(node.number, error.into()))?;
        check_kept(node.number, &kept, written)?;
    }
    Ok(())
}

fn check_kept(node: usize, kept: &[SignedEnvelope], written: &[SignedEnvelope]) -> Result<(), Violation> {
    let is_other = |(kept, written): (&SignedEnvelope, &SignedEnvelope)| kept.wire() != written.wire();
    let other = kept.iter().zip(written).position(is_other);
    other.map_or(Ok(()), |seq| Err(Violation::UnknownAltered { node, seq }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::options::Options;

    #[test]
    fn what_a_newer_version_says_reaches_everybody_and_any_other_byte_is_found() {
        let classes = BTreeSet::from([FaultClass::NewerVersion, FaultClass::Crash, FaultClass::IndexLost]);
        let options = Options { classes, ..Options::calm(4) }.lasting(90_000);
        let mut world = World::new(5, options).unwrap();
        world.run().unwrap();
        let shadow = &world.shadows[&FaultClass::NewerVersion];
        let library = world.nodes[3].library.as_ref().unwrap();
        let kept = library.replica().read_log(&shadow.author(), 0, 100).unwrap();
        assert!(kept.len() > 3, "{}", kept.len());
        assert_eq!(check_kept(3, &kept, shadow.written()), Ok(()));
        let mut forged = kept.clone();
        forged.swap(1, 2);
        assert_eq!(check_kept(3, &forged, shadow.written()), Err(Violation::UnknownAltered { node: 3, seq: 1 }));
    }
}
