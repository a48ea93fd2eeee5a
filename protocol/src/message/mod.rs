//! What two nodes say to each other.
//!
//! Three channels, each with its own form:
//! - **control stream**, one in each direction of a connection: frames `length u32 ‖ tag u8 ‖ body`, little-endian, length
//!   counting the body alone. The header is checked against the tag's limit before anything else is read
//!   ([`FrameHeader::parse`]), and before the peer has proved its membership only the first two frames are let in
//!   ([`Gate`]). Frames with unknown tags are skipped: a newer peer may say more than this one understands.
//! - **chunk streams**: [`FetchRequest`]s one way, [`ChunkHeader`]s each followed by the chunk's bytes the other.
//! - **gossip**: [`Announcement`]s.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::id::{AuthorId, DeviceId, EnvelopeHash};
use crate::inventory::{Generation, HEAD_BYTES_MAX, HoldingChanges};
use crate::limits::{ENVELOPE_BYTES_MAX, VECTOR_AUTHORS_MAX};
use crate::varint;

mod fetch;
mod frame;
mod gossip;
mod inventory;

pub use fetch::{CHUNK_HEADER_BYTES, ChunkHeader, Declined, FETCH_REQUEST_BYTES_MAX, FetchRequest, FetchStatus};
pub use frame::{FRAME_HEADER_BYTES, FrameHeader, FrameRefused, Gate, body_bytes_max, tag};
pub use gossip::Announcement;
pub use inventory::InventoryPart;

/// Protocol versions that this node speaks, oldest and newest.
pub const VERSIONS: (u16, u16) = (1, 1);
/// Inventory heads in one frame.
pub const HEADS_PER_FRAME_MAX: usize = 128;
/// Envelopes in one frame.
pub const ENVELOPES_PER_FRAME_MAX: usize = 4096;
/// Peers in one frame of addresses.
pub const PEERS_PER_FRAME_MAX: usize = 24;
/// Addresses of one peer.
pub const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Bytes of an address.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Certificates from a device up to the root.
pub const CERTIFICATE_CHAIN_MAX: usize = 8;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first frame each way.
    Hello(Hello),
    /// The second frame each way: certificates from the speaker's own up to one by the root.
    Prove(Prove),
    /// The last frame.
    Bye(Farewell),
    /// Which logs the speaker knows how far; later ones carry only what changed.
    Vector(Vec<LogPoint>),
    /// Asks for an author's envelopes from a number on; answered by `Envelopes`.
    WantEnvelopes(WantEnvelopes),
    /// Envelopes of one author, in order, as their signed bytes. None when the speaker has none.
    Envelopes(Envelopes),
    /// Two envelopes that prove a fork.
    Fork(Bytes, Bytes),
    /// Signed inventory heads, the speaker's own and those it relays.
    Heads(Vec<Bytes>),
    /// Asks for an inventory; answered by `Inventory` frames.
    WantInventory(WantInventory),
    /// A piece of an inventory.
    Inventory(InventoryPart),
    /// Unsigned: what the speaker holds and has lost since it last said so. Valid while the session stands.
    Have(Vec<HoldingChanges>),
    /// Where the speaker saw other members.
    Addresses(Vec<Reachable>),
    /// A message of a newer version, not understood.
    Unknown(u8),
}

/// The first thing said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version spoken.
    pub oldest: u16,
    /// Newest protocol version spoken.
    pub newest: u16,
    /// Bits for what the speaker can do beyond its version; unknown ones are ignored.
    pub features: u64,
    /// [`library_tag`]: shows knowledge of the library without naming it.
    pub library_tag: [u8; 32],
}

/// A hash that only those who know the library can make or recognise, different for each pair and direction.
#[must_use]
pub fn library_tag(library: &crate::id::LibraryId, speaker: &DeviceId, listener: &DeviceId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("holdfast 1 library tag");
    hasher.update(library.as_bytes()).update(speaker.as_bytes()).update(listener.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Proof of membership. The transport has proved the device key; these prove what the key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// Encoded device certificates: the speaker's, its issuer's, and so on until one issued by the root.
    pub chain: Vec<Vec<u8>>,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Farewell {
    /// The listener does not belong to this library.
    #[error("it knows no such library")]
    WrongLibrary,
    /// No common version.
    #[error("it speaks another protocol version")]
    IncompatibleVersion,
    /// The proof was not accepted.
    #[error("it does not accept this device as a member")]
    NotAMember,
    /// The listener was removed.
    #[error("this device was removed from the library")]
    Removed,
    /// Another connection is kept.
    #[error("another connection is kept")]
    Duplicate,
    /// The listener broke the protocol.
    #[error("it says that this device broke the protocol")]
    Misbehaved,
    /// The node is going down.
    #[error("it is shutting down")]
    ShuttingDown,
}

/// How far a log is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPoint {
    /// Whose log.
    pub author: AuthorId,
    /// How many envelopes.
    pub length: u64,
    /// The hash of the last one.
    pub head: EnvelopeHash,
    /// Whether the speaker holds a fork proof for it.
    pub forked: bool,
}

/// A wish for envelopes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantEnvelopes {
    /// Whose.
    pub author: AuthorId,
    /// The first number wanted.
    pub from: u64,
}

