//! Chunks on their way: asked for, served one after the other, verified, stored.

use bytes::Bytes;
use holdfast_library::Input;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::limits::REQUESTS_PER_PEER_MAX;
use holdfast_protocol::message::{Declined, FetchRequest};
use holdfast_protocol::replica::{Answer, ChunkWanted, FetchOutcome, Input as ReplicaInput, LinkId, RequestId};
use holdfast_protocol::sealing::chunk_id;

use super::{Coming, Completion, STORE_MS, World};
use crate::check;
use crate::network::Answering;

/// Bytes of a message that asks for chunks, for each of them.
const ASKING_BYTES: u64 = 32;
/// In what pieces a driver reads a chunk, and how often it says at most that some came.
const PIECE_BYTES: u32 = 64 << 10;
const TELL_MS: u64 = 1_000;
/// How late a driver notices that a request is answered: that stands in a queue behind other events.
const SLOT_MS_MAX: u64 = 500;

impl World {
    /// A node asks for chunks.
    pub(crate) fn fetch(&mut self, node: usize, link: u64, request: RequestId, urgent: bool, chunks: &[ChunkWanted]) {
        let bytes = ASKING_BYTES * chunks.len() as u64;
        let Some(at) = self.network.frame_arrives(self.now, link, node, bytes) else { return };
        let Some(of) = self.network.alive(link) else { return };
        let (side, to) = (of.side(node), of.ends[1 - of.side(node)]);
        let chunks: Vec<ChunkId> = chunks.iter().map(|wanted| wanted.chunk).collect();
        of.asked[side].insert(request, chunks.iter().copied().collect());
        let request = FetchRequest { request: request.0, urgent, chunks };
        self.push(at - self.now, Coming::Asked { link, to, request });
    }

    /// A node gives up what it asked for; its peer does not hear of it.
    pub(crate) fn cancel_fetch(&mut self, node: usize, link: LinkId, request: RequestId) {
        if let Some(of) = self.network.alive(link.0) {
            let side = of.side(node);
            of.given_up[side].insert(request);
        }
        let ended = Input::Replica(ReplicaInput::FetchEnded { link, request });
        self.complete(node, STORE_MS + 1, Completion::Done(Box::new(ended)));
    }

    /// A request reaches a node: it waits in the stream while too many are being answered.
    pub(crate) fn asked(&mut self, link: u64, to: usize, request: FetchRequest) {
        let Some(of) = self.network.alive(link) else { return };
        let side = of.side(to);
        if of.serving[side] == REQUESTS_PER_PEER_MAX {
            return of.waiting[side].push_back(request);
        }
        of.serving[side] += 1;
        self.input(to, ReplicaInput::FetchRequested { link: LinkId(link), request });
    }

    /// A node's driver has noticed that a request is answered.
    pub(crate) fn slot_free(&mut self, link: u64, at: usize) {
        let Some(of) = self.network.alive(link) else { return };
        let side = of.side(at);
        of.serving[side] -= 1;
        if let Some(request) = of.waiting[side].pop_front() {
            self.asked(link, at, request);
        }
    }

    /// A node answers a request, behind those that it answers already.
    pub(crate) fn serve(&mut self, node: usize, link: LinkId, request: RequestId, answers: Vec<(ChunkId, Answer)>) {
        self.dawdle(node, link.0);
        if self.ignores(node, link) {
            return;
        }
        let Some(of) = self.network.alive(link.0) else { return };
        let side = of.side(node);
        of.answering[side].push_back(Answering { request, answers: answers.into() });
        if !of.is_sending[side] {
            self.send_next(link.0, node);
        }
    }

