//! Where an NBD server is: an address, perhaps in a network namespace.

use crate::link::namespace;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an NBD server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The network namespace to connect in; none for this one.
    pub namespace: Option<String>,
    /// The server's address there.
    pub address: SocketAddr,
}

impl Endpoint {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or nobody answers within five seconds.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let address = self.address;
        let connect = move || TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
        match &self.namespace {
            None => connect(),
            Some(name) => namespace::within(name, connect)?,
        }
    }

    /// The URI of a volume there.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        format!("nbd://{}/{export}", self.address)
    }
}
