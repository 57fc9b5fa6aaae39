//! What a node asks of kvdb by itself: each wish once, with its name and reason for the audit trail.

use crate::api::access::{ClusterAccess, Unavailable, now_ms};
use isthmus_catalog::{Answer, Catalog, Cause, Command, RequestId};
use std::sync::Arc;

/// Asks, and counts what it has asked.
pub struct Proposer<A> {
    /// The cluster.
    pub cluster: Arc<A>,
    client: u64,
    requests: u64,
}

impl<A: ClusterAccess> Proposer<A> {
    /// One that is called `client`: a random number of this process, used for nothing else.
    pub fn new(cluster: Arc<A>, client: u64) -> Proposer<A> {
        Proposer {
            cluster,
            client,
            requests: 0,
        }
    }

    /// Has a command applied, by the name that this node has in the catalog.
    ///
    /// # Errors
    /// kvdb can't be asked now.
    pub async fn propose(
        &mut self,
        catalog: &Catalog,
        why: &str,
        command: Command,
    ) -> Result<Answer, Unavailable> {
        self.requests += 1;
        let id = RequestId {
            client: self.client,
            number: self.requests,
        };
        let cause = Cause {
            who: catalog.node_name(self.cluster.this_node()),
            why: why.to_owned(),
            at_ms: now_ms(),
        };
        self.cluster.propose(id, cause, command).await
    }
}
