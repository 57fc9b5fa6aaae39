//! One member of a kvdb group as a process, with clients in it: told what to do by lines on its standard input, it answers by lines.
//!
//! `put CLIENTS MS`: so many clients, each one command at a time, for so long; answered `COUNT P50 P99 LONGEST` (in µs). `leader`: who leads.
//!
//! A put is a typed command that changes the catalog, alternately `CreateVolume` and `DeleteVolume` of a volume of the client's own:
//! validated, recorded in the audit trail, and durable at a majority before it is answered. No data node acts on it here.

use crate::patience;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use isthmus_catalog::{
    Answer, Cause, Command, DomainRecord, DomainRole, DomainState, NodeRecord, VolumePolicy,
};
use isthmus_disk::FileDisk;
use isthmus_engine::{DomainId, Incarnation, NodeId};
use isthmus_kvdb::peers::PeerAnswer;
use isthmus_kvdb::{Kvdb, KvdbConfig, Peers};
use isthmus_transport::{Authority, Config, Handler, Lane, SessionId, Transport};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};

/// Members.
pub const MEMBERS: u32 = 3;
const CLUSTER: u64 = 0xbe7c;
const FORMED_WITHIN: Duration = Duration::from_secs(20);

/// What a member is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Role<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// The group's folder.
    pub folder: &'a Path,
    /// The first member's port; the others' follow.
    pub port: u16,
    /// How often the leader shows that it lives.
    pub heartbeat: Duration,
    /// How long a voter waits for that.
    pub election: Duration,
}

#[derive(Default)]
struct Way(OnceLock<Arc<Transport>>);

impl Peers for Way {
    fn call(&self, to: NodeId, request: Bytes, within: Duration) -> PeerAnswer<'_> {
        Box::pin(async move {
            let transport = self
                .0
                .get()
                .ok_or_else(|| std::io::Error::other("starting"))?;
            transport
                .call(to, 1, request, within)
                .await
                .map_err(std::io::Error::other)
        })
    }
}

struct Serving {
    kvdb: Kvdb,
    runtime: Handle,
}

impl Handler for Serving {
    fn session_up(&self, _peer: NodeId, _session: SessionId) {}
    fn session_down(&self, _peer: NodeId, _session: SessionId) {}
    fn frame(&self, _peer: NodeId, _session: SessionId, _lane: Lane, _frame: Bytes) {}
    fn call(&self, peer: NodeId, _service: u8, request: Bytes) -> isthmus_transport::Answer {
        let kvdb = self.kvdb.clone();
        let answer = self
            .runtime
            .spawn(async move { kvdb.serve(peer, request).await });
        Box::pin(async move { answer.await.unwrap_or_default() })
    }
}

/// Lives as a member until standard input ends.
///
/// # Errors
/// It can't start, or a command makes no sense.
pub fn live(role: Role<'_>) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let kvdb = runtime.block_on(start(role))?;
    join(&runtime, &kvdb, role)?;
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["leader"] => writeln!(
                output,
                "{}",
                kvdb.metrics().leader.map_or(0, |leader| leader.0)
            )?,
            ["put", clients, ms] => {
                let (clients, time) = (clients.parse()?, Duration::from_millis(ms.parse()?));
                let times = runtime.block_on(puts(&kvdb, role.number, clients, time))?;
                writeln!(output, "{}", super::kvdb_rivals::Times(times).line())?;
            }
            _ => bail!("not understood: {line}"),
        }
        output.flush()?;
    }
    Ok(())
}

