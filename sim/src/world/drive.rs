//! What a node asks for is done, as the real driver does it.

use holdfast_library::{Effect, Input};
use holdfast_protocol::id::ChunkId;
use holdfast_protocol::replica::{self, Input as ReplicaInput};

use super::{Coming, Completion, STORE_MS, World};
use crate::check::{self, Violation};

/// How long the last frames of a link that is given up may take.
const FAREWELL_MS: u64 = 5_000;
/// A node is looked at after so many inputs, and its copies after so many looks.
const INPUTS_BETWEEN_LOOKS: u64 = 64;
const LOOKS_BETWEEN_COUNTS: u64 = 8;
/// Ticks of one node at one moment: more is a circle.
const TICKS_AT_ONCE_MAX: u32 = 50;

impl World {
    pub(crate) fn input(&mut self, node: usize, input: ReplicaInput) {
        self.handle(node, Input::Replica(input));
    }

    pub(crate) fn handle(&mut self, node: usize, input: Input) {
        let now = self.clock(node);
        match self.nodes[node].handle(now, input) {
            Ok(effects) => self.perform(node, effects),
            Err(error) => self.library_failed(node, error),
        }
        self.look(node);
    }

    /// Looks now and then at what must hold all the time.
    fn look(&mut self, node: usize) {
        self.inputs += 1;
        if !self.inputs.is_multiple_of(INPUTS_BETWEEN_LOOKS) {
            return;
        }
        let counts = self.inputs.is_multiple_of(INPUTS_BETWEEN_LOOKS * LOOKS_BETWEEN_COUNTS);
        let copies = || if counts { check::copies::check(self, node) } else { Ok(()) };
        if let Err(violation) = check::bounds::check(&self.nodes[node]).and_then(|()| copies()) {
            self.fail(violation);
        }
    }

    /// Looks now and then whether anybody stands still who need not.
    pub(crate) fn look_for_idle(&mut self) {
        if self.now < self.look_at {
            return;
        }
        self.look_at = self.now + check::unasked::LOOK_MS;
        let idle = check::unasked::idle(self);
        if let Err(violation) = self.unasked.look(self.now, idle) {
            self.fail(violation);
        }
    }

