//! What the two sides say to each other, and the joining device's half.

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::invitation::InvitationId;
use super::ticket::{Ticket, are_bounded};
use crate::certificate::{DeviceCertificate, Issuer, device_name, is_device_name};
use crate::codec::{self, DecodeError};
use crate::id::DeviceId;
use crate::keys::{DeviceKey, ExchangePublic};
use crate::secrets::{LibrarySecrets, SEALED_SECRETS_BYTES_MAX, SecretsRefused};

/// Bytes of a join request at most.
pub const JOIN_REQUEST_BYTES_MAX: usize = 1 << 10;
/// Bytes of the answer at most.
pub const JOIN_ANSWER_BYTES_MAX: usize = SEALED_SECRETS_BYTES_MAX + (8 << 10);

const FORMAT: u8 = 1;

/// A proof of knowing the ticket's secret.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Proof([u8; 32]);

impl PartialEq for Proof {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Proof {}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

impl Proof {
    fn new(pairing_key: &[u8; 32], purpose: &'static str, transcript: &[u8]) -> Self {
        let key = zeroize::Zeroizing::new(blake3::derive_key(purpose, pairing_key));
        Self(*blake3::keyed_hash(&key, transcript).as_bytes())
    }
}

/// Asks to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    format: u8,
    invitation: InvitationId,
    device: DeviceId,
    exchange: ExchangePublic,
    name: String,
    proof: Proof,
}

/// Bytes that are no join request or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinMalformed {
    /// Too many, too few, or not of this form.
    #[error("the bytes are no pairing message: {0}")]
    Bytes(#[from] DecodeError),
    /// A format that this version does not know.
    #[error("the other device speaks a newer version of pairing; update Holdfast on both")]
    NewerFormat,
    /// A name or an address that is out of bounds.
    #[error("the pairing message names a device or an address that is too long or malformed")]
    OutOfBounds,
}

impl JoinRequest {
    /// The request of the device `key`, called `name` (made fit by [`device_name`]).
    #[must_use]
    pub fn new(ticket: &Ticket, key: &DeviceKey, name: &str) -> Self {
        let mut request = Self {
            format: FORMAT,
            invitation: ticket.invitation(),
            device: key.device_id(),
            exchange: key.exchange().public(),
            name: device_name(name),
            proof: Proof([0; 32]),
        };
        request.proof = request.expected_proof(&ticket.pairing_key(), &ticket.inviter);
        request
    }

    /// The invitation that it answers to; the inviter looks it up by this.
    #[must_use]
    pub const fn invitation(&self) -> InvitationId {
        self.invitation
    }

    /// The device that wants to join. The caller checks that it is the one at the other end.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// What secrets for the device are sealed to.
    #[must_use]
    pub const fn exchange(&self) -> ExchangePublic {
        self.exchange
    }

    /// What the device calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The request that came as `bytes`.
    ///
    /// # Errors
    /// When they are no request.
    pub fn parse(bytes: &[u8]) -> Result<Self, JoinMalformed> {
        if bytes.first().is_some_and(|format| *format != FORMAT) {
            return Err(JoinMalformed::NewerFormat);
        }
        let request: Self = codec::decode(bytes, JOIN_REQUEST_BYTES_MAX)?;
        if is_device_name(&request.name) { Ok(request) } else { Err(JoinMalformed::OutOfBounds) }
    }

    pub(super) fn is_proven(&self, pairing_key: &[u8; 32], inviter: &DeviceId) -> bool {
        self.proof == self.expected_proof(pairing_key, inviter)
    }

    fn expected_proof(&self, pairing_key: &[u8; 32], inviter: &DeviceId) -> Proof {
        let fields = (inviter, &self.invitation, &self.device, &self.exchange, &self.name);
        Proof::new(pairing_key, "holdfast 1 join request proof", &codec::encode(&fields))
    }
}

/// Lets a device in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    certificate: DeviceCertificate,
    #[serde(with = "codec::bytes")]
    sealed_secrets: Vec<u8>,
    addresses: Vec<String>,
    proof: Proof,
}

impl Admission {
    pub(super) fn new(
        pairing_key: &[u8; 32],
        request: &JoinRequest,
        certificate: DeviceCertificate,
        sealed_secrets: Vec<u8>,
        addresses: Vec<String>,
    ) -> Self {
        let mut admission = Self { certificate, sealed_secrets, addresses, proof: Proof([0; 32]) };
        admission.proof = admission.expected_proof(pairing_key, request);
        admission
    }

    /// The new device's certificate; the inviter states it in its log.
    #[must_use]
    pub const fn certificate(&self) -> &DeviceCertificate {
        &self.certificate
    }

