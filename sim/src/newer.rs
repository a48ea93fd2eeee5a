//! A device of a newer version: beside what this version says, it says what this version does not know. Everybody has to
//! keep and pass that on as it is, and to go on.

use bytes::Bytes;
use holdfast_protocol::envelope::Kind;
use holdfast_protocol::membership::{Statement, encode_statements};
use holdfast_protocol::replica::READER_VERSION;

use crate::chance::Chance;
use crate::fault::FaultClass;
use crate::world::World;

/// Bytes of something unknown at most.
const BYTES_MAX: u64 = 4_000;
/// Tags of frames that no version has given away yet.
const TAGS_FROM: u64 = 200;

impl World {
    /// The device of a newer version says something in a log beside its own, and to everybody directly. Whether there is one.
    pub(crate) fn say_something_newer(&mut self, chance: &mut Chance) -> bool {
        // Neither the first, through which all meet, nor the last, which may lie.
        const NODE: usize = 1;
        let class = FaultClass::NewerVersion;
        if self.nodes.len() <= 2 || !self.is_member(NODE) || !self.has_shadow(NODE, class, chance) {
            return false;
        }
        let mut body = chance.seed().repeat(1 + BYTES_MAX as usize / 32);
        body.truncate(chance.span(1, BYTES_MAX) as usize);
        let (kind, min_reader, body) = match chance.below(4) {
            0 => (Kind::Other(chance.between(100, 256) as u8), 1, body),
            1 => (Kind::Catalog, READER_VERSION + 1, body),
            2 => (Kind::Deposit, READER_VERSION + 1, body),
            _ => {
                let statement = Statement::Unknown { tag: chance.between(1_000, 2_000) as u16, bytes: body };
                (Kind::Membership, 1, encode_statements(&[statement]))
            }
        };
        if let Some(shadow) = self.shadows.get_mut(&class) {
            shadow.write_both(kind, min_reader, &body);
        }
        self.announce_shadow(NODE, class);
        let tag = chance.between(TAGS_FROM, 256) as u8;
        for link in self.network.standing(Some(NODE)) {
            let is_admitted = self.network.alive(link).is_some_and(|of| of.is_admitted[of.side(NODE)]);
            if is_admitted {
                let body = chance.seed();
                let frame = [&(body.len() as u32).to_le_bytes()[..], &[tag], &body].concat();
                self.tell(NODE, link, Bytes::from(frame));
            }
        }
        true
    }
}
