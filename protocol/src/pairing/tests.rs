use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::certificate::{DeviceCertificate, DeviceGrant, Issuer, Role};
use crate::codec;
use crate::id::DeviceId;
use crate::keys::{DeviceKey, RootKey};
use crate::secrets::{LibrarySecrets, SecretsRefused};
use crate::time::WallTime;

const NOW: WallTime = WallTime(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// Both sides of a pairing.
struct Pair {
    inviter: DeviceKey,
    secrets: LibrarySecrets,
    addresses: Vec<String>,
    joiner: DeviceKey,
}

impl Pair {
    fn new() -> Self {
        Self {
            inviter: DeviceKey::from_seed(&[1; 32]),
            secrets: LibrarySecrets::generate(RootKey::from_seed(&[9; 32]).library_id(), &[2; 32]),
            addresses: vec!["/ip4/192.0.2.7/tcp/4001".to_owned()],
            joiner: DeviceKey::from_seed(&[3; 32]),
        }
    }

    fn inviter(&self) -> Inviter<'_> {
        Inviter { key: &self.inviter, secrets: &self.secrets, addresses: &self.addresses }
    }

    fn invite(&self) -> (Invitation, Ticket) {
        Invitation::create(&self.inviter(), Role::Member, &[5; 32], NOW, HOUR)
    }

    fn admit(
        &self,
        invitation: &mut Invitation,
        request: &JoinRequest,
        now: WallTime,
    ) -> Result<Admission, JoinRefused> {
        // Through storage and back, as between two runs of the node.
        *invitation = Invitation::from_bytes(&invitation.to_bytes()).unwrap();
        invitation.admit(&self.inviter(), request, &[6; 32], now)
    }
}

fn later(duration: Duration) -> WallTime {
    WallTime(NOW.0 + i64::try_from(duration.as_millis()).unwrap())
}

#[test]
fn a_device_joins_with_a_ticket() {
    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let ticket: Ticket = ticket.to_string().parse().unwrap();
    assert_eq!((ticket.inviter(), ticket.addresses()), (pair.inviter.device_id(), pair.addresses.clone()));
    assert_eq!(invitation.expires(), later(HOUR));

    let request = JoinRequest::new(&ticket, &pair.joiner, " Office NAS\n");
    let request = JoinRequest::parse(&request.to_bytes()).unwrap();
    assert_eq!((request.invitation(), request.name()), (invitation.id(), "Office NAS"));
    let admission = pair.admit(&mut invitation, &request, later(HOUR)).unwrap();
    assert_eq!(invitation.admitted(), Some(pair.joiner.device_id()));

    let answer = JoinAnswer::Admitted(Box::new(admission)).to_bytes();
    assert!(answer.len() <= JOIN_ANSWER_BYTES_MAX);
    let JoinAnswer::Admitted(admission) = JoinAnswer::parse(&answer).unwrap() else { panic!("refused") };
    let joined = ticket.accept(&pair.joiner, &request, &admission).unwrap();
    assert_eq!((&joined.secrets, &joined.addresses), (&pair.secrets, &pair.addresses));
    assert_eq!(joined.certificate.device(), pair.joiner.device_id());
    assert_eq!(joined.certificate.issuer(), Issuer::Device(pair.inviter.device_id()));
    assert_eq!((joined.certificate.role(), joined.certificate.name()), (Role::Member, "Office NAS"));
}

#[test]
fn a_lost_answer_is_given_again_and_nobody_else_gets_one() {
    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let first = pair.admit(&mut invitation, &request, NOW).unwrap();
    let second = pair.admit(&mut invitation, &request, later(10 * HOUR)).unwrap();
    assert_eq!(first.certificate(), second.certificate());
    let thief = JoinRequest::new(&ticket, &DeviceKey::from_seed(&[4; 32]), "nas");
    assert_eq!(pair.admit(&mut invitation, &thief, NOW), Err(JoinRefused::Used));
}

