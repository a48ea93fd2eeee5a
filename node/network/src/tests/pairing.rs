use super::*;
use crate::{PairError, PairingId};

async fn asked(node: &mut Node) -> (PairingId, DeviceId, Bytes) {
    node.until(|event| match event {
        NetworkEvent::PairRequested { pairing, peer, body } => Some((pairing, peer, body)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_asks_and_is_answered() {
    let (joiner, mut inviter) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP, QUIC]).await);
    let (handle, device, addresses) = (joiner.handle.clone(), inviter.device, inviter.addresses.clone());
    let pairing = tokio::spawn(async move { handle.pair(device, addresses, b"let me in".to_vec()).await });
    let (exchange, peer, body) = asked(&mut inviter).await;
    assert_eq!((peer, &body[..]), (joiner.device, &b"let me in"[..]));
    inviter.handle.answer_pairing(exchange, Some(Bytes::from(vec![5; 40_000])));
    assert_eq!(pairing.await.unwrap(), Ok(Bytes::from(vec![5; 40_000])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_failures_are_told_apart() {
    let (joiner, mut inviter) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (handle, device, addresses) = (joiner.handle.clone(), inviter.device, inviter.addresses.clone());
    let pairing = tokio::spawn(async move { handle.pair(device, addresses, b"wrong".to_vec()).await });
    let (exchange, ..) = asked(&mut inviter).await;
    inviter.handle.answer_pairing(exchange, None);
    assert_eq!(pairing.await.unwrap(), Err(PairError::Refused));

    let pair = |request: Vec<u8>| joiner.handle.pair(inviter.device, inviter.addresses.clone(), request);
    assert_eq!(pair(vec![0; 4097]).await, Err(PairError::TooLong { length: 4097 }));
    let nobody = DeviceKey::from_seed(&[9; 32]).device_id();
    let unreachable = joiner.handle.pair(nobody, vec!["/ip4/127.0.0.1/tcp/9".to_owned()], Vec::new()).await;
    assert!(matches!(unreachable, Err(PairError::Unreachable { .. })), "{unreachable:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_slow() {
    let (joiner, mut inviter) = (Node::start(1, &[TCP]).await, Node::start(2, &[TCP]).await);
    let (handle, device, addresses) = (joiner.handle.clone(), inviter.device, inviter.addresses.clone());
    let guesses = tokio::spawn(async move {
        for guess in 0..14u8 {
            assert_eq!(handle.pair(device, addresses.clone(), vec![guess]).await, Err(PairError::Refused));
        }
    });
    let mut heard = 0;
    while !guesses.is_finished() {
        let Ok(Some(event)) = timeout(Duration::from_millis(200), inviter.events.recv()).await else { continue };
        if let NetworkEvent::PairRequested { pairing, .. } = event {
            heard += 1;
            inviter.handle.answer_pairing(pairing, None);
        }
    }
    guesses.await.unwrap();
    assert_eq!(heard, 10, "the rest of the minute's guesses are refused unheard");
}
