//! Where a node is reached: one address, by QUIC over UDP and by TLS over TCP.

use crate::certificates::{Credentials, node_name};
use crate::generation::{self, LINEAGE_PROTOCOL};
use crate::quic;
use crate::transport::Config;
use crate::trust;
use quinn::Endpoint;
use std::io;
use std::net::{SocketAddr, TcpListener as Listener, UdpSocket};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Tries to find a number that is free for both, where the kernel chooses.
const TRIES_MAX: usize = 32;

/// Through these a node both dials and is dialed.
pub(crate) struct Ports {
    pub(crate) endpoint: Endpoint,
    pub(crate) quic_client: quinn::ClientConfig,
    pub(crate) listener: TcpListener,
    pub(crate) tls_server: Arc<rustls::ServerConfig>,
    pub(crate) tls_client: Arc<rustls::ClientConfig>,
}

impl Ports {
    /// Listens. To be called inside of the runtime that will serve it.
    pub(crate) fn open(config: &Config) -> io::Result<Ports> {
        let credentials = Credentials::load(&config.certificates)?;
        let subject = node_name(config.cluster, config.me);
        if !trust::names(&credentials.chain, &subject) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{}: is not the certificate of {subject}",
                    config.certificates.certificate.display()
                ),
            ));
        }
        let trust::Configurations {
            mut server,
            mut client,
        } = trust::configurations(&credentials)?;
        let protocol = generation::protocol(&config.lineage);
        let greetings = vec![protocol, LINEAGE_PROTOCOL.to_vec()];
        server.alpn_protocols.clone_from(&greetings);
        client.alpn_protocols = greetings;
        let (socket, listener) = bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let (endpoint, quic_client) = quic::endpoint(config, socket, &server, &client)?;
        Ok(Ports {
            endpoint,
            quic_client,
            listener: TcpListener::from_std(listener)?,
            tls_server: Arc::new(server),
            tls_client: Arc::new(client),
        })
    }
}

/// The same number for both.
fn bind(address: SocketAddr) -> io::Result<(UdpSocket, Listener)> {
    let mut tries = 0;
    loop {
        let socket = UdpSocket::bind(address).map_err(|error| cannot("UDP", address, &error))?;
        let chosen = socket.local_addr()?;
        match Listener::bind(chosen) {
            Ok(listener) => return Ok((socket, listener)),
            Err(error) if address.port() == 0 && tries < TRIES_MAX => {
                tries += 1;
                tracing::debug!(%chosen, %error, "taken; another one");
            }
            Err(error) => return Err(cannot("TCP", chosen, &error)),
        }
    }
}

fn cannot(what: &str, address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("can't listen on {what} {address}: {error}"),
    )
}
