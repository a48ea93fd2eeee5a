//! Devices and places of the library.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::certificate::Role;
use holdfast_protocol::envelope::Kind;
use holdfast_protocol::id::{AuthorId, DeviceId};
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::membership::{Recipient, Statement, encode_statements};
use holdfast_protocol::metadata::{Batch, Metadata, Table};
use holdfast_protocol::pairing::{Admission, Invitation, Inviter, JoinRefused, JoinRequest, Ticket};
use holdfast_protocol::sealing::chunk_id;
use holdfast_protocol::time::{Now, WallTime};

use super::catalogue::MIN_READER;
use super::{Effect, Event, Library, LibraryError};

/// Why a device was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// It does not belong to the library, or not any more.
    #[error("device {} does not belong to this library", .0.short())]
    NotAMember(DeviceId),
    /// A device without the right to invite may remove itself only.
    #[error("this device may not remove others; ask somebody who may invite devices, or remove it there")]
    NotAllowed,
    /// Nobody could invite or remove devices any more.
    #[error("this is the last device that may invite others; let another join that may, and remove this one then")]
    LastOwner,
    /// Logs have still to be compared with other devices.
    #[error(
        "this device has just started and still compares what it knows with the others; try again in a few seconds"
    )]
    Comparing,
    /// The library failed.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

