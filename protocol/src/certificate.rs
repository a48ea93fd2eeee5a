//! Certificates: who belongs to a library.
//!
//! The root certifies the first device, and any later one if the recovery phrase is at hand; an owner's device
//! certifies others; each device certifies the authors that write in its name. A certificate in memory was always
//! verified against the key that it names as its issuer. Whether that issuer had the right to issue it is for the
//! [`Registry`](crate::membership::Registry) to say, which knows all certificates.
//!
//! On the wire: `format u8 ‖ encoded fields ‖ signature 64`, the signature over everything before it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;
use crate::id::{AuthorId, DeviceId, LibraryId};
use crate::keys::{self, AuthorKey, DeviceKey, ExchangePublic, Purpose, RootKey, SIGNATURE_BYTES, Signature};
use crate::time::WallTime;

/// Characters of a device's name at most.
pub const DEVICE_NAME_CHARS_MAX: usize = 64;
/// Bytes of a certificate at most.
pub const CERTIFICATE_BYTES_MAX: usize = 1 << 10;

const FORMAT: u8 = 1;

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// May read.
    Viewer,
    /// May read and write.
    Member,
    /// May also invite and remove devices.
    Owner,
}

/// Who signed a device's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Issuer {
    /// The library's root.
    Root,
    /// An owner's device.
    Device(DeviceId),
}

/// Why bytes were not taken for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    /// Too many bytes, or no certificate.
    #[error("the bytes are no certificate")]
    Malformed,
    /// A format that this version does not know.
    #[error("a certificate of format {format}, which this version cannot read; update Holdfast")]
    NewerFormat {
        /// The format number found.
        format: u8,
    },
    /// A device's name that is empty, too long or contains control characters.
    #[error("a device's name must have 1 to {DEVICE_NAME_CHARS_MAX} characters and no control characters")]
    Name,
    /// A device that certifies itself.
    #[error("a device cannot certify itself; an owner's device or the recovery phrase must")]
    SelfIssued,
    /// The issuer that it names did not sign it.
    #[error("the certificate was changed or was not signed by the one that it names")]
    Signature,
}

/// A device's name as a person typed it, made fit for a certificate: control characters out, white space around it
/// off, cut to [`DEVICE_NAME_CHARS_MAX`] characters; "unnamed" when nothing is left.
#[must_use]
pub fn device_name(text: &str) -> String {
    let printable: String = text.chars().filter(|c| !c.is_control()).collect();
    let name: String = printable.trim().chars().take(DEVICE_NAME_CHARS_MAX).collect();
    let name = name.trim_end();
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

pub(crate) fn is_device_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= DEVICE_NAME_CHARS_MAX && !name.chars().any(char::is_control)
}

/// What a device's certificate says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceGrant {
    /// The library.
    pub library: LibraryId,
    /// The device.
    pub device: DeviceId,
    /// What secrets for the device are sealed to.
    pub exchange: ExchangePublic,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// Of two certificates for one device by issuers of one rank, the one with the greater serial counts.
    pub serial: u32,
    /// When it was issued, by the issuer's clock; shown, never decided by.
    pub issued: WallTime,
}

#[derive(Serialize, Deserialize)]
struct DeviceFields {
    grant: DeviceGrant,
    issuer: Issuer,
}

/// Says that a device belongs to a library and what it may do. Verified against the issuer that it names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceCertificate {
    grant: DeviceGrant,
    issuer: Issuer,
    wire: Vec<u8>,
}

impl DeviceCertificate {
    /// Signs `grant` with the library's root.
    ///
    /// # Panics
    /// When the name is not one that [`device_name`] returns, or the library is not the root's.
    #[must_use]
    pub fn issue_by_root(grant: DeviceGrant, root: &RootKey) -> Self {
        assert_eq!(grant.library, root.library_id(), "a root certifies devices of its own library");
        Self::issue(grant, Issuer::Root, |message| root.sign(Purpose::DeviceCertificate, message))
    }

