//! Who belongs to a library, given all certificates and removals: a function of the two sets, so that the order in
//! which they arrived can make no difference.
//!
//! - A device **stands** when a chain of certificates leads from the root to it through owners. The shortest chain
//!   counts, and of several certificates by issuers of one rank the one with the greatest serial.
//! - A removal counts when it was made by a device that stands as an owner (or by the device itself) in an envelope
//!   that counts. Removals are weighed from the root outwards: of two owners that remove each other, the one nearer
//!   to the root wins, then the one with the lesser id.
//! - A certificate issued by a removed device counts only if every removal of that device keeps its subject.

use std::collections::{BTreeMap, BTreeSet};

use super::statement::Removal;
use crate::certificate::{AuthorCertificate, DeviceCertificate, Issuer, Role};
use crate::id::{AuthorId, DeviceId};

/// For each device and issuer the certificate with the greatest serial.
pub(super) type Certificates = BTreeMap<(DeviceId, Issuer), DeviceCertificate>;
/// The certificates of authors.
pub(super) type Authors = BTreeMap<AuthorId, AuthorCertificate>;
/// Removals by the author that made them and the number of the envelope.
pub(super) type Removals = BTreeSet<(AuthorId, u64, Removal)>;

/// A device that a chain of certificates leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Certificates between the root and the device.
    rank: u32,
    /// The last certificate of the chain.
    pub(super) certificate: DeviceCertificate,
}

/// What the valid removals of one device say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removed {
    keep: BTreeSet<DeviceId>,
    logs: BTreeMap<AuthorId, u64>,
}

impl Removed {
    fn new(removal: &Removal) -> Self {
        Self { keep: removal.keep.iter().copied().collect(), logs: removal.logs.iter().copied().collect() }
    }

    fn merge(&mut self, removal: &Removal) {
        self.keep = removal.keep.iter().filter(|device| self.keep.contains(device)).copied().collect();
        for (author, length) in &removal.logs {
            let known = self.logs.entry(*author).or_default();
            *known = (*known).max(*length);
        }
    }

    /// Whether a certificate that the removed device issued for `device` still counts.
    pub(super) fn keeps(&self, device: &DeviceId) -> bool {
        self.keep.contains(device)
    }

    /// How many envelopes of `author` count.
    pub(super) fn length(&self, author: &AuthorId) -> u64 {
        self.logs.get(author).copied().unwrap_or(0)
    }
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Every device that stands, removed ones included: they certified others.
    pub(super) standing: BTreeMap<DeviceId, Standing>,
    /// The devices that were removed.
    pub(super) removed: BTreeMap<DeviceId, Removed>,
}

/// Weighs everything that was said.
pub(super) fn resolve(certificates: &Certificates, authors: &Authors, removals: &Removals) -> Resolved {
    let mut resolved = Resolved { standing: stand(certificates, &BTreeMap::new()), removed: BTreeMap::new() };
    let mut pending: Vec<(u32, DeviceId, &(AuthorId, u64, Removal))> = removals
        .iter()
        .filter_map(|said| {
            let remover = authors.get(&said.0)?.device();
            Some((resolved.standing.get(&remover)?.rank, remover, said))
        })
        .collect();
    pending.sort();
    for (_, remover, (author, seq, removal)) in pending {
        let voided = resolved.removed.get(&remover).is_some_and(|removed| *seq >= removed.length(author));
        let may = |standing: &Standing| standing.certificate.role() == Role::Owner || remover == removal.device;
        if voided || !resolved.standing.get(&remover).is_some_and(may) {
            continue;
        }
        let removed = resolved
            .removed
            .entry(removal.device)
            .and_modify(|removed| removed.merge(removal))
            .or_insert_with(|| Removed::new(removal));
        let is_void = |certificate: &DeviceCertificate| {
            certificate.issuer() == Issuer::Device(removal.device) && !removed.keeps(&certificate.device())
        };
        // What a device that may not issue them has issued counts for nothing before and after.
        if resolved.standing.values().any(|standing| is_void(&standing.certificate)) {
            resolved.standing = stand(certificates, &resolved.removed);
        }
    }
    resolved
}

/// The devices that chains of certificates lead to, rank by rank.
fn stand(certificates: &Certificates, removed: &BTreeMap<DeviceId, Removed>) -> BTreeMap<DeviceId, Standing> {
    let mut standing: BTreeMap<DeviceId, Standing> = BTreeMap::new();
    let mut issuers = BTreeSet::from([Issuer::Root]);
    for rank in 1.. {
        let mut reached: BTreeMap<DeviceId, &DeviceCertificate> = BTreeMap::new();
        for ((device, issuer), certificate) in certificates {
            let void = |issuer| removed.get(issuer).is_some_and(|removed| !removed.keeps(device));
            if standing.contains_key(device)
                || !issuers.contains(issuer)
                || matches!(issuer, Issuer::Device(issuer) if void(issuer))
            {
                continue;
            }
            let best = reached.entry(*device).or_insert(certificate);
            if precedence(certificate) > precedence(best) {
                *best = certificate;
            }
        }
        if reached.is_empty() {
            break;
        }
        issuers = reached
            .iter()
            .filter(|(_, certificate)| certificate.role() == Role::Owner)
            .map(|(device, _)| Issuer::Device(*device))
            .collect();
        standing.extend(
            reached
                .into_iter()
                .map(|(device, certificate)| (device, Standing { rank, certificate: certificate.clone() })),
        );
    }
    standing
}

/// Which of two certificates for one device counts: the greater.
pub(super) fn precedence(certificate: &DeviceCertificate) -> (u32, &[u8]) {
    (certificate.grant().serial, certificate.wire())
}
