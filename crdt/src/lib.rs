//! The catalog of a Holdfast library: what people say about their photos, merged without a coordinator.
//!
//! [`Catalog`] holds the open documents: one for each capture month, those of undated photos, and one for the
//! library itself. A gesture is an [`Edit`] and becomes one raw change, which the caller seals into an envelope as a
//! [`CatalogBody`]. Changes of others come in through [`Catalog::apply`], behind a guard that refuses everything this crate
//! could not have written; what they change comes out as [`Patch`]es for the index. Values are opaque: sealing them is the
//! caller's part.
//!
//! Invariants: equal sets of changes give equal documents on all devices, in whatever order and batches they arrive; no
//! change of a member can panic, exhaust memory, or damage a document; nothing is ever deleted, only overwritten.
//! Automerge is named in this crate and nowhere else. Without IO, clocks, or randomness (Automerge draws a
//! random actor for each new document, which is replaced before anything is written).

pub mod bundle;

mod body;
mod catalog;
mod document;
mod edit;
mod genesis;
mod guard;
mod history;
mod key;
pub mod limits;
mod name;
mod origin;
mod patch;
mod photo;
mod refusal;
mod replica;
mod saved;
mod state;
mod waiting;

pub use body::{BodyRefused, CatalogBody};
pub use catalog::{Applied, Catalog, Evicted, NotOpen, OpenError};
pub use document::{DocumentId, InvalidDocumentId};
pub use edit::{Edit, EditRefused, LocalChange};
pub use key::{AlbumId, NameId, TagId};
pub use name::Name;
pub use origin::Origin;
pub use patch::{Patch, Register};
pub use photo::PhotoState;
pub use refusal::ChangeRefused;
pub use state::{Lifecycle, State};
