//! Talks to the cluster: tries its nodes in turn, so that a dead, stopped or cut-off site costs seconds, not an answer.
//!
//! A read takes the first answer that a majority of kvdb confirmed; failing that, the first unconfirmed one, with a warning.
//! A change carries an id that stays the same for all tries, so that the cluster applies it once.

use crate::failure::Failure;
use crate::output;
use isthmus_api::{ApiError, REQUEST_ID_HEADER};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use ureq::http::{Method, Request};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const ADDRESSES_MAX: usize = 32;

/// A client of one cluster.
pub struct Client {
    addresses: Vec<String>,
    random: u64,
    changes: Cell<u64>,
    /// The address that answered last: it is tried first next time.
    good: Cell<usize>,
    /// Whether the user was told already that answers are unconfirmed.
    warned: Cell<bool>,
}

/// What one node made of a request.
enum Try {
    Answered(serde_json::Value),
    /// The request itself is at fault, or was refused: no other node would say otherwise.
    Refused(ApiError),
    /// This node could not; another may.
    NotHere(String, Option<ApiError>),
}

impl Client {
    /// A client that tries these addresses in this order.
    ///
    /// # Errors
    /// When an address is not `http://HOST:PORT`, or there are none or too many.
    pub fn new(addresses: &[String]) -> Result<Client, Failure> {
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| address.trim().trim_end_matches('/').to_owned())
            .filter(|address| !address.is_empty())
            .collect();
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(Failure::Usage(format!(
                "--api needs 1 to {ADDRESSES_MAX} addresses, e.g. --api http://127.0.0.1:9440"
            )));
        }
        if let Some(wrong) = addresses
            .iter()
            .find(|address| !address.starts_with("http://"))
        {
            return Err(Failure::Usage(format!(
                "--api: '{wrong}' is no address: write http://HOST:PORT"
            )));
        }
        let random = std::hash::RandomState::new().build_hasher().finish();
        Ok(Client {
            addresses,
            random,
            changes: Cell::new(0),
            good: Cell::new(0),
            warned: Cell::new(false),
        })
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// When the cluster refuses, or no node answers.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let mut unconfirmed = None;
        let mut silent = Vec::new();
        for (index, address) in self.in_turn() {
            match attempt(address, Method::GET, path, READ_TIMEOUT, None, None) {
                Try::Answered(value) if is_confirmed(&value) => {
                    self.good.set(index);
                    return decode(value);
                }
                Try::Answered(value) => _ = unconfirmed.get_or_insert(value),
                Try::Refused(error) => return Err(Failure::Refused(error)),
                Try::NotHere(why, error) => silent.push((why, error)),
            }
        }
        let Some(value) = unconfirmed else {
            return Err(nobody(silent));
        };
        if !self.warned.replace(true) {
            output::complain(
                "warning: no node reaches a majority of kvdb's voters; this is what one node knew last, and may be old: see domain-ctl status",
            );
        }
        decode(value)
    }

    /// Reads `path` from the node that answered last, once.
    ///
    /// # Errors
    /// When it refuses, or does not answer.
    pub fn look<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let address = &self.addresses[self.good.get()];
        only(attempt(
            address,
            Method::GET,
            path,
            READ_TIMEOUT,
            None,
            None,
        ))
    }

    /// Changes something at the node that answered last, and at no other.
    ///
    /// # Errors
    /// When it refuses, or can't do it.
    pub fn change_there<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let (body, id) = self.numbered(body)?;
        let address = &self.addresses[self.good.get()];
        let (id, body) = (Some(id.as_str()), body.as_deref());
        only(attempt(address, method, path, CHANGE_TIMEOUT, id, body))
    }

    /// The body of a change as text, and the id of the change.
    fn numbered(&self, body: Option<&impl Serialize>) -> Result<(Option<String>, String), Failure> {
        let body = body
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| Failure::Plain(format!("error: {error}")))?;
        self.changes.set(self.changes.get() + 1);
        Ok((body, format!("{:016x}-{}", self.random, self.changes.get())))
    }

    /// Changes something: `method` on `path` with `body`, once, however often it has to be tried.
    ///
    /// # Errors
    /// When the cluster refuses, or no node can do it.
    pub fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let (body, id) = self.numbered(body)?;
        let mut silent = Vec::new();
        for (index, address) in self.in_turn() {
            match attempt(
                address,
                method.clone(),
                path,
                CHANGE_TIMEOUT,
                Some(&id),
                body.as_deref(),
            ) {
                Try::Answered(value) => {
                    self.good.set(index);
                    return decode(value);
                }
                Try::Refused(error) => return Err(Failure::Refused(error)),
                Try::NotHere(why, error) => silent.push((why, error)),
            }
        }
        Err(nobody(silent))
    }

    /// All addresses with their index, the last good one first.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &String)> {
        let (before, after) = self.addresses.split_at(self.good.get());
        let first = after.iter().chain(before);
        (self.good.get()..self.addresses.len())
            .chain(0..self.good.get())
            .zip(first)
    }
}

