//! The groups that are compared: three members of kvdb, three of etcd, each a process; and clients of etcd.
//!
//! A put to etcd is `PUT /v3/kv/put` (by its HTTP gateway: Debian has no client for a load) or `PUT /v2/keys` (its older, lighter store),
//! over a connection that stays, of a key of the client's own.

use crate::bench::kvdb_member::MEMBERS;
use crate::patience;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const UP_WITHIN: Duration = Duration::from_secs(20);
const SILENT_MAX: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(20);
/// etcd's first port for clients; its peers' are 100 above.
const ETCD_PORT: u16 = 23_790;
const KVDB_PORT: u16 = 23_690;

/// How long each put took.
pub struct Times(pub Vec<Duration>);

impl Times {
    /// Count, median, 99th percentile and the longest (µs), in one line.
    #[must_use]
    pub fn line(mut self) -> String {
        self.0.sort();
        let place = |part: f64| {
            let index = (self.0.len() as f64 * part) as usize;
            self.0.get(index.min(self.0.len().saturating_sub(1)))
        };
        let us = |part| place(part).map_or(0, Duration::as_micros);
        format!("{} {} {} {}", self.0.len(), us(0.5), us(0.99), us(1.0))
    }
}

/// What [`Times::line`] says.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Puts done.
    pub count: f64,
    /// The median, in microseconds.
    pub median_us: f64,
    /// The 99th percentile, in microseconds.
    pub high_us: f64,
    /// The longest, in microseconds.
    pub longest_us: f64,
}

impl Figures {
    fn read(line: &str) -> anyhow::Result<Figures> {
        let numbers = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<f64>, _>>();
        let Ok(&[count, median_us, high_us, longest_us]) = numbers.as_deref() else {
            bail!("a member said {line:?}");
        };
        Ok(Figures {
            count,
            median_us,
            high_us,
            longest_us,
        })
    }
}

/// A process that ends with its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A group of kvdb.
pub struct KvdbGroup(Vec<Option<Member>>);

struct Member {
    _process: Killed,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Member {
    fn told(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    fn heard(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a member has ended");
        Ok(line.trim().to_owned())
    }
}

impl KvdbGroup {
    /// Starts this program again as three members in `folder`, whose certificates are made, and waits until all vote.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start(
        folder: &Path,
        heartbeat: Duration,
        election: Duration,
    ) -> anyhow::Result<KvdbGroup> {
        let mut members = Vec::new();
        for number in 1..=MEMBERS {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(["member", &number.to_string()])
                .arg(folder)
                .arg(KVDB_PORT.to_string());
            command.args([heartbeat, election].map(|time| time.as_millis().to_string()));
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (input, output) = (child.stdin.take(), child.stdout.take());
            members.push(Some(Member {
                _process: Killed(child),
                input: input.context("no input")?,
                output: BufReader::new(output.context("no output")?),
            }));
        }
        for member in members.iter_mut().flatten() {
            let said = member.heard()?;
            ensure!(said == "ready", "a member said {said}");
        }
        Ok(KvdbGroup(members))
    }

    fn member(&mut self, number: u32) -> anyhow::Result<&mut Member> {
        let member = self.0.get_mut(number as usize - 1).and_then(Option::as_mut);
        member.context("that member does not run")
    }

    /// Who leads, and somebody else.
    ///
    /// # Errors
    /// Nobody does.
    pub fn leader(&mut self) -> anyhow::Result<(u32, u32)> {
        let member = self.member(1)?;
        member.told("leader")?;
        let leader: u32 = member.heard()?.parse()?;
        ensure!(leader > 0, "nobody leads");
        Ok((leader, leader % MEMBERS + 1))
    }

    /// Clients in that member.
    ///
    /// # Errors
    /// A put fails.
    pub fn put(&mut self, member: u32, clients: usize, time: Duration) -> anyhow::Result<Figures> {
        let member = self.member(member)?;
        member.told(&format!("put {clients} {}", time.as_millis()))?;
        Figures::read(&member.heard()?)
    }

    /// A client in another member, while the leader is killed half way through.
    ///
    /// # Errors
    /// A put fails.
    pub fn put_while_the_leader_dies(&mut self, time: Duration) -> anyhow::Result<Figures> {
        let (leader, other) = self.leader()?;
        self.member(other)?
            .told(&format!("put 1 {}", time.as_millis()))?;
        patience::pass(time / 3);
        self.0[leader as usize - 1] = None;
        Figures::read(&self.member(other)?.heard()?)
    }
}

/// A group of etcd.
pub struct EtcdGroup(Vec<Option<Killed>>);

/// Which of etcd's stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// The present one.
    V3,
    /// The older one.
    V2,
}

