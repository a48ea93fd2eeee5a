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

/// What connections of all kinds come from.
pub(super) type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// The transport of a node, and the relay client that belongs to it.
pub(super) fn with_circuits(keypair: &Keypair) -> Result<(Connections, relay::client::Behaviour), StartError> {
    let (circuits, client) = relay::client::new(keypair.public().to_peer_id());
    let circuits = circuits
        .upgrade(Version::V1Lazy)
        .authenticate(noise_config(keypair)?)
        .multiplex(yamux_config())
        .timeout(ESTABLISH_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Closing::new(muxer))));
    let transport = OrTransport::new(circuits, direct(keypair)?).map(|either, _| either.into_inner()).boxed();
    Ok((transport, client))
}

/// The transport of those that dial no circuits.
pub(super) fn direct(keypair: &Keypair) -> Result<Connections, StartError> {
    let noise = noise_config(keypair)?;
    match dns::tokio::Transport::system(tcp_and_quic(keypair, &noise)) {
        Ok(named) => Ok(named.boxed()),
        Err(error) => {
            tracing::warn!(%error, "the system resolves no names; peers are reached by number only");
            Ok(tcp_and_quic(keypair, &noise))
        }
    }
}

fn noise_config(keypair: &Keypair) -> Result<noise::Config, StartError> {
    noise::Config::new(keypair).map_err(|error| StartError::Setup { detail: error.to_string() })
}

fn tcp_and_quic(keypair: &Keypair, noise: &noise::Config) -> Connections {
    let tcp = tcp::tokio::Transport::new(tcp::Config::new())
        .map(|stream, _| paced(stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux_config())
        .timeout(ESTABLISH_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Closing::new(muxer))));
    let quic =
        quic::tokio::Transport::new(quic_config(keypair)).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    OrTransport::new(quic, tcp).map(|either, _| either.into_inner()).boxed()
}

/// Has the system send by BBR, where it offers that to this process. Other controls take every lost packet for a sign of a
/// full path: where 1 % is lost in 150 ms, one connection sends 0.1 MB/s by cubic and 5 by BBR.
fn paced(stream: tcp::tokio::TcpStream) -> tcp::tokio::TcpStream {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::sockopt::set_tcp_congestion(&stream.0, "bbr") {
        tracing::debug!(%error, "TCP keeps the congestion control of the system");
    }
    stream
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};

    use super::*;

    #[tokio::test]
    async fn tcp_sends_by_bbr_where_the_system_offers_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = || async {
            tcp::tokio::TcpStream(tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap())
        };
        let plain = connect().await;
        let is_offered = set_tcp_congestion(&plain.0, "bbr").is_ok();
        let before = tcp_congestion(&connect().await.0).unwrap();
        let after = tcp_congestion(&paced(connect().await).0).unwrap();
        assert_eq!(after, if is_offered { "bbr".to_owned() } else { before });
    }
}
