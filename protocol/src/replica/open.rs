//! Opening a replica from storage: the logs are read once, everything else is derived from them.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::carried::Early;
use super::chunks::ChunkTable;
use super::inventories::{GossipState, generation_batch, heard_key};
use super::own_inventory::{OwnInventory, PeerInventory, Pending};
use super::{Config, Effect, Flush, Replica, logs};
use crate::certificate::{DeviceCertificate, Issuer};
use crate::envelope::{Kind, SignedEnvelope};
use crate::id::{ChunkId, DeviceId};
use crate::inventory::{Generation, Holdings};
use crate::log::{Continuation, Log};
use crate::membership::Registry;
use crate::metadata::{Metadata, StorageError, Table};
use crate::time::{Now, WallTime};

pub(super) const GENERATION_KEY: &[u8] = b"replica/generation";

/// Envelopes read at a time: at most 8 MiB.
const PAGE: usize = 32;

impl<M: Metadata> Replica<M> {
    /// Opens the replica that `metadata` holds, or a new one. `holdings` says whether the store durably holds a chunk;
    /// it is asked once for every chunk that was ever deposited.
    ///
    /// Envelopes that were accepted before are not reported again: read them with [`Replica::read_log`]. The holdings of
    /// peers are in [`Replica::holders`].
    ///
    /// # Errors
    /// When the metadata cannot be read or written.
    pub fn open(
        config: Config,
        mut metadata: M,
        holdings: &dyn Fn(&ChunkId) -> bool,
    ) -> Result<(Self, Vec<Effect>), StorageError> {
        let mut random = ChaCha20Rng::from_seed(config.seed);
        let generation = next_generation(&metadata, &mut random)?;
        metadata.commit(generation_batch(&generation))?;
        let mut replica = Self {
            metadata,
            me: config.device.device_id(),
            now: Now::default(),
            registry: Registry::new(config.library),
            logs: BTreeMap::new(),
            retired: false,
            compared: BTreeMap::new(),
            early: Early::default(),
            ends_to_review: BTreeSet::new(),
            chunks: ChunkTable::new([random.next_u64(), random.next_u64()]),
            own: OwnInventory::new(Holdings::new(), generation),
            news: Pending::default(),
            peers: BTreeMap::new(),
            seen: BTreeMap::new(),
            hearsay: BTreeMap::new(),
            issuers: issuers(&config.chain),
            served_peers: Vec::new(),
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            pulls: super::Pulls::default(),
            scheduler: super::Scheduler::default(),
            gossip: GossipState::default(),
            flush: Flush { needed: true, ..Flush::default() },
            received_bytes: 0,
            sent_bytes: 0,
            caught_up: true,
            effects: Vec::new(),
            random,
            config,
        };
        replica.read_logs()?;
        replica.chunks.shrink();
        replica.own = OwnInventory::new(replica.held(holdings), generation);
        replica.read_peers()?;
        replica.caught_up = replica.chunks.wanted().is_empty();
        replica.start_flush();
        let effects = std::mem::take(&mut replica.effects);
        Ok((replica, effects))
    }

    /// Reads every log. Releases count last, since whether they do depends on what other logs say about their authors.
    fn read_logs(&mut self) -> Result<(), StorageError> {
        let mut releases = Vec::new();
        let (mut page, mut from) = (self.metadata.scan(Table::Log, &[], &[], PAGE)?, Vec::new());
        while let Some((last, _)) = page.last() {
            from.clone_from(last);
            from.push(0);
            for (_, wire) in page {
                let damaged = |refused| StorageError::Damaged { what: format!("an envelope of the log ({refused})") };
                let envelope = SignedEnvelope::parse_kept(wire.into()).map_err(damaged)?;
                // What does not continue its log is not part of it: it is pulled from peers again.
                if self.log_extent(&envelope.envelope().author).judge(&envelope) == Continuation::Next {
                    if envelope.envelope().kind == Kind::Release {
                        releases.push(envelope.clone());
                    }
                    self.fold(&envelope);
                }
            }
            page = self.metadata.scan(Table::Log, &[], &from, PAGE)?;
        }
        for log in self.logs.values_mut() {
            log.set_durable(log.known());
        }
        for proof in logs::read_forks(&self.metadata)? {
            let (author, length) = (proof.author(), proof.seq());
            self.logs.entry(author).or_insert_with(|| Log::new(author)).cut(proof);
            self.registry.fork(&author, length);
            self.ends_to_review.insert(author);
            self.retired |= author == self.config.author.author_id();
        }
        for release in &releases {
            self.fold_kept_release(release);
        }
        self.review_ends()
    }

    /// What the store holds of what was deposited, noted in the table too.
    fn held(&mut self, holdings: &dyn Fn(&ChunkId) -> bool) -> Holdings {
        let mut held = Holdings::new();
        for slot in 0..self.chunks.len() {
            if holdings(&self.chunks.chunk(slot).chunk) {
                self.chunks.set_held(slot, true);
                for position in self.chunks.positions(slot) {
                    held.insert(&position);
                }
            }
        }
        held
    }

    fn read_peers(&mut self) -> Result<(), StorageError> {
        for device in self.others().collect::<BTreeSet<DeviceId>>() {
            self.welcome(&device);
            let heard = self.metadata.get(Table::Peer, &heard_key(&device))?;
            let inventory = self.metadata.get(Table::Inventory, device.as_bytes())?;
            if let Some(peer) = self.peers.get_mut(&device) {
                peer.last_heard = heard.and_then(|bytes| Some(WallTime(i64::from_le_bytes(bytes.try_into().ok()?))));
                peer.inventory = inventory.and_then(|bytes| PeerInventory::decode(bytes, &device));
            }
        }
        Ok(())
    }
}

/// A generation later than any that this storage has seen.
fn next_generation<M: Metadata>(metadata: &M, random: &mut ChaCha20Rng) -> Result<Generation, StorageError> {
    let kept = metadata.get(Table::Local, GENERATION_KEY)?;
    let last = kept.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    Ok(Generation { counter: last.saturating_add(1), nonce: random.next_u64() })
}

/// The devices that signed a chain of certificates: known before any log says that they are members.
fn issuers(chain: &[Vec<u8>]) -> Vec<DeviceId> {
    let certificates = chain.iter().filter_map(|wire| DeviceCertificate::parse(wire).ok());
    let issuers = certificates.filter_map(|certificate| match certificate.issuer() {
        Issuer::Device(device) => Some(device),
        Issuer::Root => None,
    });
    issuers.collect()
}
