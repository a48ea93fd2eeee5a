//! Logs that a device writes beside its own, under authors that only it knows of: what a liar signs in them is wrong, what a
//! newer version does is unknown.
//!
//! A device may write as several authors, one after each restore. So the liar introduces another one and is asked for its
//! log like for any other, but what it answers comes from here. One such author writes hostile catalog changes; another
//! writes two branches and tells each peer one of them.

use bytes::Bytes;
use holdfast_crdt::{AlbumId, Catalog, CatalogBody, DocumentId};
use holdfast_protocol::certificate::AuthorCertificate;
use holdfast_protocol::envelope::{Envelope, Kind, NO_ENVELOPE, SignedEnvelope};
use holdfast_protocol::id::{AuthorId, DeviceId, LibraryId};
use holdfast_protocol::keys::AuthorKey;
use holdfast_protocol::membership::{Statement, encode_statements};
use holdfast_protocol::message::{Envelopes, FRAME_HEADER_BYTES, LogPoint, Message, WantEnvelopes, tag};
use holdfast_protocol::sealing::BodySealer;

use super::garbled;
use crate::chance::Chance;
use crate::fault::FaultClass;
use crate::world::{Coming, World};

/// Envelopes of one answer.
const ANSWERED_MAX: usize = 16;
/// Answers so far apart are lost for different reasons, and so many of them are not lost all.
const APART_MS: u64 = 2_000;
const ANSWERED_SURELY: u32 = 5;

/// See the head of the module.
pub(crate) struct Shadow {
    /// Which node writes it, and which device that was when it began.
    node: usize,
    device: DeviceId,
    key: AuthorKey,
    library: LibraryId,
    sealer: BodySealer,
    /// What it writes in the catalog, as its own code would.
    catalog: Catalog,
    /// Its log, in two versions where it forks.
    branches: [Vec<SignedEnvelope>; 2],
    /// How often it was given to somebody who asked for it, answers close together counted once, and when it last was.
    answered: u32,
    answered_at: u64,
}

impl Shadow {
    pub(crate) const fn node(&self) -> usize {
        self.node
    }

    pub(crate) fn author(&self) -> AuthorId {
        self.key.author_id()
    }

    fn write(&mut self, branch: usize, kind: Kind, min_reader: u16, body: Vec<u8>) {
        let log = &mut self.branches[branch];
        let prev = log.last().map_or(NO_ENVELOPE, SignedEnvelope::hash);
        let (library, author, seq) = (self.library, self.key.author_id(), log.len() as u64);
        let epoch = self.sealer.epoch();
        let envelope = Envelope { library, author, seq, prev, epoch, min_reader, kind, body };
        log.push(SignedEnvelope::sign(envelope, &self.key));
    }

    /// What it has written, in the version that those with an even number are told.
    pub(crate) fn written(&self) -> &[SignedEnvelope] {
        &self.branches[0]
    }

    /// Writes the same in both versions.
    pub(crate) fn write_both(&mut self, kind: Kind, min_reader: u16, body: &[u8]) {
        (0..2).for_each(|branch| self.write(branch, kind, min_reader, body.to_vec()));
    }

    pub(crate) const fn device(&self) -> DeviceId {
        self.device
    }

    /// Whether it was given out so often that somebody has got it.
    pub(crate) const fn is_surely_heard(&self) -> bool {
        self.answered >= ANSWERED_SURELY
    }

    fn is_given(&mut self, now: u64) {
        if self.answered == 0 || now >= self.answered_at + APART_MS {
            self.answered += 1;
            self.answered_at = now;
        }
    }

    /// Which version a peer is told.
    fn told(&self, peer: usize) -> &[SignedEnvelope] {
        &self.branches[peer % 2]
    }

    fn point(&self, peer: usize) -> LogPoint {
        let log = self.told(peer);
        let head = log.last().map_or(NO_ENVELOPE, SignedEnvelope::hash);
        LogPoint { author: self.author(), length: log.len() as u64, head, forked: false }
    }

    /// Writes one more catalog envelope, of which little or nothing is as it should be.
    fn write_hostile(&mut self, theirs: &[CatalogBody], chance: &mut Chance) {
        let document = match chance.pick(theirs) {
            Some(body) if chance.one_in(2) => body.document,
            _ => DocumentId::Library,
        };
        let seq = self.branches[0].len() as u64;
        let plain = match chance.below(8) {
            0 => chance.seed().repeat(1 + chance.below(20) as usize),
            1 => garbled(&Bytes::from(self.honest(document, chance)), chance).to_vec(),
            // Changes of somebody else, as they are or nearly.
            2 | 3 => chance.pick(theirs).map_or_else(Vec::new, |body| self.stolen(body, chance)),
            // It begins anew: another change under the number of one before.
            4 => {
                self.catalog.close(document);
                self.honest(document, chance)
            }
            // A change that others build on is left out.
            5 => {
                drop(self.honest(document, chance));
                self.honest(document, chance)
            }
            _ => self.honest(document, chance),
        };
        let body = match chance.below(8) {
            0 => plain,
            // Sealed for another place in the log.
            1 => self.sealer.seal(&self.author(), seq + 1, &plain),
            _ => self.sealer.seal(&self.author(), seq, &plain),
        };
        let kind = match chance.below(12) {
            0 => Kind::Deposit,
            1 => Kind::Membership,
            2 => Kind::Bundle,
            3 => Kind::Release,
            4 => Kind::Other(chance.below(256) as u8),
            _ => Kind::Catalog,
        };
        let min_reader = if chance.one_in(12) { u16::MAX } else { 1 };
        self.write_both(kind, min_reader, &body);
    }

