//! The nodes' configuration files and certificates.

use crate::cluster::Node;
use isthmus_engine::NodeId;
use isthmus_transport::Authority;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The cluster's id.
pub const CLUSTER_ID: u64 = 0x7e57_0000_0000_0001;
const PEER_PORT: u16 = 9540;
const API_PORT: u16 = 9440;
const NBD_PORT: u16 = 10809;

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    peer: IpAddr,
    local: IpAddr,
}

impl Addresses {
    /// A node that other nodes reach at `peer`, and its clients at `local`.
    #[must_use]
    pub const fn new(peer: IpAddr, local: IpAddr) -> Addresses {
        Addresses { peer, local }
    }

    /// Its NBD server's.
    #[must_use]
    pub fn nbd(&self) -> SocketAddr {
        SocketAddr::new(self.local, NBD_PORT)
    }

    /// Its admin API's.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        SocketAddr::new(self.local, API_PORT)
    }

    /// Where other nodes reach it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer, PEER_PORT)
    }
}

/// How long things may take, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A grant's length.
    pub lease_ms: u64,
    /// A replica's silence.
    pub replica_timeout_ms: u64,
    /// kvdb's heartbeat.
    pub heartbeat_ms: u64,
    /// kvdb's silence before an election.
    pub election_timeout_ms: u64,
}

impl Timing {
    /// Shorter than the product's own, so that many failovers fit into a test; long enough for a busy machine.
    pub const QUICK: Timing = Timing {
        lease_ms: 1500,
        replica_timeout_ms: 1000,
        heartbeat_ms: 100,
        election_timeout_ms: 500,
    };
    /// The product's own.
    pub const USUAL: Timing = Timing {
        lease_ms: 3000,
        replica_timeout_ms: 2000,
        heartbeat_ms: 100,
        election_timeout_ms: 500,
    };
}

/// Writes `tls/` and a configuration file for each node, with the smallest journal if that is asked for, and `more` at its end.
///
/// # Errors
/// The folder can't be written.
pub fn write(
    folder: &Path,
    addresses: &[Addresses; 3],
    timing: &Timing,
    small_journal: bool,
    more: &str,
    workers: &[Worker],
) -> io::Result<()> {
    let tls = folder.join("tls");
    let authority = Authority::create(&tls, CLUSTER_ID)?;
    for node in Node::ALL {
        authority.issue(&tls, node.name(), NodeId(node.index() as u32 + 1))?;
        let mut text = text(node, addresses, timing);
        if small_journal {
            text.push_str("[journal]\nsegment_mib = 8\nsegments = 4\n");
        }
        text.push_str(more);
        members(&mut text, workers);
        fs::write(folder.join(format!("{}.toml", node.name())), text)?;
    }
    for worker in workers {
        authority.issue(&tls, &worker.name, NodeId(worker.id))?;
        let own = &worker.addresses;
        let mut text = with_nbd(&head(&worker.name, false, own, timing), own);
        text.push_str(&cluster(addresses));
        text.push_str(more);
        members(&mut text, workers);
        fs::write(folder.join(format!("{}.toml", worker.name)), text)?;
    }
    Ok(())
}

/// A node that is no part of the first three: diskless, or with a store.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name: `worker-1` and up, `store-1` and up with a store.
    pub name: String,
    /// Its number.
    pub id: u32,
    site: Node,
    has_store: bool,
    /// Where it is.
    pub addresses: Addresses,
}

impl Worker {
    /// The one of this index, at the site of `site`.
    #[must_use]
    pub fn new(index: usize, (site, has_store): (Node, bool), addresses: Addresses) -> Worker {
        let kind = if has_store { "store" } else { "worker" };
        Worker {
            name: format!("{kind}-{}", index + 1),
            id: index as u32 + 11,
            site,
            has_store,
            addresses,
        }
    }

    /// What each node's configuration file says of it.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        members(&mut text, std::slice::from_ref(self));
        text
    }
}

fn members(text: &mut String, workers: &[Worker]) {
    for worker in workers {
        let Worker {
            name,
            id,
            site,
            has_store,
            addresses,
        } = worker;
        let role = if *has_store {
            ""
        } else {
            "role = \"diskless\"\n"
        };
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "[[member]]\nid = {id}\nname = \"{name}\"\ndomain = \"{}\"\n{role}\
             peer_address = \"{}\"\napi_address = \"{}\"\nnbd_address = \"{}\"\n",
            site.domain(),
            addresses.peer(),
            addresses.api(),
            addresses.nbd(),
        );
    }
}

