//! Positions: the addresses that deposits give to chunks.

use serde::{Deserialize, Serialize};

use crate::id::AuthorId;

/// The `index`-th chunk that `author` deposited, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Who deposited it.
    pub author: AuthorId,
    /// Its number among that author's deposited chunks.
    pub index: u32,
}

/// `count` consecutive positions of one author, from `start`: the chunks of a photo.
///
/// A run that a peer sent may reach past `u32::MAX`; [`Run::end`] saturates, so it is never a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Who deposited the chunks.
    pub author: AuthorId,
    /// The first position.
    pub start: u32,
    /// How many positions.
    pub count: u32,
}

impl Run {
    /// The position after the last one.
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.start.saturating_add(self.count)
    }

    /// The indices of the run.
    #[must_use]
    pub const fn indices(&self) -> std::ops::Range<u32> {
        self.start..self.end()
    }
}
