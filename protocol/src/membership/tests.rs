use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::certificate::{AuthorCertificate, DeviceCertificate, DeviceGrant, Role};
use crate::envelope::BODY_BYTES_MAX;
use crate::id::{AuthorId, DeviceId, LibraryId, PlaceId};
use crate::keys::{AuthorKey, DeviceKey, RootKey};
use crate::secrets::EpochId;
use crate::time::WallTime;

fn root() -> RootKey {
    RootKey::from_seed(&[0xee; 32])
}

/// A device and the author that writes for it.
struct Person {
    device: DeviceKey,
    author: AuthorKey,
}

fn person(number: u8) -> Person {
    Person { device: DeviceKey::from_seed(&[number; 32]), author: AuthorKey::from_seed(&[number | 0x80; 32]) }
}

impl Person {
    fn id(&self) -> DeviceId {
        self.device.device_id()
    }

    fn author(&self) -> AuthorId {
        self.author.author_id()
    }

    fn grant(&self, role: Role, serial: u32) -> DeviceGrant {
        DeviceGrant {
            library: root().library_id(),
            device: self.id(),
            exchange: self.device.exchange().public(),
            role,
            name: format!("device {}", self.id().short()),
            serial,
            issued: WallTime(1_700_000_000_000),
        }
    }

    fn by_root(&self, role: Role) -> DeviceCertificate {
        DeviceCertificate::issue_by_root(self.grant(role, 0), &root())
    }

    fn by(&self, issuer: &Self, role: Role) -> DeviceCertificate {
        DeviceCertificate::issue_by_device(self.grant(role, 0), &issuer.device)
    }

    fn introduce(&self, certificate: DeviceCertificate) -> Said {
        let author = AuthorCertificate::issue(root().library_id(), &self.device, &self.author);
        (self.author(), 0, Statement::Introduce { device: certificate, author })
    }

    fn says(&self, seq: u64, statement: Statement) -> Said {
        (self.author(), seq, statement)
    }
}

type Said = (AuthorId, u64, Statement);

fn registry(said: &[Said]) -> Registry {
    let mut registry = Registry::new(root().library_id());
    for (author, seq, statement) in said {
        registry.apply(author, *seq, statement).unwrap();
    }
    registry
}

fn members(registry: &Registry) -> BTreeSet<DeviceId> {
    registry.members().map(DeviceCertificate::device).collect()
}

fn ids(people: &[&Person]) -> BTreeSet<DeviceId> {
    people.iter().map(|person| person.id()).collect()
}

/// Anna's device is certified by the root, Ben's by Anna's, Cleo's by Ben's.
fn household() -> (Person, Person, Person, Vec<Said>) {
    let (anna, ben, cleo) = (person(1), person(2), person(3));
    let said = vec![
        anna.introduce(anna.by_root(Role::Owner)),
        ben.introduce(ben.by(&anna, Role::Owner)),
        cleo.introduce(cleo.by(&ben, Role::Member)),
    ];
    (anna, ben, cleo, said)
}

#[test]
fn a_chain_of_owners_makes_members_in_every_order() {
    let (anna, ben, cleo, said) = household();
    let forward = registry(&said);
    assert_eq!(members(&forward), ids(&[&anna, &ben, &cleo]));
    assert_eq!(forward.role(&cleo.id()), Some(Role::Member));
    assert_eq!(forward.device_of(&cleo.author()), Some(cleo.id()));
    assert_eq!(forward.chain(&cleo.id()).len(), 3);

    let backward: Vec<Said> = said.into_iter().rev().collect();
    let mut waiting = registry(&backward[..2]);
    assert_eq!(members(&waiting), BTreeSet::new(), "without a chain from the root there are no members");
    let (author, seq, statement) = &backward[2];
    let changes = waiting.apply(author, *seq, statement).unwrap();
    let joined = |person: &Person| changes.contains(&RegistryChange::Joined(person.id()));
    assert!(joined(&anna) && joined(&ben) && joined(&cleo), "{changes:?}");
    assert_eq!(waiting, forward);
    let again = waiting.apply(author, *seq, statement).unwrap();
    assert_eq!((again, &waiting), (vec![], &forward));
}

