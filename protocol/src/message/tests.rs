use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::id::ChunkId;
use crate::inventory::SignedHead;
use crate::inventory::Span;
use crate::inventory::spans::any_spans;

fn any_bytes(length: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..length).prop_map(Bytes::from)
}

fn any_point() -> impl Strategy<Value = LogPoint> {
    (any::<[u8; 32]>(), any::<u64>(), any::<[u8; 32]>(), any::<bool>()).prop_map(|(author, length, head, forked)| {
        LogPoint { author: AuthorId::from_bytes(author), length, head: EnvelopeHash::from_bytes(head), forked }
    })
}

fn any_changes() -> impl Strategy<Value = Vec<HoldingChanges>> {
    let lists = (any_spans(0), any_spans(0), any_spans(0), any_spans(0));
    proptest::collection::btree_map(any::<[u8; 32]>(), lists, 0..4).prop_map(|authors| {
        let changes = |(author, (held, lost, erased, restored))| HoldingChanges {
            author: AuthorId::from_bytes(author),
            held,
            lost,
            erased,
            restored,
        };
        authors.into_iter().map(changes).collect()
    })
}

fn any_part() -> impl Strategy<Value = InventoryPart> {
    (any_bytes(300), any::<Option<u64>>(), any::<bool>(), any_changes())
        .prop_map(|(head, base, more, changes)| InventoryPart { head, base, more, changes })
}

fn any_farewell() -> impl Strategy<Value = Farewell> {
    prop_oneof![Just(Farewell::WrongLibrary), Just(Farewell::Removed), Just(Farewell::ShuttingDown)]
}

fn any_version() -> impl Strategy<Value = Option<(Generation, u64)>> {
    proptest::option::of((any::<u32>(), any::<u64>(), any::<u64>()))
        .prop_map(|known| known.map(|(counter, nonce, seq)| (Generation { counter, nonce }, seq)))
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u16>(), any::<u16>(), any::<u64>(), any::<[u8; 32]>()).prop_map(
            |(oldest, newest, features, library_tag)| Message::Hello(Hello { oldest, newest, features, library_tag })
        ),
        vec(vec(any::<u8>(), 0..300), 0..CERTIFICATE_CHAIN_MAX).prop_map(|chain| Message::Prove(Prove { chain })),
        any_farewell().prop_map(Message::Bye),
        vec(any_point(), 0..20).prop_map(Message::Vector),
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(author, from)| Message::WantEnvelopes(WantEnvelopes {
            author: AuthorId::from_bytes(author),
            from
        })),
        (any::<[u8; 32]>(), any::<u64>(), vec(any_bytes(400), 0..10)).prop_map(|(author, from, envelopes)| {
            Message::Envelopes(Envelopes { author: AuthorId::from_bytes(author), from, envelopes })
        }),
        (any_bytes(400), any_bytes(400)).prop_map(|(first, second)| Message::Fork(first, second)),
        vec(any_bytes(300), 0..10).prop_map(Message::Heads),
        (any::<[u8; 32]>(), any_version()).prop_map(|(peer, known)| Message::WantInventory(WantInventory {
            peer: DeviceId::from_bytes(peer),
            known
        })),
        any_part().prop_map(Message::Inventory),
        any_changes().prop_map(Message::Have),
        vec(any_reachable(), 0..=PEERS_PER_FRAME_MAX).prop_map(Message::Addresses),
    ]
}

fn any_reachable() -> impl Strategy<Value = Reachable> {
    let addresses = vec("[!-~]{1,256}", 0..=ADDRESSES_PER_PEER_MAX);
    (any::<[u8; 32]>(), addresses)
        .prop_map(|(device, addresses)| Reachable { device: DeviceId::from_bytes(device), addresses })
}

#[test]
fn addresses_that_could_not_be_are_refused() {
    let device = DeviceId::from_bytes([1; 32]);
    let too_many = vec!["/a".to_owned(); ADDRESSES_PER_PEER_MAX + 1];
    for addresses in [too_many, vec![String::new()], vec!["x".repeat(ADDRESS_BYTES_MAX + 1)], vec!["a\n".to_owned()]] {
        assert!(decode_frame(&Message::Addresses(vec![Reachable { device, addresses }]).to_frame()).is_err());
    }
}

fn decode_frame(frame: &Bytes) -> Result<Message, MessageRefused> {
    let (header, _) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
    let header = FrameHeader::parse(header).unwrap();
    assert_eq!(header.length, frame.len() - FRAME_HEADER_BYTES);
    Message::decode(header.tag, &frame.slice(FRAME_HEADER_BYTES..))
}