/// Consecutive envelopes of one author. Layout: `author 32 ‖ from varint ‖ (length varint ‖ bytes)*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelopes {
    /// Whose.
    pub author: AuthorId,
    /// The number of the first.
    pub from: u64,
    /// Their signed bytes.
    pub envelopes: Vec<Bytes>,
}

/// Where a member can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachable {
    /// Who.
    pub device: DeviceId,
    /// Addresses in the transport's text form, at most [`ADDRESSES_PER_PEER_MAX`].
    pub addresses: Vec<String>,
}

/// Whether text may be an address: printable, and no longer than one can be.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.len() <= ADDRESS_BYTES_MAX && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A wish for an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantInventory {
    /// Whose.
    pub peer: DeviceId,
    /// The version that the speaker has complete.
    pub known: Option<(Generation, u64)>,
}

/// Why a body is not the message its tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageRefused {
    /// A structure that cannot be decoded.
    #[error(transparent)]
    Structure(#[from] DecodeError),
    /// A list laid out by hand that does not follow its layout.
    #[error("malformed")]
    Malformed,
    /// More entries than allowed.
    #[error("{count} entries where at most {limit} are allowed")]
    TooMany {
        /// Entries that came.
        count: usize,
        /// Entries allowed.
        limit: usize,
    },
}

impl Message {
    /// The message's tag.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Hello(_) => tag::HELLO,
            Self::Prove(_) => tag::PROVE,
            Self::Bye(_) => tag::BYE,
            Self::Vector(_) => tag::VECTOR,
            Self::WantEnvelopes(_) => tag::WANT_ENVELOPES,
            Self::Envelopes(_) => tag::ENVELOPES,
            Self::Fork(..) => tag::FORK,
            Self::Heads(_) => tag::HEADS,
            Self::WantInventory(_) => tag::WANT_INVENTORY,
            Self::Inventory(_) => tag::INVENTORY,
            Self::Have(_) => tag::HAVE,
            Self::Addresses(_) => tag::ADDRESSES,
            Self::Unknown(tag) => *tag,
        }
    }

    /// The whole frame, header included.
    #[must_use]
    pub fn to_frame(&self) -> Bytes {
        let body = self.encode_body();
        debug_assert!(body.len() <= body_bytes_max(self.tag()), "tag {}: {} bytes", self.tag(), body.len());
        let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + body.len());
        frame.put_u32_le(body.len() as u32);
        frame.put_u8(self.tag());
        frame.put_slice(&body);
        frame.freeze()
    }

    fn encode_body(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => codec::encode(hello),
            Self::Prove(prove) => codec::encode(prove),
            Self::Bye(farewell) => codec::encode(farewell),
            Self::Vector(points) => codec::encode(points),
            Self::WantEnvelopes(want) => codec::encode(want),
            Self::Envelopes(envelopes) => envelopes.encode(),
            Self::Fork(first, second) => [first, second].into_iter().fold(Vec::new(), put_bytes),
            Self::Heads(heads) => heads.iter().fold(Vec::new(), put_bytes),
            Self::WantInventory(want) => codec::encode(want),
            Self::Inventory(part) => part.encode(),
            Self::Have(changes) => {
                let mut body = Vec::new();
                HoldingChanges::put_all(changes, &mut body);
                body
            }
            Self::Addresses(reachable) => codec::encode(reachable),
            Self::Unknown(_) => Vec::new(),
        }
    }

    /// Decodes the body of a frame.
    ///
    /// # Errors
    /// When it is not what its tag says, or over a limit.
    pub fn decode(tag: u8, body: &Bytes) -> Result<Self, MessageRefused> {
        let limit = body_bytes_max(tag);
        if body.len() > limit {
            return Err(DecodeError::TooLong { length: body.len(), limit }.into());
        }
        Ok(match tag {
            tag::HELLO => Self::Hello(codec::decode(body, limit)?),
            tag::PROVE => {
                let prove: Prove = codec::decode(body, limit)?;
                at_most(prove.chain.len(), CERTIFICATE_CHAIN_MAX)?;
                Self::Prove(prove)
            }
            tag::BYE => Self::Bye(codec::decode(body, limit)?),
            tag::VECTOR => {
                let points: Vec<LogPoint> = codec::decode(body, limit)?;
                at_most(points.len(), VECTOR_AUTHORS_MAX)?;
                Self::Vector(points)
            }
            tag::WANT_ENVELOPES => Self::WantEnvelopes(codec::decode(body, limit)?),
            tag::ENVELOPES => Self::Envelopes(Envelopes::decode(body)?),
            tag::FORK => {
                let [first, second] = <[Bytes; 2]>::try_from(take_byte_strings(body, ENVELOPE_BYTES_MAX, 2)?)
                    .map_err(|_| MessageRefused::Malformed)?;
                Self::Fork(first, second)
            }
            tag::HEADS => Self::Heads(take_byte_strings(body, HEAD_BYTES_MAX, HEADS_PER_FRAME_MAX)?),
            tag::WANT_INVENTORY => Self::WantInventory(codec::decode(body, limit)?),
            tag::INVENTORY => Self::Inventory(InventoryPart::decode(body)?),
            tag::HAVE => {
                let mut input = body.as_ref();
                let changes = HoldingChanges::take_all(&mut input).filter(|_| input.is_empty());
                Self::Have(changes.ok_or(MessageRefused::Malformed)?)
            }
            tag::ADDRESSES => {
                let reachable: Vec<Reachable> = codec::decode(body, limit)?;
                at_most(reachable.len(), PEERS_PER_FRAME_MAX)?;
                for Reachable { addresses, .. } in &reachable {
                    at_most(addresses.len(), ADDRESSES_PER_PEER_MAX)?;
                    if !addresses.iter().all(|address| is_address(address)) {
                        return Err(MessageRefused::Malformed);
                    }
                }
                Self::Addresses(reachable)
            }
            other => Self::Unknown(other),
        })
    }
}

