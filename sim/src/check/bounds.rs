//! 22: what peers make a node keep is bounded, for each peer and in all.
//!
//! Looked at again and again while faults strike and peers lie. That no input panics every run sees.

use holdfast_protocol::replica::Bounded;

use super::Violation;
use crate::node::Node;

/// Looks at everything that a node keeps of what its peers said.
///
/// # Errors
/// The first of which there is too much.
pub fn check(node: &Node) -> Result<(), Violation> {
    let kept = node.library.as_ref().map(|library| library.replica().bounded()).unwrap_or_default();
    check_kept(node.number, &kept)
}

fn check_kept(node: usize, kept: &[Bounded]) -> Result<(), Violation> {
    kept.iter().find(|of| of.kept > of.most).map_or(Ok(()), |of| {
        let Bounded { what, kept, most } = *of;
        Err(Violation::Unbounded { node, what, kept, most })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::world::World;

    #[test]
    fn too_much_of_anything_is_found() {
        let mut world = World::new(3, Options::calm(3)).unwrap();
        world.run_until(20_000).unwrap();
        let kept = world.nodes[0].library.as_ref().unwrap().replica().bounded();
        assert!(kept.iter().any(|of| of.kept > 0));
        assert_eq!(check(&world.nodes[0]), Ok(()));
        for at in 0..kept.len() {
            let mut kept = kept.clone();
            kept[at].kept = kept[at].most + 1;
            assert!(matches!(check_kept(0, &kept), Err(Violation::Unbounded { node: 0, .. })));
        }
    }
}
