//! The registry of a library: who is a member, who writes which log, which device stands where.
//!
//! Invariants:
//! - the same statements give the same registry, whatever order they came in (within a log, order is kept by the
//!   log itself);
//! - nothing is forgotten: a statement that does not count now may count once others are known, and the other way
//!   round, so every well-formed statement is kept and only the outcome is computed anew;
//! - a certificate never makes its own issuer: without a chain from the root a device is a stranger;
//! - what one member says too much of takes no room from others: each author has a bound of its own, which falls at the
//!   same statement on every node, and where a bound is shared, what does not count gives way to what does.

mod bounds;

use std::collections::BTreeMap;

use super::resolve::{Authors, Certificates, Removals, Resolved, precedence, resolve};
use super::statement::{KEPT_DEVICES_MAX, Recipient, Removal, Statement};
use crate::certificate::{AuthorCertificate, DeviceCertificate, Issuer, Role};
use crate::id::{AuthorId, DeviceId, LibraryId, PlaceId};
use crate::secrets::EpochId;

/// The number under which a statement counts that stands in no log that is kept: no ending lets it count.
pub const SEQ_CARRIED: u64 = u64::MAX;

/// The registry of one library; see the head of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    library: LibraryId,
    certificates: Certificates,
    authors: Authors,
    removals: Removals,
    /// For each device and author the statement with the greatest revision.
    places: BTreeMap<(DeviceId, AuthorId), PlaceSaid>,
    /// Where logs have forked.
    forks: BTreeMap<AuthorId, u64>,
    /// For each recipient and author the greatest epoch.
    keys: BTreeMap<(Recipient, AuthorId), KeysSaid>,
    resolved: Resolved,
}

/// Ordered by revision first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PlaceSaid {
    revision: u32,
    place: PlaceId,
    label: Vec<u8>,
    seq: u64,
}

/// Ordered by epoch first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct KeysSaid {
    epoch: EpochId,
    sealed: Vec<u8>,
    seq: u64,
}

/// What became different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryChange {
    /// A device became a member.
    Joined(DeviceId),
    /// A device is a member no more.
    Removed(DeviceId),
    /// A member's name, role or certificate changed.
    Certified(DeviceId),
    /// An author writes in a device's name.
    Introduced {
        /// The author.
        author: AuthorId,
        /// The device.
        device: DeviceId,
    },
    /// Only the first `length` envelopes of an author count.
    Ended {
        /// The author.
        author: AuthorId,
        /// How many count.
        length: u64,
    },
    /// A device's place changed.
    Moved(DeviceId),
    /// There may be new keys for a recipient; see [`Registry::keys_for`].
    KeysOffered(Recipient),
}

/// Why a statement was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementRefused {
    /// It is about another library.
    #[error("the statement is about library {}", .library.short())]
    OtherLibrary {
        /// The library it names.
        library: LibraryId,
    },
    /// Its author has not introduced itself.
    #[error("author {} has not introduced itself; its log must start with its certificates", .author.short())]
    NotIntroduced {
        /// The author.
        author: AuthorId,
    },
    /// An introduction of someone else, or one whose two certificates name different devices.
    #[error("author {} introduces itself with certificates that are not its own", .author.short())]
    NotItself {
        /// The author.
        author: AuthorId,
    },
    /// More devices, authors or removals than a library can have.
    #[error("the library has more {what} than it can have; remove devices that are no longer used")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
    },
}

impl Registry {
    /// The registry of a library of which nothing is known.
    #[must_use]
    pub fn new(library: LibraryId) -> Self {
        Self {
            library,
            certificates: BTreeMap::new(),
            authors: BTreeMap::new(),
            removals: Removals::new(),
            places: BTreeMap::new(),
            forks: BTreeMap::new(),
            keys: BTreeMap::new(),
            resolved: Resolved::default(),
        }
    }