    /// Signs `grant` with an owner's device.
    ///
    /// # Panics
    /// When the name is not one that [`device_name`] returns, or the device would certify itself.
    #[must_use]
    pub fn issue_by_device(grant: DeviceGrant, issuer: &DeviceKey) -> Self {
        assert_ne!(grant.device, issuer.device_id(), "a device does not certify itself");
        Self::issue(grant, Issuer::Device(issuer.device_id()), |message| {
            issuer.sign(Purpose::DeviceCertificate, message)
        })
    }

    fn issue(grant: DeviceGrant, issuer: Issuer, sign: impl FnOnce(&[u8]) -> Signature) -> Self {
        assert!(is_device_name(&grant.name), "a device's name is made by device_name");
        let fields = DeviceFields { grant, issuer };
        let wire = signed(&fields, sign);
        Self { grant: fields.grant, issuer, wire }
    }

    /// Parses and verifies the bytes of a certificate.
    ///
    /// # Errors
    /// When they are malformed or were not signed by the issuer that they name.
    pub fn parse(wire: &[u8]) -> Result<Self, CertificateRefused> {
        let (fields, message, signature): (DeviceFields, _, _) = split(wire)?;
        let DeviceFields { grant, issuer } = fields;
        if !is_device_name(&grant.name) {
            return Err(CertificateRefused::Name);
        }
        let key = match issuer {
            Issuer::Root => grant.library.as_bytes(),
            Issuer::Device(issuer) if issuer == grant.device => return Err(CertificateRefused::SelfIssued),
            Issuer::Device(ref issuer) => issuer.as_bytes(),
        };
        keys::verify(key, Purpose::DeviceCertificate, message, &signature)
            .map_err(|_| CertificateRefused::Signature)?;
        Ok(Self { grant, issuer, wire: wire.to_vec() })
    }

    /// What it says.
    #[must_use]
    pub const fn grant(&self) -> &DeviceGrant {
        &self.grant
    }

    /// The library.
    #[must_use]
    pub const fn library(&self) -> LibraryId {
        self.grant.library
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.grant.device
    }

    /// What secrets for the device are sealed to.
    #[must_use]
    pub const fn exchange(&self) -> ExchangePublic {
        self.grant.exchange
    }

    /// What the device may do.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.grant.role
    }

    /// What people call the device.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.grant.name
    }

    /// Who signed it.
    #[must_use]
    pub const fn issuer(&self) -> Issuer {
        self.issuer
    }

    /// The bytes as received, signature included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }
}

/// Whether `chain`, the certificate of `device` first, leads to the root of `library` through owners' devices. Whether one
/// of them was removed is for the [`Registry`](crate::membership::Registry) to say.
#[must_use]
pub fn leads_to_root(chain: &[DeviceCertificate], device: &DeviceId, library: &LibraryId) -> bool {
    let is_issued = |pair: &[DeviceCertificate]| {
        pair[0].issuer() == Issuer::Device(pair[1].device()) && pair[1].role() == Role::Owner
    };
    chain.first().is_some_and(|own| own.device() == *device)
        && chain.iter().all(|certificate| certificate.library() == *library)
        && chain.windows(2).all(is_issued)
        && chain.last().is_some_and(|last| last.issuer() == Issuer::Root)
}

impl fmt::Debug for DeviceCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCertificate").field("grant", &self.grant).field("issuer", &self.issuer).finish()
    }
}

#[derive(Serialize, Deserialize)]
struct AuthorFields {
    library: LibraryId,
    device: DeviceId,
    author: AuthorId,
    /// The author's signature over the device's id, so that no device can claim another one's log.
    consent: Signature,
}

/// Says that an author writes in a device's name: signed by the device, consented to by the author.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuthorCertificate {
    library: LibraryId,
    device: DeviceId,
    author: AuthorId,
    wire: Vec<u8>,
}

impl AuthorCertificate {
    /// Certifies `author` for `device`, in `library`.
    #[must_use]
    pub fn issue(library: LibraryId, device: &DeviceKey, author: &AuthorKey) -> Self {
        let id = device.device_id();
        let consent = author.sign(Purpose::AuthorConsent, &consent_message(&library, &id));
        let fields = AuthorFields { library, device: id, author: author.author_id(), consent };
        let wire = signed(&fields, |message| device.sign(Purpose::AuthorCertificate, message));
        Self { library, device: id, author: fields.author, wire }
    }

