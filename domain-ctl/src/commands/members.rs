//! Which nodes hold a volume, and which nodes there are.

use crate::arguments::{Add, AddReplica, Remove, RemoveReplica};
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;
use isthmus_api::{ApiError, NodeRemoved, ReplicaState, Volume, size};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use ureq::http::Method;

const POLL_PERIOD: Duration = Duration::from_millis(200);

/// `add replica volume NAME --node …`.
pub fn add(client: &Client, what: &Add) -> Result<(), Failure> {
    let Add::Replica {
        of:
            AddReplica::Volume {
                name,
                node,
                wait,
                timeout,
            },
    } = what;
    let path = format!("/v1/volumes/{}/replicas", segment(name));
    let wanted = isthmus_api::AddReplica { node: node.clone() };
    let volume: Volume = client.change(Method::POST, &path, Some(&wanted))?;
    if *wait {
        return wait_until_in_sync(client, volume, node, *timeout);
    }
    output::say(&format!(
        "Volume {name} has a replica on {node}; it is brought in sync while a client is attached or a replica can serve\n"
    ));
    Ok(())
}

fn wait_until_in_sync(
    client: &Client,
    mut volume: Volume,
    node: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let path = format!("/v1/volumes/{}", segment(&volume.name));
    let shows_progress = std::io::stderr().is_terminal();
    loop {
        let replica = volume.replicas.iter().find(|replica| replica.node == node);
        let state = replica.map(|replica| &replica.state);
        if matches!(state, Some(ReplicaState::InSync)) {
            if shows_progress {
                eprintln!();
            }
            let name = &volume.name;
            output::say(&format!(
                "The replica of volume {name} on {node} is in sync\n"
            ));
            return Ok(());
        }
        if begun.elapsed() >= timeout {
            let reason = replica.map(|replica| replica.reason.clone());
            let error = ApiError::new(format!(
                "the replica of volume {} on {node} is not in sync yet",
                volume.name
            ));
            let next = format!("domain-ctl describe volume {}", volume.name);
            return Err(Failure::Refused(
                error.because(reason.unwrap_or_default()).next(next),
            ));
        }
        if let Some(ReplicaState::Resyncing {
            done_bytes,
            total_bytes,
            bytes_per_second,
            ..
        }) = state
            && shows_progress
        {
            let (done, total) = (size::format(*done_bytes), size::format(*total_bytes));
            let rate = size::format(*bytes_per_second);
            eprint!("\r{done} of {total} at {rate}/s      ");
        }
        std::thread::sleep(POLL_PERIOD);
        volume = client.get(&path)?;
    }
}

/// `remove replica volume NAME --node …`, `remove node NAME`.
pub fn remove(client: &Client, what: &Remove) -> Result<(), Failure> {
    match what {
        Remove::Replica {
            of: RemoveReplica::Volume { name, node },
        } => {
            let path = format!("/v1/volumes/{}/replicas/{}", segment(name), segment(node));
            let _: Volume = client.change(Method::DELETE, &path, None::<&()>)?;
            output::say(&format!(
                "Volume {name} has no replica on {node} any more\n"
            ));
        }
        Remove::Node { name } => {
            let path = format!("/v1/nodes/{}", segment(name));
            let gone: NodeRemoved = client.change(Method::DELETE, &path, None::<&()>)?;
            output::say(&format!("Node {} is no member any more\n", gone.name));
        }
    }
    Ok(())
}
