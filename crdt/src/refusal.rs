//! Why the guard refuses a change.

/// What is wrong with a member's change. From its first refused change on, nothing of an author is applied to that
/// document; the document and everyone else's changes are untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// More bytes than a change may have.
    #[error("a change of {bytes} bytes is larger than any device sends")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// More operations, dependencies or overwritten operations than a change may have.
    #[error("a change with too many {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// Not a change, or cut off.
    #[error("not a change: {what}")]
    Malformed {
        /// What could not be read.
        what: &'static str,
    },
    /// A form of change that Holdfast never writes: compressed, with a message, a time, extra data or nested objects.
    #[error("a change with {what}, which no device writes")]
    Foreign {
        /// What is foreign in it.
        what: &'static str,
    },
    /// Not the bytes that encoding the same operations gives: a wrong checksum, another order, another run length.
    #[error("a change that is not encoded the one canonical way")]
    NotCanonical,
    /// Written under an actor that does not belong to its author.
    #[error("a change under an actor that is not its author's")]
    WrongActor,
    /// Not the author's next change in this document.
    #[error("a change numbered {found} where the author's next one is {expected}")]
    WrongSequence {
        /// The next number.
        expected: u64,
        /// The number it carries.
        found: u64,
    },
    /// It does not build on its author's previous change.
    #[error("a change that does not build on its author's previous one")]
    NotOnOwnLast,
    /// It does not build on the document's first change.
    #[error("a change that builds on nothing")]
    NoDependencies,
    /// Operation counters must start one above those of the dependencies.
    #[error("a change whose operations are numbered from {found} instead of {expected}")]
    WrongStart {
        /// One above the dependencies.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// Something other than setting a key to a value: a deletion, a counter, an insertion.
    #[error("a change that does something else than setting keys to values")]
    NotAPut,
    /// A key outside the schema, or in the wrong kind of document.
    #[error("a change of the key {key:?}, which this document cannot have")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A value of a type or form that the key never has.
    #[error("a change with a malformed value of {key:?}")]
    WrongValue {
        /// Of which key.
        key: String,
    },
    /// One key is set twice, or keys are out of order.
    #[error("a change that sets {key:?} twice or out of order")]
    KeyTwice {
        /// Which key.
        key: String,
    },
    /// It overwrites other operations than those that its author saw.
    #[error("a change of {key:?} that overwrites other values than its author saw")]
    WrongPredecessors {
        /// Of which key.
        key: String,
    },
    /// A photo's record is written once.
    #[error("a change that rewrites the record {key:?}")]
    RecordRewritten {
        /// Of which photo.
        key: String,
    },
    /// A state's generation must be one above those it overwrites.
    #[error("a change that sets {key:?} to a generation that is not the next one")]
    WrongGeneration {
        /// Of which photo.
        key: String,
    },
    /// Automerge failed, panicked, or made something else of it.
    #[error("a change that Automerge does not keep as it is")]
    NotKept,
}
