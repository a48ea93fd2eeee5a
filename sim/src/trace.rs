//! What happened, in order: hashed always, in readable lines when somebody reads.
//!
//! Invariant: whether anybody reads changes nothing in the run and nothing in the hash.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use bytes::Bytes;
use holdfast_library::Effect;
use holdfast_protocol::id::DeviceId;
use holdfast_protocol::message::{FRAME_HEADER_BYTES, FrameHeader, Message};
use holdfast_protocol::replica::Effect as ReplicaEffect;

/// Characters of a readable line at most.
const LINE_CHARS_MAX: usize = 240;

/// Takes each readable line.
pub type Reader = Box<dyn FnMut(&str)>;

/// See the head of the module.
#[derive(Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    line: String,
    reader: Option<Reader>,
    /// How devices call themselves in `Debug`, and what people call them.
    names: BTreeMap<String, String>,
}

impl Trace {
    /// A trace that is hashed alone.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// A trace that `reader` reads.
    #[must_use]
    pub fn read_by(reader: Reader) -> Self {
        Self { reader: Some(reader), ..Self::default() }
    }

    /// Whether readable lines are wanted.
    pub(crate) const fn is_read(&self) -> bool {
        self.reader.is_some()
    }

    /// Lines say `node` for this device from now on.
    pub(crate) fn name(&mut self, device: &DeviceId, node: usize) {
        self.names.insert(format!("{device:?}"), format!("node {node}"));
    }

    /// Something happened to `node`, or to the world.
    pub(crate) fn note(&mut self, at_ms: u64, node: Option<usize>, what: fmt::Arguments<'_>) {
        self.take_in(at_ms, node, what);
        self.tell(at_ms, node, what);
    }

    /// `node` asks for something; a link leads `to` that node.
    pub(crate) fn effect(&mut self, at_ms: u64, node: usize, to: Option<usize>, effect: &Effect) {
        // Frames go in as they are: their `Debug` would cost more than everything else.
        match effect {
            Effect::Replica(ReplicaEffect::Send { link, frame }) => {
                self.take_in(at_ms, Some(node), format_args!("sends {} {}", link.0, frame.len()));
                self.hasher.update(frame);
            }
            Effect::Replica(ReplicaEffect::Gossip(message)) => {
                self.take_in(at_ms, Some(node), format_args!("gossips {}", message.len()));
                self.hasher.update(message);
            }
            other => self.take_in(at_ms, Some(node), format_args!("{other:?}")),
        }
        if self.is_read() {
            let text = in_words(to, effect);
            self.tell(at_ms, Some(node), format_args!("{text}"));
        }
    }

    fn take_in(&mut self, at_ms: u64, node: Option<usize>, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(self.line, "{at_ms} {node:?} {what}");
        self.hasher.update(self.line.as_bytes());
    }

    fn tell(&mut self, at_ms: u64, node: Option<usize>, what: fmt::Arguments<'_>) {
        let Some(reader) = &mut self.reader else { return };
        let who = node.map_or_else(|| "world".to_owned(), |node| format!("node {node}"));
        let mut text = what.to_string();
        for (device, name) in &self.names {
            text = text.replace(device.as_str(), name);
        }
        if text.chars().count() > LINE_CHARS_MAX {
            text = text.chars().take(LINE_CHARS_MAX).chain(['…']).collect();
        }
        reader(&format!("{}  {who:<7}  {text}", clock(at_ms)));
    }

    /// A hash over everything so far.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// A virtual time: days when there are any, then hours, minutes, seconds and milliseconds.
#[must_use]
pub fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let days = if days > 0 { format!("{days}d ") } else { String::new() };
    format!("{days}{hours:02}:{minutes:02}:{:02}.{:03}", seconds % 60, at_ms % 1000)
}