#[test]
fn members_who_own_nothing_let_nobody_in() {
    let (anna, ben, cleo, mut said) = household();
    let dora = person(4);
    said.push(dora.introduce(dora.by(&cleo, Role::Owner)));
    assert_eq!(members(&registry(&said)), ids(&[&anna, &ben, &cleo]));
    assert!(!registry(&said).vouches(&dora.by(&cleo, Role::Member)));
    assert!(registry(&said).vouches(&dora.by(&ben, Role::Member)));
    assert!(registry(&said).vouches(&dora.by_root(Role::Member)));
}

#[test]
fn strangers_and_confused_introductions_are_refused() {
    let (anna, ben, _, said) = household();
    let mut registry = registry(&said);
    let stranger = person(9);
    let refused = registry.apply(&stranger.author(), 1, &Statement::Admit(ben.by(&anna, Role::Owner)));
    assert_eq!(refused, Err(StatementRefused::NotIntroduced { author: stranger.author() }));

    let (_, _, introduction) = stranger.introduce(stranger.by(&anna, Role::Member));
    let refused = registry.apply(&ben.author(), 0, &introduction);
    assert_eq!(refused, Err(StatementRefused::NotItself { author: ben.author() }));
    let Statement::Introduce { author, .. } = introduction else { unreachable!() };
    let mixed = Statement::Introduce { device: ben.by(&anna, Role::Owner), author };
    let refused = registry.apply(&stranger.author(), 0, &mixed);
    assert_eq!(refused, Err(StatementRefused::NotItself { author: stranger.author() }));

    let library = LibraryId::from_bytes([7; 32]);
    let author = AuthorCertificate::issue(library, &stranger.device, &stranger.author);
    let foreign = Statement::Introduce { device: stranger.by(&anna, Role::Member), author };
    assert_eq!(registry.apply(&stranger.author(), 0, &foreign), Err(StatementRefused::OtherLibrary { library }));
    let grant = DeviceGrant { library, ..stranger.grant(Role::Owner, 0) };
    let foreign = Statement::Admit(DeviceCertificate::issue_by_device(grant, &anna.device));
    assert_eq!(registry.apply(&anna.author(), 1, &foreign), Err(StatementRefused::OtherLibrary { library }));
}

#[test]
fn a_removed_device_is_out_and_what_it_did_before_stays() {
    let (anna, ben, cleo, mut said) = household();
    let removal = registry(&said).removal(ben.id(), |_| 5);
    assert_eq!((&removal.keep, &removal.logs), (&vec![cleo.id()], &vec![(ben.author(), 5)]));
    said.push(anna.says(1, Statement::Remove(removal)));
    let registry = registry(&said);
    assert_eq!(members(&registry), ids(&[&anna, &cleo]));
    assert!(registry.is_removed(&ben.id()) && !registry.is_member(&ben.id()));
    assert!(registry.counts(&ben.author(), 4) && !registry.counts(&ben.author(), 5));
    assert_eq!(registry.length_of(&ben.author()), Some(5));
    assert!(!registry.vouches(&ben.by(&anna, Role::Owner)), "a removed device is never vouched for");
}

#[test]
fn a_removed_owners_key_makes_no_members_afterwards() {
    let (anna, ben, cleo, mut said) = household();
    said.push(anna.says(1, Statement::Remove(registry(&said).removal(ben.id(), |_| 5))));
    let (dora, late) = (person(4), person(5));
    // Signed with Ben's key at whatever time: what tells them apart is what the removal keeps.
    said.push(dora.introduce(dora.by(&ben, Role::Owner)));
    said.push(late.introduce(late.by(&dora, Role::Member)));
    said.push(dora.says(1, Statement::Remove(Removal { device: anna.id(), keep: vec![], logs: vec![] })));
    said.push(ben.says(5, Statement::Remove(Removal { device: cleo.id(), keep: vec![], logs: vec![] })));
    let registry = registry(&said);
    assert_eq!(members(&registry), ids(&[&anna, &cleo]));
    assert!(!registry.vouches(&dora.by(&ben, Role::Owner)));
    assert!(!registry.counts(&dora.author(), 0));
}

