//! How QUIC is set up: flow control and timing for a storage link.

use crate::transport::Config;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

/// Asked of the kernel for the socket, each way; it may give less.
const SOCKET_BYTES: usize = 4 << 20;
/// What one stream, and what one connection, may have under way.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// About 200 packets: a link between two sites is known to be fit for more than a first 15 kB.
const FIRST_WINDOW_BYTES: u64 = 256 << 10;
/// Before the first measurement. Low, so that a lost packet of a handshake costs little.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(10);
/// An acknowledgement at the latest so long after its packet, so that the loss of a last packet is noticed soon.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_millis(2);
/// Packets after which the other side acknowledges at once. Ten instead of two took a fifth of the CPU time away, and some
/// 8 us of a 4 KiB round trip on loopback; what is lost is still noticed at the third packet behind it.
const ACKNOWLEDGED_AFTER_PACKETS: u8 = 10;
/// The largest packet that is tried, where the link carries it (loopback, jumbo frames): a 4 KiB block with its head is one packet instead
/// of three. Ten of them, which quinn hands to the kernel at once, are just below the 64 KiB that the kernel takes.
const PACKET_BYTES_MAX: u16 = 6400;
/// Handshakes that wait to be looked at, and bytes kept for them.
const INCOMING_MAX: usize = 64;
const INCOMING_BYTES_MAX: u64 = 1 << 20;

/// Makes the endpoint, through which this node both dials and is dialed.
pub(crate) fn endpoint(
    config: &Config,
    socket: UdpSocket,
    server: &rustls::ServerConfig,
    client: &rustls::ClientConfig,
) -> io::Result<(Endpoint, ClientConfig)> {
    let (server, client) = configurations(server, client, config.idle_timeout, config.keep_alive)?;
    widen(&socket);
    let mut received = EndpointConfig::default();
    received
        .max_udp_payload_size(PACKET_BYTES_MAX)
        .map_err(io::Error::other)?;
    let endpoint = Endpoint::new(received, Some(server), socket, Arc::new(TokioRuntime))?;
    Ok((endpoint, client))
}

/// Larger buffers are a help, not a need: what the kernel does not give is made up for by retransmission.
fn widen(socket: &UdpSocket) {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BYTES).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BYTES);
    }
    let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BYTES);
}

pub(crate) fn configurations(
    server: &rustls::ServerConfig,
    client: &rustls::ClientConfig,
    idle_timeout: Duration,
    keep_alive: Duration,
) -> io::Result<(ServerConfig, ClientConfig)> {
    let server = QuicServerConfig::try_from(server.clone()).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX / INCOMING_MAX as u64)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX)
        .transport_config(Arc::new(transport(idle_timeout, keep_alive, 1)?));
    let client = QuicClientConfig::try_from(client.clone()).map_err(io::Error::other)?;
    let mut client = ClientConfig::new(Arc::new(client));
    client.transport_config(Arc::new(transport(idle_timeout, keep_alive, 0)?));
    Ok((server, client))
}

/// `greetings`: how many two-way streams the peer may open before the session is up; one-way streams it may not at all.
fn transport(
    idle_timeout: Duration,
    keep_alive: Duration,
    greetings: u8,
) -> io::Result<TransportConfig> {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(FIRST_WINDOW_BYTES);
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(VarInt::from(ACKNOWLEDGED_AFTER_PACKETS))
        .max_ack_delay(Some(ACKNOWLEDGED_WITHIN));
    let mut sizes = MtuDiscoveryConfig::default();
    sizes.upper_bound(PACKET_BYTES_MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from(greetings))
        .max_concurrent_uni_streams(VarInt::from(0_u8))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(
            IdleTimeout::try_from(idle_timeout).map_err(io::Error::other)?,
        ))
        .keep_alive_interval(Some(keep_alive))
        .stream_receive_window(VarInt::from(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .initial_rtt(FIRST_ROUND_TRIP)
        .mtu_discovery_config(Some(sizes))
        .ack_frequency_config(Some(acknowledgements))
        .congestion_controller_factory(Arc::new(cubic));
    Ok(transport)
}

/// The certificates of the other end, which TLS has verified.
pub(crate) fn peer_certificates(connection: &Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map_or_else(Vec::new, |chain| *chain)
}
