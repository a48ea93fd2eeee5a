//! Pulling logs: each side says how far it knows which log, and asks for what it lacks.
//!
//! Invariants: one request per author at a time; an author is accepted only once its introduction stands in the registry;
//! two branches of one log always end in a proof of where they part, which is kept and passed on, and the log is cut there;
//! who did not give what it says it has is asked again after a rest, longer each time, and others before it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::logs::read;
use super::schedule::backoff;
use super::{Effect, LinkId, Misbehaviour, Replica};
use crate::envelope::{EnvelopeRefused, ForkProof, Kind, SignedEnvelope};
use crate::id::AuthorId;
use crate::limits::{BULK_FRAME_BYTES_MAX, ENVELOPE_BYTES_MAX, VECTOR_AUTHORS_MAX};
use crate::log::{Continuation, Extent, Log};
use crate::membership::decode_statements;
use crate::message::{Envelopes, LogPoint, Message, WantEnvelopes};
use crate::metadata::{Metadata, StorageError};
use crate::time::Timestamp;

/// How long a peer may take to answer before another one is asked; what comes later is still taken.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a peer that did not give what it says it has is not asked for it again: at first, and at most.
const REST_MS: u64 = 5_000;
const REST_MS_MAX: u64 = 5 * 60 * 1000;
/// Authors asked of one peer at once.
pub(super) const PULLS_PER_SESSION_MAX: usize = 4;
/// Envelopes at the end of a log that are compared before those further back.
const COMPARED_FIRST: u64 = 16;
/// Envelopes sent in one frame: verifying them takes the receiver a few milliseconds.
const ENVELOPES_SENT_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The next envelopes are wanted.
    Extend,
    /// The peer's version of known envelopes is wanted: it seems to be another one. `accused` when the peer itself sent an
    /// envelope that does not fit; both versions are the same `same` envelopes far, at least.
    Compare { accused: bool, same: u64 },
}

#[derive(Debug)]
struct Pull {
    link: LinkId,
    from: u64,
    purpose: Purpose,
    until: Timestamp,
}

/// A peer did not give what it says it has of one log.
#[derive(Debug)]
struct Rest {
    /// It is not asked before; `None` once it may be.
    until: Option<Timestamp>,
    failures: u32,
    /// What it was asked for and may still answer.
    late: Option<(u64, Purpose)>,
}

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    asked: BTreeMap<AuthorId, Pull>,
    resting: BTreeMap<(LinkId, AuthorId), Rest>,
    /// Authors whose introduction does not stand yet, by the peer that offered them.
    unknown: BTreeSet<(LinkId, AuthorId)>,
    /// Authors of whose logs more may be wanted since the last look, or of somebody else.
    stirred: BTreeSet<AuthorId>,
    /// Authors of whom more was wanted, and everybody who has it was asked for much already.
    crowded: BTreeSet<AuthorId>,
}

impl Pulls {
    pub(super) fn retry_unknown(&mut self) {
        self.stirred.extend(std::mem::take(&mut self.unknown).into_iter().map(|(_, author)| author));
    }

    /// Looks again from whom more of a log may be had.
    pub(super) fn stir(&mut self, author: AuthorId) {
        self.stirred.insert(author);
    }

    /// The log was cut: an answer that follows what is not kept any more is looked at by nobody, since who gives it has
    /// done nothing wrong. A comparison of what comes before may find that they parted even earlier. What else is wanted
    /// now shows at the next pull.
    pub(super) fn forget_asked(&mut self, author: AuthorId, length: u64) {
        match self.asked.get_mut(&author) {
            Some(Pull { from, purpose: Purpose::Compare { accused, .. }, .. }) if *from < length => *accused = false,
            _ => drop(self.asked.remove(&author)),
        }
        self.stir(author);
    }

    /// The peer says anew how far it knows a log that it did not give when it was asked first: it may have saved it since.
    fn wake(&mut self, link: LinkId, author: AuthorId) {
        if let Some(rest) = self.resting.get_mut(&(link, author)).filter(|rest| rest.failures == 1) {
            rest.until = None;
        }
    }

    pub(super) fn forget(&mut self, link: LinkId) {
        let asked = self.asked.extract_if(.., |_, pull| pull.link == link).map(|(author, _)| author);
        self.stirred.extend(asked);
        self.resting.retain(|(of, _), _| *of != link);
        self.unknown.retain(|(of, _)| *of != link);
        self.stirred.append(&mut self.crowded);
    }

