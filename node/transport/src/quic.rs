//! How QUIC and TLS are set up: mutual TLS 1.3 within one cluster, flow control and timing for a storage link.

use crate::certificates::{Credentials, node_name};
use crate::transport::Config;
use crate::wire::PROTOCOL;
use isthmus_engine::NodeId;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::client::{Resumption, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
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
pub(crate) fn endpoint(config: &Config) -> io::Result<(Endpoint, ClientConfig)> {
    let credentials = Credentials::load(&config.certificates)?;
    let subject = node_name(config.cluster, config.me);
    if !names(&credentials.chain, &subject) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}: is not the certificate of {subject}",
                config.certificates.certificate.display()
            ),
        ));
    }
    let (server, client) = configurations(&credentials, config.idle_timeout, config.keep_alive)?;
    let socket = UdpSocket::bind(config.listen).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("can't listen on UDP {}: {error}", config.listen),
        )
    })?;
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
    credentials: &Credentials,
    idle_timeout: Duration,
    keep_alive: Duration,
) -> io::Result<(ServerConfig, ClientConfig)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&credentials.roots),
        Arc::clone(&provider),
    )
    .build()
    .map_err(io::Error::other)?;
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(io::Error::other)?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Each session is proven anew: no tickets.
    server.send_tls13_tickets = 0;
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(Arc::clone(&credentials.roots))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(io::Error::other)?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();

    let server = QuicServerConfig::try_from(server).map_err(io::Error::other)?;
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX / INCOMING_MAX as u64)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX)
        .transport_config(Arc::new(transport(idle_timeout, keep_alive, 1)?));
    let client = QuicClientConfig::try_from(client).map_err(io::Error::other)?;
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

fn names(chain: &[CertificateDer<'_>], subject: &str) -> bool {
    let Ok(name) = ServerName::try_from(subject) else {
        return false;
    };
    chain
        .first()
        .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
        .is_some_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

/// Whether the certificate at the other end, whose chain TLS has verified, is that of `node`.
pub(crate) fn is_node(connection: &Connection, cluster: u64, node: NodeId) -> bool {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .is_some_and(|chain| names(&chain, &node_name(cluster, node)))
}
