//! Chunks on their way: asked for, served one after the other, verified, stored.

use bytes::Bytes;
use holdfast::library::Input;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::message::{Declined, FetchRequest};
use holdfast_protocol::replica::{Answer, ChunkWanted, FetchOutcome, Input as ReplicaInput, LinkId, RequestId};
use holdfast_protocol::sealing::chunk_id;

use super::{Coming, Completion, STORE_MS, World};
use crate::check;
use crate::network::Answering;

/// Bytes of a message that asks for chunks, for each of them.
const ASKING_BYTES: u64 = 32;

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

    /// A node takes back what it asked for: what has not been sent yet is not sent any more.
    pub(crate) fn cancel_fetch(&mut self, node: usize, link: LinkId, request: RequestId) {
        if let Some(at) = self.network.frame_arrives(self.now, link.0, node, ASKING_BYTES)
            && let Some(of) = self.network.alive(link.0)
        {
            let (side, to) = (of.side(node), of.ends[1 - of.side(node)]);
            of.asked[side].remove(&request);
            self.push(at - self.now, Coming::TakenBack { link: link.0, to, request });
        }
        let ended = Input::Replica(ReplicaInput::FetchEnded { link, request });
        self.complete(node, STORE_MS + 1, Completion::Done(Box::new(ended)));
    }

    pub(crate) fn taken_back(&mut self, link: u64, to: usize, request: RequestId) {
        let Some(of) = self.network.alive(link) else { return };
        let answering = &mut of.answering[of.side(to)];
        let before = answering.len();
        answering.retain(|waiting| waiting.request != request);
        if answering.len() < before {
            self.input(to, ReplicaInput::ServeEnded { link: LinkId(link), request });
        }
    }

    /// A node answers a request, behind those that it answers already.
    pub(crate) fn serve(&mut self, node: usize, link: LinkId, request: RequestId, answers: Vec<(ChunkId, Answer)>) {
        self.dawdle(node, link.0);
        if self.ignores(node, link, request) {
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
            let answer = match self.answer_told(node, answer) {
                Answer::Send => {
                    let (served, lost) = self.nodes[node].serve_chunk(&chunk);
                    if let Some(lost) = lost {
                        self.complete(node, 1, Completion::Done(Box::new(lost)));
                    }
                    served
                }
                Answer::NotHeld => Err(Declined::NotHeld),
                Answer::Elsewhere(peer) => Err(Declined::Elsewhere(peer)),
                Answer::Busy => Err(Declined::Busy),
            };
            if let Ok(bytes) = &answer
                && let Err(violation) = check::served::check(node, &chunk, bytes)
            {
                self.fail(violation);
            }
            let answer = self.chunk_told(node, answer);
            let bytes = answer.as_ref().map_or(0, Bytes::len) as u32;
            let Some((sent, at)) = self.network.chunk_arrives(self.now, link, node, u64::from(bytes)) else { return };
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

    fn answered_all(&mut self, link: u64, node: usize, request: RequestId) {
        let Some((sent, at)) = self.network.chunk_arrives(self.now, link, node, 0) else { return };
        let Some(to) = self.network.other_end(link, node) else { return };
        self.push(at - self.now, Coming::AnswersEnd { link, to, request });
        let ended = Input::Replica(ReplicaInput::ServeEnded { link: LinkId(link), request });
        self.complete(node, sent - self.now, Completion::Done(Box::new(ended)));
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
        if of.asked[side].remove(&request).is_some() {
            // The last chunk is stored and reported before its request ends.
            let ended = Input::Replica(ReplicaInput::FetchEnded { link, request });
            self.complete(to, STORE_MS + 1, Completion::Done(Box::new(ended)));
        }
    }
}
