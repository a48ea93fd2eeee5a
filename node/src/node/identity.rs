//! How a home comes to hold a library: founded here, or joined with a ticket.

use std::path::Path;
use std::time::Duration;

use holdfast_disk::SledMetadata;
use holdfast_library::{Founding, Membership};
use holdfast_network::{ChunkSink, ChunkSource, Network, NetworkConfig, PairError, ReadFailure, StartError};
use holdfast_protocol::certificate::{DeviceCertificate, Issuer};
use holdfast_protocol::keys::{AuthorKey, DeviceKey};
use holdfast_protocol::metadata::{Batch, Metadata as _, StorageError};
use holdfast_protocol::pairing::{AdmissionRefused, JoinAnswer, JoinMalformed, JoinRefused, JoinRequest, Ticket};
use holdfast_protocol::recovery::RecoveryPhrase;
use holdfast_protocol::secrets::LibrarySecrets;

use super::network::AddressBook;
use super::{NodeError, seed, wall_time};
use crate::home::{Home, SecretError, Settings};

/// How long a device that joins looks for the inviting one.
const PAIRING_DEADLINE: Duration = Duration::from_secs(40);

/// The place of a device that founds a library and was not told another.
const FIRST_PLACE: &str = "home";

/// A library that is founded but not yet written to the home: show the phrase first, then [`Founded::keep`] it. A crash
/// in between leaves no library whose phrase nobody saw.
pub struct Founded(Founding);

/// A new library with this device as its first owner.
///
/// # Errors
/// When the system gives no randomness.
pub fn found(name: &str) -> Result<Founded, NodeError> {
    Ok(Founded(Founding::new(&zeroize::Zeroizing::new(seed()?), name, wall_time())))
}

impl Founded {
    /// The recovery phrase.
    #[must_use]
    pub const fn phrase(&self) -> &RecoveryPhrase {
        &self.0.phrase
    }

    /// Writes the library's keys to the home, and forgets the phrase.
    ///
    /// # Errors
    /// When the home cannot be written.
    pub fn keep(self, home: &Home) -> Result<(), NodeError> {
        keep(home, &self.0.device, &self.0.membership, &self.0.secrets, None)
    }
}

