//! Volumes: listing, making, changing, describing, deleting.

use crate::arguments::{Durability, Format, OnPeerLoss, Selection};
use crate::client::{Client, segment};
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::{output, table, timestamp};
use isthmus_api::size;
use isthmus_api::{
    ApiError, ChangePolicy, CreateVolume, ExpandVolume, Replica, ReplicaState, Volume,
    VolumeCreated, VolumeDeleted, VolumeList,
};
use ureq::http::Method;

/// `get volumes [NAME]`.
pub fn get(client: &Client, selection: &Selection) -> Result<(), Failure> {
    let mut list: VolumeList = client.get("/v1/volumes")?;
    if let Some(name) = &selection.name {
        list.items.retain(|volume| volume.name == *name);
        if list.items.is_empty() {
            return Err(Failure::Refused(ApiError::new(format!(
                "volume {name} not found"
            ))));
        }
    }
    output::print(selection.output, &list, |list| {
        if list.items.is_empty() {
            return NOTHING_FOUND.to_owned();
        }
        let rows: Vec<Vec<String>> = list
            .items
            .iter()
            .map(|volume| {
                vec![
                    volume.name.clone(),
                    size::format(volume.bytes),
                    format!("{:?}", volume.service),
                    volume.sync_status.as_str().to_owned(),
                    volume.primary.clone().unwrap_or_else(|| "-".to_owned()),
                    volume.in_sync.join(", "),
                    timestamp::rfc822(volume.created_ms),
                ]
            })
            .collect();
        table::render(
            &[
                "NAME", "SIZE", "STATE", "SYNC", "PRIMARY", "IN-SYNC", "CREATED",
            ],
            &rows,
        )
    })
}

/// `create volume NAME --size …`.
pub fn create(
    client: &Client,
    name: String,
    bytes: u64,
    block_size: &str,
    (on_peer_loss, durability): (OnPeerLoss, Durability),
    (preferred_domain, replicas_per_domain): (Option<String>, u8),
) -> Result<(), Failure> {
    let wanted = CreateVolume {
        name,
        bytes,
        block_bytes: if block_size == "512" { 512 } else { 4096 },
        on_peer_loss: on_peer_loss.wire(),
        durability: durability.wire(),
        preferred_domain,
        replicas_per_domain,
    };
    let made: VolumeCreated = client.change(Method::POST, "/v1/volumes", Some(&wanted))?;
    output::say(&format!("Volume {} created successfully\n", made.name));
    Ok(())
}

/// `expand volume NAME --size …`.
pub fn expand(client: &Client, name: &str, bytes: u64) -> Result<(), Failure> {
    let path = format!("/v1/volumes/{}/expand", segment(name));
    let volume: Volume = client.change(Method::POST, &path, Some(&ExpandVolume { bytes }))?;
    output::say(&format!(
        "Volume {} has {} now\n",
        volume.name,
        size::format(volume.bytes)
    ));
    Ok(())
}

/// `set volume NAME …`.
pub fn set(
    client: &Client,
    name: &str,
    (on_peer_loss, durability): (Option<OnPeerLoss>, Option<Durability>),
    preferred_domain: Option<String>,
) -> Result<(), Failure> {
    let wanted = ChangePolicy {
        on_peer_loss: on_peer_loss.map(OnPeerLoss::wire),
        durability: durability.map(Durability::wire),
        preferred_domain: preferred_domain.map(|name| Some(name).filter(|name| name != "none")),
    };
    let path = format!("/v1/volumes/{}/policy", segment(name));
    let volume: Volume = client.change(Method::POST, &path, Some(&wanted))?;
    output::say(&format!("Volume {} changed successfully\n", volume.name));
    Ok(())
}

/// `delete volume NAME`.
pub fn delete(client: &Client, name: &str) -> Result<(), Failure> {
    let gone: VolumeDeleted = client.change(
        Method::DELETE,
        &format!("/v1/volumes/{}", segment(name)),
        None::<&()>,
    )?;
    output::say(&format!("Volume {} deleted successfully\n", gone.name));
    Ok(())
}

/// `describe volume NAME`.
pub fn describe(client: &Client, name: &str, format: Format) -> Result<(), Failure> {
    let volume: Described = client.get(&format!("/v1/volumes/{}", segment(name)))?;
    output::print(format, &volume, |described| {
        text(&described.volume, described.observed.at_ms)
    })
}

/// A volume and how far what is said about it can be trusted.
#[derive(serde::Serialize, serde::Deserialize)]
struct Described {
    #[serde(flatten)]
    volume: Volume,
    observed: isthmus_api::Observed,
}