    /// Sends the next chunk of a link, and says when the one after it may follow.
    pub(crate) fn send_next(&mut self, link: u64, node: usize) {
        loop {
            let Some(of) = self.network.alive(link) else { return };
            let side = of.side(node);
            of.is_sending[side] = false;
            let Some(first) = of.answering[side].front_mut() else { return };
            let request = first.request;
            let Some((chunk, answer)) = first.answers.pop_front() else {
                of.answering[side].pop_front();
                self.answered_all(link, node, request);
                continue;
            };
            let to = of.ends[1 - side];
            let answer = self.answer_told(node, answer).and_then(|()| {
                let (served, lost) = self.nodes[node].serve_chunk(&chunk);
                if let Some(lost) = lost {
                    self.complete(node, 1, Completion::Done(Box::new(lost)));
                }
                served
            });
            if let Ok(bytes) = &answer
                && let Err(violation) = check::served::check(node, &chunk, bytes)
            {
                self.fail(violation);
            }
            let answer = self.chunk_told(node, answer);
            let bytes = answer.as_ref().map_or(0, Bytes::len) as u32;
            let Some((sent, at)) = self.pieces_arrive(link, (node, to), bytes) else { return };
            self.traffic.chunk_bytes += u64::from(bytes);
            let is_sent = answer.is_ok();
            self.push(at - self.now, Coming::Answered { link, to, request, chunk, answer });
            if is_sent {
                let served = Input::Replica(ReplicaInput::Served { link: LinkId(link), request, chunk, bytes });
                self.complete(node, sent - self.now, Completion::Done(Box::new(served)));
                if let Some(of) = self.network.alive(link) {
                    of.is_sending[side] = true;
                }
                return self.push(sent - self.now, Coming::SendNext { link, from: node });
            }
        }
    }

    /// When a chunk that a node sends now is sent and has arrived; on a slow way the other end sees it coming.
    fn pieces_arrive(&mut self, link: u64, (node, to): (usize, usize), bytes: u32) -> Option<(u64, u64)> {
        let (mut left, mut told) = (bytes, self.now);
        loop {
            let piece = left.min(PIECE_BYTES);
            left -= piece;
            let (sent, at) = self.network.chunk_arrives(self.now, link, node, u64::from(piece))?;
            if left == 0 {
                return Some((sent, at));
            }
            if at - told >= TELL_MS {
                told = at;
                self.push(at - self.now, Coming::Arriving { link, to });
            }
        }
    }

    /// All of a request is sent. The asker may know that, and ask for more, before the node's own driver does.
    fn answered_all(&mut self, link: u64, node: usize, request: RequestId) {
        let Some((sent, at)) = self.network.chunk_arrives(self.now, link, node, 0) else { return };
        let Some(to) = self.network.other_end(link, node) else { return };
        self.push(at - self.now, Coming::AnswersEnd { link, to, request });
        self.free_slot(link, node, sent - self.now);
    }

    /// Frees a slot once the driver has noticed, some time after that.
    pub(crate) fn free_slot(&mut self, link: u64, node: usize, after: u64) {
        let late = self.slots.of(node).below(SLOT_MS_MAX);
        self.push(after + late, Coming::SlotFree { link, at: node });
    }

    pub(crate) fn answer_arrives(
        &mut self,
        link: u64,
        to: usize,
        request: RequestId,
        chunk: ChunkId,
        answer: Result<Bytes, Declined>,
    ) {
        let Some(of) = self.network.alive(link) else { return };
        let Some(asked) = of.asked[of.side(to)].get_mut(&request) else { return };
        if !asked.remove(&chunk) {
            return;
        }
        let fetched =
            |outcome| Box::new(Input::Replica(ReplicaInput::Fetched { link: LinkId(link), request, chunk, outcome }));
        let completion = match answer {
            Err(declined) => Completion::Done(fetched(FetchOutcome::Declined(declined))),
            Ok(bytes) if chunk_id(&bytes) != chunk => Completion::Done(fetched(FetchOutcome::Corrupt)),
            Ok(bytes) => return self.chunk_arrived(to, link, request, chunk, &bytes),
        };
        self.complete(to, STORE_MS, completion);
    }

    pub(crate) fn answers_end(&mut self, link: LinkId, to: usize, request: RequestId) {
        let Some(of) = self.network.alive(link.0) else { return };
        let side = of.side(to);
        let is_given_up = of.given_up[side].remove(&request);
        if of.asked[side].remove(&request).is_some() && !is_given_up {
            // The last chunk is stored and reported before its request ends.
            let ended = Input::Replica(ReplicaInput::FetchEnded { link, request });
            self.complete(to, STORE_MS + 1, Completion::Done(Box::new(ended)));
        }
    }
}
