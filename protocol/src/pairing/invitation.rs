//! The inviter's half: an invitation that outlives restarts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::join::{Admission, JoinRefused, JoinRequest, pairing_key};
use super::ticket::{Ticket, usable_addresses};
use crate::certificate::{DeviceCertificate, DeviceGrant, Role};
use crate::codec::{self, DecodeError};
use crate::id::DeviceId;
use crate::keys::DeviceKey;
use crate::secrets::LibrarySecrets;
use crate::time::WallTime;

/// Wrong proofs after which an invitation is closed.
pub const FAILED_ATTEMPTS_MAX: u8 = 5;
/// Bytes of a stored invitation at most.
pub const INVITATION_BYTES_MAX: usize = 4 << 10;

const FORMAT: u8 = 1;

/// Names an invitation: a hash of its ticket's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvitationId([u8; 16]);

impl InvitationId {
    pub(super) fn of(secret: &[u8; 16]) -> Self {
        let hash = blake3::derive_key("holdfast 1 invitation id", secret);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }

    /// The 16 bytes: the key to store the invitation under.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// An invitation as its maker stores it: what the ticket's secret makes, not the secret, so that the ticket cannot
/// be shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Invitation {
    format: u8,
    #[zeroize(skip)]
    id: InvitationId,
    pairing_key: [u8; 32],
    #[zeroize(skip)]
    role: Role,
    #[zeroize(skip)]
    expires: WallTime,
    failed_attempts: u8,
    #[zeroize(skip)]
    admitted: Option<(DeviceId, DeviceCertificate)>,
}

/// Who lets devices in: an owner's device.
#[derive(Debug)]
pub struct Inviter<'a> {
    /// Its key; it signs the certificate.
    pub key: &'a DeviceKey,
    /// What the new device is given.
    pub secrets: &'a LibrarySecrets,
    /// Where the new device can reach members; what does not fit is left out.
    pub addresses: &'a [String],
}

impl Invitation {
    /// An invitation for one device that can be used until `ttl` after `now`, and its ticket. `seed` is 32 random
    /// bytes, never used before.
    #[must_use]
    pub fn create(inviter: &Inviter<'_>, role: Role, seed: &[u8; 32], now: WallTime, ttl: Duration) -> (Self, Ticket) {
        let mut secret = [0; 16];
        secret.copy_from_slice(&blake3::derive_key("holdfast 1 ticket secret", seed)[..16]);
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let expires = WallTime(now.0.saturating_add(ttl_ms));
        let ticket = Ticket::new(inviter.key.device_id(), secret, inviter.addresses);
        let invitation = Self {
            format: FORMAT,
            id: InvitationId::of(&secret),
            pairing_key: *pairing_key(&secret),
            role,
            expires,
            failed_attempts: 0,
            admitted: None,
        };
        secret.zeroize();
        (invitation, ticket)
    }

    /// What a request names it by.
    #[must_use]
    pub const fn id(&self) -> InvitationId {
        self.id
    }

    /// Until when it can be used, by this device's clock.
    #[must_use]
    pub const fn expires(&self) -> WallTime {
        self.expires
    }

    /// The device that used it.
    #[must_use]
    pub fn admitted(&self) -> Option<DeviceId> {
        self.admitted.as_ref().map(|(device, _)| *device)
    }

    /// Lets the requesting device in, or says why not. The invitation changes either way: it is stored before the
    /// answer is sent. `seed` is 32 random bytes, never used before.
    ///
    /// The caller has made sure that the device at the other end is `request.device()` and that it was not removed
    /// from the library. It states the certificate in its log; when the device asks again it is the same one.
    ///
    /// # Errors
    /// When the proof is wrong, or the invitation is over.
    pub fn admit(
        &mut self,
        inviter: &Inviter<'_>,
        request: &JoinRequest,
        seed: &[u8; 32],
        now: WallTime,
    ) -> Result<Admission, JoinRefused> {
        if self.failed_attempts >= FAILED_ATTEMPTS_MAX {
            return Err(JoinRefused::TooManyAttempts);
        }
        let device = inviter.key.device_id();
        if request.invitation() != self.id || !request.is_proven(&self.pairing_key, &device) {
            self.failed_attempts += 1;
            return Err(JoinRefused::WrongTicket);
        }
        let certificate = match &self.admitted {
            Some((admitted, certificate)) if *admitted == request.device() => certificate.clone(),
            Some(_) => return Err(JoinRefused::Used),
            None if now > self.expires => return Err(JoinRefused::Expired),
            None => self.certify(inviter, request, now)?,
        };
        self.admitted = Some((request.device(), certificate.clone()));
        let sealed = inviter.secrets.seal_to(&request.exchange(), seed);
        let addresses = usable_addresses(inviter.addresses);
        Ok(Admission::new(&self.pairing_key, request, certificate, sealed, addresses))
    }

    fn certify(
        &self,
        inviter: &Inviter<'_>,
        request: &JoinRequest,
        now: WallTime,
    ) -> Result<DeviceCertificate, JoinRefused> {
        if request.device() == inviter.key.device_id() {
            return Err(JoinRefused::WrongTicket);
        }
        let grant = DeviceGrant {
            library: inviter.secrets.library(),
            device: request.device(),
            exchange: request.exchange(),
            role: self.role,
            name: request.name().to_owned(),
            serial: 0,
            issued: now,
        };
        Ok(DeviceCertificate::issue_by_device(grant, inviter.key))
    }

    /// The bytes to store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The invitation that [`Invitation::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are no invitation of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let invitation: Self = codec::decode(bytes, INVITATION_BYTES_MAX)?;
        if invitation.format == FORMAT { Ok(invitation) } else { Err(DecodeError::Malformed { length: bytes.len() }) }
    }
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("expires", &self.expires)
            .field("failed_attempts", &self.failed_attempts)
            .field("admitted", &self.admitted())
            .finish_non_exhaustive()
    }
}
