//! A whole cluster on this machine, to try it: `a1` in `site-a`, `b1` in `site-b`, `w1` in `witness`, each a process of its own.
//!
//! The folder keeps everything: certificates, `a1.toml`, `a1.pid`, `a1.log`, `a1/` … A start with the same folder goes on with
//! the same data. A node that ends is reported, not restarted: its user may be testing. If quickstart itself is killed, its nodes
//! go on; the next start then finds their ports in use and says so.
//!
//! Reading order: [`folder`] (files, made so that a crash at any point can be resumed), [`ports`], [`children`], [`ready`].

mod children;
mod folder;
mod ports;
mod ready;

#[cfg(test)]
mod tests;

use crate::logging::LogFormat;
use anyhow::Context;
use children::Children;
use isthmus_api::size;
use isthmus_config::Config;
use ports::PortOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long the nodes may take until they serve; three seconds are usual.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The command line of quickstart.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where the nodes keep their data and files
    #[arg(long, default_value = "./isthmus-data")]
    data_dir: PathBuf,
    /// A volume to create where it is missing, e.g. demo:1GiB; may be repeated
    #[arg(long = "volume", value_name = "NAME:SIZE", value_parser = volume, default_value = "demo:1GiB")]
    volumes: Vec<Volume>,
    #[command(flatten)]
    ports: PortOptions,
}

/// A volume to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    name: String,
    bytes: u64,
}

fn volume(text: &str) -> Result<Volume, String> {
    let (name, size) = text
        .split_once(':')
        .ok_or_else(|| format!("'{text}' is no volume: write NAME:SIZE, e.g. demo:1GiB"))?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well_formed = name.bytes().next().is_some_and(plain)
        && name.len() <= 63
        && name
            .bytes()
            .all(|byte| plain(byte) || b"._-".contains(&byte));
    if !well_formed {
        return Err(format!(
            "'{name}' is no volume name: write 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit"
        ));
    }
    let bytes = size::parse(size)?;
    if !bytes.is_multiple_of(4096) {
        return Err(format!("the size of {name} is no multiple of 4096 bytes"));
    }
    Ok(Volume {
        name: name.to_owned(),
        bytes,
    })
}

/// Runs the cluster until it is told to stop.
///
/// # Errors
/// One line for the user; nothing is damaged then, and no node runs.
pub fn run(options: &Options, format: LogFormat) -> anyhow::Result<()> {
    let begun = Instant::now();
    let folder = folder::open(&options.data_dir)?;
    let configs = folder.configs(&options.ports)?;
    ports::check_free(&configs, &options.data_dir)?;
    folder.write(&configs)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start")?;
    let ended = runtime.block_on(live(options, &configs, format, begun));
    // Whoever still waits for nodes to be ready is not waited for: they have ended.
    runtime.shutdown_background();
    ended
}

async fn live(
    options: &Options,
    configs: &[Config],
    format: LogFormat,
    begun: Instant,
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut children = Children::start(&options.data_dir, configs, format)?;
    let addresses: Vec<String> = configs
        .iter()
        .map(|config| format!("http://{}", config.listen.api))
        .collect();
    let wanted = options.volumes.clone();
    let cluster = addresses.clone();
    let readying =
        tokio::task::spawn_blocking(move || ready::make(&cluster, &wanted, READY_WITHIN));
    let outcome = tokio::select! {
        made = readying => made.context("waiting for the nodes ended")?,
        ended = children.ended() => Err(anyhow::anyhow!(children::ended_text(&options.data_dir, &ended))),
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped before the cluster was ready")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("stopped before the cluster was ready")),
    };
    if let Err(error) = outcome {
        children.stop().await;
        return Err(error);
    }
    print!(
        "{}",
        greeting(options, configs, &addresses, begun.elapsed())
    );
    loop {
        tokio::select! {
            ended = children.ended(), if children.any() => {
                println!("{}", children::ended_text(&options.data_dir, &ended));
                println!("it is not restarted; start it with: {}", again(&options.data_dir, &ended.name));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    println!("stopping all nodes");
    children.stop().await;
    Ok(())
}

fn again(data_dir: &Path, name: &str) -> String {
    format!(
        "cargo run --release --bin isthmusd -- run --config {}",
        data_dir.join(format!("{name}.toml")).display()
    )
}

fn greeting(options: &Options, configs: &[Config], addresses: &[String], took: Duration) -> String {
    let first = options
        .volumes
        .first()
        .map_or("demo", |volume| volume.name.as_str());
    let mut text = format!(
        "Isthmus is ready after {:.1} s; data in {}\n",
        took.as_secs_f64(),
        options.data_dir.display()
    );
    for (config, address) in configs.iter().zip(addresses) {
        let nbd = config
            .listen
            .nbd
            .map_or_else(String::new, |nbd| format!("nbd://{nbd}/{first}"));
        let domain = &config.this_member().domain;
        text.push_str(&format!(
            "  {:<3} in {domain:<8} {nbd:<32} API {address}\n",
            config.node
        ));
    }
    for volume in &options.volumes {
        text.push_str(&format!(
            "  volume {}, {}, mirrored at both sites\n",
            volume.name,
            size::format(volume.bytes)
        ));
    }
    let api = if addresses.iter().map(String::as_str).eq(ports::API_DEFAULTS) {
        String::new()
    } else {
        format!("--api {} ", addresses.join(","))
    };
    let control = format!("cargo run --release --bin domain-ctl -- {api}");
    text.push_str(&format!(
        "Try next, in another terminal:\n  {control}status\n  {control}describe volume {first}\n  \
         {control}deactivate clusterdomain site-a --wait\nCtrl-C stops all nodes.\n"
    ));
    text
}
