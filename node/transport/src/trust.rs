//! Mutual TLS 1.3 within one cluster: what is shown, what is trusted, and who it is at the other end.

use crate::certificates::{Credentials, node_name};
use crate::wire::PROTOCOL;
use isthmus_engine::NodeId;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::sync::Arc;

/// For both ends of a connection.
pub(crate) struct Configurations {
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
}

/// Each end shows its certificate, and trusts the cluster's authority alone.
pub(crate) fn configurations(credentials: &Credentials) -> io::Result<Configurations> {
    configurations_with(credentials, &rustls::crypto::ring::default_provider())
}

pub(crate) fn configurations_with(
    credentials: &Credentials,
    provider: &CryptoProvider,
) -> io::Result<Configurations> {
    let provider = Arc::new(provider.clone());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&credentials.roots),
        Arc::clone(&provider),
    )
    .build()
    .map_err(io::Error::other)?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(io::Error::other)?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Each session is proven anew: no tickets.
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(Arc::clone(&credentials.roots))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(io::Error::other)?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Configurations { server, client })
}

/// Whether a certificate chain, which TLS has verified, is that of `node`.
pub(crate) fn is_node(chain: &[CertificateDer<'_>], cluster: u64, node: NodeId) -> bool {
    names(chain, &node_name(cluster, node))
}

/// Whether the first certificate is for this name.
pub(crate) fn names(chain: &[CertificateDer<'_>], subject: &str) -> bool {
    let Ok(name) = ServerName::try_from(subject) else {
        return false;
    };
    chain
        .first()
        .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
        .is_some_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}