#[test]
fn what_was_carried_of_an_owner_counts_until_it_is_removed_itself() {
    let (anna, ben, cleo, mut said) = household();
    let removal = registry(&said).removal(cleo.id(), |_| 3);
    said.push(ben.says(SEQ_CARRIED, Statement::Remove(removal.clone())));
    let before = registry(&said);
    assert_eq!(members(&before), ids(&[&anna, &ben]));
    assert_eq!(before.carried_removals_by(&ben.id()).collect::<Vec<_>>(), [&removal]);
    // Ben's key could say so at any time, under any number.
    said.push(anna.says(1, Statement::Remove(before.removal(ben.id(), |_| u64::MAX))));
    assert_eq!(members(&registry(&said)), ids(&[&anna, &cleo]));
    said.push(anna.says(2, Statement::Remove(removal)));
    assert_eq!(members(&registry(&said)), ids(&[&anna]));
}

#[test]
fn only_owners_remove_others_and_anyone_may_leave() {
    let (anna, ben, cleo, said) = household();
    let remove = |who: &Person, whom: &Person| {
        let removal = Removal { device: whom.id(), keep: vec![ben.id(), cleo.id()], logs: vec![] };
        let mut said = said.clone();
        said.push(who.says(1, Statement::Remove(removal)));
        members(&registry(&said))
    };
    assert_eq!(remove(&cleo, &anna), ids(&[&anna, &ben, &cleo]));
    assert_eq!(remove(&cleo, &cleo), ids(&[&anna, &ben]));
    assert_eq!(remove(&ben, &anna), ids(&[&ben, &cleo]), "an owner may remove the owner that let it in");
}

#[test]
fn of_two_owners_that_remove_each_other_the_one_nearer_to_the_root_stays() {
    let (anna, ben, cleo, said) = household();
    let removal = |device: DeviceId| Removal { device, keep: vec![ben.id(), cleo.id()], logs: vec![] };
    for swapped in [false, true] {
        let mut said = said.clone();
        said.push(anna.says(1, Statement::Remove(removal(ben.id()))));
        said.push(ben.says(1, Statement::Remove(removal(anna.id()))));
        if swapped {
            said.swap(3, 4);
        }
        assert_eq!(members(&registry(&said)), ids(&[&anna, &cleo]));
    }
}

#[test]
fn a_newer_certificate_changes_role_and_name() {
    let (anna, ben, cleo, mut said) = household();
    let mut grant = cleo.grant(Role::Owner, 1);
    grant.name = "Cleo's new phone".to_owned();
    let newer = Statement::Admit(DeviceCertificate::issue_by_device(grant, &ben.device));
    let mut registry = registry(&said);
    let changes = registry.apply(&ben.author(), 1, &newer).unwrap();
    assert_eq!(changes, [RegistryChange::Certified(cleo.id())]);
    assert_eq!((registry.role(&cleo.id()), registry.name(&cleo.id())), (Some(Role::Owner), Some("Cleo's new phone")));
    // The older one, coming later, changes nothing.
    let older = Statement::Admit(cleo.by(&ben, Role::Member));
    assert_eq!(registry.apply(&ben.author(), 2, &older), Ok(vec![]));
    // The root's word about a device weighs more than an owner's, whatever the serial.
    said.push(anna.says(1, Statement::Admit(ben.by_root(Role::Member))));
    assert_eq!(members(&self::registry(&said)), ids(&[&anna, &ben]), "what Ben certified no longer counts");
}

#[test]
fn devices_of_one_name_are_told_apart_in_the_order_in_which_they_came() {
    let (anna, ben, cleo, said) = household();
    let mut registry = registry(&said);
    for (seq, (device, issued)) in (1..).zip([(&cleo, 2), (&ben, 3)]) {
        let grant = DeviceGrant { name: "vm".to_owned(), issued: WallTime(issued), ..device.grant(Role::Owner, 1) };
        let certificate = DeviceCertificate::issue_by_device(grant, &anna.device);
        registry.apply(&anna.author(), seq, &Statement::Admit(certificate)).unwrap();
    }
    let names = [&cleo, &ben].map(|device| registry.distinct_name(&device.id()));
    assert_eq!(names, [Some("vm".to_owned()), Some("vm 2".to_owned())]);
    assert_eq!(registry.distinct_name(&anna.id()).as_deref(), registry.name(&anna.id()));
}

fn place(device: &Person, place: u8, revision: u32) -> Statement {
    Statement::Place { device: device.id(), place: PlaceId::from_bytes([place; 32]), revision, label: vec![place] }
}

