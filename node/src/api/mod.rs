//! The local socket: how the `holdfast` command (and later the web app) asks a running node.
//!
//! Requests and answers are JSON, one value a line, over a Unix socket that only its owner can open. Each line carries
//! `"schema"`: fields may be added within a schema version, and are never renamed, retyped or removed. `node/cli/CLI.md`
//! documents every line; `--json` prints the same values.
//!
//! - [`request`] is what can be asked, [`view`] what is answered, [`event`] what a node tells unasked.
//! - [`handle`] joins the server to the node's runtime: a bounded queue of [`handle::Call`]s, and the events.
//! - [`server`] and [`client`] are the two ends of the socket.

pub mod client;
pub mod event;
pub mod handle;
mod line;
pub mod request;
pub mod server;
#[cfg(test)]
mod tests;
pub(crate) mod text;
pub mod view;

pub use event::{Event, Happening};
pub use handle::{Call, EventLog, NodeHandle, Reply};
pub use line::Versioned;
pub use request::{PhotoSelection, Request};
pub use view::{Progress, Refusal, RefusalKind, Response};

/// The version of the JSON lines on the socket and of `--json`.
pub const SCHEMA: u32 = 1;
