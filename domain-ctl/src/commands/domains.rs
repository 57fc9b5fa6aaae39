//! Cluster domains: storkctl's tables, texts and waiting.

use crate::arguments::{Selection, Waiting};
use crate::client::{Client, segment};
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::{output, table, timestamp};
use isthmus_api::{
    ApiError, ClusterDomain, ClusterDomainUpdate, ClusterDomainUpdateList, ClusterDomainsStatus,
    DomainChange, DomainChanged, DomainRole, DomainState, SyncStatus, UpdateAction, UpdateStatus,
};
use std::time::{Duration, Instant};
use ureq::http::Method;

const POLL_PERIOD: Duration = Duration::from_millis(250);
/// How often a status that did not change is printed again, in polls.
const POLLS_A_WORD: u32 = 8;

/// `get clusterdomainsstatus [CLUSTER]`.
pub fn get_status(client: &Client, selection: &Selection) -> Result<(), Failure> {
    let status: ClusterDomainsStatus = client.get("/v1/clusterdomains")?;
    if let Some(name) = selection.name.as_ref().filter(|name| **name != status.name) {
        return Err(Failure::Refused(ApiError::new(format!(
            "clusterdomainsstatus {name} not found"
        ))));
    }
    output::print(selection.output, &status, |status| {
        if status.domains.is_empty() {
            return NOTHING_FOUND.to_owned();
        }
        let row = vec![
            status.name.clone(),
            status.local_domain.clone(),
            cell(status, true),
            cell(status, false),
            timestamp::rfc822(status.created_ms),
        ];
        table::render(
            &["NAME", "LOCAL-DOMAIN", "ACTIVE", "INACTIVE", "CREATED"],
            &[row],
        )
    })
}

/// The data domains that are active (or not), as storkctl writes them: `zone1 (SyncInProgress), zone2 (InSync)`.
fn cell(status: &ClusterDomainsStatus, active: bool) -> String {
    let data = status
        .domains
        .iter()
        .filter(|domain| domain.role == DomainRole::Data);
    let wanted = data.filter(|domain| (domain.state == DomainState::Active) == active);
    let words: Vec<String> = wanted
        .map(|domain| format!("{} ({})", domain.name, sync(domain)))
        .collect();
    words.join(", ")
}

fn sync(domain: &ClusterDomain) -> &'static str {
    domain
        .sync_status
        .unwrap_or(SyncStatus::SyncStatusUnknown)
        .as_str()
}

