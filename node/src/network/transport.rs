//! The transports: TCP with Noise and Yamux, QUIC, names resolved by the system, circuits through relays.

use std::time::Duration;

use holdfast_protocol::limits::STREAMS_PER_CONNECTION_MAX;
use libp2p::{
    PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    dns,
    identity::Keypair,
    noise, quic, relay, tcp, yamux,
};

use super::{StartError, closing::Closing};

/// Time to establish a connection: dial, secure and multiplex it.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of one QUIC stream on their way.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;

/// The transport of a node, and the relay client that belongs to it when one is wanted.
pub(super) struct Transports {
    pub(super) transport: Boxed<(PeerId, StreamMuxerBox)>,
    pub(super) relay: Option<relay::client::Behaviour>,
}

/// Whether circuits through relays are dialled and accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relaying {
    On,
    Off,
}

pub(super) fn build(keypair: &Keypair, relaying: Relaying) -> Result<Transports, StartError> {
    let noise = noise::Config::new(keypair).map_err(|error| StartError::Setup { detail: error.to_string() })?;
    let direct = match dns::tokio::Transport::system(direct(keypair, &noise)) {
        Ok(named) => named.boxed(),
        Err(error) => {
            tracing::warn!(%error, "the system resolves no names; peers are reached by number only");
            direct(keypair, &noise)
        }
    };
    if relaying == Relaying::Off {
        return Ok(Transports { transport: direct, relay: None });
    }
    let (circuits, relay) = relay::client::new(keypair.public().to_peer_id());
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux_config())
        .timeout(ESTABLISH_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Closing::new(muxer))));
    let transport = OrTransport::new(circuits, direct).map(|either, _| either.into_inner()).boxed();
    Ok(Transports { transport, relay: Some(relay) })
}

/// TCP and QUIC.
fn direct(keypair: &Keypair, noise: &noise::Config) -> Boxed<(PeerId, StreamMuxerBox)> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new())
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux_config())
        .timeout(ESTABLISH_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Closing::new(muxer))));
    let quic =
        quic::tokio::Transport::new(quic_config(keypair)).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    OrTransport::new(quic, tcp).map(|either, _| either.into_inner()).boxed()
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    // Ours, plus those of ping, identify and gossip.
    config.set_max_num_streams(2 * STREAMS_PER_CONNECTION_MAX);
    config
}

fn quic_config(keypair: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.max_concurrent_stream_limit = 2 * STREAMS_PER_CONNECTION_MAX as u32;
    config.max_stream_data = STREAM_WINDOW_BYTES;
    config.max_connection_data = STREAM_WINDOW_BYTES + STREAM_WINDOW_BYTES / 2;
    config.max_idle_timeout = 30_000;
    config
}
