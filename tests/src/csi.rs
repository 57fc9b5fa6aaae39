//! The CSI driver as an orchestrator sees it: a process on a socket. What a failed test leaves mounted is taken away.

use crate::binaries;
use crate::cluster::{Cluster, Node, Signal};
use crate::patience;
use crate::tool::attempt;
use isthmus_csi_interface::v1::controller_client::ControllerClient;
use isthmus_csi_interface::v1::identity_client::IdentityClient;
use isthmus_csi_interface::v1::node_client::NodeClient;
use isthmus_csi_interface::v1::volume_capability::access_mode::Mode;
use isthmus_csi_interface::v1::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume,
};
use isthmus_csi_interface::v1::{ProbeRequest, VolumeCapability};
use rustix::process::{Pid, kill_process};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How long a driver may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A driver's process, with a client of each of its services.
pub struct Driver {
    child: Child,
    command: Vec<String>,
    folder: PathBuf,
    log: PathBuf,
    runtime: Runtime,
    channel: Channel,
}

impl Driver {
    /// Starts a driver beside a node, as controller and node service, and waits until it is ready.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(cluster: &Cluster, node: Node) -> Driver {
        Driver::start_beside(cluster, node.name(), None)
    }

    /// The same beside a diskless node.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start_at_worker(cluster: &Cluster, index: usize) -> Driver {
        let worker = cluster.worker(index);
        Driver::start_beside(cluster, &worker.name, Some(worker.addresses.api()))
    }

    /// `first` is asked first, if it is no other node.
    fn start_beside(cluster: &Cluster, name: &str, first: Option<SocketAddr>) -> Driver {
        let folder = cluster.folder().join(format!("csi-{name}"));
        let socket = cluster.folder().join(format!("csi-{name}.sock"));
        let mut nodes = Node::ALL;
        nodes.sort_by_key(|node| node.name() != name);
        let nodes = nodes.map(|node| cluster.addresses(node).api());
        let api: Vec<String> = first
            .into_iter()
            .chain(nodes)
            .map(|address| format!("http://{address}"))
            .collect();
        let command = [
            "run",
            "--endpoint",
            text(&socket),
            "--attach-dir",
            text(&folder),
            "--node-name",
            name,
            "--api",
            &api.join(","),
        ];
        let command: Vec<String> = command.map(str::to_owned).to_vec();
        let log = cluster.folder().join(format!("csi-{name}.log"));
        let child = spawn(&command, &log);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let channel = {
            let _inside = runtime.enter();
            Endpoint::try_from(format!("unix://{}", socket.display()))
                .expect("a socket's address")
                .connect_lazy()
        };
        let driver = Driver {
            child,
            command,
            folder,
            log,
            runtime,
            channel,
        };
        driver.until_ready();
        driver
    }

    fn until_ready(&self) {
        patience::wait_until("the driver is ready", READY_WITHIN, || {
            let probe = self.run(self.identity().probe(ProbeRequest {}));
            probe.ok()?.into_inner().ready?.then_some(())
        });
    }

    /// Kills the driver's process, and starts another in its place. What is attached stays so.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn restart(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        self.child = spawn(&self.command, &self.log);
        self.until_ready();
    }

    /// A client of the identity service.
    #[must_use]
    pub fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    /// A client of the controller service.
    #[must_use]
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    /// A client of the node service.
    #[must_use]
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// Waits for what becomes of some calls.
    pub fn run<T>(&self, calls: impl Future<Output = T>) -> T {
        self.runtime.block_on(calls)
    }

    /// Waits for a call that must succeed; its answer.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn done<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> T {
        match self.run(call) {
            Ok(answer) => answer.into_inner(),
            Err(status) => panic!("{:?}: {}", status.code(), status.message()),
        }
    }

    /// Waits for a call that must fail with that code; what it says.
    ///
    /// # Panics
    /// When it succeeds, or fails otherwise.
    #[track_caller]
    pub fn refused<T: std::fmt::Debug>(
        &self,
        code: Code,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> String {
        match self.run(call) {
            Ok(answer) => panic!("answered {:?}", answer.into_inner()),
            Err(status) => {
                assert_eq!(status.code(), code, "{}", status.message());
                status.message().to_owned()
            }
        }
    }

    /// Loop devices of what is attached, by their files.
    #[must_use]
    pub fn loop_devices(&self) -> Vec<(PathBuf, PathBuf)> {
        let entries = fs::read_dir("/sys/block").expect("the kernel's block devices");
        let mut found = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            let file = fs::read_to_string(entry.path().join("loop/backing_file"));
            let file = file.map(|file| PathBuf::from(file.trim_end()));
            if let Ok(file) = file
                && file.starts_with(&self.folder)
            {
                found.push((PathBuf::from("/dev").join(entry.file_name()), file));
            }
        }
        found
    }

    /// Processes that keep volumes attached.
    #[must_use]
    pub fn attach_processes(&self) -> Vec<i32> {
        let folder = text(&self.folder).as_bytes();
        let entries = fs::read_dir("/proc").expect("the kernel's processes");
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let id = entry.file_name().to_str()?.parse().ok()?;
                let words = fs::read(entry.path().join("cmdline")).ok()?;
                let mut words = words.split(|byte| *byte == 0);
                let attaches =
                    words.nth(1) == Some(b"attach") && words.any(|word| word.starts_with(folder));
                attaches.then_some(id)
            })
            .collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("---- the log of {}\n{log}", self.log.display());
        }
        for id in self.attach_processes() {
            let id = Pid::from_raw(id);
            let _ = id.map(|id| kill_process(id, Signal::KILL));
        }
        for (device, _) in self.loop_devices() {
            for line in fs::read_to_string("/proc/self/mountinfo")
                .unwrap_or_default()
                .lines()
            {
                if line.contains(&format!(" {} ", device.display()))
                    || line.contains(&format!(" /{} ", text(&device).trim_start_matches("/dev/")))
                {
                    let point = line.split(' ').nth(4).unwrap_or_default();
                    let _ = attempt("umount", &["-l", &point.replace("\\040", " ")]);
                }
            }
            let _ = attempt("losetup", &["-d", text(&device)]);
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                || fs::metadata(entry.path()).is_err()
            {
                let _ = attempt("umount", &["-l", text(&entry.path())]);
            }
        }
    }
}

fn spawn(command: &[String], log: &Path) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log in the cluster's folder");
    Command::new(binaries::isthmus_csi())
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("isthmus-csi was built and can be started")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A capability: a file system of that type (none for the default), used for writing at one node.
#[must_use]
pub fn mounted(fs_type: &str) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        ..MountVolume::default()
    };
    capability(AccessType::Mount(mount), Mode::SingleNodeWriter)
}

/// A capability: a block device, used for writing at one node.
#[must_use]
pub fn block() -> VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::SingleNodeWriter)
}

/// Any capability.
#[must_use]
pub fn capability(access_type: AccessType, mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}