/// `get clusterdomainupdate [NAME]`.
pub fn get_updates(client: &Client, selection: &Selection) -> Result<(), Failure> {
    let mut list: ClusterDomainUpdateList = client.get("/v1/clusterdomainupdates")?;
    if let Some(name) = &selection.name {
        list.items.retain(|update| update.name == *name);
        if list.items.is_empty() {
            return Err(Failure::Refused(ApiError::new(format!(
                "clusterdomainupdate {name} not found"
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
            .map(|update| {
                vec![
                    update.name.clone(),
                    update.cluster_domain.clone(),
                    format!("{:?}", update.action),
                    format!("{:?}", update.status),
                    timestamp::rfc822(update.created_ms),
                ]
            })
            .collect();
        table::render(
            &["NAME", "CLUSTER-DOMAIN", "ACTION", "STATUS", "CREATED"],
            &rows,
        )
    })
}

/// `get clusterdomains [NAME]`.
pub fn get_domains(client: &Client, selection: &Selection) -> Result<(), Failure> {
    let mut status: ClusterDomainsStatus = client.get("/v1/clusterdomains")?;
    if let Some(name) = &selection.name {
        status.domains.retain(|domain| domain.name == *name);
        if status.domains.is_empty() {
            return Err(unknown(name));
        }
    }
    output::print(selection.output, &status.domains, |domains| {
        if domains.is_empty() {
            return NOTHING_FOUND.to_owned();
        }
        let rows: Vec<Vec<String>> = domains
            .iter()
            .map(|domain| {
                vec![
                    domain.name.clone(),
                    role(domain.role).to_owned(),
                    format!("{:?}", domain.state),
                    domain
                        .sync_status
                        .map_or("-", SyncStatus::as_str)
                        .to_owned(),
                    domain.nodes.join(", "),
                    timestamp::rfc822(domain.since_ms),
                ]
            })
            .collect();
        table::render(&["NAME", "ROLE", "STATE", "SYNC", "NODES", "SINCE"], &rows)
    })
}

/// A role as people write it.
pub fn role(role: DomainRole) -> &'static str {
    match role {
        DomainRole::Data => "data",
        DomainRole::Witness => "witness",
    }
}

fn unknown(name: &str) -> Failure {
    Failure::Refused(ApiError::new(format!(
        "provided cluster domain {name} not found"
    )))
}

/// `activate clusterdomain NAME | --all`.
pub fn activate(
    client: &Client,
    name: Option<String>,
    all: bool,
    waiting: &Waiting,
) -> Result<(), Failure> {
    let names = match (name, all) {
        (Some(name), false) => vec![name],
        (None, true) => {
            let status: ClusterDomainsStatus = client.get("/v1/clusterdomains")?;
            let inactive = status
                .domains
                .into_iter()
                .filter(|domain| domain.state == DomainState::Inactive);
            inactive.map(|domain| domain.name).collect()
        }
        (None, false) => return Err(exactly_one("activate")),
        (Some(_), true) => {
            return Err(Failure::Usage(
                "give either a cluster domain name or --all".to_owned(),
            ));
        }
    };
    if names.is_empty() {
        output::say(NOTHING_FOUND);
    }
    let change = DomainChange {
        reason: waiting.reason.clone(),
        accept_data_loss: false,
        dry_run: false,
    };
    for name in names {
        begin(client, &name, UpdateAction::Activate, &change, waiting)?;
    }
    Ok(())
}

/// `deactivate clusterdomain NAME`.
pub fn deactivate(
    client: &Client,
    name: Option<String>,
    dry_run: bool,
    accept_data_loss: bool,
    waiting: &Waiting,
) -> Result<(), Failure> {
    let Some(name) = name else {
        return Err(exactly_one("deactivate"));
    };
    let change = DomainChange {
        reason: waiting.reason.clone(),
        accept_data_loss,
        dry_run,
    };
    if !dry_run {
        return begin(client, &name, UpdateAction::Deactivate, &change, waiting);
    }
    let answer: DomainChanged = client.change(
        Method::POST,
        &path(&name, UpdateAction::Deactivate),
        Some(&change),
    )?;
    let mut text =
        format!("Deactivating cluster domain {name} would do this (nothing was changed):\n");
    for (index, step) in answer.plan.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", index + 1));
    }
    output::say(&text);
    if answer.refusal.is_empty() {
        Ok(())
    } else {
        Err(Failure::Plain(format!(
            "error: it would be refused now: {}",
            answer.refusal
        )))
    }
}

fn exactly_one(command: &str) -> Failure {
    Failure::Usage(format!(
        "exactly one cluster domain name needs to be provided to the {command} command"
    ))
}

fn path(name: &str, action: UpdateAction) -> String {
    let verb = match action {
        UpdateAction::Activate => "activate",
        UpdateAction::Deactivate => "deactivate",
    };
    format!("/v1/clusterdomains/{}/{verb}", segment(name))
}

fn begin(
    client: &Client,
    name: &str,
    action: UpdateAction,
    change: &DomainChange,
    waiting: &Waiting,
) -> Result<(), Failure> {
    let answer: DomainChanged = client.change(Method::POST, &path(name, action), Some(change))?;
    let Some(update) = answer.update else {
        let state = if action == UpdateAction::Activate {
            "active"
        } else {
            "inactive"
        };
        output::say(&format!("Cluster Domain {name} is {state} already\n"));
        return Ok(());
    };
    let verb = if action == UpdateAction::Activate {
        "activate"
    } else {
        "deactivate"
    };
    output::say(&format!(
        "Cluster Domain {verb} operation started successfully for {name}\n"
    ));
    if waiting.wait {
        wait(client, name, action, &update, waiting.timeout)
    } else {
        Ok(())
    }
}

/// Follows an update until it ends, printing its status as storkctl does.
fn wait(
    client: &Client,
    name: &str,
    action: UpdateAction,
    update: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let end = Instant::now() + timeout;
    output::say(if action == UpdateAction::Activate {
        "Activating.."
    } else {
        "Deactivating.."
    });
    let mut polls = 0;
    loop {
        let detail = match find(client, update) {
            Ok(seen) => {
                if polls % POLLS_A_WORD == 0 || seen.status != UpdateStatus::InProgress {
                    output::say(&format!("..{:?}", seen.status));
                }
                match seen.status {
                    UpdateStatus::Successful => {
                        let verb = if action == UpdateAction::Activate {
                            "activated"
                        } else {
                            "deactivated"
                        };
                        output::say(&format!("\nCluster Domain {name} updated successfully\n"));
                        output::say(&format!("Cluster Domain {name} {verb} successfully\n"));
                        return Ok(());
                    }
                    UpdateStatus::Failed => {
                        output::say("\n");
                        return Err(Failure::Plain(format!(
                            "Failed to update ClusterDomain, Reason : {}",
                            seen.reason
                        )));
                    }
                    UpdateStatus::Pending | UpdateStatus::InProgress => seen.detail,
                }
            }
            // An election or a node's stop may lie in between: what counts is whether it is done in time.
            Err(failure) => failure.to_string(),
        };
        if Instant::now() >= end {
            output::say("\n");
            let why = if detail.is_empty() {
                String::new()
            } else {
                format!(" ({detail})")
            };
            return Err(Failure::Plain(format!(
                "error: Timed out performing task: {update} is not done after {}s{why}; it goes on: domain-ctl get clusterdomainupdate {update}",
                timeout.as_secs()
            )));
        }
        polls += 1;
        std::thread::sleep(POLL_PERIOD.min(end.saturating_duration_since(Instant::now())));
    }
}

fn find(client: &Client, update: &str) -> Result<ClusterDomainUpdate, Failure> {
    let list: ClusterDomainUpdateList = client.get("/v1/clusterdomainupdates")?;
    let found = list.items.into_iter().find(|item| item.name == update);
    found.ok_or_else(|| {
        Failure::Plain(format!(
            "clusterdomainupdate {update} is not known at the node that answers"
        ))
    })
}