#[test]
fn places_are_set_by_the_device_itself_or_an_owner() {
    let (anna, ben, cleo, said) = household();
    let mut registry = registry(&said);
    assert_eq!((registry.place_of(&cleo.id()), registry.next_place_revision(&cleo.id())), (None, 0));
    assert_eq!(registry.apply(&cleo.author(), 1, &place(&cleo, 1, 0)), Ok(vec![RegistryChange::Moved(cleo.id())]));
    assert_eq!(registry.apply(&anna.author(), 1, &place(&cleo, 2, 1)), Ok(vec![RegistryChange::Moved(cleo.id())]));
    assert_eq!(registry.apply(&ben.author(), 1, &place(&cleo, 3, 0)), Ok(vec![]));
    assert_eq!(registry.place_of(&cleo.id()), Some(PlaceId::from_bytes([2; 32])));
    assert_eq!(registry.place_label(&cleo.id()), Some([2].as_slice()));
    assert_eq!(registry.next_place_revision(&cleo.id()), 2);
    assert_eq!(registry.apply(&cleo.author(), 2, &place(&anna, 4, 9)), Ok(vec![]));
    assert_eq!(registry.place_of(&anna.id()), None, "a member does not say where others stand");

    let removal = registry.removal(cleo.id(), |_| 9);
    registry.apply(&anna.author(), 2, &Statement::Remove(removal)).unwrap();
    assert_eq!(registry.place_of(&cleo.id()), None);
}

#[test]
fn a_device_goes_on_under_another_author() {
    let (anna, ben, _, said) = household();
    let mut registry = registry(&said);
    let successor = Person { device: ben.device.clone(), author: AuthorKey::from_seed(&[0x77; 32]) };
    let (author, seq, introduction) = successor.introduce(ben.by(&anna, Role::Owner));
    let changes = registry.apply(&author, seq, &introduction).unwrap();
    assert_eq!(changes, [RegistryChange::Introduced { author, device: ben.id() }]);
    assert!(registry.counts(&ben.author(), 100) && registry.counts(&author, 100));
    assert_eq!(registry.authors_of(&ben.id()).count(), 2);
}

fn keys(recipient: Recipient, counter: u32) -> Statement {
    Statement::Keys { epoch: EpochId { counter, nonce: [1; 8] }, recipient, sealed: vec![7; 3] }
}

#[test]
fn keys_count_when_an_owner_offers_them() {
    let (anna, ben, cleo, said) = household();
    let mut registry = registry(&said);
    let recipient = Recipient::Device(cleo.id());
    let offered = Ok(vec![RegistryChange::KeysOffered(recipient)]);
    assert_eq!(registry.apply(&anna.author(), 1, &keys(recipient, 1)), offered);
    assert_eq!(registry.apply(&ben.author(), 1, &keys(recipient, 2)), offered);
    assert_eq!(registry.apply(&ben.author(), 2, &keys(recipient, 1)), Ok(vec![]));
    registry.apply(&cleo.author(), 1, &keys(recipient, 9)).unwrap();
    let counters: Vec<u32> = registry.keys_for(recipient).iter().map(|(epoch, _)| epoch.counter).collect();
    assert_eq!(counters, [2, 1]);
    assert_eq!(registry.keys_for(Recipient::Root), vec![]);
}

