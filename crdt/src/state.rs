//! Whether a photo is shown, in the trash, or erased.

/// What a person decided about a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lifecycle {
    /// Its chunks are to be erased everywhere.
    Erased,
    /// Hidden; can be restored.
    Trashed,
    /// Shown. The default, and the stronger one among decisions made without knowing of each other.
    Live,
}

/// A decision and how many came before it.
///
/// Keys are never deleted, because a put that is concurrent with a delete wins; a photo's state is a register
/// instead. Each decision carries a generation one higher than all that its author knew. Among concurrent decisions
/// the higher generation holds, and at equal generations the one that keeps more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// 0 for a photo nobody decided about.
    pub generation: u32,
    /// The decision.
    pub lifecycle: Lifecycle,
}

impl Default for State {
    fn default() -> Self {
        Self { generation: 0, lifecycle: Lifecycle::Live }
    }
}

impl State {
    /// The state after the next decision.
    #[must_use]
    pub const fn next(self, lifecycle: Lifecycle) -> Self {
        Self { generation: self.generation.saturating_add(1), lifecycle }
    }

    pub(crate) fn encode(self) -> [u8; 5] {
        let [a, b, c, d] = self.generation.to_le_bytes();
        let lifecycle = match self.lifecycle {
            Lifecycle::Live => 0,
            Lifecycle::Trashed => 1,
            Lifecycle::Erased => 2,
        };
        [a, b, c, d, lifecycle]
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, lifecycle] = bytes else { return None };
        let lifecycle = match lifecycle {
            0 => Lifecycle::Live,
            1 => Lifecycle::Trashed,
            2 => Lifecycle::Erased,
            _ => return None,
        };
        Some(Self { generation: u32::from_le_bytes([a, b, c, d]), lifecycle })
    }

    /// The state that holds among concurrent ones.
    pub(crate) fn resolve<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        values.filter_map(Self::decode).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_generation_holds_and_then_the_one_that_keeps_more() {
        let live = State::default();
        let trashed = live.next(Lifecycle::Trashed);
        let erased = trashed.next(Lifecycle::Erased);
        let restored = trashed.next(Lifecycle::Live);
        let resolve = |states: &[State]| {
            let encoded: Vec<_> = states.iter().map(|state| state.encode()).collect();
            State::resolve(encoded.iter().map(|bytes| bytes.as_slice()))
        };
        assert_eq!(resolve(&[]), live);
        assert_eq!(resolve(&[erased, trashed]), erased);
        assert_eq!(resolve(&[erased, restored]), restored);
        assert_eq!(resolve(&[restored, restored.next(Lifecycle::Erased)]).lifecycle, Lifecycle::Erased);
        assert_eq!(State::decode(&[0, 0, 0, 0, 3]), None);
        assert_eq!(State::decode(&[0; 4]), None);
    }
}
