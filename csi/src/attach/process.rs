//! `isthmus-csi attach`: the process of one attachment.

use super::export::ExportFolder;
use super::nbd::{self, OpenError};
use super::requests::{Dialed, Requests};
use crate::cluster::{Cluster, Trouble};
use anyhow::Context;
use fuser::MountOption;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::path::PathBuf;
use tracing::{info, warn};

/// Attaches one volume until it is unmounted.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The volume
    #[arg(long)]
    volume: String,
    /// This node's name
    #[arg(long)]
    node: String,
    /// The NBD server of this node, HOST:PORT
    #[arg(long)]
    nbd: String,
    /// The folder in which the file is to appear
    #[arg(long)]
    at: PathBuf,
    /// A file that this process locks for as long as it lives
    #[arg(long)]
    lock: PathBuf,
    /// The cluster's admin API
    #[arg(long, value_delimiter = ',')]
    api: Vec<String>,
    /// Since when the volume is published to this node, in ms since 1970
    #[arg(long)]
    published_since: u64,
}

/// Runs until the folder is unmounted.
///
/// # Errors
/// When the volume can't be attached.
pub fn run(options: Options) -> anyhow::Result<()> {
    let lock = File::create(&options.lock)
        .with_context(|| format!("{} can't be made", options.lock.display()))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("volume {} is attached already", options.volume))?;
    survive_lack_of_memory();
    let cluster = Cluster::new(&options.api).map_err(anyhow::Error::msg)?;
    let (stream, export) =
        nbd::open(&options.nbd, &options.volume).map_err(|error| anyhow::anyhow!("{error}"))?;
    let volume = options.volume.clone();
    let at = options.at.clone();
    let dial = move || dial(&options, &cluster);
    let (requests, sender) = Requests::start(stream, export, Box::new(dial))?;
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("isthmus:{volume}")),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
    ];
    config.n_threads = Some(2);
    let folder = ExportFolder::new(requests.clone(), export.block_bytes);
    info!(volume, bytes = export.bytes, at = %at.display(), "attached");
    let served = fuser::mount(folder, &at, &config);
    requests.stop();
    let ended = sender.join().is_ok();
    info!(volume, ended, "detached");
    served.with_context(|| format!("{} can't be served by FUSE", at.display()))
}

/// The kernel may need this process to free memory, so it must not wait for memory that only it can free, nor be killed for it.
fn survive_lack_of_memory() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        warn!(%error, "no IO flusher: under lack of memory this attachment may hang");
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        warn!(%error, "this process may be killed for lack of memory");
    }
}

fn dial(options: &Options, cluster: &Cluster) -> Dialed {
    let opened = nbd::open(&options.nbd, &options.volume);
    if let Err(error @ OpenError::Unreachable(_)) = opened {
        return Dialed::NotNow(error.to_string());
    }
    // Asked only now: while the node serves this connection, nobody else serves the volume.
    match is_still_ours(options, cluster) {
        Ok(true) => match opened {
            Ok((stream, export)) => Dialed::Open(stream, export),
            Err(error) => Dialed::NotNow(error.to_string()),
        },
        Ok(false) => Dialed::Never(format!(
            "volume {} was unpublished from node {} meanwhile",
            options.volume, options.node
        )),
        Err(trouble) => Dialed::NotNow(trouble.to_string()),
    }
}

/// Whether the volume is still published to this node, and was all the time.
fn is_still_ours(options: &Options, cluster: &Cluster) -> Result<bool, Trouble> {
    match cluster.volume_confirmed(&options.volume) {
        Ok(volume) => Ok(volume.published.iter().any(|published| {
            published.node == options.node && published.since_ms == options.published_since
        })),
        Err(Trouble::Unknown(_)) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}
