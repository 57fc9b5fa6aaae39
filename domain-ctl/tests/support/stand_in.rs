//! A stand-in for the admin API, and how the program is run against it.
#![allow(dead_code, reason = "each test program needs a part of it")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// A request as the stand-in saw it: `POST /v1/volumes`, its id, its body.
pub type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

/// Answers each `METHOD path` with a status and JSON; several answers to one request come in turn, the last one stays.
pub struct StandIn {
    pub address: String,
    pub seen: Seen,
}

pub fn stand_in(answers: &[(&str, u16, Value)]) -> StandIn {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let (record, mut answers) = (
        Arc::clone(&seen),
        answers
            .iter()
            .map(|(request, status, body)| ((*request).to_owned(), *status, body.to_string()))
            .collect::<Vec<_>>(),
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &mut answers, &record);
        }
    });
    StandIn { address, seen }
}

fn answer(mut stream: TcpStream, answers: &mut Vec<(String, u16, String)>, record: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let header = |name: &str| {
        let found = lines.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        });
        found.unwrap_or_default()
    };
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let request = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    record.lock().unwrap().push((
        request.clone(),
        header("isthmus-request-id"),
        String::from_utf8(body).unwrap(),
    ));
    let fitting: Vec<usize> = (0..answers.len())
        .filter(|index| answers[*index].0 == request)
        .collect();
    let (status, text) = match fitting.as_slice() {
        [] => (
            404,
            json!({"error": format!("no answer to {request}")}).to_string(),
        ),
        [only] => (answers[*only].1, answers[*only].2.clone()),
        [first, ..] => {
            let (_, status, text) = answers.remove(*first);
            (status, text)
        }
    };
    let length = text.len();
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}").unwrap();
}

pub fn run(api: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_domain-ctl"))
        .args(["--api", api])
        .args(arguments)
        .env_remove("ISTHMUS_API")
        .output()
        .unwrap()
}

#[track_caller]
pub fn expect(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(output.status.code(), Some(code));
}

pub fn observed(confirmed: bool) -> Value {
    json!({"at_ms": 1_795_341_840_000_u64, "confirmed": confirmed})
}