fn text(volume: &Volume, now_ms: u64) -> String {
    let mut lines = vec![
        ("Name", volume.name.clone()),
        (
            "Size",
            format!(
                "{} ({} bytes, thin)",
                size::format(volume.bytes),
                volume.bytes
            ),
        ),
        ("Block size", format!("{} bytes", volume.block_bytes)),
        ("Created", timestamp::rfc822(volume.created_ms)),
        (
            "On peer loss",
            format!("{:?}", volume.on_peer_loss).to_lowercase(),
        ),
        (
            "Durability",
            format!("{:?}", volume.durability).to_lowercase(),
        ),
        (
            "Preferred domain",
            volume
                .preferred_domain
                .clone()
                .unwrap_or_else(|| "-".to_owned()),
        ),
        ("State", format!("{:?}", volume.service)),
        ("Sync", volume.sync_status.as_str().to_owned()),
        ("Epoch", volume.epoch.clone()),
        (
            "Primary",
            volume
                .primary
                .clone()
                .unwrap_or_else(|| "- (nobody is attached)".to_owned()),
        ),
        (
            "NBD",
            if volume.nbd.is_empty() {
                "-".to_owned()
            } else {
                volume.nbd.join(", ")
            },
        ),
    ];
    for published in &volume.published {
        let mode = match published.read_only {
            true => "read-only",
            false => "read and write",
        };
        lines.push((
            "Published",
            format!(
                "to {}, {mode}, for {}",
                published.node,
                timestamp::age(now_ms, published.since_ms)
            ),
        ));
    }
    if let Some(relocating) = &volume.relocating {
        lines.push((
            "Moving",
            format!(
                "to {}, for {}",
                relocating.to,
                timestamp::age(now_ms, relocating.since_ms)
            ),
        ));
    }
    if let Some(since_ms) = volume.unprotected_since_ms {
        lines.push((
            "Unprotected",
            format!(
                "for {}, since {}",
                timestamp::age(now_ms, since_ms),
                timestamp::rfc822(since_ms)
            ),
        ));
    }
    if !volume.reason.is_empty() {
        lines.push(("Reason", volume.reason.clone()));
    }
    if !volume.next.is_empty() {
        lines.push(("Next step", volume.next.clone()));
    }
    let mut text: String = lines
        .iter()
        .map(|(label, value)| format!("{:<18} {value}\n", format!("{label}:")))
        .collect();
    text.push_str("Replicas:\n");
    let rows: Vec<Vec<String>> = volume
        .replicas
        .iter()
        .map(|replica| row(replica, now_ms))
        .collect();
    for line in table::render(
        &["NODE", "DOMAIN", "ROLE", "STATE", "HEARD", "REASON"],
        &rows,
    )
    .lines()
    {
        text.push_str(&format!("  {}\n", line.trim_end()));
    }
    text
}

fn row(replica: &Replica, now_ms: u64) -> Vec<String> {
    vec![
        replica.node.clone(),
        replica.domain.clone(),
        if replica.primary {
            "primary"
        } else {
            "secondary"
        }
        .to_owned(),
        state(&replica.state),
        replica.observed_at_ms.map_or_else(
            || "never".to_owned(),
            |at_ms| format!("{} ago", timestamp::age(now_ms, at_ms)),
        ),
        replica.reason.clone(),
    ]
}

fn state(state: &ReplicaState) -> String {
    match state {
        ReplicaState::InSync => "InSync".to_owned(),
        ReplicaState::Resyncing {
            done_bytes,
            total_bytes,
            bytes_per_second,
            seconds_left,
        } => progress(*done_bytes, *total_bytes, *bytes_per_second, *seconds_left),
        ReplicaState::NotInSync {
            dirty_bytes: Some(bytes),
            ..
        } => format!("NotInSync ({} to bring)", size::format(*bytes)),
        ReplicaState::NotInSync { .. } => "NotInSync".to_owned(),
        ReplicaState::Unknown => "SyncStatusUnknown".to_owned(),
    }
}

/// How far a resync is: `SyncInProgress (10 MiB of 40 MiB, 5 MiB/s, 6s left)`.
pub fn progress(
    done_bytes: u64,
    total_bytes: u64,
    bytes_per_second: u64,
    seconds_left: Option<u64>,
) -> String {
    let mut text = format!(
        "SyncInProgress ({} of {}",
        size::format(done_bytes),
        size::format(total_bytes)
    );
    if bytes_per_second > 0 {
        text.push_str(&format!(", {}/s", size::format(bytes_per_second)));
    }
    if let Some(seconds) = seconds_left {
        text.push_str(&format!(
            ", {} left",
            timestamp::age(seconds.saturating_mul(1000), 0)
        ));
    }
    text + ")"
}
