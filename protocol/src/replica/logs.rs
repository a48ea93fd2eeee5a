//! Accepting and appending envelopes, and what their bodies mean for the replica.

use bytes::Bytes;

use super::chunks::{Slot, distinct};
use super::serve::{record_position, record_positions};
use super::sync::fork_frame;
use super::{BodyRefusal, Effect, Event, READER_VERSION, Replica};
use crate::certificate::{AuthorCertificate, DeviceCertificate};
use crate::deposit::{Deposit, DepositRefused, NewRun, POSITIONS_PER_AUTHOR_MAX};
use crate::envelope::{Envelope, ForkProof, Kind, NO_ENVELOPE, SignedEnvelope};
use crate::id::{AuthorId, EnvelopeHash};
use crate::keys::AuthorKey;
use crate::log::{Extent, Log};
use crate::membership::{RegistryChange, Statement, decode_statements, encode_statements};
use crate::message::LogPoint;
use crate::metadata::{Batch, Metadata, StorageError, Table};
use crate::position::Run;
use crate::release::Release;
use crate::secrets::EpochId;
use crate::time::Now;
use crate::varint;

/// Why nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// This device's author was retired or has forked.
    #[error(
        "peers hold another version of this device's log, so it cannot go on; Holdfast continues it under a new key"
    )]
    Retired,
    /// The first envelope of a log must introduce its author, see [`Replica::introduce`].
    #[error("this device's log has not been begun yet")]
    NotIntroduced,
    /// A deposit of nothing, or of more chunks than an author can ever deposit.
    #[error("deposit refused: {0}")]
    Deposit(#[from] DepositRefused),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

pub(super) fn log_key(author: &AuthorId, seq: u64) -> Vec<u8> {
    [author.as_bytes().as_slice(), &seq.to_be_bytes()].concat()
}

const FORK_SUFFIX: &[u8] = b"fork";

fn fork_key(author: &AuthorId) -> Vec<u8> {
    [author.as_bytes().as_slice(), FORK_SUFFIX].concat()
}

/// Kept envelopes of one author.
pub(super) fn read<M: Metadata>(
    metadata: &M,
    author: &AuthorId,
    from: u64,
    limit: usize,
) -> Result<Vec<SignedEnvelope>, StorageError> {
    let entries = metadata.scan(Table::Log, author.as_bytes(), &log_key(author, from), limit)?;
    entries
        .into_iter()
        .map(|(_, wire)| {
            SignedEnvelope::parse_kept(wire.into())
                .map_err(|refused| StorageError::Damaged { what: format!("the log of {author} ({refused})") })
        })
        .collect()
}

/// The proofs of forks that were kept.
pub(super) fn read_forks<M: Metadata>(metadata: &M) -> Result<Vec<ForkProof>, StorageError> {
    let kept = metadata.scan(Table::Author, &[], &[], usize::MAX)?;
    kept.into_iter().filter(|(key, _)| key.ends_with(FORK_SUFFIX)).map(|(_, kept)| parse_fork(kept.into())).collect()
}

fn parse_fork(kept: Bytes) -> Result<ForkProof, StorageError> {
    let damaged = || StorageError::Damaged { what: "the proof of a fork".to_owned() };
    let mut rest = kept.as_ref();
    let length = varint::take(&mut rest).and_then(|length| usize::try_from(length).ok()).ok_or_else(damaged)?;
    let (first, second) = rest.split_at_checked(length).ok_or_else(damaged)?;
    ForkProof::parse(kept.slice_ref(first), kept.slice_ref(second)).map_err(|_| damaged())
}

impl<M: Metadata> Replica<M> {
    /// Begins this device's log with its certificates, unless it was begun before.
    ///
    /// # Errors
    /// As [`Replica::append`].
    pub fn introduce(&mut self, now: Now, epoch: EpochId) -> Result<Vec<Effect>, AppendError> {
        if self.log_extent(&self.author()).length > 0 {
            return Ok(Vec::new());
        }
        let own = self.config.chain.first().and_then(|wire| DeviceCertificate::parse(wire).ok());
        let known = || self.registry.certificate(&self.me).cloned();
        let device = own.or_else(known).ok_or(AppendError::NotIntroduced)?;
        let author = AuthorCertificate::issue(self.config.library, &self.config.device, &self.config.author);
        let body = encode_statements(&[Statement::Introduce { device, author }]);
        let (_, effects) = self.append(now, Kind::Membership, epoch, READER_VERSION, body)?;
        Ok(effects)
    }

    /// Appends one envelope to this device's log and returns its number. [`Effect::Accepted`] for it is among the
    /// effects; others learn of it after the flush that covers it.
    ///
    /// # Errors
    /// When the log is retired or not begun, or storage fails; then nothing was appended.
    pub fn append(
        &mut self,
        now: Now,
        kind: Kind,
        epoch: EpochId,
        min_reader: u16,
        body: Vec<u8>,
    ) -> Result<(u64, Vec<Effect>), AppendError> {
        self.now = now;
        let (seq, slots) = self.append_one(kind, epoch, min_reader, body)?;
        self.scheduler.want(slots, &mut self.chunks);
        Ok((seq, self.finish()))
    }

    /// Deposits chunks that are durable in the store, in consecutive positions; returns those of each run.
    ///
    /// # Errors
    /// When the log is retired or not begun, a run is empty or there are too many chunks, or storage fails.
    pub fn deposit(
        &mut self,
        now: Now,
        epoch: EpochId,
        runs: &[NewRun],
    ) -> Result<(Vec<Run>, Vec<Effect>), AppendError> {
        self.now = now;
        let author = self.author();
        let first = self.chunks.next_position(&author);
        if runs.iter().any(|run| run.chunks.is_empty()) {
            return Err(DepositRefused::Malformed.into());
        }
        let count: usize = runs.iter().map(|run| run.chunks.len()).sum();
        if count > (POSITIONS_PER_AUTHOR_MAX - first) as usize {
            return Err(DepositRefused::TooMany.into());
        }
        for deposit in Deposit::of_runs(first, runs) {
            let (_, slots) = self.append_one(Kind::Deposit, epoch, READER_VERSION, deposit.encode())?;
            for slot in slots {
                self.mark_held(slot);
            }
        }
        let mut start = first;
        let deposited = runs.iter().map(|run| {
            let count = run.chunks.len() as u32; // below POSITIONS_PER_AUTHOR_MAX
            start += count;
            Run { author, start: start - count, count }
        });
        Ok((deposited.collect(), self.finish()))
    }

    /// Continues under another author, after [`Event::RestoredFromBackup`], with that author's introduction next. Keep
    /// the key durably no later than that. The old author's log goes on being kept and passed on like any other.
    pub fn adopt_author(&mut self, author: AuthorKey) {
        self.config.author = author;
        self.retired = self.logs.get(&self.author()).is_some_and(|log| log.fork().is_some());
    }

    fn append_one(
        &mut self,
        kind: Kind,
        epoch: EpochId,
        min_reader: u16,
        body: Vec<u8>,
    ) -> Result<(u64, Vec<Slot>), AppendError> {
        let author = self.author();
        if self.retired {
            return Err(AppendError::Retired);
        }
        let Extent { length: seq, head: prev } = self.log_extent(&author);
        if seq == 0 && kind != Kind::Membership {
            return Err(AppendError::NotIntroduced);
        }
        let library = self.config.library;
        let envelope = Envelope { library, author, seq, prev, epoch, min_reader, kind, body };
        let slots = self.accept(vec![SignedEnvelope::sign(envelope, &self.config.author)])?;
        Ok((seq, slots))
    }

    pub(super) fn log_extent(&self, author: &AuthorId) -> Extent {
        self.logs.get(author).map_or(Extent::EMPTY, Log::known)
    }

    /// Keeps envelopes of one author, each the next of its log, and lets them count. Returns the slots whose chunks they
    /// deposited; the caller says whether they are to be fetched.
    pub(super) fn accept(&mut self, envelopes: Vec<SignedEnvelope>) -> Result<Vec<Slot>, StorageError> {
        let mut batch = Batch::new();
        for envelope in &envelopes {
            let Envelope { author, seq, .. } = envelope.envelope();
            batch.put(Table::Log, log_key(author, *seq), envelope.wire().as_ref());
        }
        self.metadata.commit(batch)?;
        self.flush.needed = true;
        let author = envelopes.first().map(|envelope| envelope.envelope().author);
        let mut deposited = Vec::new();
        for envelope in envelopes {
            let slots = self.fold(&envelope);
            for &slot in slots.iter().filter(|&&slot| self.chunks.is_held(slot)) {
                record_positions(&self.chunks, slot, true, self.now.elapsed, &mut self.own, &mut self.news);
            }
            deposited.extend(slots);
            self.effects.push(Effect::Accepted(envelope));
        }
        self.ends_to_review.extend(author.filter(|author| self.has_ended(author)));
        self.review_ends()?;
        Ok(deposited)
    }

    /// Whether positions mean nothing that a log gave behind its end. To the device itself that wrote them and was removed
    /// they do: it goes on reading what it has.
    pub(super) fn ends_meaning(&self, author: &AuthorId) -> bool {
        let is_forked = self.logs.get(author).is_some_and(|log| log.fork().is_some());
        let is_others = self.registry.device_of(author) != Some(self.me);
        is_forked || (is_others && self.registry.length_of(author).is_some())
    }

    /// Whether a log has all envelopes that it will ever have that count.
    fn has_ended(&self, author: &AuthorId) -> bool {
        self.registry.length_of(author).is_some_and(|length| self.log_extent(author).length >= length)
    }

    /// Lets one envelope count. Returns the slots whose chunks it deposited.
    pub(super) fn fold(&mut self, signed: &SignedEnvelope) -> Vec<Slot> {
        let envelope = signed.envelope();
        let (author, seq) = (envelope.author, envelope.seq);
        self.logs.entry(author).or_insert_with(|| Log::new(author)).push(signed);
        if envelope.min_reader > READER_VERSION {
            self.effects.push(Effect::Event(Event::NewerVersionNeeded { author, seq }));
            return Vec::new();
        }
        let folded = match envelope.kind {
            Kind::Deposit => self.fold_deposit(&author, seq, &envelope.body),
            Kind::Release => self.fold_release(&author, seq, &envelope.body).map(|()| Vec::new()),
            Kind::Membership => self.fold_membership(&author, seq, &envelope.body).map(|()| Vec::new()),
            Kind::Carried => self.fold_carried(&author, &envelope.body).map(|()| Vec::new()),
            Kind::Catalog | Kind::Bundle | Kind::Other(_) => Ok(Vec::new()),
        };
        folded.unwrap_or_else(|refusal| {
            self.effects.push(Effect::Event(Event::BodyRefused { author, seq, refusal }));
            Vec::new()
        })
    }

    fn fold_deposit(&mut self, author: &AuthorId, seq: u64, body: &[u8]) -> Result<Vec<Slot>, BodyRefusal> {
        let slots = self.chunks.deposit(author, &Deposit::decode(body)?)?;
        if !self.registry.counts(author, seq) {
            self.ends_to_review.insert(*author);
        }
        Ok(slots)
    }

    fn fold_release(&mut self, author: &AuthorId, seq: u64, body: &[u8]) -> Result<(), BodyRefusal> {
        let release = Release::decode(body)?;
        if self.registry.counts(author, seq) {
            for (of, spans) in &release.positions {
                self.chunks.release(of, spans);
            }
        }
        Ok(())
    }

    /// Lets a release count that was read before it was known what else other logs say.
    pub(super) fn fold_kept_release(&mut self, release: &SignedEnvelope) {
        let Envelope { author, seq, body, .. } = release.envelope();
        // Whether it can be read was reported when it was folded the first time.
        let _ = self.fold_release(author, *seq, body);
    }

    pub(super) fn fold_membership(&mut self, author: &AuthorId, seq: u64, body: &[u8]) -> Result<(), BodyRefusal> {
        let refused = |detail: String| BodyRefusal::Membership { detail };
        let statements = decode_statements(body).map_err(|malformed| refused(malformed.to_string()))?;
        let mut changes = Vec::new();
        let mut outcome = Ok(());
        for statement in &statements {
            match self.registry.apply(author, seq, statement) {
                Ok(mut more) => changes.append(&mut more),
                Err(refusal) => outcome = Err(refused(refusal.to_string())),
            }
        }
        self.registry_changed(&changes);
        outcome
    }

    fn registry_changed(&mut self, changes: &[RegistryChange]) {
        for change in changes {
            match change {
                RegistryChange::Joined(device) => {
                    for author in self.registry.authors_of(device) {
                        self.ends_to_review.insert(author);
                        // Its log may have ended before, and nobody was asked for what lies behind that.
                        self.pulls.stir(author);
                    }
                    self.welcome(device);
                    self.fold_early_standing();
                }
                RegistryChange::Removed(device) => {
                    self.ends_to_review.extend(self.registry.authors_of(device));
                    self.expel(device);
                }
                RegistryChange::Ended { author, .. } => {
                    self.ends_to_review.insert(*author);
                    self.pulls.stir(*author);
                }
                RegistryChange::Introduced { author, .. } => {
                    self.ends_to_review.insert(*author);
                    self.fold_early_of(author);
                }
                RegistryChange::Certified(_) | RegistryChange::Moved(_) | RegistryChange::KeysOffered(_) => {}
            }
        }
        if !changes.is_empty() {
            self.pulls.retry_unknown();
        }
    }

    /// Lets the positions of logs count no further than the logs do. Looks their deposits up again, which is as rare as
    /// removals are.
    pub(super) fn review_ends(&mut self) -> Result<(), StorageError> {
        for author in std::mem::take(&mut self.ends_to_review) {
            let ended = self.registry.length_of(&author);
            let position_from = |length: u64| self.first_position_from(&author, length);
            let ends = if self.registry.counts(&author, 0) { ended } else { Some(0) };
            let void_from = ends.map(position_from).transpose()?.flatten();
            let loses_meaning = ended.filter(|_| self.ends_meaning(&author));
            let meaningless_from = loses_meaning.map(position_from).transpose()?.flatten();
            let changed = self.chunks.set_end(&author, void_from, meaningless_from);
            for (position, slot) in &changed {
                if self.chunks.is_held(*slot) {
                    let held = self.chunks.slot_at(position).is_some();
                    record_position(position, held, self.now.elapsed, &mut self.own, &mut self.news);
                }
            }
            self.scheduler.want(distinct(changed.iter().map(|(_, slot)| *slot)), &mut self.chunks);
        }
        Ok(())
    }

    /// The first position that an envelope of `author` from number `seq` on gave, or may give; `None` while it is not
    /// known how many those before give.
    fn first_position_from(&self, author: &AuthorId, seq: u64) -> Result<Option<u32>, StorageError> {
        const PAGE: usize = 64;
        if self.log_extent(author).length < seq {
            return Ok(None);
        }
        let mut from = seq;
        loop {
            // Behind a fork more is kept than the log has.
            let page = read(&self.metadata, author, from, PAGE)?;
            if page.is_empty() {
                return Ok(Some(self.chunks.next_position(author)));
            }
            from += page.len() as u64;
            let deposits = page.iter().map(SignedEnvelope::envelope).filter(|of| of.kind == Kind::Deposit);
            if let Some(deposit) = deposits.filter_map(|of| Deposit::decode(&of.body).ok()).next() {
                return Ok(Some(deposit.first));
            }
        }
    }

    /// Cuts a log on proof that its author forked, and passes the proof on. False when the log that is kept here forked
    /// from both envelopes of the proof even before.
    pub(super) fn cut(&mut self, proof: ForkProof) -> Result<bool, StorageError> {
        let author = proof.author();
        let log = self.logs.entry(author).or_insert_with(|| Log::new(author));
        let shared = proof.shared();
        if log.fork().is_some_and(|known| known.seq() <= shared.length) {
            return Ok(true);
        }
        if log.known().length >= shared.length && self.head_at(&author, shared.length)? != shared.head {
            return Ok(false);
        }
        let (first, second) = proof.envelopes();
        let mut kept = Vec::new();
        varint::put(&mut kept, first.wire().len() as u64);
        kept.extend_from_slice(first.wire());
        kept.extend_from_slice(second.wire());
        let mut batch = Batch::new();
        batch.put(Table::Author, fork_key(&author), kept);
        self.metadata.commit(batch)?;
        self.flush.needed = true;
        let frame = fork_frame(&proof);
        if let Some(log) = self.logs.get_mut(&author) {
            log.cut(proof);
        }
        let changes = self.registry.fork(&author, shared.length);
        self.registry_changed(&changes);
        self.ends_to_review.insert(author);
        self.pulls.forget_asked(author, shared.length);
        self.review_ends()?;
        self.effects.push(Effect::Event(Event::ForkProven { author, seq: shared.length }));
        if author == self.author() {
            self.retire();
        }
        for (link, session) in self.sessions.iter_mut().filter(|(_, session)| session.is_established()) {
            if session.forks_told.insert(author, shared.length) != Some(shared.length) {
                self.effects.push(Effect::Send { link: *link, frame: frame.clone() });
            }
        }
        Ok(true)
    }

    /// The hash of the last of the first `length` envelopes that are kept of `author`.
    fn head_at(&self, author: &AuthorId, length: u64) -> Result<EnvelopeHash, StorageError> {
        let Some(last) = length.checked_sub(1) else { return Ok(NO_ENVELOPE) };
        Ok(read(&self.metadata, author, last, 1)?.first().map_or(NO_ENVELOPE, SignedEnvelope::hash))
    }

    /// This device's author must not write any more.
    pub(super) fn retire(&mut self) {
        if !self.retired {
            self.retired = true;
            self.effects.push(Effect::Event(Event::RestoredFromBackup { author: self.author() }));
        }
    }

    /// A flush made these logs durable this far: others may know.
    pub(super) fn logs_durable(&mut self, covered: Vec<LogPoint>) {
        let mut points = Vec::with_capacity(covered.len());
        for point in &covered {
            if let Some(log) = self.logs.get_mut(&point.author) {
                log.set_durable(Extent { length: point.length, head: point.head });
                points.push(log.point(log.durable()));
            }
        }
        self.tell_logs(points);
    }
}