    /// Parses and verifies the bytes of a certificate.
    ///
    /// # Errors
    /// When they are malformed, or the device or the author that they name did not sign them.
    pub fn parse(wire: &[u8]) -> Result<Self, CertificateRefused> {
        let (fields, message, signature): (AuthorFields, _, _) = split(wire)?;
        let AuthorFields { library, device, author, consent } = fields;
        keys::verify(device.as_bytes(), Purpose::AuthorCertificate, message, &signature)
            .and_then(|()| {
                let consented = consent_message(&library, &device);
                keys::verify(author.as_bytes(), Purpose::AuthorConsent, &consented, &consent)
            })
            .map_err(|_| CertificateRefused::Signature)?;
        Ok(Self { library, device, author, wire: wire.to_vec() })
    }

    /// The library.
    #[must_use]
    pub const fn library(&self) -> LibraryId {
        self.library
    }

    /// The device in whose name the author writes.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// The author.
    #[must_use]
    pub const fn author(&self) -> AuthorId {
        self.author
    }

    /// The bytes as received, signature included.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }
}

impl fmt::Debug for AuthorCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorCertificate").field("device", &self.device).field("author", &self.author).finish()
    }
}

fn consent_message(library: &LibraryId, device: &DeviceId) -> Vec<u8> {
    [*library.as_bytes(), *device.as_bytes()].concat()
}

fn signed(fields: &impl Serialize, sign: impl FnOnce(&[u8]) -> Signature) -> Vec<u8> {
    let mut wire = vec![FORMAT];
    wire.append(&mut codec::encode(fields));
    let signature = sign(&wire);
    wire.extend_from_slice(&signature.to_bytes());
    wire
}

/// The fields, the signed bytes and the signature.
fn split<T: serde::de::DeserializeOwned>(wire: &[u8]) -> Result<(T, &[u8], Signature), CertificateRefused> {
    if wire.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateRefused::Malformed);
    }
    let (message, signature) = wire.split_last_chunk::<SIGNATURE_BYTES>().ok_or(CertificateRefused::Malformed)?;
    let (format, encoded) = message.split_first().ok_or(CertificateRefused::Malformed)?;
    if *format != FORMAT {
        return Err(CertificateRefused::NewerFormat { format: *format });
    }
    let fields = codec::decode(encoded, CERTIFICATE_BYTES_MAX).map_err(|_| CertificateRefused::Malformed)?;
    Ok((fields, message, Signature::from_bytes(signature)))
}

