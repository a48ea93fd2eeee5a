//! Statements and their bytes: `format u8 ‖ (tag u16 LE ‖ length u32 LE ‖ encoded statement)*`. A statement with an
//! unknown tag is kept byte for byte.

use serde::{Deserialize, Serialize};

use crate::certificate::{AuthorCertificate, DeviceCertificate};
use crate::codec;
use crate::envelope::BODY_BYTES_MAX;
use crate::id::{AuthorId, DeviceId, PlaceId};
use crate::secrets::EpochId;

/// Statements of one envelope at most.
pub const STATEMENTS_PER_BODY_MAX: usize = 64;
/// Devices and logs that a removal can name at most.
pub const KEPT_DEVICES_MAX: usize = 256;

const FORMAT: u8 = 1;
const LABEL_BYTES_MAX: usize = 512;
const SEALED_KEYS_BYTES_MAX: usize = 64 << 10;

/// For whom keys are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recipient {
    /// A device, to its exchange key.
    Device(DeviceId),
    /// The root, so that the recovery phrase opens everything.
    Root,
}

/// Removes a device for good; it can come back only as a new device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Removal {
    /// The device that is removed.
    pub device: DeviceId,
    /// Devices that the removed one certified and that stay. Any other certificate that it signs, at whatever time,
    /// is void: a stolen owner's key makes no members.
    pub keep: Vec<DeviceId>,
    /// How many envelopes of its logs count; what it writes after that, or in other logs, does not.
    pub logs: Vec<(AuthorId, u64)>,
}

/// One thing that a log says about the library's devices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statement {
    /// Who writes this log: the first statement of every log.
    Introduce {
        /// The device.
        device: DeviceCertificate,
        /// The author, certified by the device.
        author: AuthorCertificate,
    },
    /// A device is certified.
    Admit(DeviceCertificate),
    /// A device is removed. By an owner, or by the device itself.
    Remove(Removal),
    /// The library's secrets, sealed for one recipient. By an owner.
    Keys {
        /// The epoch that is new with them.
        epoch: EpochId,
        /// For whom.
        recipient: Recipient,
        /// What [`LibrarySecrets::seal_to`](crate::secrets::LibrarySecrets::seal_to) returned.
        sealed: Vec<u8>,
    },
    /// Where a device stands. By the device itself or an owner.
    Place {
        /// The device.
        device: DeviceId,
        /// The place.
        place: PlaceId,
        /// One more than the greatest revision the writer knew for this device; the greatest counts.
        revision: u32,
        /// The label, sealed by the caller.
        label: Vec<u8>,
    },
    /// A statement of a newer version.
    Unknown {
        /// Its tag.
        tag: u16,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// A membership body that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementsMalformed {
    /// A format that this version does not know.
    #[error("membership statements of format {format}, which this version cannot read; update Holdfast")]
    NewerFormat {
        /// The format number found.
        format: u8,
    },
    /// Too many statements or bytes.
    #[error("more membership statements than one envelope may have")]
    TooMany,
    /// A statement ends too early, or its content or a certificate in it is not valid.
    #[error("membership statement {index} is malformed")]
    Statement {
        /// Counted from 0.
        index: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct KeysFields {
    epoch: EpochId,
    recipient: Recipient,
    #[serde(with = "codec::bytes")]
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct PlaceFields {
    device: DeviceId,
    place: PlaceId,
    revision: u32,
    #[serde(with = "codec::bytes")]
    label: Vec<u8>,
}

impl Statement {
    fn parts(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Introduce { device, author } => (1, codec::encode(&(device, author))),
            Self::Admit(certificate) => (2, codec::encode(certificate)),
            Self::Remove(removal) => (3, codec::encode(removal)),
            Self::Keys { epoch, recipient, sealed } => {
                (4, codec::encode(&KeysFields { epoch: *epoch, recipient: *recipient, sealed: sealed.clone() }))
            }
            Self::Place { device, place, revision, label } => {
                let (device, place, revision) = (*device, *place, *revision);
                (5, codec::encode(&PlaceFields { device, place, revision, label: label.clone() }))
            }
            Self::Unknown { tag, bytes } => (*tag, bytes.clone()),
        }
    }

    fn parse(tag: u16, bytes: &[u8]) -> Option<Self> {
        let limit = BODY_BYTES_MAX;
        Some(match tag {
            1 => {
                let (device, author) = codec::decode(bytes, limit).ok()?;
                Self::Introduce { device, author }
            }
            2 => Self::Admit(codec::decode(bytes, limit).ok()?),
            3 => {
                let removal: Removal = codec::decode(bytes, limit).ok()?;
                let bounded = removal.keep.len() <= KEPT_DEVICES_MAX && removal.logs.len() <= KEPT_DEVICES_MAX;
                Self::Remove(bounded.then_some(removal)?)
            }
            4 => {
                let KeysFields { epoch, recipient, sealed } = codec::decode(bytes, limit).ok()?;
                let bounded = sealed.len() <= SEALED_KEYS_BYTES_MAX;
                bounded.then_some(Self::Keys { epoch, recipient, sealed })?
            }
            5 => {
                let PlaceFields { device, place, revision, label } = codec::decode(bytes, limit).ok()?;
                let bounded = label.len() <= LABEL_BYTES_MAX;
                bounded.then_some(Self::Place { device, place, revision, label })?
            }
            tag => Self::Unknown { tag, bytes: bytes.to_vec() },
        })
    }
}

/// The body of an envelope that makes `statements`.
///
/// # Panics
/// When there are more than [`STATEMENTS_PER_BODY_MAX`].
#[must_use]
#[expect(clippy::expect_used, reason = "a statement is far shorter than 4 GiB")]
pub fn encode_statements(statements: &[Statement]) -> Vec<u8> {
    assert!(statements.len() <= STATEMENTS_PER_BODY_MAX, "{} statements are too many", statements.len());
    let mut body = vec![FORMAT];
    for statement in statements {
        let (tag, bytes) = statement.parts();
        body.extend_from_slice(&tag.to_le_bytes());
        body.extend_from_slice(&u32::try_from(bytes.len()).expect("a statement fits an envelope").to_le_bytes());
        body.extend_from_slice(&bytes);
    }
    body
}

/// The statements of a membership body. Certificates in them are verified against the issuers that they name.
///
/// # Errors
/// When the body is malformed; then none of it counts.
pub fn decode_statements(body: &[u8]) -> Result<Vec<Statement>, StatementsMalformed> {
    let (format, mut rest) = body.split_first().ok_or(StatementsMalformed::Statement { index: 0 })?;
    if *format != FORMAT {
        return Err(StatementsMalformed::NewerFormat { format: *format });
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(StatementsMalformed::TooMany);
    }
    let mut statements = Vec::new();
    while !rest.is_empty() {
        let index = statements.len();
        if index == STATEMENTS_PER_BODY_MAX {
            return Err(StatementsMalformed::TooMany);
        }
        let (statement, behind) = next_statement(rest).ok_or(StatementsMalformed::Statement { index })?;
        statements.push(statement);
        rest = behind;
    }
    Ok(statements)
}

fn next_statement(bytes: &[u8]) -> Option<(Statement, &[u8])> {
    let (tag, rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    Some((Statement::parse(u16::from_le_bytes(*tag), bytes)?, rest))
}
