//! What the runtime's handle and the driver share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_protocol::replica::LinkId;
use tokio::sync::mpsc;

use super::{chunks::Chunks, command::Command, events::Events, links::Link, pairing::Pairings};

/// The links that stand, and the ways to the driver, to the runtime, and to the tasks for chunks and pairings.
pub(super) struct Shared {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: Events,
    pub(super) links: Mutex<BTreeMap<LinkId, Arc<Link>>>,
    pub(super) pairings: Arc<Pairings>,
    pub(super) chunks: Arc<Chunks>,
}

impl Shared {
    /// Hands a command to the swarm. A full queue means that the swarm is stuck; the command is lost then, and what
    /// depended on it is tried again by the replica's deadlines.
    pub(super) fn command(&self, command: Command) {
        // Once the network has stopped, nothing is expected of it.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(command) {
            tracing::warn!("the network takes no more commands; one was dropped");
        }
    }

    pub(super) fn links(&self) -> MutexGuard<'_, BTreeMap<LinkId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn link(&self, link: LinkId) -> Option<Arc<Link>> {
        self.links().get(&link).cloned()
    }
}
