//! The local index: what timelines, searches and lists are answered from.
//!
//! It holds nothing of its own. [`IndexChange`]s, which the library derives from catalog patches, feed it, each batch in
//! one transaction together with a marker of what it covers; a missing, damaged or outdated index is rebuilt from the
//! catalog. The pure library names only [`IndexChange`] and its parts; SQLite is behind the feature `io`.

mod change;
#[cfg(feature = "io")]
mod query;
#[cfg(feature = "io")]
mod sqlite;

pub use change::{Captured, IndexChange, IndexedName, IndexedPhoto, IndexedState};
#[cfg(feature = "io")]
pub use query::{IndexReader, IndexedFile, LastName, MonthCount, PhotoPage, PhotoQuery, PhotoRow};
#[cfg(feature = "io")]
pub use sqlite::{Index, IndexError};