    /// How many authors are asked of the peer of whom most are.
    pub(super) fn most_of_a_session(&self) -> usize {
        self.asked_of_each().into_values().max().unwrap_or(0)
    }

    fn asked_of_each(&self) -> BTreeMap<LinkId, usize> {
        let mut asked = BTreeMap::new();
        self.asked.values().for_each(|pull| *asked.entry(pull.link).or_default() += 1);
        asked
    }

    /// A session of which more of a log was asked.
    pub(super) fn asked_of(&self) -> Option<LinkId> {
        self.asked.values().map(|pull| pull.link).next()
    }

    /// When [`Replica::expire_pulls`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let rests = self.resting.values().filter_map(|rest| rest.until);
        self.asked.values().map(|pull| pull.until).chain(rests).min()
    }

    fn rests(&self, link: LinkId, author: AuthorId) -> bool {
        self.resting.get(&(link, author)).is_some_and(|rest| rest.until.is_some())
    }

    /// How often in a row the peer did not give what it says it has of any log: who keeps its word is asked first.
    fn failures(&self, link: LinkId) -> u32 {
        let of_link = (link, AuthorId::from_bytes([0; 32]))..=(link, AuthorId::from_bytes([0xff; 32]));
        self.resting.range(of_link).map(|(_, rest)| rest.failures).max().unwrap_or(0)
    }
}

impl<M: Metadata> Replica<M> {
    /// The first messages of an established session.
    pub(super) fn greet(&mut self, link: LinkId) {
        let peer = self.sessions.get(&link).map(|session| session.peer);
        // Of its own log the peer hears at once: it may have been restored, and must not write anything twice.
        let is_its_own = |author: &AuthorId| peer.is_some() && self.registry.device_of(author) == peer;
        let told =
            |(author, log): (&AuthorId, &Log)| log.point(if is_its_own(author) { log.known() } else { log.durable() });
        let points: Vec<LogPoint> = self.logs.iter().map(told).collect();
        for points in points.chunks(VECTOR_AUTHORS_MAX) {
            self.send(link, &Message::Vector(points.to_vec()));
        }
        self.greet_with_heads(link);
        self.greet_with_addresses(link);
    }

    /// Tells every session how far logs are durable now.
    pub(super) fn tell_logs(&mut self, points: Vec<LogPoint>) {
        for (link, session) in self.sessions.iter().filter(|(_, session)| session.is_established()) {
            let knows =
                |point: &LogPoint| session.points.get(&point.author).is_some_and(|of| of.length >= point.length);
            let news: Vec<LogPoint> = points.iter().filter(|point| !knows(point)).cloned().collect();
            if !news.is_empty() {
                self.effects.push(Effect::Send { link: *link, frame: Message::Vector(news).to_frame() });
            }
        }
        self.gossip.logs(self.now.elapsed, points);
    }

    pub(super) fn handle_vector(&mut self, link: LinkId, points: Vec<LogPoint>) {
        // The first on a link names all logs that the peer knows. Gossip does not count: it may be late.
        if let Some(session) = self.sessions.get(&link) {
            let author = self.config.author.author_id();
            if let Some(own) = points.iter().find(|point| point.author == author) {
                self.pulls.wake(link, author);
                self.compared.insert(session.peer, Some(own.clone()));
            } else {
                self.compared.entry(session.peer).or_default();
            }
        }
        self.note_points(link, points);
    }

    /// Takes in how far a peer knows logs, as gossip has it: that may be late, and takes back nothing that the peer has said on
    /// its link since.
    pub(super) fn note_gossiped_points(&mut self, link: LinkId, mut points: Vec<LogPoint>) {
        if let Some(session) = self.sessions.get(&link) {
            let says_more =
                |point: &LogPoint, known: &LogPoint| point.length > known.length || (point.forked && !known.forked);
            points.retain(|point| session.points.get(&point.author).is_none_or(|known| says_more(point, known)));
        }
        self.note_points(link, points);
    }

