//! Everything a peer can say: frames with any tag, gossip, fetch requests and chunk headers. The first byte chooses.
#![no_main]

use bytes::Bytes;
use holdfast_protocol::message::{
    Announcement, CHUNK_HEADER_BYTES, ChunkHeader, FRAME_HEADER_BYTES, FetchRequest, Message, body_bytes_max,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&tag, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    if let Ok(message) = Message::decode(tag, &body) {
        let frame = message.to_frame();
        assert!(frame.len() - FRAME_HEADER_BYTES <= body_bytes_max(tag));
        assert_eq!(Message::decode(tag, &frame.slice(FRAME_HEADER_BYTES..)), Ok(message));
    }
    if let Ok(Some(announcement)) = Announcement::decode(&body)
        && let Some(message) = announcement.encode()
    {
        assert_eq!(Announcement::decode(&message), Ok(Some(announcement)));
    }
    if let Ok(request) = FetchRequest::decode(&body) {
        assert_eq!(FetchRequest::decode(&request.to_frame()[4..]), Ok(request));
    }
    if let Some((header, _)) = body.split_first_chunk::<CHUNK_HEADER_BYTES>()
        && let Ok(decoded) = ChunkHeader::decode(header)
    {
        assert_eq!(decoded.encode(), *header);
    }
});
