//! A ticket as text: what parses shows as the same text.
#![no_main]

use holdfast_protocol::pairing::Ticket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for text in [text.to_owned(), format!("holdfast1{text}")] {
        if let Ok(ticket) = text.parse::<Ticket>() {
            assert_eq!(ticket.to_string().parse::<Ticket>().as_ref(), Ok(&ticket));
        }
    }
});
