//! Which ports the nodes take, and whether they are free.

use isthmus_config::Config;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

const NBD_A_DEFAULT: u16 = 10809;
const NBD_B_DEFAULT: u16 = 10810;
const PEER_DEFAULT: u16 = 9540;
const API_DEFAULT: u16 = 9440;

/// Where `domain-ctl` looks for the cluster by itself.
pub const API_DEFAULTS: [&str; 3] = [
    "http://127.0.0.1:9440",
    "http://127.0.0.1:9441",
    "http://127.0.0.1:9442",
];

/// Ports on the command line. Without one, a folder that has been used keeps its own, and a new one takes the default.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct PortOptions {
    /// NBD port of site-a [default: 10809]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub nbd_port_a: Option<u16>,
    /// NBD port of site-b [default: 10810]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub nbd_port_b: Option<u16>,
    /// First of three ports (UDP and TCP) between the nodes [default: 9540]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65533))]
    pub peer_port_base: Option<u16>,
    /// First of three ports of the admin API [default: 9440]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65533))]
    pub api_port_base: Option<u16>,
}

/// The ports of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Between nodes.
    pub peer: u16,
    /// Admin API.
    pub api: u16,
    /// NBD; none for the witness.
    pub nbd: Option<u16>,
}

impl PortOptions {
    /// The ports of the node with this index (0, 1, 2), given those that it had.
    pub fn of(&self, index: u16, had: Option<Ports>) -> Ports {
        let base = |option: Option<u16>, had: Option<u16>, default: u16| {
            option
                .map(|base| base + index)
                .or(had)
                .unwrap_or(default + index)
        };
        let nbd = match index {
            0 => Some((self.nbd_port_a, NBD_A_DEFAULT)),
            1 => Some((self.nbd_port_b, NBD_B_DEFAULT)),
            _ => None,
        };
        Ports {
            peer: base(self.peer_port_base, had.map(|had| had.peer), PEER_DEFAULT),
            api: base(self.api_port_base, had.map(|had| had.api), API_DEFAULT),
            nbd: nbd
                .map(|(option, default)| option.or(had.and_then(|had| had.nbd)).unwrap_or(default)),
        }
    }
}

/// Makes sure that nobody else listens where the nodes will.
///
/// # Errors
/// One line: which port of which node is in use, and what to do.
pub fn check_free(configs: &[Config], data_dir: &Path) -> anyhow::Result<()> {
    for config in configs {
        let listen = &config.listen;
        let flag = if config.node == "a1" {
            "--nbd-port-a"
        } else {
            "--nbd-port-b"
        };
        let nbd = listen
            .nbd
            .map(|address| (address, "NBD", flag, tcp(address)));
        let fixed = [
            (listen.peer, "peer", "--peer-port-base", both(listen.peer)),
            (listen.api, "API", "--api-port-base", tcp(listen.api)),
        ];
        for (address, what, flag, free) in fixed.into_iter().chain(nbd) {
            free.map_err(|error| {
                anyhow::anyhow!(
                    "{}'s {what} port {address} can't be used ({error}): an earlier quickstart's node may still run (see {}), \
                     or choose another port with {flag}",
                    config.node,
                    data_dir.join(format!("{}.pid", config.node)).display()
                )
            })?;
        }
    }
    Ok(())
}

fn tcp(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

fn both(address: SocketAddr) -> io::Result<()> {
    let udp = UdpSocket::bind(address)?;
    tcp(address)?;
    drop(udp);
    Ok(())
}
