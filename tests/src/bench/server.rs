//! The servers that are compared, each a few processes whose CPU time is counted.

use crate::cluster::{Cluster, Node};
use crate::patience;
use crate::verify;
use anyhow::{Context, ensure};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(20);
const PORTS: [u16; 3] = [20_821, 20_822, 20_823];

/// A server of one volume.
pub enum Server {
    /// Ours: three nodes.
    Isthmus(Box<Cluster>, String),
    /// Another one, in so many processes.
    Peer(Vec<Killed>, String),
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

    /// qemu's quorum driver over two `nbdkit` servers that make each write durable before they answer.
    ///
    /// # Errors
    /// The programs can't be run or do not come up.
    pub fn quorum(folder: &Path, bytes: u64) -> anyhow::Result<Server> {
        let [first, second, front] = PORTS;
        let mut processes = Vec::new();
        for port in [first, second] {
            let image = folder.join(format!("site-{port}"));
            fs::File::create(&image)?.set_len(bytes)?;
            let mut command = Command::new("nbdkit");
            command.args([
                "-f",
                "-i",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "--filter=fua",
                "file",
            ]);
            processes.push(spawn(command.arg(&image).arg("fuamode=force"), port)?);
        }
        let child = |name: &str, port: u16| {
            format!(
                "driver=nbd,node-name={name},server.type=inet,server.host=127.0.0.1,server.port={port}"
            )
        };
        let mut command = Command::new("qemu-storage-daemon");
        command
            .arg("--blockdev")
            .arg(child("first", first))
            .arg("--blockdev")
            .arg(child("second", second));
        command.args(["--blockdev", "driver=quorum,node-name=both,vote-threshold=2,read-pattern=fifo,children.0=first,children.1=second"]);
        command.arg("--nbd-server").arg(format!(
            "addr.type=inet,addr.host=127.0.0.1,addr.port={front}"
        ));
        command.args([
            "--export",
            "type=nbd,id=export,node-name=both,name=demo,writable=on",
        ]);
        processes.push(spawn(&mut command, front)?);
        Ok(Server::Peer(
            processes,
            format!("nbd://127.0.0.1:{front}/demo"),
        ))
    }

    /// Where the volume is served.
    #[must_use]
    pub fn uri(&self) -> &str {
        match self {
            Server::Isthmus(_, uri) | Server::Peer(_, uri) => uri,
        }
    }

    /// CPU time that its processes have used, in microseconds, to about 10 ms.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn processor_us(&self) -> anyhow::Result<f64> {
        let ids: Vec<u32> = match self {
            Server::Isthmus(cluster, _) => Node::ALL.map(|node| cluster.process_id(node)).to_vec(),
            Server::Peer(processes, _) => processes.iter().map(|process| process.0.id()).collect(),
        };
        ids.into_iter().map(used_us).sum()
    }
}

fn spawn(command: &mut Command, port: u16) -> anyhow::Result<Killed> {
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("{command:?} can't be run"))?;
    let process = Killed(child);
    let ready = patience::within(READY_WITHIN, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    ensure!(ready.is_some(), "{command:?} does not listen at {port}");
    Ok(process)
}

/// User and system time, from `/proc/ID/stat`.
fn used_us(process: u32) -> anyhow::Result<f64> {
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
