//! Chunks on their way: asked for, served, verified, stored.

use bytes::Bytes;
use holdfast::library::Input;
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::message::Declined;
use holdfast_protocol::replica::{Answer, FetchOutcome, Input as ReplicaInput, LinkId, RequestId};
use holdfast_protocol::sealing::chunk_id;

use super::{Coming, Completion, STORE_MS, World};

impl World {
    pub(crate) fn serve(&mut self, node: usize, link: LinkId, request: RequestId, answers: Vec<(ChunkId, Answer)>) {
        let Some(to) = self.network.other_end(link.0, node) else { return };
        let mut last = self.now;
        for (chunk, answer) in answers {
            let answer = match answer {
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
            let bytes = answer.as_ref().map_or(0, Bytes::len) as u32;
            let Some(at) = self.network.chunk_arrives(self.now, link.0, node, u64::from(bytes)) else { return };
            self.traffic.chunk_bytes += u64::from(bytes);
            last = at;
            if answer.is_ok() {
                let served = Input::Replica(ReplicaInput::Served { link, request, chunk, bytes });
                self.complete(node, at - self.now, Completion::Done(Box::new(served)));
            }
            self.push(at - self.now, Coming::Answered { link: link.0, to, request, chunk, answer });
        }
        self.push(last - self.now, Coming::AnswersEnd { link: link.0, to, request });
        let ended = Input::Replica(ReplicaInput::ServeEnded { link, request });
        self.complete(node, last - self.now, Completion::Done(Box::new(ended)));
    }

    pub(crate) fn answer_arrives(
        &mut self,
        link: u64,
        to: usize,
        request: RequestId,
        chunk: ChunkId,
        answer: Result<Bytes, Declined>,
    ) {
        if self.network.alive(link).is_none() {
            return;
        }
        let Some(length) = self.lengths.remove(&(to, link, request, chunk)) else { return };
        let fetched =
            |outcome| Box::new(Input::Replica(ReplicaInput::Fetched { link: LinkId(link), request, chunk, outcome }));
        let completion = match answer {
            Err(declined) => Completion::Done(fetched(FetchOutcome::Declined(declined))),
            Ok(bytes) if bytes.len() as u32 != length || chunk_id(&bytes) != chunk => {
                Completion::Done(fetched(FetchOutcome::Corrupt))
            }
            Ok(bytes) => return self.chunk_arrived(to, link, request, chunk, &bytes),
        };
        self.complete(to, STORE_MS, completion);
    }
}