async fn start(role: Role<'_>) -> anyhow::Result<Kvdb> {
    let name = format!("m{}", role.number);
    let node = NodeId(role.number);
    let data = role.folder.join(&name);
    let disk = || FileDisk::open(&data, Arc::new(|| {}));
    let nodes = (1..=MEMBERS).map(NodeId).collect();
    let mut config = KvdbConfig::new(
        node,
        Incarnation(u64::from(role.number)),
        u64::from(role.number),
        nodes,
    );
    config.heartbeat = role.heartbeat;
    config.election_min = role.election;
    config.election_max = role.election * 2;
    isthmus_kvdb::format(&mut disk()?, &config.folder, u64::from(role.number))?;
    let way = Arc::new(Way::default());
    let kvdb = Kvdb::start(config, disk()?, way.clone()).await?;
    let address = |number: u32| SocketAddr::from((Ipv4Addr::LOCALHOST, role.port + number as u16));
    let authority = role.folder.join("tls");
    let certificates = isthmus_transport::CertificateFiles {
        authority: authority.join("ca.pem"),
        certificate: authority.join(format!("{name}.pem")),
        key: authority.join(format!("{name}-key.pem")),
    };
    let mut config = Config::new(node, CLUSTER, address(role.number), certificates);
    let others = (1..=MEMBERS).filter(|number| *number != role.number);
    config.peers = others
        .map(|number| (NodeId(number), address(number).to_string()))
        .collect();
    let serving = Serving {
        kvdb: kvdb.clone(),
        runtime: Handle::current(),
    };
    let transport = Arc::new(Transport::start(config, Arc::new(serving))?);
    ensure!(way.0.set(transport).is_ok(), "a member has one transport");
    Ok(kvdb)
}

/// Certificates for all members.
///
/// # Errors
/// The folder can't be written.
pub fn prepare(folder: &Path) -> anyhow::Result<()> {
    let folder = folder.join("tls");
    let authority = Authority::create(&folder, CLUSTER)?;
    for number in 1..=MEMBERS {
        authority.issue(&folder, &format!("m{number}"), NodeId(number))?;
    }
    Ok(())
}

/// The first forms the group; each registers; all vote in the end.
fn join(runtime: &Runtime, kvdb: &Kvdb, role: Role<'_>) -> anyhow::Result<()> {
    if role.number == 1 {
        let domains: BTreeMap<DomainId, DomainRecord> = (1..=MEMBERS).map(domain).collect();
        let nodes = (1..=MEMBERS).map(node).collect();
        runtime.block_on(kvdb.form("bench".to_owned(), CLUSTER, domains, nodes, cause()))?;
    }
    let command = Command::NodeStarted {
        node: NodeId(role.number),
        incarnation: Incarnation(u64::from(role.number)),
        starts: 1,
    };
    let registered = patience::within(FORMED_WITHIN, || {
        let answer = runtime
            .block_on(kvdb.propose(command.clone(), cause()))
            .ok()?;
        (!matches!(answer, Answer::Refused(_))).then_some(())
    });
    registered.context("not registered")?;
    let all_vote = |metrics: &isthmus_kvdb::KvdbMetrics| metrics.voters.len() == MEMBERS as usize;
    runtime.block_on(kvdb.wait_until(FORMED_WITHIN, all_vote))?;
    Ok(())
}

fn domain(number: u32) -> (DomainId, DomainRecord) {
    let record = DomainRecord {
        name: format!("d{number}"),
        role: DomainRole::Data,
        state: DomainState::Active,
        since_ms: 0,
        created_ms: 0,
    };
    (DomainId(number), record)
}

fn node(number: u32) -> (NodeId, NodeRecord) {
    let record = NodeRecord {
        name: format!("m{number}"),
        domain: DomainId(number),
        peer_address: format!("127.0.0.1:{number}"),
        api_address: format!("127.0.0.1:{}", 100 + number),
        nbd_address: None,
        incarnation: None,
        starts: 0,
    };
    (NodeId(number), record)
}

fn cause() -> Cause {
    Cause {
        who: "bench".to_owned(),
        why: String::new(),
        at_ms: 0,
    }
}

async fn puts(
    kvdb: &Kvdb,
    member: u32,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let clients: Vec<_> = (0..clients)
        .map(|number| {
            let kvdb = kvdb.clone();
            tokio::spawn(async move {
                let (mut times, mut volume) = (Vec::new(), None);
                while Instant::now() < end || volume.is_some() {
                    let command = match volume.take() {
                        Some(volume) => Command::DeleteVolume { volume },
                        None => Command::CreateVolume {
                            name: format!("m{member}-{number}"),
                            bytes: 1 << 30,
                            block_bytes: 4096,
                            policy: VolumePolicy::default(),
                        },
                    };
                    let start = Instant::now();
                    let answer = kvdb.propose(command, cause()).await?;
                    times.push(start.elapsed());
                    match answer {
                        Answer::Volume(made) => volume = Some(made),
                        Answer::Done => {}
                        other => bail!("kvdb answered {other:?}"),
                    }
                }
                Ok(times)
            })
        })
        .collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.context("a client panicked")??);
    }
    Ok(all)
}