impl<M: Metadata> Library<M> {
    /// Begins this device's log with `first_body`, unless it has begun.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn introduce(&mut self, now: Now, first_body: &[u8]) -> Result<Vec<Effect>, LibraryError> {
        let mut out = Vec::new();
        if self.replica.own_length() == 0 {
            self.say_body(now, first_body.to_vec(), &mut out)?;
        }
        Ok(out)
    }

    /// Says where this device stands, unless that is known.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn set_place(&mut self, now: Now, label: &str) -> Result<Vec<Effect>, LibraryError> {
        let mut out = Vec::new();
        let place = self.secrets.place_id(label);
        let registry = self.replica.registry();
        if registry.place_of(&self.device) != Some(place) {
            let revision = registry.next_place_revision(&self.device);
            let label = self.sealer.seal(label.trim().as_bytes()).bytes;
            let statement = Statement::Place { device: self.device, place, revision, label };
            self.say_body(now, encode_statements(&[statement]), &mut out)?;
        }
        Ok(out)
    }

    /// What people call the place where a device stands.
    #[must_use]
    pub fn place_label(&self, device: &DeviceId) -> Option<String> {
        let sealed = self.replica.registry().place_label(device)?;
        String::from_utf8(self.sealer.open(&chunk_id(sealed), sealed).ok()?).ok()
    }

    /// Whether this device was removed from the library, or has left it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.replica.registry().is_removed(&self.device)
    }

    /// Whether this device may certify others.
    #[must_use]
    pub fn may_invite(&self) -> bool {
        self.replica.registry().role(&self.device) == Some(Role::Owner)
    }

    /// Makes an invitation, durable with the next flush: the ticket that answers it, and until when it may. Whoever joins with it as an
    /// owner may invite others in turn.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn invite(
        &mut self,
        now: Now,
        key: &DeviceKey,
        addresses: &[String],
        seed: &[u8; 32],
        (role, ttl): (Role, Duration),
    ) -> Result<(Ticket, WallTime), LibraryError> {
        let inviter = Inviter { key, secrets: &self.secrets, addresses };
        let (invitation, ticket) = Invitation::create(&inviter, role, seed, now.wall, ttl);
        let mut batch = Batch::new();
        batch.put(Table::Invitation, invitation.id().as_bytes().to_vec(), invitation.to_bytes());
        self.replica.metadata_mut().commit(batch)?;
        Ok((ticket, invitation.expires()))
    }

    /// Answers a request to join. On success the certificate and the sealed keys stand in this device's log, and the
    /// invitation is used up, before the answer is given out; both are durable with the flush that the effects ask for.
    ///
    /// # Errors
    /// When the store cannot be written. A refusal is an answer, not an error.
    pub fn admit(
        &mut self,
        now: Now,
        key: &DeviceKey,
        addresses: &[String],
        request: &JoinRequest,
        seed: &[u8; 32],
    ) -> Result<(Result<Admission, JoinRefused>, Vec<Effect>), LibraryError> {
        let mut out = Vec::new();
        if self.is_comparing(now) {
            return Ok((Err(JoinRefused::NotYet), out));
        }
        let invitation_key = request.invitation().as_bytes().to_vec();
        let stored = self.replica.metadata().get(Table::Invitation, &invitation_key)?;
        let Some(mut invitation) = stored.and_then(|bytes| Invitation::from_bytes(&bytes).ok()) else {
            return Ok((Err(JoinRefused::WrongTicket), out));
        };
        let again = invitation.admitted() == Some(request.device());
        let inviter = Inviter { key, secrets: &self.secrets, addresses };
        let answer = invitation.admit(&inviter, request, seed, now.wall);
        let mut batch = Batch::new();
        batch.put(Table::Invitation, invitation_key, invitation.to_bytes());
        self.replica.metadata_mut().commit(batch)?;
        if let Ok(admission) = &answer
            && !again
        {
            let sealed =
                self.secrets.seal_to(&request.exchange(), &blake3::derive_key("holdfast 1 admission keys", seed));
            let epoch = self.secrets.current_epoch();
            let keys = Statement::Keys { epoch, recipient: Recipient::Device(request.device()), sealed };
            let admit = Statement::Admit(admission.certificate().clone());
            self.say_body(now, encode_statements(&[admit, keys]), &mut out)?;
        }
        self.settle(now, &mut out)?;
        Ok((answer, out))
    }

    /// Removes a device from the library, which may be this one: what it has said so far, as far as it is known here, goes
    /// on counting, as do the devices that it let in. It counts for everybody who hears of it, durable with the flush that
    /// the effects ask for. The library's keys stay what they are: what it could read it can still read, and what is
    /// written from now on it could, if somebody gave it that.
    ///
    /// # Errors
    /// When it may not be removed, or not by this device, or the log cannot be written.
    pub fn remove_device(&mut self, now: Now, device: &DeviceId) -> Result<Vec<Effect>, RemoveError> {
        let registry = self.replica.registry();
        if !registry.is_member(device) || !registry.is_member(&self.device) {
            return Err(RemoveError::NotAMember(*device));
        }
        if *device != self.device && !self.may_invite() {
            return Err(RemoveError::NotAllowed);
        }
        let owners = registry.members().filter(|of| of.role() == Role::Owner).map(|of| of.device());
        if !owners.into_iter().any(|owner| owner != *device) {
            return Err(RemoveError::LastOwner);
        }
        if self.is_comparing(now) {
            return Err(RemoveError::Comparing);
        }
        let mut out = Vec::new();
        let carried: Vec<_> = self.replica.registry().carried_removals_by(device).cloned().collect();
        for removal in carried {
            self.say_body(now, encode_statements(&[Statement::Remove(removal)]), &mut out)?;
        }
        let known: BTreeMap<AuthorId, u64> =
            self.replica.vector().into_iter().map(|point| (point.author, point.length)).collect();
        let own = self.replica.author();
        // A farewell counts itself.
        let length = |author: &AuthorId| known.get(author).map_or(0, |length| length + u64::from(*author == own));
        let removal = self.replica.registry().removal(*device, length);
        self.say_body(now, encode_statements(&[Statement::Remove(removal)]), &mut out)?;
        self.settle(now, &mut out)?;
        Ok(out)
    }

    pub(super) fn say_body(&mut self, now: Now, body: Vec<u8>, out: &mut Vec<Effect>) -> Result<(), LibraryError> {
        let (_, effects) = self.replica.append(now, Kind::Membership, self.bodies.epoch(), MIN_READER, body)?;
        self.pass(effects, out)
    }

    pub(super) fn membership_changed(&mut self, author: AuthorId, out: &mut Vec<Effect>) {
        self.refresh_places();
        // Photos may be read from what it deposited, where nobody vouched for it before.
        self.to_review.insert(author);
        if let Some(device) = self.replica.registry().device_of(&author) {
            out.push(Effect::Event(Event::MembershipChanged { device }));
        }
    }

    /// Counts copies by the places that are confirmed now.
    pub(super) fn refresh_places(&mut self) {
        let registry = self.replica.registry();
        // Members whose inventory is still on its way too: it is counted when it comes, for the place known now.
        let members = registry.members().map(|certificate| certificate.device());
        let known = self.replica.holders().map(|(holder, _)| holder).chain(members);
        for holder in known {
            if registry.is_removed(&holder) {
                self.copies.remove_peer(&holder);
            } else {
                self.copies.set_place(holder, registry.place_of(&holder));
            }
        }
        self.copies.set_place(self.device, registry.place_of(&self.device));
    }
}
