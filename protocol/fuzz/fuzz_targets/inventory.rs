//! Inventories: heads and parts of any bytes are decoded or refused; what is decoded can be applied and encodes to the
//! same bytes.
#![no_main]

use bytes::Bytes;
use holdfast_protocol::inventory::{HOLDINGS_POSITIONS_MAX, Holdings, SignedHead};
use holdfast_protocol::message::{FRAME_HEADER_BYTES, Message, tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let data = Bytes::copy_from_slice(data);
    let _ = SignedHead::parse_unverified(data.clone());
    let Ok(message @ Message::Inventory(_)) = Message::decode(tag::INVENTORY, &data) else { return };
    assert_eq!(message.to_frame().slice(FRAME_HEADER_BYTES..), data);
    let Message::Inventory(part) = message else { return };
    let spans = part.changes.iter().flat_map(|changes| changes.held.iter().chain(&changes.erased));
    if spans.map(|span| u64::from(span.count)).sum::<u64>() <= HOLDINGS_POSITIONS_MAX {
        let mut holdings = Holdings::new();
        holdings.apply(&part.changes);
        let mut again = Holdings::new();
        again.apply(&holdings.as_changes());
        assert_eq!(again.root(), holdings.root());
    }
});
