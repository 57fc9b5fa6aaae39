//! The cluster, by the admin API: its nodes are tried in turn, so that a dead one costs seconds, not an answer.
//!
//! Everything here blocks, and ends within seconds. A change carries an id that stays the same for all tries, so that the cluster
//! applies it once.

use isthmus_api::{
    ApiError, ChangePolicy, ClusterDomainsStatus, CreateVolume, DomainRole, ExpandVolume, Node,
    NodeList, NodeRuntime, PublishVolume, REQUEST_ID_HEADER, UnpublishVolume, Volume,
    VolumeCreated, VolumeDeleted, VolumeList,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use ureq::http::{Method, Request};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(3);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const ADDRESSES_MAX: usize = 32;

/// Why the cluster did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such thing.
    Unknown(String),
    /// The request makes no sense.
    Invalid(String),
    /// Not in the state that it is in.
    Conflict {
        /// Why, and what to do.
        reason: String,
        /// After how many seconds time itself will have solved it.
        retry_after_seconds: Option<u64>,
    },
    /// The cluster's version does not have it.
    Outdated(String),
    /// No node could answer.
    Unavailable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Unknown(text)
            | Trouble::Invalid(text)
            | Trouble::Outdated(text)
            | Trouble::Unavailable(text) => out.write_str(text),
            Trouble::Conflict {
                reason,
                retry_after_seconds: None,
            } => out.write_str(reason),
            Trouble::Conflict {
                reason,
                retry_after_seconds: Some(seconds),
            } => write!(out, "{reason} ({seconds} s left until then)"),
        }
    }
}

/// A client of one cluster. Shared by all calls.
#[derive(Debug)]
pub struct Cluster {
    addresses: Vec<String>,
    agent: ureq::Agent,
    /// Names this client in request ids.
    random: u64,
    changes: AtomicU64,
    /// The address that answered last: it is tried first next time.
    good: AtomicUsize,
}

/// What one node made of a request.
enum Try {
    Answered(serde_json::Value),
    /// No other node would say otherwise.
    Refused(Trouble),
    /// This node could not; another may.
    NotHere(String),
}

struct Question<'a> {
    method: Method,
    path: &'a str,
    timeout: Duration,
    id: Option<&'a str>,
    body: Option<&'a str>,
}

