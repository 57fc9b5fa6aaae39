//! Where a volume is used: moving its primary, and publishing it to a node.

use crate::arguments::{Move, Publish, Unpublish};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;
use isthmus_api::{
    ApiError, DomainRelocate, DomainRelocated, PublishVolume, Relocate, UnpublishVolume, Volume,
};
use std::time::{Duration, Instant};
use ureq::http::Method;

const POLL_PERIOD: Duration = Duration::from_millis(100);

/// `relocate volume NAME --to …`, `relocate clusterdomain NAME`.
pub fn relocate(client: &Client, what: &Move) -> Result<(), Failure> {
    match what {
        Move::Volume {
            name,
            to,
            wait,
            timeout,
        } => relocate_volume(client, name, to, wait.then_some(*timeout)),
        Move::ClusterDomain { name, to } => relocate_domain(client, name, to.clone()),
    }
}

fn relocate_volume(
    client: &Client,
    name: &str,
    to: &str,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let path = format!("/v1/volumes/{}/relocate", segment(name));
    let wanted = Relocate { to: to.to_owned() };
    let mut volume: Volume = client.change(Method::POST, &path, Some(&wanted))?;
    let Some(goal) = volume.relocating.as_ref().map(|move_| move_.to.clone()) else {
        let primary = volume.primary.as_deref().unwrap_or(to);
        output::say(&format!("Volume {name} is served by {primary}\n"));
        return Ok(());
    };
    let Some(timeout) = wait else {
        output::say(&format!("Volume {name} is being moved to {goal}\n"));
        return Ok(());
    };
    while volume.primary.as_deref() != Some(goal.as_str()) || !is_open(&volume) {
        if begun.elapsed() >= timeout || volume.relocating.is_none() {
            let error = ApiError::new(format!("volume {name} is not served by {goal}"));
            let error = match volume.reason.is_empty() {
                true => error,
                false => error.because(volume.reason),
            };
            let next = format!("domain-ctl explain volume {name}");
            return Err(Failure::Refused(error.next(next)));
        }
        std::thread::sleep(POLL_PERIOD);
        volume = client.get(&format!("/v1/volumes/{}", segment(name)))?;
    }
    output::say(&format!("Volume {name} is served by {goal}\n"));
    Ok(())
}

fn is_open(volume: &Volume) -> bool {
    matches!(
        volume.service,
        isthmus_api::ServiceState::Serving | isthmus_api::ServiceState::Frozen
    )
}

fn relocate_domain(client: &Client, name: &str, to: Option<String>) -> Result<(), Failure> {
    let path = format!("/v1/clusterdomains/{}/relocate", segment(name));
    let wanted = DomainRelocate { to };
    let answer: DomainRelocated = client.change(Method::POST, &path, Some(&wanted))?;
    if answer.moving.is_empty() && answer.refused.is_empty() {
        output::say(&format!("No volume is served in cluster domain {name}\n"));
        return Ok(());
    }
    for volume in &answer.moving {
        output::say(&format!("Volume {volume} is being moved\n"));
    }
    if answer.refused.is_empty() {
        return Ok(());
    }
    let refused: Vec<String> = answer
        .refused
        .iter()
        .map(|(volume, reason)| format!("{volume} ({reason})"))
        .collect();
    Err(Failure::Refused(
        ApiError::new(format!("not all volumes of {name} can be moved"))
            .because(refused.join(", "))
            .next("bring their replicas in sync, then repeat the command"),
    ))
}

/// `publish volume NAME --node …`.
pub fn publish(client: &Client, what: &Publish) -> Result<(), Failure> {
    let Publish::Volume {
        name,
        node,
        read_only,
    } = what;
    let path = format!("/v1/volumes/{}/publish", segment(name));
    let wanted = PublishVolume {
        node: node.clone(),
        read_only: *read_only,
    };
    let _: Volume = client.change(Method::POST, &path, Some(&wanted))?;
    output::say(&format!("Volume {name} is published to {node}\n"));
    Ok(())
}

/// `unpublish volume NAME --node …`.
pub fn unpublish(client: &Client, what: &Unpublish) -> Result<(), Failure> {
    let Unpublish::Volume { name, node } = what;
    let path = format!("/v1/volumes/{}/unpublish", segment(name));
    let wanted = UnpublishVolume { node: node.clone() };
    let _: Volume = client.change(Method::POST, &path, Some(&wanted))?;
    output::say(&format!("Volume {name} is not published to {node}\n"));
    Ok(())
}