impl EtcdGroup {
    /// Starts three members with their data in `folder`.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start(
        folder: &Path,
        heartbeat: Duration,
        election: Duration,
    ) -> anyhow::Result<EtcdGroup> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let cluster: Vec<String> = (1..=MEMBERS as u16)
            .map(|number| format!("m{number}={}", url(ETCD_PORT + 100 + number)))
            .collect();
        let mut members = Vec::new();
        for number in 1..=MEMBERS as u16 {
            let (client, peer) = (url(ETCD_PORT + number), url(ETCD_PORT + 100 + number));
            let mut command = Command::new("etcd");
            command
                .arg(format!("--name=m{number}"))
                .arg("--data-dir")
                .arg(folder.join(format!("etcd{number}")));
            command.args([
                "--initial-cluster",
                &cluster.join(","),
                "--initial-cluster-state=new",
                "--enable-v2",
                "--logger=zap",
            ]);
            command.args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ]);
            command.args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ]);
            command.arg(format!("--heartbeat-interval={}", heartbeat.as_millis()));
            command.arg(format!("--election-timeout={}", election.as_millis()));
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            members.push(Some(Killed(child.context("etcd can't be run")?)));
        }
        let group = EtcdGroup(members);
        let up = patience::within(UP_WITHIN, || {
            let mut connection = Connection::open(1).ok()?;
            connection.put(Api::V3, 0, 0).ok().filter(|done| *done)
        });
        up.context("etcd does not come up")?;
        Ok(group)
    }

    /// Who leads, and somebody else.
    ///
    /// # Errors
    /// `etcdctl` does not say.
    pub fn leader(&self) -> anyhow::Result<(u32, u32)> {
        let endpoints: Vec<String> = (1..=MEMBERS as u16)
            .map(|number| format!("127.0.0.1:{}", ETCD_PORT + number))
            .collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args([
            "endpoint",
            "status",
            "-w",
            "json",
            "--endpoints",
            &endpoints.join(","),
        ]);
        let output = command.output().context("etcdctl can't be run")?;
        let status: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        let leads =
            |status: &Value| status["Status"]["header"]["member_id"] == status["Status"]["leader"];
        let index = status.iter().position(leads).context("nobody leads etcd")?;
        let leader = index as u32 + 1;
        Ok((leader, leader % MEMBERS + 1))
    }

    /// Clients of that member.
    ///
    /// # Errors
    /// A put fails.
    pub fn put(
        &self,
        member: u32,
        api: Api,
        clients: usize,
        time: Duration,
    ) -> anyhow::Result<Figures> {
        let end = Instant::now() + time;
        let client = |number: usize| -> anyhow::Result<Vec<Duration>> {
            let (mut connection, mut times) = (Connection::open(member)?, Vec::new());
            while Instant::now() < end {
                let start = Instant::now();
                ensure!(
                    connection.put(api, number, times.len())?,
                    "etcd refused a put"
                );
                times.push(start.elapsed());
            }
            Ok(times)
        };
        let client = &client;
        let all: anyhow::Result<Vec<Vec<Duration>>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..clients)
                .map(|number| scope.spawn(move || client(number)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|times| times.ok().context("a client panicked")?)
                .collect()
        });
        Figures::read(&Times(all?.concat()).line())
    }

    /// A client of another member, while the leader is killed half way through. What fails is tried again, there and at the third.
    ///
    /// # Errors
    /// Nobody leads.
    pub fn put_while_the_leader_dies(&mut self, time: Duration) -> anyhow::Result<Figures> {
        let (leader, other) = self.leader()?;
        let client = thread::spawn(move || {
            let (end, mut times, mut at) = (Instant::now() + time, Vec::new(), other);
            let mut connection = Connection::open(at).ok();
            while Instant::now() < end {
                let start = Instant::now();
                while !matches!(
                    connection
                        .as_mut()
                        .map(|connection| connection.put(Api::V3, 0, times.len())),
                    Some(Ok(true))
                ) {
                    at = (1..=MEMBERS)
                        .find(|number| *number != leader && *number != at)
                        .unwrap_or(other);
                    connection = Connection::open(at).ok();
                    patience::pass(RETRY);
                }
                times.push(start.elapsed());
            }
            times
        });
        patience::pass(time / 3);
        self.0[leader as usize - 1] = None;
        let times = client.join().ok().context("the client panicked")?;
        Figures::read(&Times(times).line())
    }
}

/// A connection to a member of etcd.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(member: u32) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", ETCD_PORT + member as u16))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENT_MAX))?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Whether it was done.
    fn put(&mut self, api: Api, client: usize, turn: usize) -> anyhow::Result<bool> {
        // Digits are Base64, too: a key of six bytes. The value has 255.
        let (kind, line, body) = match api {
            Api::V3 => {
                let value = "YWFh".repeat(85);
                let body = format!("{{\"key\":\"{client:08}\",\"value\":\"{value}\"}}");
                ("application/json", "POST /v3/kv/put".to_owned(), body)
            }
            Api::V2 => (
                "application/x-www-form-urlencoded",
                format!("PUT /v2/keys/{client:06}"),
                format!("value={turn}{}", "a".repeat(250)),
            ),
        };
        let length = body.len();
        let message = format!(
            "{line} HTTP/1.1\r\nhost: etcd\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(message.as_bytes())?;
        let (mut done, mut length) = (false, 0);
        for index in 0.. {
            let mut line = String::new();
            ensure!(
                self.0.read_line(&mut line)? > 0,
                "etcd closed the connection"
            );
            let line = line.trim().to_ascii_lowercase();
            if index == 0 {
                done = line
                    .split(' ')
                    .nth(1)
                    .is_some_and(|status| status.starts_with('2'));
            } else if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(done)
    }
}