    /// A body that its own code could have written.
    fn honest(&mut self, document: DocumentId, chance: &mut Chance) -> Vec<u8> {
        let _ = self.catalog.open(document, None);
        let (album, name) = (AlbumId::from_bytes([chance.below(4) as u8; 16]), chance.seed());
        let written = self.catalog.edit(document, |edit| edit.set_album_name(album, Some(&name)));
        let changes = written.ok().flatten().map(|written| vec![written.change]).unwrap_or_default();
        CatalogBody { document, changes }.encode()
    }

    fn stolen(&self, body: &CatalogBody, chance: &mut Chance) -> Vec<u8> {
        let mut body = body.clone();
        if chance.one_in(2) {
            let change = chance.below(body.changes.len() as u64) as usize;
            if let Some(change) = body.changes.get_mut(change) {
                *change = garbled(&Bytes::from(std::mem::take(change)), chance).to_vec();
            }
        }
        body.encode()
    }
}

impl World {
    /// The liar writes in a log beside its own, and tells everybody that it grew. Whether it is there.
    pub(crate) fn write_shadow(&mut self, class: FaultClass, chance: &mut Chance) -> bool {
        let liar = self.liar();
        if !self.may_lie(liar) || !self.has_shadow(liar, class, chance) {
            return false;
        }
        let theirs = if class == FaultClass::LieCatalog { self.bodies_at(liar, chance) } else { Vec::new() };
        let Some(shadow) = self.shadows.get_mut(&class) else { return false };
        if class == FaultClass::LieCatalog {
            shadow.write_hostile(&theirs, chance);
        } else {
            for branch in 0..2 {
                shadow.write(branch, Kind::Other(200), 1, chance.seed().to_vec());
            }
        }
        self.announce_shadow(liar, class);
        true
    }

    /// A node tells everybody how far a log goes that it writes beside its own.
    pub(crate) fn announce_shadow(&mut self, node: usize, class: FaultClass) {
        for link in self.network.standing(Some(node)) {
            let Some(of) = self.network.alive(link) else { continue };
            let (side, to) = (of.side(node), of.ends[1 - of.side(node)]);
            if of.is_admitted[side]
                && let Some(shadow) = self.shadows.get(&class)
            {
                let frame = Message::Vector(vec![shadow.point(to)]).to_frame();
                self.tell(node, link, frame);
            }
        }
    }

    /// Whether a node has this log beside its own; it begins it where it can.
    pub(crate) fn has_shadow(&mut self, node: usize, class: FaultClass, chance: &mut Chance) -> bool {
        if self.shadows.contains_key(&class) {
            return true;
        }
        let of = &self.nodes[node];
        let (Some(library), Some(secrets)) = (&of.library, of.secrets()) else { return false };
        let registry = library.replica().registry();
        let Some(device) = registry.certificate(&of.device_id()).cloned() else { return false };
        let (key, library) = (AuthorKey::from_seed(&chance.seed()), registry.library());
        let author = AuthorCertificate::issue(library, of.device(), &key);
        let catalog = Catalog::new(key.author_id(), 8);
        let sealer = BodySealer::new(secrets);
        let (id, branches) = (of.device_id(), Default::default());
        let mut shadow =
            Shadow { node, device: id, key, library, sealer, catalog, branches, answered: 0, answered_at: 0 };
        shadow.write_both(Kind::Membership, 1, &encode_statements(&[Statement::Introduce { device, author }]));
        if class == FaultClass::LieForked {
            self.excused.forked.insert(shadow.author());
        }
        self.shadows.insert(class, shadow);
        true
    }

    /// Some of what others wrote in the catalog.
    fn bodies_at(&self, node: usize, chance: &mut Chance) -> Vec<CatalogBody> {
        let of = &self.nodes[node];
        let (Some(library), Some(secrets)) = (&of.library, of.secrets()) else { return Vec::new() };
        let (replica, sealer) = (library.replica(), BodySealer::new(secrets));
        let mut bodies = Vec::new();
        for point in replica.vector() {
            let from = chance.below(point.length);
            for signed in replica.read_log(&point.author, from, 4).unwrap_or_default() {
                let envelope = signed.envelope();
                let opened = sealer.open(envelope.epoch, &envelope.author, envelope.seq, &envelope.body).ok();
                bodies.extend(opened.and_then(|plain| CatalogBody::decode(&plain).ok()));
            }
        }
        bodies
    }

    /// Whether a frame asks a node for a log that it writes beside its own; then it is answered from there.
    pub(crate) fn asks_for_shadow(&mut self, link: u64, to: usize, tag: u8, body: &Bytes) -> bool {
        if tag != tag::WANT_ENVELOPES || self.shadows.is_empty() {
            return false;
        }
        let Ok(Message::WantEnvelopes(WantEnvelopes { author, from })) = Message::decode(tag, body) else {
            return false;
        };
        let Some(peer) = self.network.other_end(link, to) else { return false };
        let mut shadows = self.shadows.values_mut();
        let Some(shadow) = shadows.find(|shadow| shadow.node == to && shadow.author() == author) else { return false };
        shadow.is_given(self.now);
        let wires = shadow.told(peer).iter().skip(from as usize).take(ANSWERED_MAX);
        let envelopes = wires.map(|signed| signed.wire().clone()).collect();
        self.tell(to, link, Message::Envelopes(Envelopes { author, from, envelopes }).to_frame());
        true
    }

    pub(crate) fn tell(&mut self, node: usize, link: u64, frame: Bytes) {
        let Some(to) = self.network.other_end(link, node) else { return };
        let Some(at) = self.network.frame_arrives(self.now, link, node, frame.len() as u64) else { return };
        debug_assert!(frame.len() >= FRAME_HEADER_BYTES);
        self.push(at - self.now, Coming::Frame { link, to, frame });
    }
}
