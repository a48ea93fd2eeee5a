//! The local index: what timelines, searches and lists are answered from.
//!
//! It holds nothing of its own. [`IndexChange`](holdfast_library::index::IndexChange)s, which the library derives from
//! catalog patches, feed it, each batch in one transaction together with a marker of what it covers; a missing, damaged
//! or outdated index is rebuilt from the catalog. Nothing else names SQLite.

mod query;
mod sqlite;

pub use query::{IndexReader, IndexedFile, LastName, MonthCount, PhotoPage, PhotoQuery, PhotoRow};
pub use sqlite::{Index, IndexError};
