//! Where a change comes from.

use holdfast_protocol::id::AuthorId;

/// Who wrote a change, and whose log says it: an author's own, or that of someone who says again what a log said
/// that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Who wrote it.
    pub author: AuthorId,
    /// Whose log it stands in.
    pub log: AuthorId,
}

impl Origin {
    /// Whether another log says again what the author's own said.
    pub(crate) fn is_carried(&self) -> bool {
        self.author != self.log
    }
}

impl From<AuthorId> for Origin {
    /// A change that stands in its author's own log.
    fn from(author: AuthorId) -> Self {
        Self { author, log: author }
    }
}
