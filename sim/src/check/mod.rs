//! What must hold, one checker a file, numbered as in the design.
//!
//! | | invariant | checked by |
//! |---|---|---|
//! | 1 | no acknowledged import becomes unreadable | [`readable`] |
//! | 2, 3, 4 | releases, holds, intents | not yet: needs freeing space |
//! | 5 | an acknowledgement survives an immediate crash, an edit that was told as done stays | [`acknowledged`], [`edits`] |
//! | 6 | who is counted as a holder holds it, or lied or broke; shown copies and places ≤ those | [`copies`] |
//! | 7, 10 | equal inputs, equal counts and heads; nobody honest is refused | [`equal`], [`folders`], [`refused`] |
//! | 8 | inventories say what stores hold | [`inventory`] |
//! | 9 | no (generation, seq) with two contents | [`versions`] |
//! | 11 | bundles lose no change | not yet: needs bundles |
//! | 12, 18 | keepers | not yet: needs keepers |
//! | 13 | what a removed device cannot open | not yet: needs new keys; that it counts for nobody: [`removed`] |
//! | 14, 15, 16, 17 | erasing | not yet: needs releases |
//! | 19 | replayed and misdirected messages change nothing | [`replay`], and [`equal`] for those of members |
//! | 20 | every fork that reaches two nodes is proven, and nobody honest is said to have forked | [`forks`] |
//! | 21 | served bytes match their id, rot is found within a scrub | [`served`] |
//! | 22 | no input panics, what peers make a node keep is bounded | every run: a panic is a finding; [`bounds`] |
//! | 23 | clocks do not matter to safety | all checkers, in worlds whose clocks are wrong, drift and jump |
//! | 24 | everything converges within a bound; nobody stands still beside an honest peer that has what it wants | [`converged`], [`unasked`] |
//! | 25 | mixed versions keep what they do not know | [`unknown`] |
//! | 26 | a seed replays to the same trace hash | [`replayed`] |

pub mod acknowledged;
pub mod bounds;
pub mod converged;
pub mod copies;
pub mod edits;
pub mod equal;
pub mod folders;
pub mod forks;
pub mod inventory;
pub mod readable;
pub mod refused;
pub mod removed;
pub mod replay;
pub mod replayed;
pub mod served;
pub(crate) mod unasked;
pub mod unknown;
pub mod versions;

use holdfast_library::{Library, LibraryError};
use holdfast_protocol::id::PhotoId;
use holdfast_protocol::position::Position;

use crate::metadata::VirtualMetadata;
use crate::world::World;

