//! When a quickstart cluster is ready: all nodes answer each other, kvdb's votes are where they belong, the volumes are there.

use crate::quickstart::Volume;
use anyhow::{Context, bail};
use isthmus_api::{
    ApiError, CreateVolume, DomainState, Durability, OnPeerLoss, Status, VolumeList,
};
use std::time::{Duration, Instant};

const POLL_PERIOD: Duration = Duration::from_millis(50);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);

/// Waits until the cluster at these API addresses is ready, and makes the volumes that are missing.
///
/// # Errors
/// One line: what is not ready after `within`, or why a volume can't be made.
pub fn make(addresses: &[String], volumes: &[Volume], within: Duration) -> anyhow::Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_TIMEOUT))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let end = Instant::now() + within;
    for address in addresses {
        while let Err(missing) = is_ready(&agent, address) {
            if Instant::now() >= end {
                bail!(
                    "the cluster is not ready after {} s: {missing:#}",
                    within.as_secs()
                );
            }
            std::thread::sleep(POLL_PERIOD);
        }
    }
    let address = addresses.first().context("there is no node")?;
    let there: VolumeList = read(&agent, &format!("{address}/v1/volumes"))?;
    for volume in volumes
        .iter()
        .filter(|volume| !there.items.iter().any(|item| item.name == volume.name))
    {
        create(&agent, address, volume)?;
    }
    Ok(())
}

fn is_ready(agent: &ureq::Agent, address: &str) -> anyhow::Result<()> {
    let status: Status = read(agent, &format!("{address}/v1/status"))?;
    if !status.observed.confirmed {
        bail!("kvdb has no majority yet");
    }
    if status.domains.is_empty() || !status.nodes_silent.is_empty() {
        bail!("{} do not answer yet", status.nodes_silent.join(", "));
    }
    let all_active = status
        .domains
        .iter()
        .all(|domain| domain.state == DomainState::Active);
    if all_active && status.kvdb.voters.len() < status.domains.len() {
        bail!(
            "kvdb's votes are not spread yet: {}",
            status.kvdb.voters.join(", ")
        );
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(agent: &ureq::Agent, url: &str) -> anyhow::Result<T> {
    let mut response = agent.get(url).call()?;
    if !response.status().is_success() {
        bail!("{url}: HTTP status {}", response.status());
    }
    Ok(response.body_mut().read_json()?)
}

fn create(agent: &ureq::Agent, address: &str, volume: &Volume) -> anyhow::Result<()> {
    let wanted = CreateVolume {
        name: volume.name.clone(),
        bytes: volume.bytes,
        block_bytes: 512,
        on_peer_loss: OnPeerLoss::default(),
        durability: Durability::default(),
        preferred_domain: None,
        replicas_per_domain: 1,
    };
    let mut response = agent
        .post(&format!("{address}/v1/volumes"))
        .send_json(&wanted)?;
    if response.status().is_success() {
        return Ok(());
    }
    let error: ApiError = response
        .body_mut()
        .read_json()
        .unwrap_or_else(|_| ApiError::new(format!("HTTP status {}", response.status())));
    bail!("can't make volume {}: {error}", volume.name)
}