    /// Takes in a statement from envelope `seq` of `author`, and returns what became different, in order. Taking in
    /// the same statement again changes nothing.
    ///
    /// # Errors
    /// When the statement is of another library, comes before its author's introduction or exceeds what a library
    /// can have; then nothing is different. A statement that its author had no right to make is no error: it is
    /// kept and does not count.
    pub fn apply(
        &mut self,
        author: &AuthorId,
        seq: u64,
        statement: &Statement,
    ) -> Result<Vec<RegistryChange>, StatementRefused> {
        if let Statement::Introduce { device, author: certificate } = statement {
            return self.introduce(author, device, certificate);
        }
        if !self.authors.contains_key(author) {
            return Err(StatementRefused::NotIntroduced { author: *author });
        }
        match statement {
            Statement::Introduce { .. } | Statement::Unknown { .. } => Ok(Vec::new()),
            Statement::Admit(certificate) => self.certify(certificate),
            Statement::Remove(removal) => self.remove(author, seq, removal),
            Statement::Keys { epoch, recipient, sealed } => {
                self.bound_subjects(&self.keys, author, recipient, "recipients of keys")?;
                let said = KeysSaid { epoch: *epoch, sealed: sealed.clone(), seq };
                let new = keep_greatest(&mut self.keys, (*recipient, *author), said);
                Ok(new.then_some(RegistryChange::KeysOffered(*recipient)).into_iter().collect())
            }
            Statement::Place { device, place, revision, label } => {
                self.bound_subjects(&self.places, author, device, "places")?;
                let before = self.place_said(device).cloned();
                let said = PlaceSaid { revision: *revision, place: *place, label: label.clone(), seq };
                keep_greatest(&mut self.places, (*device, *author), said);
                let moved = self.place_said(device) != before.as_ref();
                Ok(moved.then_some(RegistryChange::Moved(*device)).into_iter().collect())
            }
        }
    }

    fn introduce(
        &mut self,
        author: &AuthorId,
        device: &DeviceCertificate,
        certificate: &AuthorCertificate,
    ) -> Result<Vec<RegistryChange>, StatementRefused> {
        if certificate.library() != self.library {
            return Err(StatementRefused::OtherLibrary { library: certificate.library() });
        }
        if certificate.author() != *author || certificate.device() != device.device() {
            return Err(StatementRefused::NotItself { author: *author });
        }
        self.bound_authors(author, &certificate.device())?;
        // An author that certified for two devices belongs to the lesser; the order of arrival must not decide.
        let wins = self.authors.get(author).is_none_or(|known| certificate < known);
        let mut changes = self.certify(device)?;
        if wins {
            self.authors.insert(*author, certificate.clone());
            changes.push(RegistryChange::Introduced { author: *author, device: certificate.device() });
            changes.append(&mut self.resolve_again());
        }
        Ok(changes)
    }

    fn certify(&mut self, certificate: &DeviceCertificate) -> Result<Vec<RegistryChange>, StatementRefused> {
        if certificate.library() != self.library {
            return Err(StatementRefused::OtherLibrary { library: certificate.library() });
        }
        let key = (certificate.device(), certificate.issuer());
        let known = self.certificates.get(&key);
        if known.is_some_and(|known| precedence(known) >= precedence(certificate)) {
            return Ok(Vec::new());
        }
        if known.is_none() {
            self.make_room_for(certificate)?;
        }
        self.certificates.insert(key, certificate.clone());
        Ok(self.resolve_again())
    }

    fn remove(
        &mut self,
        author: &AuthorId,
        seq: u64,
        removal: &Removal,
    ) -> Result<Vec<RegistryChange>, StatementRefused> {
        self.make_room_for_removal_by(author)?;
        let new = self.removals.insert((*author, seq, removal.clone()));
        Ok(if new { self.resolve_again() } else { Vec::new() })
    }

    /// Computes the outcome anew and says what is different.
    fn resolve_again(&mut self) -> Vec<RegistryChange> {
        let members = |registry: &Self| -> BTreeMap<DeviceId, DeviceCertificate> {
            registry.members().map(|certificate| (certificate.device(), certificate.clone())).collect()
        };
        let lengths = |registry: &Self| -> BTreeMap<AuthorId, Option<u64>> {
            registry.authors.keys().map(|author| (*author, registry.length_of(author))).collect()
        };
        let (members_before, lengths_before) = (members(self), lengths(self));
        self.resolved = resolve(&self.certificates, &self.authors, &self.removals);
        let (members_after, lengths_after) = (members(self), lengths(self));

        let mut changes = Vec::new();
        for device in members_before.keys().filter(|device| !members_after.contains_key(device)) {
            changes.push(RegistryChange::Removed(*device));
        }
        for (device, certificate) in &members_after {
            match members_before.get(device) {
                None => changes.push(RegistryChange::Joined(*device)),
                Some(before) if before != certificate => changes.push(RegistryChange::Certified(*device)),
                Some(_) => {}
            }
        }
        for (author, length) in lengths_after {
            if let Some(length) = length
                && lengths_before.get(&author).copied().flatten() != Some(length)
            {
                changes.push(RegistryChange::Ended { author, length });
            }
        }
        changes
    }

