//! The proof of membership that a relay asks for: `length u32 LE ‖ a Prove frame's body`, answered by one byte.
//!
//! The transport has proven the device; its certificates lead to the root of a library that the relay serves. They are no
//! secret: whoever else shows them is another device.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt};
use holdfast_protocol::{
    certificate::{DeviceCertificate, leads_to_root},
    id::{DeviceId, LibraryId},
    limits::HELLO_BYTES_MAX,
    message::{Message, Prove, tag},
};
use tokio::time::timeout;

use super::{frame, streams::Stream};

/// A whole exchange.
const DEADLINE: Duration = Duration::from_secs(10);
const ADMITTED: u8 = 1;
const REFUSED: u8 = 0;

/// What came of asking a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It listens for this device.
    Admitted,
    /// It asks nobody for a proof: a relay as anybody may run one.
    Unasked,
    /// It serves others.
    Refused,
    /// No answer came.
    Lost,
}

/// Shows `chain` to a relay.
pub(super) async fn show(stream: Option<Stream>, chain: Vec<Vec<u8>>) -> Outcome {
    let Some(mut stream) = stream else { return Outcome::Unasked };
    let exchange = async {
        // The frame of the greeting, without its tag.
        let frame = Message::Prove(Prove { chain }).to_frame();
        stream.write_all(&frame[..4]).await?;
        stream.write_all(&frame[5..]).await?;
        stream.flush().await?;
        let mut answer = [REFUSED];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer[0])
    };
    match timeout(DEADLINE, exchange).await {
        Ok(Ok(ADMITTED)) => Outcome::Admitted,
        Ok(Ok(_)) => Outcome::Refused,
        _ => Outcome::Lost,
    }
}

/// A member that waits to hear that it is let in.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) certificate: DeviceCertificate,
    stream: Stream,
}

/// Reads a proof of `device`: its certificate when it is a member of one of `libraries`. Others are refused.
pub(super) async fn check(mut stream: Stream, device: DeviceId, libraries: &[LibraryId]) -> Option<Proven> {
    let body = timeout(DEADLINE, frame::read_body(&mut stream, HELLO_BYTES_MAX)).await.ok()?.ok()?;
    let Some(certificate) = member(&body, &device, libraries) else {
        answer(stream, REFUSED).await;
        return None;
    };
    Some(Proven { certificate, stream })
}

impl Proven {
    /// Tells it, once it is let in.
    pub(super) async fn welcome(self) {
        answer(self.stream, ADMITTED).await;
    }
}

async fn answer(mut stream: Stream, answer: u8) {
    let answering = async {
        stream.write_all(&[answer]).await?;
        stream.close().await
    };
    // Who does not listen asks again.
    let _ = timeout(DEADLINE, answering).await;
}

fn member(body: &Bytes, device: &DeviceId, libraries: &[LibraryId]) -> Option<DeviceCertificate> {
    let Ok(Message::Prove(Prove { chain })) = Message::decode(tag::PROVE, body) else { return None };
    let chain: Vec<_> = chain.iter().map(|wire| DeviceCertificate::parse(wire)).collect::<Result<_, _>>().ok()?;
    libraries.iter().any(|library| leads_to_root(&chain, device, library)).then(|| chain.into_iter().next())?
}