impl Cluster {
    /// A client that tries these addresses in this order.
    ///
    /// # Errors
    /// When an address is not `http://HOST:PORT`, or there are none or too many.
    pub fn new(addresses: &[String]) -> Result<Cluster, String> {
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| address.trim().trim_end_matches('/').to_owned())
            .filter(|address| !address.is_empty())
            .collect();
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(format!(
                "--api needs 1 to {ADDRESSES_MAX} addresses, e.g. --api http://127.0.0.1:9440"
            ));
        }
        if let Some(wrong) = addresses.iter().find(|text| !text.starts_with("http://")) {
            return Err(format!(
                "--api: '{wrong}' is no address: write http://HOST:PORT"
            ));
        }
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("isthmus-csi/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Cluster {
            addresses,
            agent,
            random: std::hash::RandomState::new().build_hasher().finish(),
            changes: AtomicU64::new(0),
            good: AtomicUsize::new(0),
        })
    }

    /// The addresses, for a process that asks the same cluster.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// One volume.
    pub fn volume(&self, name: &str) -> Result<Volume, Trouble> {
        Ok(self.get(&format!("/v1/volumes/{}", segment(name)))?.0)
    }

    /// One volume, as a majority of kvdb's voters has it now.
    pub fn volume_confirmed(&self, name: &str) -> Result<Volume, Trouble> {
        match self.get(&format!("/v1/volumes/{}", segment(name)))? {
            (volume, true) => Ok(volume),
            (_, false) => Err(Trouble::Unavailable(
                "no node reaches a majority of kvdb's voters; see domain-ctl status".to_owned(),
            )),
        }
    }

    /// All volumes in the order of their names.
    pub fn volumes(&self) -> Result<Vec<Volume>, Trouble> {
        let (list, _): (VolumeList, bool) = self.get("/v1/volumes")?;
        Ok(list.items)
    }

    /// All nodes.
    pub fn nodes(&self) -> Result<Vec<Node>, Trouble> {
        let (list, _): (NodeList, bool) = self.get("/v1/nodes")?;
        Ok(list.items)
    }

    /// The names of the domains that hold replicas.
    pub fn data_domains(&self) -> Result<Vec<String>, Trouble> {
        let (status, _): (ClusterDomainsStatus, bool) = self.get("/v1/clusterdomains")?;
        let data = status.domains.into_iter();
        Ok(data
            .filter(|domain| domain.role == DomainRole::Data)
            .map(|domain| domain.name)
            .collect())
    }

    /// What the node of the first address says about itself: the one on this machine.
    pub fn own_node(&self) -> Result<NodeRuntime, Trouble> {
        let question = Question {
            method: Method::GET,
            path: "/v1/node",
            timeout: READ_TIMEOUT,
            id: None,
            body: None,
        };
        match self.ask(&self.addresses[0], &question) {
            Try::Answered(value) => decode(value),
            Try::Refused(trouble) => Err(trouble),
            Try::NotHere(why) => Err(Trouble::Unavailable(why)),
        }
    }

    /// Makes a volume.
    pub fn create(&self, wanted: &CreateVolume) -> Result<(), Trouble> {
        let _: VolumeCreated = self.change(Method::POST, "/v1/volumes", Some(wanted))?;
        Ok(())
    }

    /// Deletes a volume.
    pub fn delete(&self, name: &str) -> Result<(), Trouble> {
        let path = format!("/v1/volumes/{}", segment(name));
        let _: VolumeDeleted = self.change(Method::DELETE, &path, None::<&()>)?;
        Ok(())
    }

    /// Makes a volume larger.
    pub fn expand(&self, name: &str, bytes: u64) -> Result<Volume, Trouble> {
        self.change(
            Method::POST,
            &below(name, "expand"),
            Some(&ExpandVolume { bytes }),
        )
    }

    /// Changes a volume's policy.
    pub fn set_policy(&self, name: &str, policy: &ChangePolicy) -> Result<Volume, Trouble> {
        self.change(Method::POST, &below(name, "policy"), Some(policy))
    }

    /// Lets a volume be opened at a node, and only there.
    pub fn publish(&self, name: &str, node: &str, read_only: bool) -> Result<Volume, Trouble> {
        let body = PublishVolume {
            node: node.to_owned(),
            read_only,
        };
        self.change(Method::POST, &below(name, "publish"), Some(&body))
    }

    /// Ends that, once it is proven that the node can serve the volume no more.
    pub fn unpublish(&self, name: &str, node: &str) -> Result<(), Trouble> {
        let body = UnpublishVolume {
            node: node.to_owned(),
        };
        let _: Volume = self.change(Method::POST, &below(name, "unpublish"), Some(&body))?;
        Ok(())
    }

    /// Reads: the first answer that a majority confirmed (then true), else the first unconfirmed one.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(T, bool), Trouble> {
        let question = Question {
            method: Method::GET,
            path,
            timeout: READ_TIMEOUT,
            id: None,
            body: None,
        };
        let mut unconfirmed = None;
        let mut silent = Vec::new();
        for (index, address) in self.in_turn() {
            match self.ask(address, &question) {
                Try::Answered(value) if is_confirmed(&value) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok((decode(value)?, true));
                }
                Try::Answered(value) => _ = unconfirmed.get_or_insert(value),
                Try::Refused(trouble) => return Err(trouble),
                Try::NotHere(why) => silent.push(why),
            }
        }
        match unconfirmed {
            Some(value) => Ok((decode(value)?, false)),
            None => Err(nobody(&silent)),
        }
    }

    /// Changes something once, however often it has to be tried.
    fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Trouble> {
        let body = body
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| Trouble::Invalid(error.to_string()))?;
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{number}", self.random);
        let question = Question {
            method,
            path,
            timeout: CHANGE_TIMEOUT,
            id: Some(&id),
            body: body.as_deref(),
        };
        let mut silent = Vec::new();
        for (index, address) in self.in_turn() {
            match self.ask(address, &question) {
                Try::Answered(value) => {
                    self.good.store(index, Ordering::Relaxed);
                    return decode(value);
                }
                Try::Refused(trouble) => return Err(trouble),
                Try::NotHere(why) => silent.push(why),
            }
        }
        Err(nobody(&silent))
    }

    /// All addresses with their index, the last good one first.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &String)> {
        let count = self.addresses.len();
        let first = self.good.load(Ordering::Relaxed);
        (0..count)
            .map(move |step| (first + step) % count)
            .map(|index| (index, &self.addresses[index]))
    }

    fn ask(&self, address: &str, question: &Question<'_>) -> Try {
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(format!("{address}{}", question.path));
        if let Some(id) = question.id {
            request = request.header(REQUEST_ID_HEADER, id);
        }
        if question.body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let not_here = |why: &dyn fmt::Display| Try::NotHere(format!("{address}: {why}"));
        let request = match request.body(question.body.unwrap_or_default().to_owned()) {
            Ok(request) => request,
            Err(error) => return not_here(&error),
        };
        let bounded = self
            .agent
            .configure_request(request)
            .timeout_global(Some(question.timeout))
            .build();
        let mut response = match self.agent.run(bounded) {
            Ok(response) => response,
            Err(error) => return not_here(&error),
        };
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string();
        match text {
            Ok(text) => understand(address, status, &text),
            Err(error) => not_here(&error),
        }
    }
}

