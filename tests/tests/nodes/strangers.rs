//! Tickets that open nothing, and those who dial without one.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use holdfast_disk::SledMetadata;
use holdfast_protocol::certificate::Role;
use holdfast_protocol::keys::DeviceKey;
use holdfast_protocol::metadata::{Batch, Metadata as _, Table};
use holdfast_protocol::pairing::{Invitation, Inviter};
use holdfast_protocol::secrets::LibrarySecrets;
use holdfast_protocol::time::WallTime;
use holdfast_tests::node::Node;
use holdfast_tests::photos::write_library;

use crate::replication::pair;

/// A well-formed ticket of `node` that expired long ago, and the invitation behind it, which the node does not know.
fn forged(node: &Node) -> (Invitation, String) {
    let read = |name: &str| std::fs::read(node.home().join(name)).unwrap();
    let key = DeviceKey::from_seed(&read("device.key").try_into().unwrap());
    let secrets = LibrarySecrets::from_bytes(&read("secrets")).unwrap();
    let inviter = Inviter { key: &key, secrets: &secrets, addresses: &[node.address().to_owned()] };
    let (invitation, ticket) =
        Invitation::create(&inviter, Role::Member, &[7; 32], WallTime(0), Duration::from_secs(60));
    (invitation, ticket.to_string())
}

/// Joins with `ticket` as a new device, which must fail with `exit` and say `why`.
fn assert_refused(directory: &Path, ticket: &str, exit: i32, why: &str) {
    let thief = Node::new(directory, "thief");
    let answer = thief.run(&["join", ticket, "--no-mdns"]);
    assert_eq!(answer.exit, Some(exit), "{answer:?}");
    assert!(answer.errors.contains(why), "{answer:?}");
    assert_eq!(thief.run(&["status"]).exit, Some(10), "no library came of it");
}

#[test]
fn a_ticket_lets_one_device_in() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 5).unwrap();
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &[]);
    let ticket = home.invite();
    assert_refused(directory.path(), &ticket[..ticket.len() / 2], 2, "incomplete");
    assert_refused(directory.path(), "holdfast2abc", 2, "newer version");
    assert_refused(directory.path(), "please", 2, "not a ticket");
    let mistyped =
        format!("{}{}", &ticket[..ticket.len() - 9], ticket[ticket.len() - 9..].replace(['a', 'b', 'c', 'd'], "e"));
    if mistyped != ticket {
        assert_refused(directory.path(), &mistyped, 2, "mistyped");
    }
    assert_refused(directory.path(), &forged(&home).1, 12, "no open invitation");

    let mut office = Node::new(directory.path(), "office");
    office.join(&ticket.to_uppercase(), &["--place", "office"]);
    assert_refused(directory.path(), &ticket, 12, "already used");
    home.wait_until_safe(5);
    assert_eq!(home.peers().peers.len(), 2);

    // A device that was let in may not let in others.
    let refused = office.run(&["invite"]);
    assert_eq!(refused.exit, Some(12), "{refused:?}");
    // Nobody to ask.
    let ticket = home.invite();
    home.stop();
    assert_refused(directory.path(), &ticket, 1, "no address of the inviting device answers");
}

#[test]
fn an_expired_ticket_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let pictures = directory.path().join("Pictures");
    write_library(&pictures, 2).unwrap();
    let mut home = Node::new(directory.path(), "home");
    home.up(&[&pictures], &[]);
    home.stop();
    // An invitation of the seventies.
    let (invitation, ticket) = forged(&home);
    let mut metadata = SledMetadata::open(&home.home().join("metadata")).unwrap();
    let mut batch = Batch::new();
    batch.put(Table::Invitation, invitation.id().as_bytes().to_vec(), invitation.to_bytes());
    metadata.commit(batch).unwrap();
    metadata.flush().unwrap();
    drop(metadata);
    home.up(&[], &[]);
    assert_refused(directory.path(), &ticket, 12, "expired");
    assert_refused(directory.path(), &ticket, 12, "holdfast invite");
    // A new one lets the same device in.
    let mut office = Node::new(directory.path(), "thief");
    office.join(&home.invite(), &["--place", "office"]);
    home.wait_until_safe(2);
}

#[test]
fn strangers_are_left_outside() {
    let directory = tempfile::tempdir().unwrap();
    let (pictures, others) = (directory.path().join("Pictures"), directory.path().join("Others"));
    write_library(&pictures, 8).unwrap();
    write_library(&others, 2).unwrap();
    let (home, office) = pair(directory.path(), &pictures);

    let port = home.address().rsplit('/').next().unwrap().to_owned();
    let dial = || TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let silent: Vec<_> = (0..20).map(|_| dial()).collect();
    let garbage = [&b"\x13/multistream/1.0.0\n\x07/noise\n\xff\xff"[..], &[0xFF; 70_000]].concat();
    for bytes in [&garbage[..], &[0; 100_000], b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"] {
        // It may be hung up on while it still talks.
        let _ = dial().write_all(bytes);
    }
    let mut stranger = Node::new(directory.path(), "stranger");
    let address = home.address().to_owned();
    stranger.up(&[&others], &["--peer", &address]);

    home.wait_until_safe(8);
    office.wait_until_safe(8);
    stranger.wait_until_held(2);
    sleep(Duration::from_secs(2));
    let status = home.status();
    assert_eq!((status.photos, status.peers_known, status.peers_connected), (8, 1, 1));
    let status = stranger.status();
    assert_eq!((status.photos, status.peers_known, status.peers_connected), (2, 0, 0));
    drop(silent);
}