impl Envelopes {
    fn encode(&self) -> Vec<u8> {
        let length: usize = self.envelopes.iter().map(|envelope| envelope.len() + 3).sum();
        let mut body = Vec::with_capacity(42 + length);
        body.extend(self.author.as_bytes());
        varint::put(&mut body, self.from);
        self.envelopes.iter().fold(body, put_bytes)
    }

    fn decode(body: &Bytes) -> Result<Self, MessageRefused> {
        let (author, mut rest) = body.split_first_chunk::<32>().ok_or(MessageRefused::Malformed)?;
        let from = varint::take(&mut rest).ok_or(MessageRefused::Malformed)?;
        let envelopes = take_byte_strings(&body.slice_ref(rest), ENVELOPE_BYTES_MAX, ENVELOPES_PER_FRAME_MAX)?;
        Ok(Self { author: AuthorId::from_bytes(*author), from, envelopes })
    }
}

fn at_most(count: usize, limit: usize) -> Result<(), MessageRefused> {
    if count > limit { Err(MessageRefused::TooMany { count, limit }) } else { Ok(()) }
}

fn put_bytes(mut out: Vec<u8>, bytes: &Bytes) -> Vec<u8> {
    varint::put(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// Takes one byte string of at most `limit` bytes off the front of `rest`, which is a part of `body`, without copying.
fn take_bytes(body: &Bytes, rest: &mut &[u8], limit: usize) -> Option<Bytes> {
    let length = usize::try_from(varint::take(rest)?).ok().filter(|&length| length <= limit)?;
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(body.slice_ref(taken))
}

fn take_flag(rest: &mut &[u8]) -> Option<bool> {
    let (&flag, after) = rest.split_first()?;
    *rest = after;
    match flag {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// All byte strings in `body`, each of at most `limit` bytes and at most `count_max` of them.
fn take_byte_strings(body: &Bytes, limit: usize, count_max: usize) -> Result<Vec<Bytes>, MessageRefused> {
    let (mut rest, mut all) = (body.as_ref(), Vec::new());
    while !rest.is_empty() {
        at_most(all.len() + 1, count_max)?;
        all.push(take_bytes(body, &mut rest, limit).ok_or(MessageRefused::Malformed)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