proptest! {
    #[test]
    fn messages_round_trip(message in any_message()) {
        prop_assert_eq!(decode_frame(&message.to_frame()), Ok(message));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(tag in 0u8..16, body in any_bytes(400)) {
        if let Ok(message) = Message::decode(tag, &body) {
            prop_assert_eq!(decode_frame(&message.to_frame()), Ok(message));
        }
    }

    #[test]
    fn cut_messages_are_refused_or_whole(message in any_message(), cut in any::<prop::sample::Index>()) {
        let frame = message.to_frame();
        let body = frame.slice(FRAME_HEADER_BYTES..);
        if !body.is_empty() {
            // Lists without a count may end between two entries; they never end inside one.
            if let Ok(shorter) = Message::decode(message.tag(), &body.slice(..cut.index(body.len()))) {
                prop_assert!(shorter != message);
            }
        }
    }

    #[test]
    fn announcements_round_trip(points in vec(any_point(), 0..10), inventory in proptest::option::of(any_part())) {
        let announcement = Announcement { points, inventory };
        let message = announcement.encode().unwrap();
        prop_assert_eq!(Announcement::decode(&message), Ok(Some(announcement)));
    }

    #[test]
    fn any_gossip_decodes_or_is_refused(mut message in vec(any::<u8>(), 0..300)) {
        if let Some(format) = message.first_mut() {
            *format %= 3;
        }
        let _ = Announcement::decode(&message.into());
    }

    #[test]
    fn fetch_requests_round_trip(request: u64, urgent: bool, chunks in vec(any::<[u8; 32]>(), 1..64)) {
        let chunks = chunks.into_iter().map(ChunkId::from_bytes).collect();
        let request = FetchRequest { request, urgent, chunks };
        let frame = request.to_frame();
        let (prefix, body) = frame.split_first_chunk::<4>().unwrap();
        prop_assert_eq!(FetchRequest::body_length(*prefix), Ok(body.len()));
        prop_assert_eq!(FetchRequest::decode(body), Ok(request));
    }

    #[test]
    fn any_chunk_header_decodes_or_is_refused(low in vec(any::<u8>(), CHUNK_HEADER_BYTES), status in 0u8..5, zeros: bool) {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes.copy_from_slice(&low);
        bytes[40] = status;
        if zeros {
            bytes[41..].fill(0);
        }
        if let Ok(header) = ChunkHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn whole_inventories_come_in_frames_that_fit(seed: u64, authors in 1u8..4) {
        // Every other position held: the worst case for spans.
        let mut holdings = crate::inventory::Holdings::new();
        let key = crate::keys::DeviceKey::from_seed(&[1; 32]);
        for author in 0..authors {
            let spans = (0..40_000).map(|n| Span { start: n * 2 + (seed % 2) as u32, count: 1 }).collect();
            holdings.apply(&[HoldingChanges { held: spans, ..HoldingChanges::none(AuthorId::from_bytes([author; 32])) }]);
        }
        let head = crate::inventory::Head {
            peer: key.device_id(),
            generation: Generation { counter: 1, nonce: seed },
            seq: 0,
            root: holdings.root(),
            held: holdings.held_count(),
            erased: 0,
            place: None,
            time: crate::time::WallTime(0),
        };
        let head = SignedHead::sign(head, &crate::id::LibraryId::from_bytes([2; 32]), &key);
        let parts = InventoryPart::whole(&head, &holdings.as_changes());
        let mut again = crate::inventory::Holdings::new();
        for (index, part) in parts.iter().enumerate() {
            prop_assert_eq!(part.more, index + 1 < parts.len());
            let frame = Message::Inventory(part.clone()).to_frame();
            prop_assert_eq!(decode_frame(&frame), Ok(Message::Inventory(part.clone())));
            again.apply(&part.changes);
        }
        prop_assert_eq!(again.root(), holdings.root());
    }
}

#[test]
fn lengths_are_checked_before_anything_is_read() {
    let header = |length: u32, tag| {
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4] = tag;
        header
    };
    for tag in 0..=u8::MAX {
        let limit = body_bytes_max(tag);
        assert!(FrameHeader::parse(&header(limit as u32, tag)).is_ok());
        let too_long = FrameHeader::parse(&header(limit as u32 + 1, tag));
        assert_eq!(too_long, Err(FrameRefused::TooLong { tag, length: limit + 1, limit }));
    }
    assert!(FetchRequest::body_length((FETCH_REQUEST_BYTES_MAX as u32 + 1).to_le_bytes()).is_err());
}

#[test]
fn the_gate_opens_step_by_step() {
    let header = |tag| [0, 0, 0, 0, tag];
    let mut gate = Gate::default();
    assert!(gate.admit(&header(tag::PROVE)).is_err());
    assert!(gate.admit(&header(tag::VECTOR)).is_err());
    assert!(gate.admit(&header(tag::HELLO)).is_ok());
    assert!(gate.admit(&header(tag::HELLO)).is_err());
    assert!(gate.admit(&header(tag::BYE)).is_ok());
    assert!(gate.admit(&header(tag::PROVE)).is_ok());
    assert!(gate.admit(&header(tag::VECTOR)).is_ok());
}

#[test]
fn too_many_entries_are_refused() {
    let point = LogPoint {
        author: AuthorId::from_bytes([1; 32]),
        length: 1,
        head: EnvelopeHash::from_bytes([2; 32]),
        forked: false,
    };
    let frame = Message::Vector(vec![point; VECTOR_AUTHORS_MAX + 1]).to_frame();
    assert!(matches!(decode_frame(&frame), Err(MessageRefused::TooMany { .. })));
    let chunks = vec![ChunkId::from_bytes([1; 32]); crate::limits::CHUNKS_PER_REQUEST_MAX + 1];
    let request = FetchRequest { request: 1, urgent: false, chunks };
    assert!(FetchRequest::decode(&request.to_frame()[4..]).is_err());
}

#[test]
fn a_fetch_request_of_full_size_fits() {
    let chunks = vec![ChunkId::from_bytes([0xff; 32]); crate::limits::CHUNKS_PER_REQUEST_MAX];
    let request = FetchRequest { request: u64::MAX, urgent: true, chunks };
    assert_eq!(FetchRequest::decode(&request.to_frame()[4..]), Ok(request));
}