/// A broken invariant: the sentence says which, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A library stopped working although no disk failed.
    #[error("node {node} stopped: {error}")]
    Failed {
        /// Which.
        node: usize,
        /// Why.
        error: LibraryError,
    },
    /// A device could not join.
    #[error("node {node} could not join: {what}")]
    Joining {
        /// Which.
        node: usize,
        /// Why.
        what: String,
    },
    /// A node asks for ticks at one moment again and again.
    #[error("node {node} goes in a circle at {at} ms")]
    Circle {
        /// Which.
        node: usize,
        /// When.
        at: u64,
    },
    /// Invariant 1.
    #[error("an acknowledged photo cannot be read at node {node}: {photo}")]
    Unreadable {
        /// Where.
        node: usize,
        /// Which photo.
        photo: String,
    },
    /// Invariant 5.
    #[error("node {node} acknowledged {photo}, and a crash took it: {what}")]
    AcknowledgementLost {
        /// Where.
        node: usize,
        /// Which photo.
        photo: String,
        /// What is missing.
        what: &'static str,
    },
    /// Invariants 1 and 5, of edits.
    #[error("node {node} does not show the edit of {photo} that was told as done with the tag {tag}")]
    EditLost {
        /// Where.
        node: usize,
        /// Which photo.
        photo: String,
        /// Which gesture it was.
        tag: String,
    },
    /// Somebody honest is taken for one who is not.
    #[error("node {node} refuses {whom}, who is honest: {what}")]
    HonestRefused {
        /// Where.
        node: usize,
        /// Whom.
        whom: String,
        /// Why.
        what: String,
    },
    /// Invariant 6.
    #[error("node {node} counts device {device} as a holder of {photo}, and it does not hold it")]
    FalseHolder {
        /// Where.
        node: usize,
        /// Which photo.
        photo: String,
        /// Which device: it has neither lost the photo behind its back nor may it lie.
        device: String,
    },
    /// Invariant 6.
    #[error("node {node} shows {shown} {what} of {photo}, and counts {most}")]
    CopiesOverstated {
        /// Where.
        node: usize,
        /// Which photo.
        photo: String,
        /// Copies or places.
        what: &'static str,
        /// How many it shows.
        shown: u32,
        /// How many there are of those that say they hold it.
        most: u32,
    },
    /// Invariants 7 and 10.
    #[error("nodes 0 and {node} know the same and say different things: {what}")]
    Unequal {
        /// The node that differs from the first.
        node: usize,
        /// In what.
        what: String,
    },
    /// Invariant 8.
    #[error("node {node} says that it holds something else than its store does")]
    FalseInventory {
        /// Which.
        node: usize,
    },
    /// The catalog says something of files that the folders do not.
    #[error("node {node} shows other files than there are: {what}")]
    WrongFiles {
        /// Where.
        node: usize,
        /// Which.
        what: String,
    },
    /// Invariant 24.
    #[error("faults have stopped, and node {node} does not come to agree: {what}")]
    NotConverged {
        /// Which.
        node: usize,
        /// What is missing.
        what: String,
    },
    /// Invariant 24, while faults strike.
    #[error("node {node} has asked node {peer} for nothing for {for_ms} ms, which holds what it wants: chunk {chunk}")]
    Unasked {
        /// Which.
        node: usize,
        /// Who could be asked.
        peer: usize,
        /// For what.
        chunk: String,
        /// For how long.
        for_ms: u64,
    },
    /// Invariant 9.
    #[error("node {node} signed two contents of its inventory with number {seq} of one generation")]
    VersionTwice {
        /// Which.
        node: usize,
        /// The number.
        seq: u64,
    },
    /// Invariant 19.
    #[error("node {node} took something from a stranger")]
    StrangerHeard {
        /// Which.
        node: usize,
    },
    /// Invariant 21.
    #[error("node {node} gave other bytes for chunk {chunk}")]
    WrongBytes {
        /// Which.
        node: usize,
        /// Which chunk.
        chunk: String,
    },
    /// Invariant 21.
    #[error("node {node} has scrubbed its store, says that it holds chunk {chunk} and cannot read it")]
    RotUnnoticed {
        /// Which.
        node: usize,
        /// Which chunk.
        chunk: String,
    },
    /// Invariant 22.
    #[error("node {node} keeps {kept} {what}, more than the {most} there may be")]
    Unbounded {
        /// Which.
        node: usize,
        /// Of what there is too much.
        what: &'static str,
        /// How much.
        kept: u64,
        /// How much there may be.
        most: u64,
    },
    /// Invariant 20.
    #[error("node {node} does not know that author {author} has forked its log")]
    ForkUnproven {
        /// Which.
        node: usize,
        /// Whose log.
        author: String,
    },
    /// Invariant 20, the other way round.
    #[error("node {node} takes author {author} for one who forked its log, and it is honest")]
    HonestForked {
        /// Which.
        node: usize,
        /// Whose log.
        author: String,
    },
    /// A device that was removed counts on.
    #[error("node {node} knows that device {device} was removed, and {what}")]
    RemovedCounts {
        /// Where.
        node: usize,
        /// Which.
        device: String,
        /// In what it counts.
        what: &'static str,
    },
    /// Invariant 25.
    #[error("node {node} keeps envelope {seq} of a newer version otherwise than it was written")]
    UnknownAltered {
        /// Which.
        node: usize,
        /// The number of the envelope.
        seq: usize,
    },
    /// Invariant 25.
    #[error("node {node} keeps {kept} envelopes of a newer version, and there are {most} to be kept")]
    UnknownLost {
        /// Which.
        node: usize,
        /// How many it keeps.
        kept: usize,
        /// How many the node keeps that keeps most, or at least one.
        most: usize,
    },
    /// Invariant 26.
    #[error("the same seed gave another trace: {first} and {second}")]
    NotReplayed {
        /// The trace hash of the first run.
        first: String,
        /// The trace hash of the second run.
        second: String,
    },
}

/// Whether the faults of this run have destroyed the photo's manifest everywhere: then nobody can say what it is called or
/// shows.
pub(crate) fn is_nameless(world: &World, library: &Library<VirtualMetadata>, photo: &PhotoId) -> bool {
    let Some(slot) = library.photos().slot(photo) else { return false };
    let run = library.photos().row(slot).run;
    let first = library.replica().chunk_at(&Position { author: run.author, index: run.start });
    first.is_some_and(|manifest| world.excused.chunks.contains(&manifest.chunk))
}

impl Violation {
    pub(crate) const fn failed(node: usize, error: LibraryError) -> Self {
        Self::Failed { node, error }
    }
}