    /// Notes that the log of `author` has forked behind its first `length` envelopes: no more of them count.
    pub fn fork(&mut self, author: &AuthorId, length: u64) -> Vec<RegistryChange> {
        let before = self.length_of(author);
        let known = self.forks.entry(*author).or_insert(length);
        *known = (*known).min(length);
        let ended = self.length_of(author).filter(|after| before != Some(*after));
        ended.map(|length| RegistryChange::Ended { author: *author, length }).into_iter().collect()
    }

    /// The library.
    #[must_use]
    pub const fn library(&self) -> LibraryId {
        self.library
    }

    /// The certificates of all members, by device.
    pub fn members(&self) -> impl Iterator<Item = &DeviceCertificate> + '_ {
        self.resolved
            .standing
            .iter()
            .filter(|(device, _)| !self.resolved.removed.contains_key(device))
            .map(|(_, standing)| &standing.certificate)
    }

    /// The certificate of a member.
    #[must_use]
    pub fn certificate(&self, device: &DeviceId) -> Option<&DeviceCertificate> {
        let member = !self.resolved.removed.contains_key(device);
        self.resolved.standing.get(device).filter(|_| member).map(|standing| &standing.certificate)
    }

    /// Whether a device is a member now.
    #[must_use]
    pub fn is_member(&self, device: &DeviceId) -> bool {
        self.certificate(device).is_some()
    }

    /// Whether a device was removed. It can come back only under another id.
    #[must_use]
    pub fn is_removed(&self, device: &DeviceId) -> bool {
        self.resolved.removed.contains_key(device)
    }

    /// Whether a device that presents `certificate` is a member or would be one if the certificate were known: the
    /// answer to a device that has just been invited by someone else.
    #[must_use]
    pub fn vouches(&self, certificate: &DeviceCertificate) -> bool {
        let device = certificate.device();
        if certificate.library() != self.library || self.is_removed(&device) {
            return false;
        }
        self.is_member(&device)
            || match certificate.issuer() {
                Issuer::Root => true,
                Issuer::Device(issuer) => {
                    let owner = |issuer| self.role_standing(issuer) == Some(Role::Owner);
                    let void =
                        |issuer| self.resolved.removed.get(issuer).is_some_and(|removed| !removed.keeps(&device));
                    owner(&issuer) && !void(&issuer)
                }
            }
    }

    /// What a member may do.
    #[must_use]
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.certificate(device).map(DeviceCertificate::role)
    }

    /// What people call a device; also for one that was removed.
    #[must_use]
    pub fn name(&self, device: &DeviceId) -> Option<&str> {
        self.resolved.standing.get(device).map(|standing| standing.certificate.name())
    }

    /// What people call a device, told apart from others that are called the same: `vm`, `vm 2`, in the order in which they
    /// came into the library.
    #[must_use]
    pub fn distinct_name(&self, device: &DeviceId) -> Option<String> {
        let order = |certificate: &DeviceCertificate| (certificate.grant().issued, certificate.device());
        let own = &self.resolved.standing.get(device)?.certificate;
        let others = self.resolved.standing.values().map(|standing| &standing.certificate);
        let earlier = others.filter(|other| other.name() == own.name() && order(other) < order(own)).count();
        Some(if earlier == 0 { own.name().to_owned() } else { format!("{} {}", own.name(), earlier + 1) })
    }

    /// The device in whose name an author writes, whether or not it is a member.
    #[must_use]
    pub fn device_of(&self, author: &AuthorId) -> Option<DeviceId> {
        self.authors.get(author).map(AuthorCertificate::device)
    }

    /// The authors that write in a device's name.
    pub fn authors_of(&self, device: &DeviceId) -> impl Iterator<Item = AuthorId> + '_ {
        let device = *device;
        self.authors.iter().filter(move |(_, certificate)| certificate.device() == device).map(|(author, _)| *author)
    }

    /// How many envelopes of `author` count, if it has ended: its device was removed, or its log forked.
    #[must_use]
    pub fn length_of(&self, author: &AuthorId) -> Option<u64> {
        let device = self.device_of(author)?;
        let removed = self.resolved.removed.get(&device).map(|removed| removed.length(author));
        removed.into_iter().chain(self.forks.get(author).copied()).min()
    }

    /// The authors that have ended, and how many envelopes of each count.
    pub fn endings(&self) -> impl Iterator<Item = (AuthorId, u64)> + '_ {
        self.authors.keys().filter_map(|author| Some((*author, self.length_of(author)?)))
    }

    /// Whether what envelope `seq` of `author` says counts: its device stands (or did until it was removed) and the
    /// author had not ended before.
    #[must_use]
    pub fn counts(&self, author: &AuthorId, seq: u64) -> bool {
        let stands = self.device_of(author).is_some_and(|device| self.resolved.standing.contains_key(&device));
        stands && self.length_of(author).is_none_or(|length| seq < length)
    }

    /// Where a member stands.
    #[must_use]
    pub fn place_of(&self, device: &DeviceId) -> Option<PlaceId> {
        self.place_said(device).filter(|_| self.is_member(device)).map(|said| said.place)
    }

    /// The sealed label of the place where a member stands.
    #[must_use]
    pub fn place_label(&self, device: &DeviceId) -> Option<&[u8]> {
        self.place_said(device).filter(|_| self.is_member(device)).map(|said| said.label.as_slice())
    }

    /// The revision for the next [`Statement::Place`] about a device.
    #[must_use]
    pub fn next_place_revision(&self, device: &DeviceId) -> u32 {
        self.place_said(device).map_or(0, |said| said.revision.saturating_add(1))
    }

    fn place_said(&self, device: &DeviceId) -> Option<&PlaceSaid> {
        self.places
            .range((*device, AuthorId::from_bytes([0; 32]))..=(*device, AuthorId::from_bytes([0xff; 32])))
            .filter(|((_, author), said)| {
                let writer = self.device_of(author);
                let may = writer == Some(*device) || self.is_owner_author(author);
                may && self.counts(author, said.seq)
            })
            .map(|(_, said)| said)
            .max()
    }

    /// Sealed secrets for a recipient, by owners, the greatest epoch first. Look again after
    /// [`RegistryChange::KeysOffered`], and after the one who offers has become an owner.
    #[must_use]
    pub fn keys_for(&self, recipient: Recipient) -> Vec<(EpochId, &[u8])> {
        let mut offers: Vec<&KeysSaid> = self
            .keys
            .range((recipient, AuthorId::from_bytes([0; 32]))..=(recipient, AuthorId::from_bytes([0xff; 32])))
            .filter(|((_, author), said)| self.is_owner_author(author) && self.counts(author, said.seq))
            .map(|(_, said)| said)
            .collect();
        offers.sort_by(|a, b| b.cmp(a));
        offers.into_iter().map(|said| (said.epoch, said.sealed.as_slice())).collect()
    }

    /// The certificates between the root and a member, the member's own first: enough for anyone who knows the
    /// library's id to verify it.
    #[must_use]
    pub fn chain(&self, device: &DeviceId) -> Vec<DeviceCertificate> {
        let mut chain = Vec::new();
        let mut next = Some(*device);
        while let Some(standing) = next.and_then(|device| self.resolved.standing.get(&device)) {
            chain.push(standing.certificate.clone());
            next = match standing.certificate.issuer() {
                Issuer::Root => None,
                Issuer::Device(issuer) => Some(issuer),
            };
        }
        chain
    }

    /// What was carried on of removals that authors of `device` said of others: it counts no more once the device itself is
    /// removed, unless who removes it says so too.
    pub fn carried_removals_by(&self, device: &DeviceId) -> impl Iterator<Item = &Removal> + '_ {
        let device = *device;
        let is_carried = move |(author, seq, removal): &&(AuthorId, u64, Removal)| {
            *seq == SEQ_CARRIED && self.device_of(author) == Some(device) && removal.device != device
        };
        let carried = self.removals.iter().filter(is_carried).map(|(_, _, removal)| removal);
        carried.filter(|removal| self.is_removed(&removal.device))
    }

    /// The removal of `device` that keeps everything it has done so far: the devices that it certified, and the
    /// envelopes of its logs, of which `length` says how many are known.
    #[must_use]
    pub fn removal(&self, device: DeviceId, length: impl Fn(&AuthorId) -> u64) -> Removal {
        let issued = |certificate: &DeviceCertificate| certificate.issuer() == Issuer::Device(device);
        let standing = &self.resolved.standing;
        Removal {
            device,
            keep: standing
                .iter()
                .filter(|(_, standing)| issued(&standing.certificate))
                .map(|(device, _)| *device)
                .take(KEPT_DEVICES_MAX)
                .collect(),
            logs: self.authors_of(&device).map(|author| (author, length(&author))).collect(),
        }
    }

    fn role_standing(&self, device: &DeviceId) -> Option<Role> {
        self.resolved.standing.get(device).map(|standing| standing.certificate.role())
    }

    fn is_owner_author(&self, author: &AuthorId) -> bool {
        self.device_of(author).and_then(|device| self.role_standing(&device)) == Some(Role::Owner)
    }
}

/// Puts `value` unless a greater one is there; returns whether it is new.
fn keep_greatest<K: Ord, V: Ord>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    match map.get(&key) {
        Some(known) if *known >= value => false,
        _ => {
            map.insert(key, value);
            true
        }
    }
}