#[test]
fn an_expired_ticket_lets_nobody_in() {
    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let late = later(HOUR + Duration::from_millis(1));
    assert_eq!(pair.admit(&mut invitation, &request, late), Err(JoinRefused::Expired));
    assert_eq!(invitation.admitted(), None);
    assert!(pair.admit(&mut invitation, &request, later(HOUR)).is_ok());
}

#[test]
fn wrong_proofs_close_an_invitation() {
    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let (_, other) = Invitation::create(&pair.inviter(), Role::Owner, &[7; 32], NOW, HOUR);
    assert_ne!(ticket.invitation(), other.invitation());
    let wrong = JoinRequest::new(&other, &pair.joiner, "nas");
    for _ in 0..FAILED_ATTEMPTS_MAX {
        assert_eq!(pair.admit(&mut invitation, &wrong, NOW), Err(JoinRefused::WrongTicket));
    }
    let right = JoinRequest::new(&ticket, &pair.joiner, "nas");
    assert_eq!(pair.admit(&mut invitation, &right, NOW), Err(JoinRefused::TooManyAttempts));
}

#[test]
fn a_ticket_works_at_its_inviter_only() {
    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let elsewhere = Pair { inviter: DeviceKey::from_seed(&[8; 32]), ..Pair::new() };
    assert_eq!(elsewhere.admit(&mut invitation, &request, NOW), Err(JoinRefused::WrongTicket));
    let itself = JoinRequest::new(&ticket, &pair.inviter, "itself");
    assert_eq!(pair.admit(&mut invitation, &itself, NOW), Err(JoinRefused::WrongTicket));
}

#[test]
fn every_changed_byte_of_a_request_or_an_answer_is_noticed() {
    let pair = Pair::new();
    let (invitation, ticket) = pair.invite();
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let wire = request.to_bytes();
    for at in 0..wire.len() {
        let mut changed = wire.clone();
        changed[at] ^= 1;
        if let Ok(changed) = JoinRequest::parse(&changed) {
            assert_eq!(pair.admit(&mut invitation.clone(), &changed, NOW), Err(JoinRefused::WrongTicket), "at {at}");
        }
    }
    let admission = pair.admit(&mut invitation.clone(), &request, NOW).unwrap();
    let wire = JoinAnswer::Admitted(Box::new(admission)).to_bytes();
    for at in 0..wire.len() {
        let mut changed = wire.clone();
        changed[at] ^= 1;
        if let Ok(JoinAnswer::Admitted(changed)) = JoinAnswer::parse(&changed) {
            let refused = ticket.accept(&pair.joiner, &request, &changed);
            assert_eq!(refused, Err(AdmissionRefused::Proof), "at {at}");
        }
    }
}

#[test]
fn an_answer_to_something_else_is_not_accepted() {
    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let admission = pair.admit(&mut invitation, &request, NOW).unwrap();
    let other = JoinRequest::new(&ticket, &pair.joiner, "another name");
    assert_eq!(ticket.accept(&pair.joiner, &other, &admission), Err(AdmissionRefused::Proof));

    let key = ticket.pairing_key();
    let grant = |device: &DeviceKey| DeviceGrant {
        library: pair.secrets.library(),
        device: device.device_id(),
        exchange: device.exchange().public(),
        role: Role::Member,
        name: "nas".to_owned(),
        serial: 0,
        issued: NOW,
    };
    let sealed = pair.secrets.seal_to(&pair.joiner.exchange().public(), &[6; 32]);
    let stranger = DeviceKey::from_seed(&[8; 32]);
    let wrong = [
        DeviceCertificate::issue_by_device(grant(&stranger), &pair.inviter),
        DeviceCertificate::issue_by_device(grant(&pair.joiner), &stranger),
        DeviceCertificate::issue_by_device(
            DeviceGrant { exchange: stranger.exchange().public(), ..grant(&pair.joiner) },
            &pair.inviter,
        ),
    ];
    for certificate in wrong {
        let admission = Admission::new(&key, &request, certificate, sealed.clone(), vec![]);
        assert_eq!(ticket.accept(&pair.joiner, &request, &admission), Err(AdmissionRefused::Certificate));
    }
    let other_library = DeviceGrant { library: RootKey::from_seed(&[7; 32]).library_id(), ..grant(&pair.joiner) };
    let certificate = DeviceCertificate::issue_by_device(other_library, &pair.inviter);
    let admission = Admission::new(&key, &request, certificate, sealed, vec![]);
    let refused = ticket.accept(&pair.joiner, &request, &admission);
    assert_eq!(refused, Err(AdmissionRefused::Secrets(SecretsRefused::NotForThisKey)));
    let certificate = DeviceCertificate::issue_by_device(grant(&pair.joiner), &pair.inviter);
    let for_stranger = pair.secrets.seal_to(&stranger.exchange().public(), &[6; 32]);
    let admission = Admission::new(&key, &request, certificate, for_stranger, vec![]);
    let refused = ticket.accept(&pair.joiner, &request, &admission);
    assert_eq!(refused, Err(AdmissionRefused::Secrets(SecretsRefused::NotForThisKey)));
}

