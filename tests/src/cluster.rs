//! A cluster of three node processes: `a1` in `site-a`, `b1` in `site-b`, `w1` in `witness`.
//!
//! One cluster at a time runs on a machine (a lock sees to it): three nodes and a client are enough for it. When a test fails,
//! the ends of the nodes' logs are printed and the folder is kept.

pub mod config;
pub mod node;
pub mod process;

use crate::link::Condition;
use crate::link::namespace::Namespace;
use crate::link::switch::Switch;
use crate::lossy::{LossyDisk, Lost};
use crate::nbd::endpoint::Endpoint;
use crate::patience;
use crate::random;
use crate::turn::{self, Turn};
use config::{Addresses, Timing, Worker};
pub use node::Node;
use process::Process;
pub use process::Signal;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long a cluster may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 40;

/// What kind of cluster a test needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// A volume to create: its name, its size, and more of `create volume`'s arguments.
    pub volumes: Vec<Vec<String>>,
    /// Whether each node has a network namespace, so that links can be cut.
    pub namespaces: bool,
    /// How long things may take.
    pub timing: Timing,
    /// Whether the nodes' wall clocks can be set.
    pub wall_clocks: bool,
    /// Bytes of each node's disk, when it is one that loses what was not synced.
    pub lossy_disks: Option<u64>,
    /// More of the configuration, as the file has it.
    pub more: String,
    /// More nodes, each at the site of this node, with a store or without. Not in namespaces.
    pub workers: Vec<(Node, bool)>,
}

impl Options {
    /// A cluster on loopback with the volume `demo` of that many bytes and 512 B blocks.
    #[must_use]
    pub fn with_volume(bytes: u64) -> Options {
        Options {
            volumes: Vec::new(),
            namespaces: false,
            timing: Timing::QUICK,
            wall_clocks: false,
            lossy_disks: None,
            more: String::new(),
            workers: Vec::new(),
        }
        .and_volume("demo", bytes, &[])
    }

    /// One volume more.
    #[must_use]
    pub fn and_volume(mut self, name: &str, bytes: u64, arguments: &[&str]) -> Options {
        let size = bytes.to_string();
        let all = [
            "create",
            "volume",
            name,
            "--size",
            &size,
            "--block-size",
            "512",
        ];
        self.volumes.push(
            all.iter()
                .chain(arguments)
                .map(|word| (*word).to_owned())
                .collect(),
        );
        self
    }

    /// The same with a namespace for each node.
    #[must_use]
    pub fn in_namespaces(mut self) -> Options {
        self.namespaces = true;
        self
    }

    /// The same with wall clocks that can be set, each for itself.
    #[must_use]
    pub fn with_wall_clocks(mut self) -> Options {
        self.wall_clocks = true;
        self
    }

    /// The same with this in each node's configuration.
    #[must_use]
    pub fn with_configuration(mut self, more: &str) -> Options {
        self.more.push_str(more);
        self
    }

    /// The same with a diskless node at the site of each of these; the cluster starts without waiting for them.
    #[must_use]
    pub fn with_workers(mut self, sites: &[Node]) -> Options {
        self.workers = sites.iter().map(|site| (*site, false)).collect();
        self
    }

    /// The same with one more node with a store at the site of each of these, formed with the cluster.
    #[must_use]
    pub fn with_stores(mut self, sites: &[Node]) -> Options {
        self.workers = sites.iter().map(|site| (*site, true)).collect();
        self
    }

    /// The same on disks of that many bytes that lose what was not synced when the power goes, with the smallest journal.
    #[must_use]
    pub fn on_lossy_disks(mut self, bytes: u64) -> Options {
        self.lossy_disks = Some(bytes);
        self
    }
}

/// A cluster, stopped and removed when dropped.
pub struct Cluster {
    // Dropped in this order: processes before the disks that they use and the namespaces that they are in.
    processes: [Option<Process>; 3],
    workers: Vec<(Worker, Option<Process>)>,
    disks: Vec<LossyDisk>,
    wall_clocks: bool,
    /// How often each machine was booted.
    boots: [u32; 3],
    network: Option<(Switch, Vec<Namespace>)>,
    addresses: [Addresses; 3],
    folder: Option<TempDir>,
    _turn: Turn,
}