    /// Does what the real driver does.
    pub(crate) fn perform(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            let to = if self.trace.is_read() { self.addressee(node, &effect) } else { None };
            self.trace.effect(self.now, node, to, &effect);
            match effect {
                Effect::Replica(effect) => self.perform_replica(node, effect),
                Effect::ReadChunk { task, chunk } => {
                    for input in self.nodes[node].read_chunk(task, &chunk) {
                        self.complete(node, STORE_MS, Completion::Done(Box::new(input)));
                    }
                }
                Effect::Index { version, changes } => {
                    let at = self.now + 1 + self.delays.of(node).below(self.options.index_ms);
                    let until = &mut self.hosts[node].index_until;
                    *until = (*until).max(at);
                    let after = *until - self.now;
                    self.nodes[node].index_asked = version;
                    let point = self.nodes[node].machine.metadata.begin_flush();
                    self.complete(node, after, Completion::Indexed { point, version, changes });
                }
                Effect::Flush(task) => self.flush(node, Input::Flushed(task)),
                Effect::Catalogued(imports) => {
                    self.catalogued(node, &imports);
                    self.acknowledged(node);
                }
                Effect::Edited(task) => self.nodes[node].edit_is_done(task),
                Effect::Event(event) => {
                    if let Err(violation) = check::refused::check_event(self, node, &event) {
                        self.fail(violation);
                    }
                }
            }
        }
        self.schedule_tick(node);
    }

    /// The node that an effect is about, for the trace.
    pub(crate) fn addressee(&mut self, node: usize, effect: &Effect) -> Option<usize> {
        use replica::Effect as Do;
        let Effect::Replica(effect) = effect else { return None };
        let (Do::Send { link, .. }
        | Do::Fetch { link, .. }
        | Do::Serve { link, .. }
        | Do::Disconnect { link, .. }
        | Do::Admitted { link, .. }) = effect
        else {
            return None;
        };
        self.network.other_end(link.0, node)
    }

    pub(crate) fn acknowledged(&mut self, node: usize) {
        if self.probes.of(node).one_in(4) {
            let now = self.clock(node);
            if let Err(violation) = check::acknowledged::check_after_crash(&self.nodes[node], &self.excused, now) {
                self.fail(violation);
            }
        }
        self.fault_behind_acknowledgement(node);
    }

    pub(crate) fn flush(&mut self, node: usize, input: Input) {
        let point = self.nodes[node].machine.metadata.begin_flush();
        let after = 1 + self.delays.of(node).below(self.options.flush_ms);
        self.complete(node, after, Completion::Flushed { point, input: Box::new(input) });
    }

    pub(crate) fn complete(&mut self, node: usize, after: u64, completion: Completion) {
        let run = self.nodes[node].run;
        self.push(after, Coming::Completed { node, run, completion });
    }

    /// The store has lost chunks, and may have got them back since.
    fn lost(&mut self, node: usize, mut lost: Vec<ChunkId>) {
        lost.retain(|chunk| !self.nodes[node].machine.holds(chunk));
        if !lost.is_empty() {
            self.input(node, ReplicaInput::ChunksLost(lost));
        }
    }

    pub(crate) fn completed(&mut self, node: usize, completion: Completion) {
        match completion {
            Completion::Done(input) => match *input {
                Input::Replica(ReplicaInput::ChunksLost(lost)) => self.lost(node, lost),
                input => self.handle(node, input),
            },
            Completion::Flushed { point, input } => self.flushed(node, point, *input),
            Completion::Stored { link, request, chunk } => self.chunk_stored(node, link, request, chunk),
            Completion::Deposited(mut chunks) => {
                chunks.retain(|chunk| self.nodes[node].machine.holds(chunk));
                if !chunks.is_empty() {
                    self.input(node, ReplicaInput::ChunksStored(chunks));
                }
            }
            Completion::Adopt => self.adopt(node),
            Completion::Walk => self.walk(node),
            Completion::Indexed { point, version, changes } => {
                if let Err(error) = self.nodes[node].machine.metadata.complete_flush(point) {
                    return self.library_failed(node, error.into());
                }
                self.nodes[node].index.apply(version, changes);
                self.handle(node, Input::Indexed(version));
            }
        }
    }

    pub(crate) fn perform_replica(&mut self, node: usize, effect: replica::Effect) {
        use replica::Effect as Do;
        match effect {
            Do::Send { link, frame } => {
                let Some(to) = self.network.other_end(link.0, node) else { return };
                if let Err(violation) = self.signed.check_frame(&self.nodes[node], &frame) {
                    self.fail(violation);
                }
                self.dawdle(node, link.0);
                for frame in self.frames_told(node, frame) {
                    self.traffic.control_bytes += frame.len() as u64;
                    let at = self.network.frame_arrives(self.now, link.0, node, frame.len() as u64).unwrap_or(self.now);
                    self.push(at - self.now, Coming::Frame { link: link.0, to, frame });
                }
            }
            Do::Disconnect { link, reason } => {
                if let Err(violation) = check::refused::check_disconnect(self, node, link.0, &reason) {
                    self.fail(violation);
                }
                let at = self.network.frames_end(link.0, node).unwrap_or(self.now);
                let at = at.clamp(self.now, self.now + FAREWELL_MS);
                self.push(at - self.now, Coming::LinkOver { link: link.0 });
            }
            Do::Dial { peer } => {
                let target = self.numbers.get(&peer).copied().unwrap_or(node);
                let (after, run) = (self.network.delay(node, target), self.nodes[node].run);
                self.push(after, Coming::Dialled { from: node, run, to: peer });
            }
            Do::Gossip(message) => {
                if let Err(violation) = self.signed.check_gossip(&self.nodes[node], &message) {
                    self.fail(violation);
                }
                for message in self.gossip_told(node, message) {
                    self.gossip(node, message);
                }
            }
            Do::Fetch { link, request, urgent, chunks } => self.fetch(node, link.0, request, urgent, &chunks),
            Do::CancelFetch { link, request } => self.cancel_fetch(node, link, request),
            Do::Admitted { link, .. } => {
                if let Some(of) = self.network.alive(link.0) {
                    of.is_admitted[of.side(node)] = true;
                }
            }
            Do::Serve { link, request, answers } => self.serve(node, link, request, answers),
            Do::Sync(task) => self.flush(node, Input::Replica(ReplicaInput::Synced(task))),
            Do::Deposited(chunks) => self.complete(node, 0, Completion::Deposited(chunks)),
            // Every node is found by its name alone.
            Do::AddressesLearned { .. } | Do::Event(_) | Do::Accepted(_) | Do::HoldingsChanged { .. } => {}
        }
    }

    pub(crate) fn schedule_tick(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        let Some(deadline) = of.library.as_ref().and_then(|library| library.next_deadline()) else { return };
        let at = self.hosts[node].clock.when(deadline, self.now);
        if of.tick_at.is_none_or(|scheduled| at < scheduled) {
            of.tick_at = Some(at);
            self.push(at - self.now, Coming::Tick { node, at });
        }
    }

    pub(crate) fn tick(&mut self, node: usize, at: u64) {
        if self.nodes[node].tick_at != Some(at) {
            return;
        }
        self.nodes[node].tick_at = None;
        let count = if (self.ticks.0, self.ticks.1) == (at, node) { self.ticks.2 + 1 } else { 0 };
        self.ticks = (at, node, count);
        if count > TICKS_AT_ONCE_MAX {
            return self.fail(Violation::Circle { node, at });
        }
        let due = self.nodes[node].library.as_ref().and_then(|library| library.next_deadline());
        if due.is_some_and(|due| due <= self.clock(node).elapsed) {
            self.input(node, ReplicaInput::Tick);
        } else {
            self.schedule_tick(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_node_that_asks_for_ticks_at_one_moment_again_and_again_is_found() {
        let circling = |times| {
            let mut world = World::new(3, Options::calm(2)).unwrap();
            let at = world.now;
            for _ in 0..times {
                world.nodes[1].tick_at = Some(at);
                world.push(0, Coming::Tick { node: 1, at });
                world.run_until(at)?;
            }
            Ok(())
        };
        assert_eq!(circling(TICKS_AT_ONCE_MAX), Ok(()));
        assert_eq!(circling(TICKS_AT_ONCE_MAX + 2), Err(Violation::Circle { node: 1, at: 1000 }));
    }
}
