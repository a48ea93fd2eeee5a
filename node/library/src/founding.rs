//! How a device comes to belong to a library: it founds it, or it was admitted by a member.

use zeroize::Zeroizing;

use holdfast_protocol::certificate::{AuthorCertificate, DeviceCertificate, DeviceGrant, Role, device_name};
use holdfast_protocol::codec;
use holdfast_protocol::id::LibraryId;
use holdfast_protocol::keys::{AuthorKey, DeviceKey, RootKey};
use holdfast_protocol::membership::{Recipient, Statement, encode_statements};
use holdfast_protocol::metadata::{Batch, Metadata, StorageError, Table};
use holdfast_protocol::recovery::RecoveryPhrase;
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::WallTime;
use serde::{Deserialize, Serialize};

const MEMBERSHIP_KEY: &[u8] = b"membership";
const MEMBERSHIP_BYTES_MAX: usize = 256 << 10;
const FORMAT: u8 = 1;

/// A new library, with this device as its first owner.
pub struct Founding {
    /// Shown once, and then forgotten: whoever has it has the library.
    pub phrase: RecoveryPhrase,
    /// The device's key.
    pub device: DeviceKey,
    /// The library's secrets.
    pub secrets: LibrarySecrets,
    /// What the device writes as.
    pub membership: Membership,
}

impl Founding {
    /// A library of which everything follows from `seed`, which must come from the operating system.
    #[must_use]
    pub fn new(seed: &[u8; 32], name: &str, now: WallTime) -> Self {
        let derived = |context| Zeroizing::new(blake3::derive_key(context, seed));
        let phrase = RecoveryPhrase::generate(&derived("holdfast 1 founding: recovery phrase"));
        let root = RootKey::from_phrase(&phrase);
        let secrets = LibrarySecrets::generate(root.library_id(), &derived("holdfast 1 founding: secrets"));
        let device = DeviceKey::from_seed(&derived("holdfast 1 founding: device"));
        let grant = DeviceGrant {
            library: root.library_id(),
            device: device.device_id(),
            exchange: device.exchange().public(),
            role: Role::Owner,
            name: device_name(name),
            serial: 0,
            issued: now,
        };
        let certificate = DeviceCertificate::issue_by_root(grant, &root);
        let sealed = secrets.seal_to(&root.exchange().public(), &derived("holdfast 1 founding: keys for the root"));
        let keys = Statement::Keys { epoch: secrets.current_epoch(), recipient: Recipient::Root, sealed };
        let author = AuthorKey::from_seed(&derived("holdfast 1 founding: author"));
        let membership = Membership::new(root.library_id(), &device, author, certificate, vec![keys]);
        Self { phrase, device, secrets, membership }
    }
}

/// What a device writes as: its author key, its certificate, and the statements that its log begins with.
pub struct Membership {
    /// The key of the log.
    pub author: AuthorKey,
    /// The device's certificate.
    pub certificate: DeviceCertificate,
    /// The body of the log's first envelope.
    pub first_body: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u8,
    author: [u8; 32],
    certificate: DeviceCertificate,
    first_body: Vec<u8>,
}

impl Membership {
    /// A membership that begins with introducing itself, and then says `statements`.
    #[must_use]
    pub fn new(
        library: LibraryId,
        device: &DeviceKey,
        author: AuthorKey,
        certificate: DeviceCertificate,
        statements: Vec<Statement>,
    ) -> Self {
        let introduced = AuthorCertificate::issue(library, device, &author);
        let mut first = vec![Statement::Introduce { device: certificate.clone(), author: introduced }];
        first.extend(statements);
        Self { author, certificate, first_body: encode_statements(&first) }
    }

    /// Adds the membership to `batch`.
    pub fn save(&self, batch: &mut Batch) {
        let stored = Stored {
            format: FORMAT,
            author: *self.author.to_bytes(),
            certificate: self.certificate.clone(),
            first_body: self.first_body.clone(),
        };
        batch.put(Table::Local, MEMBERSHIP_KEY, codec::encode(&stored));
    }

    /// The membership that was saved; `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot be read, or what it holds is damaged.
    pub fn load<M: Metadata>(metadata: &M) -> Result<Option<Self>, StorageError> {
        let damaged = || StorageError::Damaged { what: "this device's membership".to_owned() };
        let Some(bytes) = metadata.get(Table::Local, MEMBERSHIP_KEY)? else { return Ok(None) };
        let bytes = Zeroizing::new(bytes);
        let stored: Stored = codec::decode(&bytes, MEMBERSHIP_BYTES_MAX).map_err(|_| damaged())?;
        if stored.format != FORMAT {
            return Err(damaged());
        }
        let author = AuthorKey::from_seed(&Zeroizing::new(stored.author));
        Ok(Some(Self { author, certificate: stored.certificate, first_body: stored.first_body }))
    }
}