fn in_words(to: Option<usize>, effect: &Effect) -> String {
    let to = to.map_or_else(|| "nobody any more".to_owned(), |to| format!("node {to}"));
    match effect {
        Effect::Replica(ReplicaEffect::Send { frame, .. }) => {
            format!("sends to {to}: {}, {} bytes", frame_in_words(frame), frame.len())
        }
        Effect::Replica(ReplicaEffect::Gossip(message)) => format!("gossips {} bytes", message.len()),
        Effect::Replica(ReplicaEffect::Fetch { request, chunks, .. }) => {
            format!("asks {to} for {} chunks (request {})", chunks.len(), request.0)
        }
        Effect::Replica(ReplicaEffect::Serve { request, answers, .. }) => {
            format!("answers {to} for {} chunks (request {})", answers.len(), request.0)
        }
        Effect::Replica(ReplicaEffect::Disconnect { reason, .. }) => format!("hangs up on {to}: {reason}"),
        Effect::Replica(ReplicaEffect::Admitted { .. }) => format!("admits {to}"),
        Effect::Replica(ReplicaEffect::Event(event)) => format!("{event:?}"),
        Effect::Replica(other) => format!("{other:?}"),
        Effect::Index { version, changes } => format!("tells its index {} changes, version {version}", changes.len()),
        Effect::Event(event) => format!("{event:?}"),
        other => format!("{other:?}"),
    }
}

fn frame_in_words(frame: &Bytes) -> String {
    let header = frame.first_chunk::<FRAME_HEADER_BYTES>();
    let Some(Ok(FrameHeader { tag, .. })) = header.map(FrameHeader::parse) else {
        return "a frame that nobody will read".to_owned();
    };
    match Message::decode(tag, &frame.slice(FRAME_HEADER_BYTES..)) {
        Ok(Message::Hello(_)) => "hello".to_owned(),
        Ok(Message::Prove(_)) => "its certificates".to_owned(),
        Ok(Message::Bye(farewell)) => format!("bye, {farewell}"),
        Ok(Message::Vector(points)) => format!("how far {} logs are known", points.len()),
        Ok(Message::WantEnvelopes(want)) => format!("wants {:?} from {}", want.author, want.from),
        Ok(Message::Envelopes(of)) => format!("{} envelopes of {:?} from {}", of.envelopes.len(), of.author, of.from),
        Ok(Message::Fork(..)) => "the proof of a fork".to_owned(),
        Ok(Message::Heads(heads)) => format!("heads of {} inventories", heads.len()),
        Ok(Message::WantInventory(want)) => format!("wants the inventory of {:?}", want.peer),
        Ok(Message::Inventory(part)) => {
            format!("an inventory's part on top of {:?}, {} authors", part.base, part.changes.len())
        }
        Ok(Message::Have(changes)) => format!("hints on {} authors", changes.len()),
        Ok(Message::Addresses(reachable)) => format!("addresses of {}", reachable.len()),
        Ok(Message::Unknown(tag)) => format!("a frame with the unknown tag {tag}"),
        Err(refused) => format!("a frame with tag {tag} that will be refused: {refused}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::options::Options;
    use crate::world::World;

    #[test]
    fn readers_see_names_and_times_and_change_nothing() {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&lines);
        let read = Trace::read_by(Box::new(move |line: &str| into.borrow_mut().push(line.to_owned())));
        let mut seen = World::traced(8, Options::calm(3), read).unwrap();
        let mut unseen = World::new(8, Options::calm(3)).unwrap();
        seen.run_until(20_000).unwrap();
        unseen.run_until(20_000).unwrap();
        assert_eq!(seen.trace_hash(), unseen.trace_hash());
        let lines = lines.borrow();
        let has = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(has("00:00:01.0") && has("sends to node 0: hello") && has("PeerConnected { peer: node 2 }"));
        assert!(!has("DeviceId("), "every device has its name");
    }

    #[test]
    fn clocks_show_days_only_when_there_are_any() {
        assert_eq!(clock(61_007), "00:01:01.007");
        assert_eq!(clock(3 * 86_400_000 + 3_600_000), "3d 01:00:00.000");
    }
}
