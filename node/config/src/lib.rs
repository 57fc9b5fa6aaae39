//! A node's configuration file: what it must hold, and what is wrong with it.
//!
//! The file says who the node is, where it listens, where its data are, and who the members of the cluster are. Paths are
//! relative to the file. Unknown keys are errors: a mistyped bound must not be passed over.

mod check;
mod examine;
mod reference;

#[cfg(test)]
mod tests;

pub use reference::document;

use isthmus_engine::{DomainId, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a configuration file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A node's configuration, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's name: one of the members'.
    pub node: String,
    /// Where its data are; relative to the file.
    pub data_dir: PathBuf,
    /// Whether this node forms the cluster when it is started for the first time. True on exactly one node. It does so
    /// once most members answer, and all of them that there is no cluster yet.
    #[serde(default)]
    pub bootstrap: bool,
    /// The cluster.
    pub cluster: Cluster,
    /// Where the node listens.
    pub listen: Listen,
    /// How it proves who it is.
    pub tls: Tls,
    /// How it talks to the other nodes.
    #[serde(default)]
    pub link: Link,
    /// How long things may take.
    #[serde(default)]
    pub timing: Timing,
    /// What is done when a site is lost.
    #[serde(default)]
    pub failover: Failover,
    /// The volumes' journal.
    #[serde(default)]
    pub journal: Journal,
    /// How the volumes' blocks are read to find bad ones.
    #[serde(default)]
    pub scrub: Scrub,
    /// What is told to Prometheus.
    #[serde(default)]
    pub metrics: Metrics,
    /// The cluster domains.
    #[serde(rename = "domain", default)]
    pub domains: Vec<Domain>,
    /// The nodes of the cluster, this one too.
    #[serde(rename = "member", default)]
    pub members: Vec<Member>,
}

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its name, for people.
    pub name: String,
    /// Its random id, never 0.
    pub id: ClusterId,
}

/// A cluster's random id, written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(pub u64);

impl TryFrom<String> for ClusterId {
    type Error = String;
    fn try_from(text: String) -> Result<ClusterId, String> {
        let plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = plain
            .then(|| u64::from_str_radix(&text, 16).ok())
            .flatten()
            .filter(|id| *id != 0);
        id.map(ClusterId)
            .ok_or_else(|| format!("'{text}' is no cluster id: write 16 hex digits, not all 0"))
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> String {
        id.to_string()
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// For other nodes: QUIC over UDP, and TLS over TCP, both at this number.
    pub peer: SocketAddr,
    /// For the admin API (plain HTTP): a loopback address.
    pub api: SocketAddr,
    /// For NBD clients; none on a witness.
    pub nbd: Option<SocketAddr>,
}

/// PEM files; relative to the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The cluster's certificate authority.
    pub authority: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How a node talks to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// What carries mirrored writes and resync of the links that this node dials: the node with the lower id dials, the other takes either.
    pub bulk: Bulk,
    /// The longest round trip to another data domain that is as it should be, in milliseconds: 1 to 1,000. A link whose median is over it for
    /// `window_seconds` is in state `LatencyExceeded`.
    pub max_rtt_ms: u64,
    /// Over how many seconds the median is taken for that: 5 to 600.
    pub window_seconds: u64,
    /// What is done about a link in that state. `report`: it is said. `refuse-new`: no volumes are created over it, those that are there go on.
    /// `degrade`: replicas behind it leave the in-sync sets of volumes with the policy `degrade`, and stay out until it was good for
    /// `hold_down_seconds`. With the last two a node does not become a member for the first time over such a link. The same on all nodes.
    pub action: LatencyAction,
    /// For how long a link has to be good again before replicas behind it come back, in seconds: 1 to 86,400.
    pub hold_down_seconds: u64,
}

impl Default for Link {
    fn default() -> Link {
        Link {
            bulk: Bulk::default(),
            max_rtt_ms: 10,
            window_seconds: 30,
            action: LatencyAction::default(),
            hold_down_seconds: 300,
        }
    }
}

/// What is done about a link that is too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyAction {
    /// It is said.
    #[default]
    Report,
    /// No volumes are created over it.
    RefuseNew,
    /// Replicas behind it leave the in-sync sets.
    Degrade,
}

/// What carries mirrored writes and resync. Both are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bulk {
    /// TLS over TCP: the least work and time for a write.
    #[default]
    Tls,
    /// QUIC over UDP: where TCP is not let through, or packets are often lost.
    Quic,
}

/// How long things may take, in milliseconds. The same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// For how long a replica promises its primary not to take a higher epoch: 500 to 60,000.
    pub lease_ms: u64,
    /// For how long a replica may be silent before its loss is acted on: 100 to 60,000.
    pub replica_timeout_ms: u64,
    /// How often kvdb's leader says that it is there: 10 to 10,000.
    pub heartbeat_ms: u64,
    /// The shortest silence of the leader after which a voter stands for election (the longest is twice this): at least
    /// three heartbeats, and less than half a lease.
    pub election_timeout_ms: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            lease_ms: 3000,
            replica_timeout_ms: 2000,
            heartbeat_ms: 100,
            election_timeout_ms: 500,
        }
    }
}

