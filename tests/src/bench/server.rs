//! The servers that are compared, each a few processes whose CPU time is counted.

use crate::cluster::{Cluster, Node};
use crate::patience;
use crate::verify;
use anyhow::{Context, ensure};
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// The first of three that a rival takes; each rival has its own.
const PORTS_FROM: u16 = 20_820;

/// Whom Isthmus is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// qemu's quorum driver over two `nbdkit` servers that make each write durable: durable at both.
    QuorumDurable,
    /// The same without that: in the page cache of both.
    QuorumCached,
    /// `qemu-nbd` with `directsync`: one copy, durable.
    OneDurable,
    /// `nbdkit`: one copy, in the page cache.
    OneCached,
}

impl Rival {
    /// All of them.
    pub const ALL: [Rival; 4] = [
        Rival::QuorumDurable,
        Rival::QuorumCached,
        Rival::OneDurable,
        Rival::OneCached,
    ];

    /// For people, and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rival::QuorumDurable => "quorum-ds",
            Rival::QuorumCached => "quorum-wb",
            Rival::OneDurable => "qemu-nbd-ds",
            Rival::OneCached => "nbdkit",
        }
    }

    /// What is promised when a write is answered.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Rival::QuorumDurable => "durable at both",
            Rival::QuorumCached => "in the caches of both",
            Rival::OneDurable => "durable, one copy",
            Rival::OneCached => "in the cache, one copy",
        }
    }

    /// The programs that it is made of.
    #[must_use]
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Rival::QuorumDurable | Rival::QuorumCached => &["nbdkit", "qemu-storage-daemon"],
            Rival::OneDurable => &["qemu-nbd"],
            Rival::OneCached => &["nbdkit"],
        }
    }
}

/// A server of one volume.
pub enum Server {
    /// Ours: three nodes.
    Isthmus(Box<Cluster>, String),
    /// Another volume of that cluster, with the ids of its processes.
    Beside(Vec<u32>, String),
    /// Another one, in so many processes.
    Rival(Vec<Killed>, String),
}

/// A process, killed when dropped.
pub struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// A cluster of ours with that volume, opened at `a1`.
    #[must_use]
    pub fn isthmus(cluster: Cluster, volume: &str) -> Server {
        verify::open(&cluster.nbd(Node::A1), volume, READY_WITHIN).close();
        let uri = cluster.nbd(Node::A1).uri(volume);
        Server::Isthmus(Box::new(cluster), uri)
    }

    /// Another volume of a cluster of ours, opened at `a1`.
    #[must_use]
    pub fn beside(cluster: &Cluster, volume: &str) -> Server {
        verify::open(&cluster.nbd(Node::A1), volume, READY_WITHIN).close();
        let ids = Node::ALL.map(|node| cluster.process_id(node)).to_vec();
        Server::Beside(ids, cluster.nbd(Node::A1).uri(volume))
    }

    /// Another one, with its files in `folder`.
    ///
    /// # Errors
    /// The programs can't be run or do not come up.
    pub fn rival(rival: Rival, folder: &Path, bytes: u64) -> anyhow::Result<Server> {
        let base = PORTS_FROM + 10 * rival as u16;
        let [first, second, front] = [base, base + 1, base + 2];
        let image = |name: &str| -> anyhow::Result<PathBuf> {
            let image = folder.join(name);
            fs::File::create(&image)?.set_len(bytes)?;
            Ok(image)
        };
        let (processes, uri) = match rival {
            Rival::QuorumDurable | Rival::QuorumCached => {
                let durable = rival == Rival::QuorumDurable;
                let processes = vec![
                    nbdkit(&image("first")?, first, durable)?,
                    nbdkit(&image("second")?, second, durable)?,
                    quorum([first, second], front)?,
                ];
                (processes, format!("nbd://127.0.0.1:{front}/demo"))
            }
            Rival::OneDurable => {
                // Over TCP it would wait for acknowledgements, since it never sets TCP_NODELAY.
                let socket = folder.join("socket");
                let mut command = Command::new("qemu-nbd");
                command.args(["-f", "raw", "--persistent", "--shared=8"]);
                command.args(["--cache=directsync", "--aio=threads", "-k"]);
                command.arg(&socket).arg(image("image")?);
                let process = spawn(&mut command, || UnixStream::connect(&socket).is_ok())?;
                let uri = format!("nbd+unix:///?socket={}", socket.display());
                (vec![process], uri)
            }
            Rival::OneCached => (
                vec![nbdkit(&image("image")?, first, false)?],
                format!("nbd://127.0.0.1:{first}/"),
            ),
        };
        Ok(Server::Rival(processes, uri))
    }

    /// Where the volume is served.
    #[must_use]
    pub fn uri(&self) -> &str {
        match self {
            Server::Isthmus(_, uri) | Server::Beside(_, uri) | Server::Rival(_, uri) => uri,
        }
    }

    /// CPU time that its processes have used, in microseconds, to about 10 ms.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn processor_us(&self) -> anyhow::Result<f64> {
        let ids: Vec<u32> = match self {
            Server::Isthmus(cluster, _) => Node::ALL.map(|node| cluster.process_id(node)).to_vec(),
            Server::Beside(ids, _) => ids.clone(),
            Server::Rival(processes, _) => processes.iter().map(|process| process.0.id()).collect(),
        };
        ids.into_iter().map(used_us).sum()
    }
}

fn nbdkit(image: &Path, port: u16, durable: bool) -> anyhow::Result<Killed> {
    let mut command = Command::new("nbdkit");
    command.args(["-f", "-i", "127.0.0.1", "-p", &port.to_string()]);
    if durable {
        command.arg("--filter=fua");
    }
    command.arg("file").arg(image);
    if durable {
        command.arg("fuamode=force");
    }
    spawn(&mut command, || listens(port))
}

fn quorum(sites: [u16; 2], front: u16) -> anyhow::Result<Killed> {
    let mut command = Command::new("qemu-storage-daemon");
    for (name, port) in ["first", "second"].into_iter().zip(sites) {
        command.arg("--blockdev").arg(format!(
            "driver=nbd,node-name={name},server.type=inet,server.host=127.0.0.1,server.port={port}"
        ));
    }
    command.args(["--blockdev", "driver=quorum,node-name=both,vote-threshold=2,read-pattern=fifo,children.0=first,children.1=second"]);
    command.arg("--nbd-server").arg(format!(
        "addr.type=inet,addr.host=127.0.0.1,addr.port={front}"
    ));
    command.args([
        "--export",
        "type=nbd,id=export,node-name=both,name=demo,writable=on",
    ]);
    spawn(&mut command, || listens(front))
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn spawn(command: &mut Command, is_up: impl Fn() -> bool) -> anyhow::Result<Killed> {
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("{command:?} can't be run"))?;
    let mut process = Killed(child);
    let ready = patience::within(READY_WITHIN, || is_up().then_some(()));
    let ended = process.0.try_wait()?;
    ensure!(
        ready.is_some() && ended.is_none(),
        "{command:?} does not come up"
    );
    Ok(process)
}

/// User and system time, from `/proc/ID/stat`.
///
/// # Errors
/// The process is gone.
pub fn used_us(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))
        .context("a server's process is gone")?;
    let (_, rest) = text.rsplit_once(')').context("/proc has another format")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| {
        words
            .get(index)
            .and_then(|word| word.parse::<f64>().ok())
            .context("/proc has another format")
    };
    let second = rustix::param::clock_ticks_per_second() as f64;
    Ok((ticks(11)? + ticks(12)?) / second * 1e6)
}