#[test]
fn refusals_travel() {
    use JoinRefused::{Expired, NotYet, Removed, TooManyAttempts, Used, WrongTicket};
    for refused in [WrongTicket, Expired, Used, TooManyAttempts, Removed, NotYet] {
        let answer = JoinAnswer::Refused(refused);
        assert_eq!(JoinAnswer::parse(&answer.to_bytes()), Ok(answer));
    }
}

#[test]
fn pairing_messages_out_of_bounds_are_refused() {
    assert_eq!(JoinRequest::parse(&[2, 0]), Err(JoinMalformed::NewerFormat));
    assert_eq!(JoinAnswer::parse(&[2, 0]), Err(JoinMalformed::NewerFormat));
    assert!(matches!(JoinRequest::parse(&[]), Err(JoinMalformed::Bytes(_))));
    assert!(matches!(JoinAnswer::parse(&[]), Err(JoinMalformed::Bytes(_))));
    let oversized = vec![1; JOIN_REQUEST_BYTES_MAX + 1];
    assert!(matches!(JoinRequest::parse(&oversized), Err(JoinMalformed::Bytes(codec::DecodeError::TooLong { .. }))));

    let pair = Pair::new();
    let (mut invitation, ticket) = pair.invite();
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let certificate = pair.admit(&mut invitation, &request, NOW).unwrap().certificate().clone();
    for addresses in [vec!["x".repeat(ADDRESS_BYTES_MAX + 1)], vec![String::new(); ADDRESSES_MAX + 1]] {
        let admission = Admission::new(&ticket.pairing_key(), &request, certificate.clone(), vec![], addresses);
        let answer = JoinAnswer::Admitted(Box::new(admission)).to_bytes();
        assert_eq!(JoinAnswer::parse(&answer), Err(JoinMalformed::OutOfBounds));
    }
}

#[test]
fn addresses_that_do_not_fit_are_left_out() {
    let mut pair = Pair::new();
    pair.addresses = (0..40).map(|number| "x".repeat(240 + number)).collect();
    let (mut invitation, ticket) = pair.invite();
    assert_eq!(ticket.addresses(), &pair.addresses[..4]);
    assert_eq!(ticket.to_string().parse(), Ok(ticket.clone()));
    let request = JoinRequest::new(&ticket, &pair.joiner, "nas");
    let admission = pair.admit(&mut invitation, &request, NOW).unwrap();
    let joined = ticket.accept(&pair.joiner, &request, &admission).unwrap();
    assert_eq!(joined.addresses, &pair.addresses[..ADDRESSES_MAX]);
}

