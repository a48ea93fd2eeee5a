//! Whether a photo is shown, in the trash, or erased.

use holdfast_protocol::id::DeviceId;
use holdfast_protocol::time::WallTime;

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

/// A decision, how many came before it, and when and by whom it was made.
///
/// Keys are never deleted, because a put that is concurrent with a delete wins; a photo's state is a register
/// instead. Each decision carries a generation one higher than all that its author knew. Among concurrent decisions
/// the higher generation holds, at equal generations the one that keeps more, and then the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// 0 for a photo nobody decided about.
    pub generation: u32,
    /// The decision.
    pub lifecycle: Lifecycle,
    /// When it was made, by the clock of whoever made it: shown, never decided by.
    pub since: WallTime,
    /// The device that it was made on; `None` for a photo nobody decided about.
    pub by: Option<DeviceId>,
}

impl Default for State {
    fn default() -> Self {
        Self { generation: 0, lifecycle: Lifecycle::Live, since: WallTime(0), by: None }
    }
}

const STATE_BYTES: usize = 45;

impl State {
    /// The state after the next decision, made on the device `by` at the time `now`.
    #[must_use]
    pub const fn next(self, lifecycle: Lifecycle, now: WallTime, by: DeviceId) -> Self {
        Self { generation: self.generation.saturating_add(1), lifecycle, since: now, by: Some(by) }
    }

    /// `generation u32 ‖ decision u8 ‖ milliseconds since the Unix epoch u64 ‖ device 32`.
    pub(crate) fn encode(self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        bytes[..4].copy_from_slice(&self.generation.to_le_bytes());
        bytes[4] = match self.lifecycle {
            Lifecycle::Live => 0,
            Lifecycle::Trashed => 1,
            Lifecycle::Erased => 2,
        };
        // No honest clock stands before the epoch.
        bytes[5..13].copy_from_slice(&self.since.0.max(0).to_le_bytes());
        bytes[13..].copy_from_slice(self.by.unwrap_or(DeviceId::from_bytes([0; 32])).as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (generation, rest) = bytes.split_first_chunk()?;
        let (lifecycle, rest) = rest.split_first()?;
        let (since, by) = rest.split_first_chunk()?;
        let lifecycle = match lifecycle {
            0 => Lifecycle::Live,
            1 => Lifecycle::Trashed,
            2 => Lifecycle::Erased,
            _ => return None,
        };
        Some(Self {
            generation: u32::from_le_bytes(*generation),
            lifecycle,
            since: WallTime(i64::try_from(u64::from_le_bytes(*since)).ok()?),
            by: Some(DeviceId::from_bytes(by.try_into().ok()?)),
        })
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
        let (now, device) = (WallTime(1_700_000_000_000), DeviceId::from_bytes([7; 32]));
        let trashed = live.next(Lifecycle::Trashed, now, device);
        let erased = trashed.next(Lifecycle::Erased, now, device);
        let restored = trashed.next(Lifecycle::Live, WallTime(0), device);
        let resolve = |states: &[State]| {
            let encoded: Vec<_> = states.iter().map(|state| state.encode()).collect();
            State::resolve(encoded.iter().map(|bytes| bytes.as_slice()))
        };
        assert_eq!(resolve(&[]), live);
        assert_eq!(resolve(&[erased, trashed]), erased);
        assert_eq!(resolve(&[erased, restored]), restored);
        let erased_again = restored.next(Lifecycle::Erased, now, device);
        assert_eq!(resolve(&[restored, erased_again]), erased_again);
        let wrong =
            State { lifecycle: Lifecycle::Live, ..trashed }.encode().map(|byte| if byte == 0 { 3 } else { byte });
        assert_eq!(State::decode(&wrong), None);
        for length in [0, 5, 44, 46] {
            assert_eq!(State::decode(&vec![0; length]), None);
        }
    }
}
