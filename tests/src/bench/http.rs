//! The admin API without a program in between: one request a connection, JSON both ways.

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What is at this path.
///
/// # Errors
/// Nobody answers, or not with that.
pub fn get<T: DeserializeOwned>(at: SocketAddr, path: &str) -> anyhow::Result<T> {
    ask(at, &format!("GET {path} HTTP/1.1\r\n"), "")
}

/// The text at this path.
///
/// # Errors
/// Nobody answers, or with an error.
pub fn text(at: SocketAddr, path: &str) -> anyhow::Result<String> {
    say(at, &format!("GET {path} HTTP/1.1\r\n"), "")
}

/// Asks for a change.
///
/// # Errors
/// It is refused, or nobody answers.
pub fn post<T: DeserializeOwned>(
    at: SocketAddr,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<T> {
    let body = serde_json::to_string(body)?;
    ask(at, &format!("POST {path} HTTP/1.1\r\n"), &body)
}

fn ask<T: DeserializeOwned>(at: SocketAddr, line: &str, body: &str) -> anyhow::Result<T> {
    let body = say(at, line, body)?;
    serde_json::from_str(&body).with_context(|| format!("not what was expected: {body}"))
}

/// Says it, and gives the body of the answer.
fn say(at: SocketAddr, line: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, CONNECT_WITHIN)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let length = body.len();
    let message = format!(
        "{line}host: {at}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(message.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without an end of its head")?;
    ensure!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "an answer in chunks is not understood here"
    );
    match head.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(body.to_owned()),
        _ => bail!("{}: {body}", head.lines().next().unwrap_or_default()),
    }
}