#[test]
fn a_ticket_with_every_kind_of_way_has_at_most_200_characters() {
    let relay = "/ip4/203.0.113.9/tcp/4001/p2p/12D3KooWH5MaK7WrLhQr2wsg9eVzje9qkTxxVeaFUd7Qx6ZHg3Ud/p2p-circuit";
    let at = |host: &str, port: u16| {
        [format!("{host}/tcp/{port}"), format!("{host}/udp/{port}/quic-v1")].into_iter().collect::<Vec<_>>()
    };
    let (public, local, ip6) =
        (at("/ip4/198.51.100.7", 40_001), at("/ip4/192.168.1.7", 40_001), at("/ip6/2001:db8::7", 40_001));
    let addresses = [public, local, vec![relay.to_owned()], ip6].concat();
    let pair = Pair { addresses: addresses.clone(), ..Pair::new() };
    let ticket = pair.invite().1;
    assert_eq!(ticket.addresses(), addresses);
    assert!(!ticket.is_local());
    let text = ticket.to_string();
    assert!(text.len() <= 200, "{} characters: {text}", text.len());
    assert_eq!(text.parse(), Ok(ticket));
}

proptest! {
    #[test]
    fn tickets_round_trip_as_people_copy_them(secret: [u8; 16], addresses in proptest::collection::vec(".{0,60}", 0..5), spaces in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20)) {
        let device = DeviceId::from_bytes([3; 32]);
        let ticket = Ticket::new(device, secret, &addresses);
        let mut text = ticket.to_string();
        prop_assert_eq!(text.parse(), Ok(ticket.clone()));
        text.make_ascii_uppercase();
        for space in spaces {
            text.insert(space.index(text.len()), '\n');
        }
        prop_assert_eq!(text.parse(), Ok(ticket.clone()));
    }

    #[test]
    fn a_mistyped_character_is_noticed(at in 9_usize..110, typed in "[a-z2-7]") {
        let (_, ticket) = Pair::new().invite();
        let mut text = ticket.to_string();
        prop_assume!(at < text.len() && text[at..=at] != typed);
        text.replace_range(at..=at, &typed);
        let refused = text.parse::<Ticket>();
        prop_assert!(refused.is_err());
    }

    #[test]
    fn any_text_is_refused_without_panic(text in any::<String>()) {
        prop_assert!(text.parse::<Ticket>().is_err());
        let prefixed = format!("holdfast1{text}");
        prop_assert!(prefixed.parse::<Ticket>().is_err());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for bytes in [bytes.clone(), [vec![1], bytes].concat()] {
            prop_assert!(JoinRequest::parse(&bytes).is_err());
            let _ = JoinAnswer::parse(&bytes);
            let _ = Invitation::from_bytes(&bytes);
        }
    }
}

#[test]
fn a_cut_ticket_is_incomplete_wherever_it_is_cut() {
    let (_, ticket) = Pair::new().invite();
    let text = ticket.to_string();
    for length in 1..text.len() {
        assert_eq!(text[..length].parse::<Ticket>(), Err(InvalidTicket::Incomplete), "cut to {length}");
    }
}

#[test]
fn what_is_no_ticket_is_told_apart() {
    let (_, ticket) = Pair::new().invite();
    let text = ticket.to_string();
    for (text, refused) in [
        (String::new(), InvalidTicket::NotATicket),
        ("hello".to_owned(), InvalidTicket::NotATicket),
        ("holdfastx".to_owned(), InvalidTicket::NotATicket),
        ("holdfast2abc".to_owned(), InvalidTicket::Newer),
        (format!("{text}a"), InvalidTicket::Mistyped),
        (format!("{text}aaaaaaaa"), InvalidTicket::Mistyped),
        (format!("holdfast11{}", &text[10..]), InvalidTicket::Mistyped),
        (format!("holdfast1{}", "a".repeat(100_000)), InvalidTicket::Mistyped),
    ] {
        assert_eq!(text.parse::<Ticket>(), Err(refused), "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn secrets_do_not_print() {
    let (invitation, ticket) = Pair::new().invite();
    let shown = format!("{ticket:?} {invitation:?}");
    assert!(!shown.contains("secret") && !shown.contains("key"), "{shown}");
}

#[test]
fn what_people_copy_does_not_change_by_accident() {
    let (_, ticket) = Pair::new().invite();
    assert_eq!(&blake3::hash(ticket.to_string().as_bytes()).to_hex()[..16], "ca2e614d3ca07cf1");
}
