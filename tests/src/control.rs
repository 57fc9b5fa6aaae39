//! The operator's hands: `domain-ctl`, and what it prints as JSON.

use crate::binaries;
use crate::cluster::{Cluster, Node};
use crate::patience;
use crate::tool;
use isthmus_api::{ClusterDomainUpdateList, ClusterDomainsStatus, Status, Volume};
use serde::de::DeserializeOwned;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long one `domain-ctl` may run; `--wait` included.
const RUN_LIMIT: Duration = Duration::from_secs(75);

/// What a program printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub complaints: String,
}

/// A `domain-ctl` that runs, ended when dropped.
#[derive(Debug)]
pub struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster {
    /// Runs `domain-ctl` with these arguments where it reaches all nodes; with nodes in namespaces, at the first one that runs.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn domain_ctl(&self, arguments: &[&str]) -> Said {
        let at = Node::ALL
            .into_iter()
            .find(|node| self.runs(*node))
            .unwrap_or(Node::W1);
        self.domain_ctl_at(at, arguments)
    }

    /// Runs `domain-ctl` in a node's place; without namespaces, all nodes are reached from there, this one first.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn domain_ctl_at(&self, node: Node, arguments: &[&str]) -> Said {
        let mut command = tool::command(self.namespace(node), RUN_LIMIT, binaries::domain_ctl());
        let output = command
            .env("ISTHMUS_API", self.addresses_from(node))
            .args(arguments)
            .output()
            .expect("domain-ctl was built and can be run");
        Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `domain-ctl` and does not wait for what becomes of it. Only for nodes without namespaces.
    ///
    /// # Panics
    /// When it can't be run.
    #[must_use]
    pub fn begin(&self, arguments: &[&str]) -> Begun {
        let mut command = Command::new(binaries::domain_ctl());
        command
            .env("ISTHMUS_API", self.addresses_from(Node::A1))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let started = command.spawn();
        Begun(started.expect("domain-ctl was built and can be run"))
    }

    /// What `domain-ctl` is told in a node's place.
    fn addresses_from(&self, node: Node) -> String {
        let mut addresses = vec![self.addresses(node).api()];
        addresses.extend(Node::ALL.map(|node| self.addresses(node).api()));
        addresses.dedup();
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        addresses.join(",")
    }

    /// Runs `domain-ctl`, which must succeed; what it printed.
    ///
    /// # Panics
    /// When it does not succeed.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> String {
        let said = self.domain_ctl(arguments);
        assert_eq!(
            said.code,
            Some(0),
            "domain-ctl {}: {said:#?}",
            arguments.join(" ")
        );
        said.out
    }

    /// Runs `domain-ctl`, which must refuse; what it said.
    ///
    /// # Panics
    /// When it succeeds.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let said = self.domain_ctl(arguments);
        assert_eq!(
            said.code,
            Some(1),
            "domain-ctl {}: {said:#?}",
            arguments.join(" ")
        );
        said.complaints
    }

    /// Runs `domain-ctl` until it succeeds.
    ///
    /// # Panics
    /// When it does not succeed within `limit`.
    #[track_caller]
    pub fn until_done(&self, arguments: &[&str], limit: Duration) {
        let mut last = None;
        let done = patience::within(limit, || {
            let said = self.domain_ctl(arguments);
            let done = said.code == Some(0);
            last = Some(said);
            done.then_some(())
        });
        assert!(
            done.is_some(),
            "domain-ctl {} within {limit:?}: {last:#?}",
            arguments.join(" ")
        );
    }

    /// What `domain-ctl … -o json` prints, as that type; none when it fails.
    ///
    /// # Panics
    /// When it prints something else.
    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, arguments: &[&str]) -> Option<T> {
        let at = Node::ALL
            .into_iter()
            .find(|node| self.runs(*node))
            .unwrap_or(Node::W1);
        self.get_at(at, arguments)
    }

    /// The same in a node's place.
    ///
    /// # Panics
    /// When it prints something else.
    #[track_caller]
    pub fn get_at<T: DeserializeOwned>(&self, node: Node, arguments: &[&str]) -> Option<T> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let said = self.domain_ctl_at(node, &all);
        if said.code != Some(0) {
            return None;
        }
        Some(
            serde_json::from_str(&said.out)
                .unwrap_or_else(|error| panic!("{}: {error} in {}", all.join(" "), said.out)),
        )
    }

    /// The cluster at one glance.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.get(&["status"])
    }

    /// The domains.
    #[must_use]
    pub fn domains(&self) -> Option<ClusterDomainsStatus> {
        self.get(&["get", "cds"])
    }

    /// Activations and deactivations.
    #[must_use]
    pub fn updates(&self) -> Option<ClusterDomainUpdateList> {
        self.get(&["get", "cdu"])
    }

    /// A volume.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<Volume> {
        self.get(&["describe", "volume", name])
    }

    /// Deactivates a node's domain and waits for the proof that it serves nothing.
    ///
    /// # Panics
    /// When that is refused or fails.
    #[track_caller]
    pub fn deactivate(&self, node: Node) {
        self.done(&["deactivate", "clusterdomain", node.domain(), "--wait"]);
    }

    /// Activates a node's domain and waits until that is done.
    ///
    /// # Panics
    /// When that is refused or fails.
    #[track_caller]
    pub fn activate(&self, node: Node) {
        self.done(&["activate", "clusterdomain", node.domain(), "--wait"]);
    }
}