impl Cluster {
    /// Starts a cluster and waits until its volumes are in sync.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(options: &Options) -> Cluster {
        let turn = turn::take();
        let folder = tempfile::Builder::new()
            .prefix("isthmus-test-")
            .tempdir()
            .expect("a folder in the temporary folder");
        let network = options.namespaces.then(network);
        let addresses = Node::ALL.map(|node| match &network {
            Some(_) => Addresses::new(
                crate::link::address(node.index()),
                IpAddr::V4(Ipv4Addr::LOCALHOST),
            ),
            None => Addresses::new(loopback(node), loopback(node)),
        });
        let small_journal = options.lossy_disks.is_some();
        let workers: Vec<Worker> = (0..options.workers.len())
            .map(|index| Worker::new(index, options.workers[index], worker_address(index)))
            .collect();
        config::write(
            folder.path(),
            &addresses,
            &options.timing,
            small_journal,
            &options.more,
            &workers,
        )
        .expect("configurations and certificates are written");
        let mount = |bytes| {
            Node::ALL.map(|node| {
                LossyDisk::mount(&folder.path().join(node.name()), bytes)
                    .expect("file systems can be mounted (as root)")
            })
        };
        let disks = options.lossy_disks.map(mount).into_iter().flatten();
        let mut cluster = Cluster {
            processes: [None, None, None],
            workers: workers.into_iter().map(|worker| (worker, None)).collect(),
            disks: disks.collect(),
            wall_clocks: options.wall_clocks,
            boots: [0; 3],
            network,
            addresses,
            folder: Some(folder),
            _turn: turn,
        };
        for node in Node::ALL {
            if options.wall_clocks {
                cluster.set_wall_clock(node, 0);
            }
            cluster.boot(node);
            cluster.start_node(node);
        }
        for worker in 0..cluster.workers.len() {
            let Worker { name, id, .. } = cluster.worker(worker);
            process::boot(cluster.folder(), name, *id, 1);
            cluster.start_worker(worker);
        }
        for arguments in &options.volumes {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cluster.until_done(&words, READY_WITHIN);
        }
        cluster.until_in_sync(READY_WITHIN);
        // Until then the loss of the first node would be the loss of kvdb's majority.
        patience::wait_until("all nodes vote", READY_WITHIN, || {
            let voters = cluster.status()?.kvdb.voters;
            (voters.len() == Node::ALL.len()).then_some(())
        });
        cluster
    }

    /// The cluster's folder: `a1.toml`, `a1/`, `a1.log` …
    ///
    /// # Panics
    /// Never: it is there as long as the cluster is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("the folder goes last").path()
    }

    /// Starts a node that does not run.
    ///
    /// # Panics
    /// When it runs.
    pub fn start_node(&mut self, node: Node) {
        assert!(
            self.processes[node.index()].is_none(),
            "{node:?} runs already"
        );
        let clock = self.wall_clocks.then(|| self.folder().join(clock(node)));
        let started = Process::start(
            self.folder(),
            node.name(),
            self.namespace(node),
            clock.as_deref(),
        );
        self.processes[node.index()] = Some(started);
    }

    /// One more node with a store at the site of `site`: all others are told of it and started anew, one after the other; then it is
    /// started. Its index.
    ///
    /// # Panics
    /// When a configuration can't be written, or a node does not come back.
    pub fn add_store(&mut self, site: Node) -> usize {
        let index = self.workers.len();
        let worker = Worker::new(index, (site, true), worker_address(index));
        let (name, id) = (worker.name.clone(), worker.id);
        for node in Node::ALL {
            config::add(self.folder(), node, &worker.table()).expect("a file can be added to");
        }
        config::write_one(self.folder(), Node::B1, &worker).expect("a file can be written");
        self.workers.push((worker, None));
        for node in Node::ALL {
            self.stop_node(node);
            self.start_node(node);
            self.until_in_sync(READY_WITHIN);
        }
        process::boot(self.folder(), &name, id, 1);
        self.start_worker(index);
        index
    }

    /// Starts a diskless node, or one more with a store, that does not run.
    ///
    /// # Panics
    /// When there is none of that index, or it runs.
    pub fn start_worker(&mut self, index: usize) {
        let folder = self.folder().to_owned();
        let (worker, process) = &mut self.workers[index];
        assert!(process.is_none(), "{worker:?} runs already");
        *process = Some(Process::start(&folder, &worker.name, None, None));
    }

    /// `kill -9` for a diskless node, and waits until the process is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_worker(&mut self, index: usize) {
        let mut process = self.workers[index]
            .1
            .take()
            .expect("only what runs can be killed");
        process.signal(Signal::KILL);
        process.wait(Duration::from_secs(10));
    }

    /// A diskless node.
    ///
    /// # Panics
    /// When there is none of that index.
    #[must_use]
    pub fn worker(&self, index: usize) -> &Worker {
        &self.workers[index].0
    }

    /// A diskless node's NBD server.
    ///
    /// # Panics
    /// When there is none of that index.
    #[must_use]
    pub fn worker_nbd(&self, index: usize) -> Endpoint {
        Endpoint {
            namespace: None,
            address: self.worker(index).addresses.nbd(),
        }
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn kill(&mut self, node: Node) {
        let mut process = self.processes[node.index()]
            .take()
            .expect("only what runs can be killed");
        process.signal(Signal::KILL);
        process.wait(Duration::from_secs(10));
    }

    /// `kill -9` for several nodes, all before the first is waited for.
    ///
    /// # Panics
    /// When one does not run.
    pub fn kill_at_once(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.signal(*node, Signal::KILL);
        }
        for node in nodes {
            self.kill(*node);
        }
    }

    /// Cuts the power of several nodes at the same moment: what was not synced on their disks is there afterwards or not, as the
    /// seed says. What was lost altogether.
    ///
    /// # Panics
    /// When one does not run, or not on a lossy disk.
    pub fn cut_power(&mut self, nodes: &[Node], seed: u64) -> Lost {
        for node in nodes {
            self.disk(*node).power_off();
        }
        for node in nodes {
            self.signal(*node, Signal::KILL);
        }
        // They are as good as dead: none of their threads comes back from the kernel. Those that wait for the disk there must.
        for node in nodes {
            self.disk(*node).let_go();
        }
        let mut lost = Lost::default();
        for node in nodes {
            self.kill(*node);
            let seed = random::mix(seed ^ node.index() as u64);
            lost.add(&self.disk(*node).power_on(seed));
            self.boot(*node);
        }
        lost
    }

    /// The node's machine runs another kernel from now on.
    fn boot(&mut self, node: Node) {
        self.boots[node.index()] += 1;
        let machine = node.index() as u32;
        process::boot(
            self.folder(),
            node.name(),
            machine,
            self.boots[node.index()],
        );
    }

    /// Sets a node's wall clock: so many seconds ahead of the machine's, or behind it.
    ///
    /// # Panics
    /// When the cluster's folder can't be written.
    pub fn set_wall_clock(&self, node: Node, seconds_ahead: i64) {
        let (path, new) = (clock(node), format!("{}.new", clock(node)));
        // As a whole: the node may read it at any time.
        fs::write(self.folder().join(&new), format!("{seconds_ahead:+}\n"))
            .and_then(|()| fs::rename(self.folder().join(new), self.folder().join(path)))
            .expect("the cluster's folder can be written");
    }

    /// The node's disk.
    ///
    /// # Panics
    /// When it is not a lossy one.
    #[must_use]
    pub fn disk(&self, node: Node) -> &LossyDisk {
        self.disks
            .get(node.index())
            .expect("the nodes are on lossy disks")
    }

    /// Sends a signal to a node that runs.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, node: Node, signal: Signal) {
        self.processes[node.index()]
            .as_ref()
            .expect("only what runs takes signals")
            .signal(signal);
    }

    /// Stops a node politely; its exit code, if it ended by itself.
    ///
    /// # Panics
    /// When it does not run, or does not stop within ten seconds.
    pub fn stop_node(&mut self, node: Node) -> Option<i32> {
        let mut process = self.processes[node.index()]
            .take()
            .expect("only what runs can be stopped");
        process.signal(Signal::TERM);
        process.wait(Duration::from_secs(10))
    }

    /// Whether a node's process was started and not ended by the test.
    #[must_use]
    pub fn runs(&self, node: Node) -> bool {
        self.processes[node.index()].is_some()
    }

    /// Changes the links between two nodes, both ways.
    ///
    /// # Panics
    /// When the nodes are not in namespaces.
    pub fn set_link(&self, one: Node, other: Node, condition: Condition) {
        self.switch().set(one.index(), other.index(), condition);
    }

    /// The links between the nodes.
    ///
    /// # Panics
    /// When the nodes are not in namespaces.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self
            .network
            .as_ref()
            .expect("links need nodes in namespaces")
            .0
    }

    /// The node's network namespace.
    #[must_use]
    pub fn namespace(&self, node: Node) -> Option<&str> {
        self.network
            .as_ref()
            .map(|(_, namespaces)| namespaces[node.index()].name())
    }

    /// Where a node is.
    #[must_use]
    pub fn addresses(&self, node: Node) -> &Addresses {
        &self.addresses[node.index()]
    }

    /// The node's NBD server.
    #[must_use]
    pub fn nbd(&self, node: Node) -> Endpoint {
        Endpoint {
            namespace: self.namespace(node).map(str::to_owned),
            address: self.addresses(node).nbd(),
        }
    }

    /// Waits until every volume is in sync everywhere and all nodes answer.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    #[track_caller]
    pub fn until_in_sync(&self, limit: Duration) {
        let mut last = None;
        let done = patience::within(limit, || {
            last = self.status();
            let status = last.as_ref()?;
            (status.volumes_in_sync == status.volumes && status.nodes_silent.is_empty())
                .then_some(())
        });
        assert!(done.is_some(), "not in sync within {limit:?}: {last:#?}");
    }

    /// The process id of a node that runs.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn process_id(&self, node: Node) -> u32 {
        self.processes[node.index()]
            .as_ref()
            .expect("only what runs has a process")
            .id()
    }

    fn print_logs(&self) {
        let workers = self.workers.iter().map(|(worker, _)| worker.name.as_str());
        for name in Node::ALL.map(Node::name).into_iter().chain(workers) {
            let text =
                fs::read_to_string(self.folder().join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("---- the end of {name}'s log ({} lines)", lines.len());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                eprintln!("{line}");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let workers = self.workers.iter_mut().map(|(_, process)| process);
        for process in self.processes.iter_mut().chain(workers).flatten() {
            process.signal(Signal::KILL);
        }
        for disk in &self.disks {
            disk.let_go();
        }
        if std::thread::panicking() {
            self.print_logs();
            let kept: Option<PathBuf> = self.folder.take().map(TempDir::keep);
            eprintln!(
                "---- the cluster's folder is kept: {}",
                kept.unwrap_or_default().display()
            );
        }
    }
}

fn network() -> (Switch, Vec<Namespace>) {
    let namespaces = Node::ALL
        .map(|node| Namespace::create(node.name()).expect("namespaces can be made (as root)"));
    let namespaces = Vec::from(namespaces);
    (
        Switch::start(&namespaces, 1).expect("links can be made (as root)"),
        namespaces,
    )
}

/// The file that says how far a node's wall clock is ahead.
fn clock(node: Node) -> String {
    format!("{}.clock", node.name())
}

fn loopback(node: Node) -> IpAddr {
    own_loopback(10 + node.index() as u8)
}

fn worker_address(index: usize) -> Addresses {
    let address = own_loopback(20 + index as u8);
    Addresses::new(address, address)
}

/// An address of loopback's 16 million that no other process's test has.
fn own_loopback(last: u8) -> IpAddr {
    let process = std::process::id();
    IpAddr::V4(Ipv4Addr::new(
        127,
        1 + ((process >> 8) % 250) as u8,
        (process % 256) as u8,
        last,
    ))
}