/// Writes the configuration file and the certificate of a node that comes later: as that of `like`, of which all is said but itself.
///
/// # Errors
/// The folder can't be written.
pub fn write_one(folder: &Path, like: Node, worker: &Worker) -> io::Result<()> {
    let tls = folder.join("tls");
    Authority::load(&tls, CLUSTER_ID)?.issue(&tls, &worker.name, NodeId(worker.id))?;
    let text = fs::read_to_string(folder.join(format!("{}.toml", like.name())))?;
    let (head, members) = text.split_once("[[domain]]").unwrap_or((&text, ""));
    let own = &worker.addresses;
    let mut text = String::new();
    for line in head.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        let value = match key {
            "node" | "data_dir" => Some(worker.name.clone()),
            "peer" => Some(own.peer().to_string()),
            "api" => Some(own.api().to_string()),
            "nbd" => Some(own.nbd().to_string()),
            "certificate" => Some(format!("tls/{}.pem", worker.name)),
            "key" => Some(format!("tls/{}-key.pem", worker.name)),
            _ => None,
        };
        // Writing to a String can't fail.
        let _ = match value {
            Some(value) => writeln!(text, "{key} = \"{value}\""),
            None => writeln!(text, "{line}"),
        };
    }
    text.push_str("[[domain]]");
    text.push_str(members);
    fs::write(folder.join(format!("{}.toml", worker.name)), text)
}

/// Adds tables to a node's configuration file.
///
/// # Errors
/// The file can't be written.
pub fn add(folder: &Path, node: Node, tables: &str) -> io::Result<()> {
    let file = folder.join(format!("{}.toml", node.name()));
    let mut file = fs::File::options().append(true).open(file)?;
    file.write_all(tables.as_bytes())
}

fn text(node: Node, addresses: &[Addresses; 3], timing: &Timing) -> String {
    let own = &addresses[node.index()];
    let mut text = head(node.name(), node == Node::A1, own, timing);
    if node != Node::W1 {
        text = with_nbd(&text, own);
    }
    text.push_str(&cluster(addresses));
    text
}

/// What a node says of itself, without an NBD server.
fn head(name: &str, bootstrap: bool, own: &Addresses, timing: &Timing) -> String {
    format!(
        "node = \"{name}\"\ndata_dir = \"{name}\"\nbootstrap = {bootstrap}\n\
         [cluster]\nname = \"test\"\nid = \"{CLUSTER_ID:016x}\"\n\
         [listen]\npeer = \"{}\"\napi = \"{}\"\n\
         [tls]\nauthority = \"tls/ca.pem\"\ncertificate = \"tls/{name}.pem\"\nkey = \"tls/{name}-key.pem\"\n\
         [timing]\nlease_ms = {}\nreplica_timeout_ms = {}\nheartbeat_ms = {}\nelection_timeout_ms = {}\n",
        own.peer(),
        own.api(),
        timing.lease_ms,
        timing.replica_timeout_ms,
        timing.heartbeat_ms,
        timing.election_timeout_ms,
    )
}

/// The same with one.
fn with_nbd(head: &str, own: &Addresses) -> String {
    head.replace("[tls]", &format!("nbd = \"{}\"\n[tls]", own.nbd()))
}

/// Domains and members.
fn cluster(addresses: &[Addresses; 3]) -> String {
    let mut text = String::new();
    for (id, node) in (1..).zip(Node::ALL) {
        let role = if node == Node::W1 { "witness" } else { "data" };
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "[[domain]]\nid = {id}\nname = \"{}\"\nrole = \"{role}\"\n",
            node.domain()
        );
    }
    for (id, node) in (1..).zip(Node::ALL) {
        let addresses = &addresses[node.index()];
        let nbd = match node {
            Node::A1 | Node::B1 => format!("nbd_address = \"{}\"\n", addresses.nbd()),
            Node::W1 => String::new(),
        };
        let _ = write!(
            text,
            "[[member]]\nid = {id}\nname = \"{}\"\ndomain = \"{}\"\npeer_address = \"{}\"\napi_address = \"{}\"\n{nbd}",
            node.name(),
            node.domain(),
            addresses.peer(),
            addresses.api(),
        );
    }
    text
}