/// Why a device did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The inviting device could not be asked.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The ticket leads nowhere from here.
    #[error(
        "no address of the inviting device answers: {detail}; this ticket holds only home-network addresses: check that \
         `holdfast up` runs there and that this device is on the same network, or start that one with --announce or \
         --relay and invite again"
    )]
    LocalTicket {
        /// What was tried, and what came of it.
        detail: String,
    },
    /// The inviting device said no.
    #[error(transparent)]
    Refused(#[from] JoinRefused),
    /// Its answer makes no sense.
    #[error(transparent)]
    Malformed(#[from] JoinMalformed),
    /// Its answer does not come from the inviting device, or not to this request.
    #[error(transparent)]
    Admission(#[from] AdmissionRefused),
    /// The node could not be set up.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl From<StartError> for JoinError {
    fn from(error: StartError) -> Self {
        Self::Node(error.into())
    }
}

/// Joins the library of `ticket` as a device called `name`, and writes its keys and the inviting device's addresses to
/// the home. The inviting device is looked for at the ticket's addresses, at the peers of `settings`, and at their relays.
/// Trying again with the same ticket and home is safe: the device key is kept from the first try.
///
/// # Errors
/// When the inviting device cannot be reached or refuses, or the home cannot be written.
pub async fn join(home: &Home, ticket: &Ticket, name: &str, settings: &Settings) -> Result<(), JoinError> {
    let device = device_key(home)?;
    let no_chunks = ChunkSource::new(|_, _| Err(ReadFailure::NotHeld));
    let (network, _events) = Network::start(NetworkConfig::new(device.clone(), Vec::new()), no_chunks, no_sink())?;
    let request = JoinRequest::new(ticket, &device, name);
    let circuits = settings.relays.iter().map(|relay| format!("{relay}/p2p-circuit")).collect();
    let addresses = [ticket.addresses(), settings.peers.clone(), circuits].concat();
    let asked = network.pair(ticket.inviter(), addresses, request.to_bytes());
    let answer = tokio::time::timeout(PAIRING_DEADLINE, asked).await.unwrap_or(Err(PairError::Timeout));
    network.shutdown();
    let answer = answer.map_err(|error| match error {
        PairError::Unreachable { detail } if ticket.is_local() => JoinError::LocalTicket { detail },
        error => error.into(),
    })?;
    let joined = match JoinAnswer::parse(&answer)? {
        JoinAnswer::Admitted(admission) => ticket.accept(&device, &request, &admission)?,
        JoinAnswer::Refused(refused) => return Err(refused.into()),
    };
    let author = AuthorKey::from_seed(&zeroize::Zeroizing::new(seed()?));
    let membership = Membership::new(joined.secrets.library(), &device, author, joined.certificate, Vec::new());
    let addresses = [ticket.addresses(), joined.addresses].concat();
    keep(home, &device, &membership, &joined.secrets, AddressBook::default().learn(ticket.inviter(), addresses))?;
    Ok(())
}

fn no_sink() -> ChunkSink {
    ChunkSink::new(|_, _| Ok(()), || Ok(()))
}

/// The home's device key; a new one when there is none.
fn device_key(home: &Home) -> Result<DeviceKey, NodeError> {
    key_at(home, &home.device_key())
}

/// The key of the relay at `home`; a new one when there is none.
///
/// # Errors
/// When it cannot be read or written.
pub fn relay_key(home: &Home) -> Result<DeviceKey, NodeError> {
    key_at(home, &home.relay_key())
}

fn key_at(home: &Home, path: &Path) -> Result<DeviceKey, NodeError> {
    if !path.exists() {
        let key = DeviceKey::from_seed(&zeroize::Zeroizing::new(seed()?));
        home.write_secret(path, key.to_bytes().as_slice()).map_err(secret_error)?;
        return Ok(key);
    }
    read_key(home, path)
}

/// The place that a device says it stands at: the one it was told, or the first one, if it founded the library. One that
/// joined and was told none says nothing: two devices side by side, each in a place of its own, would count as two places.
pub(super) fn place_to_claim(settings: &Settings, certificate: &DeviceCertificate) -> Option<String> {
    let is_founder = certificate.issuer() == Issuer::Root;
    settings.place.clone().or_else(|| is_founder.then(|| FIRST_PLACE.to_owned()))
}

pub(super) fn read_device_key(home: &Home) -> Result<DeviceKey, NodeError> {
    read_key(home, &home.device_key())
}

fn read_key(home: &Home, path: &Path) -> Result<DeviceKey, NodeError> {
    let bytes = home.read_secret(path).map_err(secret_error)?;
    let damaged = || StorageError::Damaged { what: format!("{}", path.display()) };
    let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged())?;
    Ok(DeviceKey::from_seed(seed))
}

pub(super) fn read_secrets(home: &Home) -> Result<LibrarySecrets, NodeError> {
    let bytes = home.read_secret(&home.secrets()).map_err(secret_error)?;
    LibrarySecrets::from_bytes(&bytes)
        .map_err(|_| StorageError::Damaged { what: format!("{}", home.secrets().display()) }.into())
}

/// The secrets come last: a home has a library once they are there.
fn keep(
    home: &Home,
    device: &DeviceKey,
    membership: &Membership,
    secrets: &LibrarySecrets,
    more: Option<Batch>,
) -> Result<(), NodeError> {
    home.write_secret(&home.device_key(), device.to_bytes().as_slice()).map_err(secret_error)?;
    let mut metadata = SledMetadata::open(&home.metadata())?;
    let mut batch = more.unwrap_or_default();
    membership.save(&mut batch);
    metadata.commit(batch)?;
    metadata.flush()?;
    drop(metadata);
    home.write_secret(&home.secrets(), secrets.to_bytes().as_slice()).map_err(secret_error)
}

fn secret_error(error: SecretError) -> NodeError {
    NodeError::Home(error.into())
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::certificate::{DeviceGrant, Role};
    use holdfast_protocol::time::WallTime;

    use super::*;

    #[test]
    fn only_the_founding_device_claims_a_place_that_it_was_not_told() {
        let founding = Founding::new(&[1; 32], "laptop", WallTime(0));
        let joining = DeviceKey::from_seed(&[2; 32]);
        let grant = DeviceGrant {
            library: founding.secrets.library(),
            device: joining.device_id(),
            exchange: joining.exchange().public(),
            role: Role::Member,
            name: "phone".to_owned(),
            serial: 0,
            issued: WallTime(0),
        };
        let joined = DeviceCertificate::issue_by_device(grant, &founding.device);
        let (untold, told) = (Settings::default(), Settings { place: Some("office".into()), ..Settings::default() });
        assert_eq!(place_to_claim(&untold, &founding.membership.certificate).as_deref(), Some(FIRST_PLACE));
        assert_eq!(place_to_claim(&untold, &joined), None);
        assert_eq!(place_to_claim(&told, &joined).as_deref(), Some("office"));
    }
}