impl Timing {
    /// For how long a replica promises its primary not to take a higher epoch.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

/// What is done when a site is lost. The same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Failover {
    /// Who deactivates a lost data domain.
    pub policy: FailoverPolicy,
    /// `automatic`: for how long no voter has heard any node of the domain, in milliseconds: 3,000 to 3,600,000.
    pub after_ms: u64,
    /// Whether a domain that the policy deactivated is activated again once its nodes have answered for as long.
    pub auto_activate: bool,
}

/// Who deactivates a lost data domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverPolicy {
    /// An operator.
    #[default]
    Manual,
    /// kvdb's leader, where every volume stays whole.
    Automatic,
}

impl Default for Failover {
    fn default() -> Failover {
        Failover {
            policy: FailoverPolicy::Manual,
            after_ms: 10_000,
            auto_activate: false,
        }
    }
}

/// The volumes' journal: preallocated segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// MiB of a segment: 8 to 1,024.
    pub segment_mib: u32,
    /// How many segments: 4 to 1,024.
    pub segments: u32,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal {
            segment_mib: 16,
            segments: 16,
        }
    }
}

/// The scrub: all blocks are read now and then, and what is bad is repaired from the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scrub {
    /// MiB per second over all volumes of the node: 0 (never) to 10,000.
    pub mib_per_second: u32,
    /// Hours from the end of a volume's pass to the next: 1 to 8,760.
    pub every_hours: u32,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub {
            mib_per_second: 4,
            every_hours: 168,
        }
    }
}

/// What is told to Prometheus. Each node tells of itself; the admin API has the same at `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Where `GET /metrics` is answered over plain HTTP, and nothing else; nowhere but at the admin API when it is left out. Whoever reaches it
    /// can read the names and figures of the volumes.
    pub listen: Option<SocketAddr>,
    /// How many volumes have series of their own: 0 to 2,000. The others (those with the highest ids) are counted together as `(others)`.
    pub volumes: u32,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            listen: None,
            volumes: 128,
        }
    }
}

/// What a domain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds replicas.
    Data,
    /// Only votes.
    Witness,
}

/// A cluster domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// 1 and up, never used for another one.
    pub id: u32,
    /// For people and flags.
    pub name: String,
    /// What it is for.
    pub role: Role,
}

/// What a node is, where it is not what its domain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberRole {
    /// Holds no replica and never votes: forwards its clients to the volumes' primaries. In a data domain.
    Diskless,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// 1 and up, never used for another one.
    pub id: u32,
    /// For people and flags.
    pub name: String,
    /// The name of its domain.
    pub domain: String,
    /// Left out: what its domain is for. `diskless`: a node of a data domain that holds no replica and never votes; its NBD clients are
    /// forwarded to the volumes' primaries.
    pub role: Option<MemberRole>,
    /// Where other nodes reach it.
    pub peer_address: SocketAddr,
    /// Where its admin API is.
    pub api_address: SocketAddr,
    /// Where its NBD server is; none on a witness.
    pub nbd_address: Option<SocketAddr>,
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// One line for the operator that names the file, the key, what is wrong and what to do.
    pub fn load(path: &Path) -> anyhow::Result<Config> {
        let length = std::fs::metadata(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?
            .len();
        anyhow::ensure!(
            length <= FILE_BYTES_MAX,
            "{}: it has {length} bytes; is it a configuration file?",
            path.display()
        );
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let mut config =
            Config::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for path in [
            &mut config.data_dir,
            &mut config.tls.authority,
            &mut config.tls.certificate,
            &mut config.tls.key,
        ] {
            *path = folder.join(&*path);
        }
        Ok(config)
    }

    /// Reads and checks a configuration; paths stay as they are.
    ///
    /// # Errors
    /// One line: the key, what is wrong, what to do.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        config.check()?;
        Ok(config)
    }

    /// This node's entry in the member list.
    ///
    /// # Panics
    /// When the configuration was not checked.
    pub fn this_member(&self) -> &Member {
        self.members
            .iter()
            .find(|member| member.name == self.node)
            .expect("a checked configuration lists its own node")
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.this_member().id)
    }

    /// The domain that a member names.
    ///
    /// # Panics
    /// When the configuration was not checked.
    pub fn domain_of(&self, member: &Member) -> &Domain {
        self.domains
            .iter()
            .find(|domain| domain.name == member.domain)
            .expect("a checked configuration has all its domains")
    }

    /// What a member is.
    pub fn role_of(&self, member: &Member) -> NodeRole {
        match (member.role, self.domain_of(member).role) {
            (Some(MemberRole::Diskless), _) => NodeRole::Diskless,
            (None, Role::Data) => NodeRole::Data,
            (None, Role::Witness) => NodeRole::Witness,
        }
    }

    /// The id of the domain that a member names.
    pub fn domain_id_of(&self, member: &Member) -> DomainId {
        DomainId(self.domain_of(member).id)
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// Holds replicas.
    Data,
    /// Only votes.
    Witness,
    /// Forwards its clients.
    Diskless,
}

/// TOML's own message with the line it is about, in one line.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let place = error.span().map_or_else(String::new, |span| {
        let line = text
            .get(..span.start)
            .map_or(0, |before| before.matches('\n').count())
            + 1;
        format!("line {line}: ")
    });
    format!("{place}{}", error.message().replace('\n', " "))
}