/// Inside other structures a certificate is its own bytes, and is verified as it is read.
macro_rules! serialize_as_wire {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                codec::bytes::serialize(&self.wire, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&codec::bytes::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

serialize_as_wire!(DeviceCertificate);
serialize_as_wire!(AuthorCertificate);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(device: &DeviceKey, name: &str) -> DeviceGrant {
        DeviceGrant {
            library: RootKey::from_seed(&[1; 32]).library_id(),
            device: device.device_id(),
            exchange: device.exchange().public(),
            role: Role::Member,
            name: name.to_owned(),
            serial: 3,
            issued: WallTime(1_700_000_000_000),
        }
    }

    fn certificates() -> [DeviceCertificate; 2] {
        let (root, owner, device) =
            (RootKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]), DeviceKey::from_seed(&[3; 32]));
        [
            DeviceCertificate::issue_by_root(grant(&device, "phone"), &root),
            DeviceCertificate::issue_by_device(grant(&device, "phone"), &owner),
        ]
    }

    fn author_certificate() -> AuthorCertificate {
        let library = RootKey::from_seed(&[1; 32]).library_id();
        AuthorCertificate::issue(library, &DeviceKey::from_seed(&[3; 32]), &AuthorKey::from_seed(&[4; 32]))
    }

    proptest! {
        #[test]
        fn any_name_can_be_made_fit(text in any::<String>()) {
            let name = device_name(&text);
            prop_assert!(is_device_name(&name));
            prop_assert_eq!(device_name(&name), name.clone());
            let device = DeviceKey::from_seed(&[3; 32]);
            let issued = DeviceCertificate::issue_by_root(grant(&device, &name), &RootKey::from_seed(&[1; 32]));
            prop_assert!(issued.wire().len() <= CERTIFICATE_BYTES_MAX);
            prop_assert_eq!(DeviceCertificate::parse(issued.wire()), Ok(issued));
        }

        #[test]
        fn random_bytes_are_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let formatted = [vec![FORMAT], bytes.clone()].concat();
            for bytes in [bytes, formatted] {
                prop_assert!(DeviceCertificate::parse(&bytes).is_err());
                prop_assert!(AuthorCertificate::parse(&bytes).is_err());
            }
        }
    }

    #[test]
    fn certificates_round_trip_and_refuse_every_changed_or_missing_byte() {
        for certificate in certificates() {
            assert_eq!(DeviceCertificate::parse(certificate.wire()), Ok(certificate.clone()));
            assert_eq!(codec::decode(&codec::encode(&certificate), 1000), Ok(certificate.clone()));
            for at in 0..certificate.wire().len() {
                let mut wire = certificate.wire().to_vec();
                wire[at] ^= 1;
                assert!(DeviceCertificate::parse(&wire).is_err(), "at {at}");
                assert!(DeviceCertificate::parse(&wire[..at]).is_err(), "cut at {at}");
            }
        }
        let certificate = author_certificate();
        assert_eq!(AuthorCertificate::parse(certificate.wire()), Ok(certificate.clone()));
        for at in 0..certificate.wire().len() {
            let mut wire = certificate.wire().to_vec();
            wire[at] ^= 1;
            assert!(AuthorCertificate::parse(&wire).is_err(), "at {at}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let parse = DeviceCertificate::parse;
        assert_eq!(parse(&[9; 100]), Err(CertificateRefused::NewerFormat { format: 9 }));
        assert_eq!(parse(&[1; CERTIFICATE_BYTES_MAX + 1]), Err(CertificateRefused::Malformed));
        let [certificate, _] = certificates();
        let mut wire = certificate.wire().to_vec();
        *wire.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&wire), Err(CertificateRefused::Signature));

        let device = DeviceKey::from_seed(&[3; 32]);
        let sign = |message: &[u8]| device.sign(Purpose::DeviceCertificate, message);
        let itself = DeviceFields { grant: grant(&device, "phone"), issuer: Issuer::Device(device.device_id()) };
        assert_eq!(parse(&signed(&itself, sign)), Err(CertificateRefused::SelfIssued));
        for name in ["", "two\nlines", &"x".repeat(DEVICE_NAME_CHARS_MAX + 1)] {
            let unfit = DeviceFields { grant: grant(&device, name), issuer: Issuer::Root };
            assert_eq!(parse(&signed(&unfit, sign)), Err(CertificateRefused::Name), "{name:?}");
        }
    }

    #[test]
    fn no_device_claims_an_author_that_did_not_consent() {
        let (device, author) = (DeviceKey::from_seed(&[3; 32]), AuthorKey::from_seed(&[4; 32]));
        let library = RootKey::from_seed(&[1; 32]).library_id();
        let elsewhere = consent_message(&library, &DeviceKey::from_seed(&[5; 32]).device_id());
        let fields = AuthorFields {
            library,
            device: device.device_id(),
            author: author.author_id(),
            consent: author.sign(Purpose::AuthorConsent, &elsewhere),
        };
        let wire = signed(&fields, |message| device.sign(Purpose::AuthorCertificate, message));
        assert_eq!(AuthorCertificate::parse(&wire), Err(CertificateRefused::Signature));
    }

    #[test]
    fn what_stands_on_the_wire_does_not_change_by_accident() {
        let hashes = [certificates()[0].wire(), certificates()[1].wire(), author_certificate().wire()]
            .map(|wire| blake3::hash(wire).to_hex()[..8].to_owned());
        assert_eq!(hashes, ["b7228b7c", "70901a08", "7724f5cd"]);
    }
}
