//! How much a registry keeps. What one member says too much of takes no room from others: see the head of the module.

use std::collections::BTreeMap;

use super::{Registry, StatementRefused};
use crate::certificate::{DeviceCertificate, Issuer, Role};
use crate::id::{AuthorId, DeviceId};
use crate::limits::{PEERS_MAX, VECTOR_AUTHORS_MAX};
use crate::membership::statement::Removal;

/// Certificates that are kept at most, those that do not count included.
const CERTIFICATES_MAX: usize = 4 * PEERS_MAX;
/// Removals that are kept at most.
const REMOVALS_MAX: usize = 2 * PEERS_MAX;
/// Authors that may write in one device's name: one more after each restore.
const AUTHORS_PER_DEVICE_MAX: usize = VECTOR_AUTHORS_MAX / 4;
/// Devices, authors and recipients that one author may speak of, in each kind of statement.
const SUBJECTS_PER_AUTHOR_MAX: usize = 2 * PEERS_MAX;

impl Registry {
    /// Refuses an author that is one too many, for the library or for its device.
    pub(super) fn bound_authors(&self, author: &AuthorId, device: &DeviceId) -> Result<(), StatementRefused> {
        if self.authors.contains_key(author) {
            return Ok(());
        }
        if self.authors.len() >= VECTOR_AUTHORS_MAX {
            return Err(StatementRefused::TooMany { what: "authors" });
        }
        if self.authors_of(device).count() >= AUTHORS_PER_DEVICE_MAX {
            return Err(StatementRefused::TooMany { what: "authors of one device" });
        }
        Ok(())
    }

    /// Refuses what `author` says of one subject more than it may speak of.
    pub(super) fn bound_subjects<S: Copy + Ord, T>(
        &self,
        said: &BTreeMap<(S, AuthorId), T>,
        author: &AuthorId,
        subject: &S,
        what: &'static str,
    ) -> Result<(), StatementRefused> {
        let is_new = !said.contains_key(&(*subject, *author));
        if is_new && said.keys().filter(|(_, by)| by == author).count() >= SUBJECTS_PER_AUTHOR_MAX {
            return Err(StatementRefused::TooMany { what });
        }
        Ok(())
    }

    /// Room for one more certificate, if need be that of one that makes nobody a member.
    pub(super) fn make_room_for(&mut self, certificate: &DeviceCertificate) -> Result<(), StatementRefused> {
        if self.certificates.len() < CERTIFICATES_MAX {
            return Ok(());
        }
        let counts = |issuer: &Issuer| match issuer {
            Issuer::Root => true,
            Issuer::Device(device) => self.role_standing(device) == Some(Role::Owner),
        };
        let useless = self.certificates.keys().rfind(|(_, issuer)| !counts(issuer)).copied();
        let gives_way = useless.filter(|_| counts(&certificate.issuer()));
        let made = gives_way.and_then(|key| self.certificates.remove(&key));
        made.map(|_| ()).ok_or(StatementRefused::TooMany { what: "devices" })
    }

    /// Room for one more removal by `author`; an owner's may have that of one that removes nobody, or of a device's second
    /// farewell.
    pub(super) fn make_room_for_removal_by(&mut self, author: &AuthorId) -> Result<(), StatementRefused> {
        const REFUSED: StatementRefused = StatementRefused::TooMany { what: "removals" };
        if self.removals.len() < REMOVALS_MAX {
            return Ok(());
        }
        if !self.is_owner_author(author) {
            return Err(REFUSED);
        }
        let is_farewell =
            |(author, _, removal): &(AuthorId, u64, Removal)| self.device_of(author) == Some(removal.device);
        let is_useless = |said: &&(AuthorId, u64, Removal)| {
            let twice = |other: &(AuthorId, u64, Removal)| {
                other != *said && is_farewell(other) && other.2.device == said.2.device
            };
            !self.is_owner_author(&said.0) && (!is_farewell(said) || self.removals.iter().any(twice))
        };
        let useless = self.removals.iter().rfind(is_useless).cloned().ok_or(REFUSED)?;
        self.removals.remove(&useless);
        Ok(())
    }
}