    /// Takes in how far a peer knows logs.
    fn note_points(&mut self, link: LinkId, points: Vec<LogPoint>) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        for point in points {
            let log = self.logs.get(&point.author);
            if let Some(proof) = log.and_then(|log| log.fork())
                && (!point.forked || point.length > proof.seq())
                && session.forks_told.insert(point.author, proof.seq()) != Some(proof.seq())
            {
                self.effects.push(Effect::Send { link, frame: fork_frame(proof) });
            }
            if session.points.len() < VECTOR_AUTHORS_MAX || session.points.contains_key(&point.author) {
                self.pulls.unknown.remove(&(link, point.author));
                self.pulls.stir(point.author);
                session.points.insert(point.author, point);
            }
        }
    }

    /// Asks for whatever some session knows more of, as far as that may have changed.
    pub(super) fn pull(&mut self) {
        let authors = std::mem::take(&mut self.pulls.stirred);
        if authors.is_empty() {
            return;
        }
        let mut busy = self.pulls.asked_of_each();
        for author in authors {
            let log = self.logs.get(&author);
            let mut offers = Vec::new();
            for (link, session) in self.sessions.iter().filter(|(_, session)| session.is_established()) {
                if let Some(point) = session.points.get(&author)
                    && let Some(purpose) = self.reason_to_pull(*link, point, log)
                {
                    offers.push((self.pulls.failures(*link), Reverse(point.length), *link, purpose));
                }
            }
            offers.sort_unstable_by_key(|(failures, length, link, _)| (*failures, *length, *link));
            // Nobody who is slow, and claims to know the most, keeps others from being asked.
            let has_room = |link: &LinkId| busy.get(link).is_none_or(|busy| *busy < PULLS_PER_SESSION_MAX);
            let is_wanted = !offers.is_empty();
            if let Some((.., link, purpose)) = offers.into_iter().find(|(_, _, link, _)| has_room(link)) {
                *busy.entry(link).or_default() += 1;
                self.ask_envelopes(link, author, purpose);
            } else if is_wanted {
                self.pulls.crowded.insert(author);
            }
        }
    }

    /// Why more of what is kept as `log` is wanted of a peer that knows it so far.
    fn reason_to_pull(&self, link: LinkId, point: &LogPoint, log: Option<&Log>) -> Option<Purpose> {
        let (author, known) = (point.author, log.map_or(Extent::EMPTY, Log::known));
        let forked = log.is_some_and(|log| log.fork().is_some());
        let is_proof_wanted = point.forked && !forked;
        let is_known = point.length < known.length || (point.length == known.length && point.head == known.head);
        if is_known && !is_proof_wanted {
            return None;
        }
        let waits = self.pulls.asked.contains_key(&author) || self.pulls.unknown.contains(&(link, author));
        if waits || self.pulls.rests(link, author) {
            return None;
        }
        if is_proof_wanted && is_known {
            return Some(Purpose::Extend);
        }
        if point.length > known.length {
            let ended = self.registry.length_of(&author).is_some_and(|length| known.length >= length);
            return (!ended).then_some(Purpose::Extend);
        }
        (known.length > 0).then_some(Purpose::Compare { accused: false, same: 0 })
    }

    fn ask_envelopes(&mut self, link: LinkId, author: AuthorId, purpose: Purpose) {
        let length = self.log_extent(&author).length;
        let from = match purpose {
            Purpose::Extend => length,
            // Mostly they part near the end.
            Purpose::Compare { same, .. } => length.saturating_sub(COMPARED_FIRST).max(same),
        };
        self.ask_envelopes_from(link, author, from, purpose);
    }

    fn ask_envelopes_from(&mut self, link: LinkId, author: AuthorId, from: u64, purpose: Purpose) {
        self.pulls.asked.insert(author, Pull { link, from, purpose, until: self.now.elapsed + ANSWER });
        self.send(link, &Message::WantEnvelopes(WantEnvelopes { author, from }));
    }

    pub(super) fn expire_pulls(&mut self) {
        let now = self.now.elapsed;
        let late: Vec<AuthorId> =
            self.pulls.asked.iter().filter(|(_, pull)| pull.until <= now).map(|(author, _)| *author).collect();
        for author in late {
            if let Some(pull) = self.pulls.asked.remove(&author) {
                self.let_rest(pull.link, author, Some((pull.from, pull.purpose)));
            }
        }
        for ((_, author), rest) in &mut self.pulls.resting {
            if rest.until.take_if(|until| *until <= now).is_some() {
                self.pulls.stirred.insert(*author);
            }
        }
    }

    /// The peer did not give what it says it has: it is asked again later.
    fn let_rest(&mut self, link: LinkId, author: AuthorId, late: Option<(u64, Purpose)>) {
        let failures = self.pulls.resting.get(&(link, author)).map_or(0, |rest| rest.failures);
        let until = self.now.elapsed + backoff(failures, REST_MS, REST_MS_MAX, &mut self.random);
        self.pulls.resting.insert((link, author), Rest { until: Some(until), failures: failures + 1, late });
        self.pulls.stir(author);
        self.pulls.stirred.append(&mut self.pulls.crowded);
    }

    /// What the peer's answer was asked for as; `None` when nobody asked for it, or it is of no use any more.
    fn asked_as(&mut self, link: LinkId, author: &AuthorId, from: u64) -> Option<Purpose> {
        let is_next = from == self.log_extent(author).length;
        if let Some(pull) = self.pulls.asked.get(author).filter(|pull| pull.link == link && pull.from == from) {
            let purpose = pull.purpose;
            self.pulls.asked.remove(author);
            if purpose == Purpose::Extend && !is_next {
                // This device has written in its own log meanwhile: the next pull compares the two.
                self.pulls.stir(*author);
                return None;
            }
            return Some(purpose);
        }
        let late = &mut self.pulls.resting.get_mut(&(link, *author))?.late;
        let (_, purpose) = late.take_if(|(of, _)| *of == from)?;
        let is_free = !self.pulls.asked.contains_key(author);
        (is_free && is_next && purpose == Purpose::Extend).then_some(purpose)
    }

    pub(super) fn handle_want_envelopes(&mut self, link: LinkId, want: &WantEnvelopes) -> Result<(), StorageError> {
        const PAGE: usize = 16;
        let durable = self.logs.get(&want.author).map_or(0, |log| log.durable().length);
        let (mut envelopes, mut bytes, mut next) = (Vec::new(), 0, want.from);
        'pages: while next < durable && envelopes.len() < ENVELOPES_SENT_MAX {
            for envelope in read(&self.metadata, &want.author, next, PAGE)? {
                bytes += envelope.wire().len() + 4;
                let full = bytes > BULK_FRAME_BYTES_MAX - 64 || envelopes.len() == ENVELOPES_SENT_MAX;
                if full || envelope.envelope().seq != next || next >= durable {
                    break 'pages;
                }
                envelopes.push(envelope.wire().clone());
                next += 1;
            }
        }
        self.send(link, &Message::Envelopes(Envelopes { author: want.author, from: want.from, envelopes }));
        // Who was told of a fork before it knew the author could make nothing of that.
        if let Some(proof) = self.logs.get(&want.author).and_then(Log::fork) {
            self.effects.push(Effect::Send { link, frame: fork_frame(proof) });
        }
        Ok(())
    }

    pub(super) fn handle_envelopes(&mut self, link: LinkId, received: Envelopes) -> Result<(), StorageError> {
        let Envelopes { author, from, envelopes } = received;
        // Only what was asked for is looked at.
        let Some(purpose) = self.asked_as(link, &author, from) else { return Ok(()) };
        self.pulls.stir(author);
        self.pulls.stirred.append(&mut self.pulls.crowded);
        match purpose {
            Purpose::Extend => self.extend(link, author, envelopes),
            Purpose::Compare { accused, same } => self.compare(link, author, from, envelopes, accused, same),
        }
    }

    /// Verifies the next envelopes of a log and accepts them.
    fn extend(&mut self, link: LinkId, author: AuthorId, wires: Vec<Bytes>) -> Result<(), StorageError> {
        let mut extent = self.log_extent(&author);
        let end = self.registry.length_of(&author).unwrap_or(u64::MAX);
        let mut next = Vec::with_capacity(wires.len());
        let mut verdict = Verdict::Good;
        for wire in wires {
            let envelope = match SignedEnvelope::parse(wire) {
                Ok(envelope) => envelope,
                Err(EnvelopeRefused::NewerFormat { .. }) => {
                    verdict = Verdict::NotYet;
                    break;
                }
                Err(_) => {
                    self.misbehaved(link, Misbehaviour::BadEnvelope);
                    return Ok(());
                }
            };
            let foreign = envelope.envelope().library != self.config.library || envelope.envelope().author != author;
            verdict = match extent.judge(&envelope) {
                _ if foreign => Verdict::Bad,
                Continuation::Next if extent.length >= end => Verdict::NotYet,
                Continuation::Next if extent.length == 0 && !self.stands(&envelope) => Verdict::NotYet,
                Continuation::Next => Verdict::Good,
                Continuation::OtherBranch if extent.length > 0 => Verdict::OtherBranch,
                Continuation::OtherBranch | Continuation::Gap | Continuation::Past => Verdict::Bad,
            };
            if verdict != Verdict::Good {
                break;
            }
            extent = extent.with(&envelope);
            next.push(envelope);
        }
        let fruitless = next.is_empty();
        if !fruitless {
            self.pulls.resting.remove(&(link, author));
            if author == self.author() {
                self.retire();
            }
            let slots = self.accept(next)?;
            let lacked = slots.iter().filter(|&&slot| !self.chunks.is_held(slot));
            let lacked: Vec<_> = lacked.map(|&slot| self.chunks.chunk(slot).chunk).collect();
            if !lacked.is_empty() {
                self.effects.push(Effect::Deposited(lacked));
            }
            self.scheduler.want(slots, &mut self.chunks);
        }
        match verdict {
            Verdict::Bad => self.misbehaved(link, Misbehaviour::BadEnvelope),
            Verdict::OtherBranch if !self.pulls.asked.contains_key(&author) => {
                self.ask_envelopes(link, author, Purpose::Compare { accused: true, same: 0 });
            }
            Verdict::NotYet => drop(self.pulls.unknown.insert((link, author))),
            Verdict::Good | Verdict::OtherBranch if fruitless => self.let_rest(link, author, None),
            Verdict::Good | Verdict::OtherBranch => {}
        }
        Ok(())
    }

    /// Whether the first envelope of a log introduces an author whose device stands.
    pub(super) fn stands(&self, first: &SignedEnvelope) -> bool {
        let envelope = first.envelope();
        if envelope.kind != Kind::Membership {
            return false;
        }
        let Ok(statements) = decode_statements(&envelope.body) else { return false };
        let mut registry = self.registry.clone();
        for statement in &statements {
            let _ = registry.apply(&envelope.author, 0, statement);
        }
        registry.counts(&envelope.author, 0)
    }

    /// Compares the peer's version of envelopes from number `from` on with the one kept here, and looks on for where they
    /// part until it is found.
    fn compare(
        &mut self,
        link: LinkId,
        author: AuthorId,
        from: u64,
        wires: Vec<Bytes>,
        accused: bool,
        same: u64,
    ) -> Result<(), StorageError> {
        let length = self.log_extent(&author).length;
        let comparable = usize::try_from(length.saturating_sub(from)).unwrap_or(usize::MAX).min(wires.len());
        let ours = read(&self.metadata, &author, from, comparable)?;
        let compared = ours.len() as u64;
        for (ours, wire) in ours.into_iter().zip(wires) {
            if *ours.wire() == wire {
                continue;
            }
            let Ok(theirs) = SignedEnvelope::parse(wire) else {
                self.misbehaved(link, Misbehaviour::BadEnvelope);
                return Ok(());
            };
            let seq = ours.envelope().seq;
            if let Ok(proof) = ForkProof::new(ours, theirs) {
                return self.cut(proof).map(drop);
            }
            if seq == from && from > same {
                let purpose = Purpose::Compare { accused, same };
                self.ask_envelopes_from(link, author, same + (from - same) / 2, purpose);
            } else {
                // No log goes on like that.
                self.misbehaved(link, Misbehaviour::BadEnvelope);
            }
            return Ok(());
        }
        let same = from + compared;
        if compared > 0 && same < length {
            self.ask_envelopes_from(link, author, same, Purpose::Compare { accused, same });
        } else if compared > 0 && accused {
            // It sent an envelope that follows neither this one nor another: no honest peer keeps such a log.
            self.misbehaved(link, Misbehaviour::BadEnvelope);
        } else {
            self.let_rest(link, author, None);
        }
        Ok(())
    }

    pub(super) fn handle_fork(&mut self, link: LinkId, first: Bytes, second: Bytes) -> Result<(), StorageError> {
        debug_assert!(first.len() <= ENVELOPE_BYTES_MAX && second.len() <= ENVELOPE_BYTES_MAX);
        let Ok(proof) = ForkProof::parse(first, second) else {
            self.misbehaved(link, Misbehaviour::BadEnvelope);
            return Ok(());
        };
        let ours = proof.envelopes().0.envelope().library == self.config.library;
        let (author, length) = (proof.author(), proof.seq());
        if ours && self.registry.device_of(&author).is_some() && !self.cut(proof)? {
            // What is kept here parted from both even before; the peer knows how they begin.
            let purpose = Purpose::Compare { accused: false, same: 0 };
            if !self.pulls.asked.contains_key(&author) {
                self.ask_envelopes_from(link, author, length.saturating_sub(COMPARED_FIRST), purpose);
            }
        }
        Ok(())
    }
}

/// The frame that gives a proof.
pub(super) fn fork_frame(proof: &ForkProof) -> Bytes {
    let (first, second) = proof.envelopes();
    Message::Fork(first.wire().clone(), second.wire().clone()).to_frame()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Not to be accepted as things stand; it may be later.
    NotYet,
    OtherBranch,
    Bad,
}
