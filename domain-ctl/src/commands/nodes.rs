//! Nodes.

use crate::arguments::Selection;
use crate::client::Client;
use crate::commands::NOTHING_FOUND;
use crate::failure::Failure;
use crate::{output, table, timestamp};
use isthmus_api::{ApiError, Node, NodeList};

/// `get nodes [NAME]`.
pub fn get(client: &Client, selection: &Selection) -> Result<(), Failure> {
    let mut list: NodeList = client.get("/v1/nodes")?;
    if let Some(name) = &selection.name {
        list.items.retain(|node| node.name == *name);
        if list.items.is_empty() {
            return Err(Failure::Refused(ApiError::new(format!(
                "node {name} not found"
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
            .map(|node| row(node, list.observed.at_ms))
            .collect();
        table::render(
            &[
                "NAME", "DOMAIN", "ROLE", "STATE", "HEARD", "KVDB", "STARTS", "API", "NBD",
            ],
            &rows,
        )
    })
}

fn row(node: &Node, now_ms: u64) -> Vec<String> {
    let heard = match node.observed_at_ms {
        _ if node.answers => "now".to_owned(),
        Some(at_ms) => format!("{} ago", timestamp::age(now_ms, at_ms)),
        None => "never".to_owned(),
    };
    let kvdb = match (node.leader, node.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    vec![
        node.name.clone(),
        node.domain.clone(),
        node.role.as_str().to_owned(),
        format!("{:?}", node.domain_state),
        heard,
        kvdb.to_owned(),
        node.starts.to_string(),
        node.api_address.clone(),
        node.nbd_address.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