/// What came of the one node that was asked.
fn only<T: DeserializeOwned>(tried: Try) -> Result<T, Failure> {
    match tried {
        Try::Answered(value) => decode(value),
        Try::Refused(error) => Err(Failure::Refused(error)),
        Try::NotHere(why, error) => Err(nobody(vec![(why, error)])),
    }
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            b'.' if name.len() > 2 => text.push('.'),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn attempt(
    address: &str,
    method: Method,
    path: &str,
    timeout: Duration,
    id: Option<&str>,
    body: Option<&str>,
) -> Try {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .user_agent(concat!("domain-ctl/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{address}{path}"));
    if let Some(id) = id {
        request = request.header(REQUEST_ID_HEADER, id);
    }
    let sent = match body {
        Some(body) => request
            .header("content-type", "application/json")
            .body(body.to_owned())
            .map(|request| agent.run(request)),
        None => request.body(()).map(|request| agent.run(request)),
    };
    let mut response = match sent {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Try::NotHere(format!("{address}: {error}"), None),
        Err(error) => return Try::NotHere(format!("{address}: {error}"), None),
    };
    let status = response.status();
    let text = match response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
    {
        Ok(text) => text,
        Err(error) => return Try::NotHere(format!("{address}: {error}"), None),
    };
    if status.is_success() {
        return match serde_json::from_str(&text) {
            Ok(value) => Try::Answered(value),
            Err(error) => Try::NotHere(format!("{address}: its answer is no JSON ({error})"), None),
        };
    }
    let Ok(error) = serde_json::from_str::<ApiError>(&text) else {
        return Try::NotHere(
            format!("{address}: HTTP status {status}; is an isthmusd's admin API there?"),
            None,
        );
    };
    if status.is_client_error() {
        Try::Refused(error)
    } else {
        Try::NotHere(format!("{address}: {error}"), Some(error))
    }
}

/// Answers that do not say have nothing that could be old.
fn is_confirmed(value: &serde_json::Value) -> bool {
    value
        .pointer("/observed/confirmed")
        .and_then(serde_json::Value::as_bool)
        .unwrap_or(true)
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::Plain(format!("error: the answer is not what this domain-ctl understands ({error}); are both of one version?")))
}

/// No node could: the most telling error that a node gave, else who was tried.
fn nobody(silent: Vec<(String, Option<ApiError>)>) -> Failure {
    if let Some(error) = silent.iter().find_map(|(_, error)| error.clone()) {
        return Failure::Refused(error);
    }
    let tried: Vec<String> = silent.into_iter().map(|(why, _)| why).collect();
    let error = ApiError::new("no node of the cluster answers")
        .because(tried.join(", "))
        .next("start a node, or name the nodes' admin API addresses with --api or ISTHMUS_API");
    Failure::Refused(error)
}