#[test]
fn a_library_has_a_bounded_number_of_devices() {
    let (anna, _, _, said) = household();
    let mut registry = registry(&said);
    let mut refused = None;
    for number in 0..2_000_u32 {
        let mut seed = [0xab; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let device = Person { device: DeviceKey::from_seed(&seed), author: AuthorKey::from_seed(&seed) };
        // Waiting for an issuer that never comes: nothing is computed, everything is kept.
        let issuer = person(0x55);
        let said = Statement::Admit(device.by(&issuer, Role::Member));
        if let Err(error) = registry.apply(&anna.author(), 1, &said) {
            refused = Some((number, error));
            break;
        }
    }
    assert_eq!(refused, Some((1021, StatementRefused::TooMany { what: "devices" })));
}

#[test]
fn certificates_that_make_nobody_a_member_take_no_room_from_those_that_do() {
    let (anna, ben, _, said) = household();
    let mut registry = registry(&said);
    for number in 0..2_000_u32 {
        let mut seed = [0xab; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let device = Person { device: DeviceKey::from_seed(&seed), author: AuthorKey::from_seed(&seed) };
        let _ = registry.apply(&ben.author(), 1, &Statement::Admit(device.by(&person(0x55), Role::Owner)));
    }
    let new = person(0x30);
    registry.apply(&anna.author(), 1, &Statement::Admit(new.by(&anna, Role::Member))).unwrap();
    assert!(registry.is_member(&new.id()));
}

#[test]
fn removals_that_remove_nobody_keep_no_owner_from_removing() {
    let (anna, _, cleo, said) = household();
    for of_itself in [false, true] {
        let mut registry = registry(&said);
        assert_eq!(registry.role(&cleo.id()), Some(Role::Member));
        for seq in 1..2_000 {
            let device = if of_itself { cleo.id() } else { person(100 + (seq % 20) as u8).id() };
            let removal = Removal { device, keep: vec![], logs: vec![(cleo.author(), seq + 5_000)] };
            let _ = registry.apply(&cleo.author(), seq, &Statement::Remove(removal));
        }
        assert_eq!(registry.is_removed(&cleo.id()), of_itself);
        let removal = Removal { device: cleo.id(), keep: vec![], logs: vec![(cleo.author(), 1)] };
        registry.apply(&anna.author(), 1, &Statement::Remove(removal)).unwrap();
        assert!(registry.is_removed(&cleo.id()));
    }
}

#[test]
fn nobody_speaks_of_more_than_it_may_or_leaves_others_without_a_voice() {
    let (anna, ben, _, said) = household();
    let mut registry = registry(&said);
    let id = |number: u32| {
        let mut id = [0xcd; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        id
    };
    let statements: [fn([u8; 32]) -> Statement; 2] = [
        |id| keys(Recipient::Device(DeviceId::from_bytes(id)), 1),
        |id| Statement::Place {
            device: DeviceId::from_bytes(id),
            place: PlaceId::from_bytes(id),
            revision: 0,
            label: vec![0; 500],
        },
    ];
    for statement in statements {
        let taken = (0..2_000).filter(|number| registry.apply(&ben.author(), 1, &statement(id(*number))).is_ok());
        assert_eq!(taken.count(), 512);
        assert!(registry.apply(&ben.author(), 2, &statement(id(7))).is_ok(), "it may correct what it said");
        assert!(registry.apply(&anna.author(), 1, &statement(id(1_999))).is_ok(), "others may still speak");
    }
    let authors = (0..500).filter(|number| {
        let many = Person { device: DeviceKey::from_seed(&[3; 32]), author: AuthorKey::from_seed(&id(*number)) };
        let (author, seq, statement) = many.introduce(many.by_root(Role::Member));
        registry.apply(&author, seq, &statement).is_ok()
    });
    assert!(authors.count() <= 64);
    let new = person(0x31);
    let (author, seq, statement) = new.introduce(new.by_root(Role::Member));
    registry.apply(&author, seq, &statement).unwrap();
}

/// What devices 1 to 5 may do to each other.
fn act() -> impl Strategy<Value = (u8, u8, u8, u32)> {
    (0_u8..4, 1_u8..6, 1_u8..6, 0_u32..4)
}

fn scenario(acts: &[(u8, u8, u8, u32)]) -> Vec<Said> {
    let mut said: Vec<Said> = (1..6)
        .map(|number| {
            let someone = person(number);
            let certificate = match number {
                1 => someone.by_root(Role::Owner),
                2 | 3 => someone.by(&person(1), Role::Owner),
                _ => someone.by(&person(number - 2), if number == 4 { Role::Owner } else { Role::Member }),
            };
            someone.introduce(certificate)
        })
        .collect();
    for (seq, (what, who, whom, number)) in acts.iter().enumerate() {
        let (seq, who, whom) = (seq as u64 + 1, person(*who), person(*whom));
        let statement = match what {
            0 if who.id() != whom.id() => {
                let role = [Role::Viewer, Role::Member, Role::Owner, Role::Owner][*number as usize];
                Statement::Admit(DeviceCertificate::issue_by_device(whom.grant(role, *number), &who.device))
            }
            0 | 1 => {
                let keep =
                    (1..6).filter(|kept| kept % 2 == number % 2).map(|kept| person(u8::try_from(kept).unwrap()).id());
                let logs = vec![(whom.author(), u64::from(*number) * 2)];
                Statement::Remove(Removal { device: whom.id(), keep: keep.collect(), logs })
            }
            2 => place(&whom, u8::try_from(*number).unwrap(), *number),
            _ => keys(Recipient::Device(whom.id()), *number),
        };
        said.push(who.says(seq, statement));
    }
    said
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Logs arrive interleaved in any way, but each in its own order.
    #[test]
    fn the_order_of_arrival_makes_no_difference(acts in proptest::collection::vec(act(), 0..10), picks in proptest::collection::vec(any::<proptest::sample::Index>(), 20)) {
        let said = scenario(&acts);
        let expected = registry(&said);
        let mut rest = said;
        let mut shuffled = Vec::new();
        for pick in picks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let author = rest[pick.index(rest.len())].0;
            let first = rest.iter().position(|(by, ..)| *by == author).unwrap();
            shuffled.push(rest.remove(first));
        }
        prop_assert_eq!(registry(&shuffled), expected);
    }

    #[test]
    fn changes_tell_who_is_a_member(acts in proptest::collection::vec(act(), 0..10)) {
        let mut registry = Registry::new(root().library_id());
        let mut told = BTreeSet::new();
        for (author, seq, statement) in scenario(&acts) {
            for change in registry.apply(&author, seq, &statement).unwrap() {
                match change {
                    RegistryChange::Joined(device) => prop_assert!(told.insert(device)),
                    RegistryChange::Removed(device) => prop_assert!(told.remove(&device)),
                    _ => {}
                }
            }
            prop_assert_eq!(&told, &members(&registry));
        }
    }

    #[test]
    fn statements_round_trip(acts in proptest::collection::vec(act(), 0..10), tag in 7_u16.., bytes: Vec<u8>) {
        let mut statements: Vec<Statement> = scenario(&acts).into_iter().map(|(_, _, statement)| statement).collect();
        statements.push(Statement::Unknown { tag, bytes });
        let body = encode_statements(&statements);
        prop_assert_eq!(decode_statements(&body), Ok(statements));
    }

    #[test]
    fn cut_statements_are_refused(acts in proptest::collection::vec(act(), 1..4), cut: proptest::sample::Index) {
        let statements: Vec<Statement> = scenario(&acts).into_iter().map(|(_, _, statement)| statement).collect();
        let body = encode_statements(&statements);
        let cut = &body[..cut.index(body.len())];
        // A cut between two statements leaves a shorter list; the envelope's signature tells.
        let decoded = decode_statements(cut);
        prop_assert!(decoded.is_err() || decoded.is_ok_and(|decoded| statements.starts_with(&decoded)));
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_statements(&bytes);
        bytes.insert(0, 1);
        let _ = decode_statements(&bytes);
    }
}

#[test]
fn statements_out_of_bounds_are_refused() {
    assert_eq!(decode_statements(&[]), Err(StatementsMalformed::Statement { index: 0 }));
    assert_eq!(decode_statements(&[2]), Err(StatementsMalformed::NewerFormat { format: 2 }));
    assert_eq!(decode_statements(&[1]), Ok(vec![]));
    assert_eq!(decode_statements(&vec![1; BODY_BYTES_MAX + 1]), Err(StatementsMalformed::TooMany));
    let unknown = Statement::Unknown { tag: 999, bytes: vec![] };
    let mut body = encode_statements(&vec![unknown; STATEMENTS_PER_BODY_MAX]);
    assert!(decode_statements(&body).is_ok());
    body.extend_from_slice(&[7, 7, 0, 0, 0, 0]);
    assert_eq!(decode_statements(&body), Err(StatementsMalformed::TooMany));

    let many = vec![person(1).id(); KEPT_DEVICES_MAX + 1];
    let removal = Removal { device: person(1).id(), keep: many, logs: vec![] };
    let body = encode_statements(&[Statement::Remove(removal)]);
    assert_eq!(decode_statements(&body), Err(StatementsMalformed::Statement { index: 0 }));
    let place = Statement::Place {
        device: person(1).id(),
        place: PlaceId::from_bytes([1; 32]),
        revision: 0,
        label: vec![0; 513],
    };
    assert_eq!(decode_statements(&encode_statements(&[place])), Err(StatementsMalformed::Statement { index: 0 }));
}

#[test]
fn a_certificate_that_was_tampered_with_spoils_its_statement() {
    let body = encode_statements(&[Statement::Admit(person(2).by(&person(1), Role::Member))]);
    for at in 7..body.len() {
        let mut tampered = body.clone();
        tampered[at] ^= 1;
        assert_eq!(decode_statements(&tampered), Err(StatementsMalformed::Statement { index: 0 }), "at {at}");
    }
}