    fn expected_proof(&self, pairing_key: &[u8; 32], request: &JoinRequest) -> Proof {
        let sealed = blake3::hash(&self.sealed_secrets);
        let fields = (request, &self.certificate, sealed.as_bytes(), &self.addresses);
        Proof::new(pairing_key, "holdfast 1 admission proof", &codec::encode(&fields))
    }
}

/// Why the inviter lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefused {
    /// There is no such invitation, or the proof is wrong.
    #[error("this ticket belongs to no open invitation; run `holdfast invite` again and use the new ticket")]
    WrongTicket,
    /// Its time is over.
    #[error("this ticket has expired; run `holdfast invite` again and use the new ticket")]
    Expired,
    /// Another device joined with it.
    #[error(
        "this ticket was already used by another device; if that was not yours, remove that device, then invite again"
    )]
    Used,
    /// Too many wrong proofs.
    #[error("this ticket was tried too often with wrong proofs and is closed; run `holdfast invite` again")]
    TooManyAttempts,
    /// The device was removed from the library before.
    #[error(
        "this device was removed from the library and cannot come back under its old identity; start with an empty home and join again"
    )]
    Removed,
    /// The inviter may have been restored from a backup, and has still to compare its log with other devices.
    #[error(
        "the inviting device has just started and still compares what it knows with the others; try again in a few seconds"
    )]
    NotYet,
}

/// What the inviter sends back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAnswer {
    /// Come in.
    Admitted(Box<Admission>),
    /// Stay out.
    Refused(JoinRefused),
}

impl JoinAnswer {
    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        match self {
            Self::Admitted(admission) => bytes.append(&mut codec::encode(&Ok::<_, JoinRefused>(admission))),
            Self::Refused(refused) => bytes.append(&mut codec::encode(&Err::<Box<Admission>, _>(refused))),
        }
        bytes
    }

    /// The answer that came as `bytes`.
    ///
    /// # Errors
    /// When they are no answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, JoinMalformed> {
        let (format, encoded) = bytes.split_first().ok_or(DecodeError::Malformed { length: 0 })?;
        if *format != FORMAT {
            return Err(JoinMalformed::NewerFormat);
        }
        match codec::decode::<Result<Box<Admission>, JoinRefused>>(encoded, JOIN_ANSWER_BYTES_MAX)? {
            Ok(admission) if !are_bounded(&admission.addresses) => Err(JoinMalformed::OutOfBounds),
            Ok(admission) => Ok(Self::Admitted(admission)),
            Err(refused) => Ok(Self::Refused(refused)),
        }
    }
}

/// What a device that joined has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its certificate.
    pub certificate: DeviceCertificate,
    /// The library's secrets.
    pub secrets: LibrarySecrets,
    /// Where members can be reached. Strangers' text: addresses to try, no more.
    pub addresses: Vec<String>,
}

/// Why an admission was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionRefused {
    /// Not from someone who knows the ticket, or not to this request.
    #[error("the answer does not come from the device that made the ticket; check the connection and try again")]
    Proof,
    /// A certificate for another device, library or key, or by another issuer.
    #[error("the answer certifies something else than was asked for; update Holdfast on both devices and invite again")]
    Certificate,
    /// The secrets cannot be opened.
    #[error(transparent)]
    Secrets(#[from] SecretsRefused),
}

impl Ticket {
    pub(super) fn pairing_key(&self) -> zeroize::Zeroizing<[u8; 32]> {
        pairing_key(&self.secret)
    }

    /// Checks the answer to `request` and takes what it gives. Which library that is the certificate says: the device
    /// that the ticket names signed it, and nobody who does not know the ticket's secret made the answer.
    ///
    /// # Errors
    /// When it does not come from the inviter or does not fit the request.
    pub fn accept(
        &self,
        key: &DeviceKey,
        request: &JoinRequest,
        admission: &Admission,
    ) -> Result<Joined, AdmissionRefused> {
        if admission.proof != admission.expected_proof(&self.pairing_key(), request) {
            return Err(AdmissionRefused::Proof);
        }
        let certificate = &admission.certificate;
        let exchange = key.exchange();
        let fits = certificate.device() == key.device_id()
            && certificate.exchange() == exchange.public()
            && certificate.issuer() == Issuer::Device(self.inviter);
        if !fits {
            return Err(AdmissionRefused::Certificate);
        }
        let secrets = LibrarySecrets::open_with(&certificate.library(), &exchange, &admission.sealed_secrets)?;
        Ok(Joined { certificate: certificate.clone(), secrets, addresses: admission.addresses.clone() })
    }
}

pub(super) fn pairing_key(secret: &[u8; 16]) -> zeroize::Zeroizing<[u8; 32]> {
    zeroize::Zeroizing::new(blake3::derive_key("holdfast 1 pairing key", secret))
}
