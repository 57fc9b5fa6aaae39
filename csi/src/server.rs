//! Start-up: the socket, and the services on it.

mod authority;

use crate::attach::{self, Attachments};
use crate::cluster::Cluster;
use crate::controller::ControllerService;
use crate::identity::{Driver, IdentityService};
use crate::node::{Machine, NodeService, filesystem};
use anyhow::{Context, bail};
use isthmus_csi_interface::v1::controller_server::ControllerServer;
use isthmus_csi_interface::v1::identity_server::IdentityServer;
use isthmus_csi_interface::v1::node_server::NodeServer;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tracing::{info, warn};

/// Calls of one connection at once.
const CALLS_MAX: usize = 256;
/// How long calls that are under way are waited for at the end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What to serve, and for whom.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The socket: a path, or unix:///PATH
    #[arg(long, env = "CSI_ENDPOINT", value_name = "SOCKET")]
    endpoint: String,
    /// Admin API addresses of the cluster's nodes, tried in this order; the first is the one of this machine's isthmusd
    #[arg(
        long,
        env = "ISTHMUS_API",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:9440"
    )]
    api: Vec<String>,
    /// The driver's name; the key of topology is topology.NAME/domain
    #[arg(long, default_value = "csi.isthmus.dev", value_parser = driver_name)]
    driver_name: String,
    /// Serve the controller's calls (without --controller and --node: both)
    #[arg(long)]
    controller: bool,
    /// Serve the node's calls (without --controller and --node: both)
    #[arg(long)]
    node: bool,
    /// The name of this machine's isthmusd in the cluster; asked of the first --api address otherwise
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Holds a folder for each volume attached to this machine
    #[arg(long, value_name = "FOLDER", default_value = "/run/isthmus-csi")]
    attach_dir: PathBuf,
    /// Words before the command that keeps a volume attached, so that it outlives this one's container ({volume} is replaced)
    #[arg(long, value_name = "WORDS", default_value = "")]
    attach_launcher: String,
    /// The program that keeps a volume attached, where the launcher looks for it; this one otherwise
    #[arg(long, value_name = "PATH")]
    attach_program: Option<PathBuf>,
    /// Where Prometheus finds the metrics, e.g. 127.0.0.1:9444
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

/// A domain name of at most 63 bytes, as the interface's specification wants.
fn driver_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    // The key of topology has a prefix more, of 63 bytes at most.
    let sound = text.len() <= 63 - "topology.".len()
        && ends.iter().all(|byte| byte.copied().is_some_and(plain))
        && bytes
            .iter()
            .all(|byte| plain(*byte) || b".-".contains(byte));
    if sound {
        return Ok(text.to_owned());
    }
    Err("write a domain name of 1 to 54 of a-z 0-9 . -, such as csi.isthmus.dev".to_owned())
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't begin.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(options));
    runtime.shutdown_background();
    served
}

async fn serve(options: Options) -> anyhow::Result<()> {
    if let Some(address) = options.metrics_listen {
        PrometheusBuilder::new()
            .with_http_listener(address)
            .set_buckets(&[0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])?
            .install()
            .with_context(|| format!("metrics can't be served at {address}"))?;
    }
    let both = !options.controller && !options.node;
    let driver = Arc::new(Driver {
        name: options.driver_name.clone(),
        cluster: Cluster::new(&options.api).map_err(anyhow::Error::msg)?,
        controller: options.controller || both,
        node: options.node || both,
    });
    let mut router = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .add_service(IdentityServer::new(IdentityService::new(Arc::clone(
            &driver,
        ))));
    if driver.controller {
        let service = ControllerService::new(Arc::clone(&driver));
        router = router.add_service(ControllerServer::new(service));
    }
    if driver.node {
        let machine = machine(&options, &driver)?;
        router = router.add_service(NodeServer::new(NodeService::new(machine)));
    }
    let path = socket_path(&options.endpoint)?;
    let listener = listen(&path)?;
    info!(
        driver = driver.name,
        controller = driver.controller,
        node = driver.node,
        socket = %path.display(),
        "serving"
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let connections =
        UnixListenerStream::new(listener).map(|stream| stream.map(authority::Connection::new));
    let (tell, told) = oneshot::channel::<()>();
    let told = async {
        // Told, or nobody left to tell it: the end either way.
        let _ = told.await;
    };
    let mut served = pin!(router.serve_with_incoming_shutdown(connections, told));
    tokio::select! {
        result = &mut served => result?,
        () = end => {
            // The server is there to hear it.
            let _ = tell.send(());
            // A call may be stuck in the kernel, whose I/O waits: whoever asked asks again.
            if let Ok(result) = timeout(END_WITHIN, served).await {
                result?;
            }
        }
    }
    info!("ended; volumes stay attached");
    Ok(())
}

fn machine(options: &Options, driver: &Arc<Driver>) -> anyhow::Result<Machine> {
    fs::create_dir_all(&options.attach_dir)
        .with_context(|| format!("{} can't be made", options.attach_dir.display()))?;
    let program = match &options.attach_program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("this program's path is not known")?,
    };
    let reason = if attach::kernel_has_nbd() {
        "this version does not use the kernel's NBD client yet"
    } else {
        "the kernel has no NBD client"
    };
    info!(reason, "volumes are attached by FUSE and a loop device");
    if !filesystem::can_grow_ext4() {
        warn!(
            "this process lacks CAP_SYS_RESOURCE: ext4 grows only when it is staged, and where no file system is named, xfs is made"
        );
    }
    let attachments = Attachments {
        folder: options.attach_dir.canonicalize()?,
        launcher: options
            .attach_launcher
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        program,
        api: driver.cluster.addresses().to_vec(),
    };
    Ok(Machine::new(
        Arc::clone(driver),
        attachments,
        options.node_name.clone(),
    ))
}

fn socket_path(endpoint: &str) -> anyhow::Result<PathBuf> {
    let path = endpoint
        .strip_prefix("unix://")
        .or_else(|| endpoint.strip_prefix("unix:"))
        .unwrap_or(endpoint);
    if !Path::new(path).is_absolute() {
        bail!("--endpoint {endpoint}: write the absolute path of a socket, or unix:///PATH");
    }
    Ok(PathBuf::from(path))
}

/// Listens, in the place of a driver that has ended; never in the place of one that lives.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            if UnixStream::connect(path).is_ok() {
                bail!("another process serves {} already", path.display());
            }
            fs::remove_file(path).with_context(|| format!("{}", path.display()))?;
        }
        Ok(_) => bail!("{} is there, and is no socket", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    }
    UnixListener::bind(path).with_context(|| format!("{} can't be listened at", path.display()))
}