/// What an answer means.
fn understand(address: &str, status: u16, text: &str) -> Try {
    if (200..300).contains(&status) {
        return match serde_json::from_str(text) {
            Ok(value) => Try::Answered(value),
            Err(error) => Try::NotHere(format!("{address}: its answer is no JSON ({error})")),
        };
    }
    let Ok(refusal) = serde_json::from_str::<ApiError>(text) else {
        return Try::NotHere(format!(
            "{address}: HTTP status {status}; is an isthmusd's admin API there?"
        ));
    };
    let reason = refusal.to_string();
    match status {
        404 if refusal.error.starts_with("there is no /") => {
            Try::Refused(Trouble::Outdated(format!(
                "{reason}; this isthmusd is older than isthmus-csi: update the cluster's nodes"
            )))
        }
        404 => Try::Refused(Trouble::Unknown(reason)),
        409 => Try::Refused(Trouble::Conflict {
            reason,
            retry_after_seconds: refusal.retry_after_seconds,
        }),
        400..500 => Try::Refused(Trouble::Invalid(reason)),
        _ => Try::NotHere(format!("{address}: {reason}")),
    }
}

/// Answers that do not say have nothing that could be old.
fn is_confirmed(value: &serde_json::Value) -> bool {
    value
        .pointer("/observed/confirmed")
        .and_then(serde_json::Value::as_bool)
        .unwrap_or(true)
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Trouble> {
    serde_json::from_value(value).map_err(|error| {
        Trouble::Outdated(format!(
            "the cluster's answer is not what this isthmus-csi understands ({error}); are both of one version?"
        ))
    })
}

fn nobody(silent: &[String]) -> Trouble {
    Trouble::Unavailable(format!(
        "no node of the cluster could do it: {}; start a node, or name the nodes' admin API addresses with --api",
        silent.join(", ")
    ))
}

fn below(name: &str, what: &str) -> String {
    format!("/v1/volumes/{}/{what}", segment(name))
}

/// A name as one segment of a path.
fn segment(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            b'.' if name.len() > 2 => text.push('.'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, text: &str) -> Trouble {
        match understand("http://127.0.0.1:1", status, text) {
            Try::Refused(trouble) => trouble,
            Try::Answered(value) => panic!("answered {value}"),
            Try::NotHere(why) => panic!("not here: {why}"),
        }
    }

    #[test]
    fn a_conflict_says_how_many_seconds_are_left() {
        let text = r#"{"error":"volume x is published to a1","reason":"a1 may still serve it","next":"wait","retry_after_seconds":4}"#;
        let trouble = refused(409, text);
        assert_eq!(
            trouble.to_string(),
            "volume x is published to a1: a1 may still serve it; wait (4 s left until then)"
        );
    }

    #[test]
    fn a_path_that_the_cluster_does_not_have_is_no_missing_volume() {
        let text = r#"{"error":"there is no /v1/volumes/x/publish in this API"}"#;
        assert!(matches!(refused(404, text), Trouble::Outdated(_)));
        let text = r#"{"error":"volume x not found"}"#;
        assert!(matches!(refused(404, text), Trouble::Unknown(_)));
    }

    #[test]
    fn a_name_stays_one_segment_of_a_path() {
        assert_eq!(segment("pvc-1.a_b"), "pvc-1.a_b");
        assert_eq!(segment("../x?y#z"), "..%2Fx%3Fy%23z");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
