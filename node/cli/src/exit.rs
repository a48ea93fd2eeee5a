//! Exit codes.

use std::process::ExitCode;

/// How the command ended. The numbers are part of the command's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything that was asked for was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// A part was done: some files could not be exported.
    Partly = 3,
    /// The answer is complete, and some photos are below their target.
    BelowTarget = 4,
    /// There is no library in this home.
    NoLibrary = 10,
    /// No node is running on this home.
    NotRunning = 11,
    /// This user may not do it.
    NotAllowed = 12,
}

impl Exit {
    /// The word for it in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Partly => "partly",
            Self::BelowTarget => "below-target",
            Self::NoLibrary => "no-library",
            Self::NotRunning => "not-running",
            Self::NotAllowed => "not-allowed",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
