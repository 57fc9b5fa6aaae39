//! How long a site's volumes are not served when its domain is deactivated: from the command until the first write is acknowledged at the
//! other site, with the old site dead (`kill -9` the moment before) and alive. Prints a table in Markdown.
//!
//! `bench-failover [-o json] [dead|alive] [REPETITIONS [VOLUMES...]]`: how often (3), and with how many volumes (1 1000). Each volume has a
//! client that is connected at the old site, and one that connects at the new one from the command on, until it is let in.

use anyhow::{Context, ensure};
use isthmus_api::{ClusterDomainUpdateList, UpdateStatus};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tests::bench::server::used_us;
use tests::bench::{http, volumes};
use tests::cluster::config::Timing;
use tests::cluster::{Cluster, Node, Options};
use tests::nbd::endpoint::Endpoint;
use tests::patience;

const VOLUME_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;
/// How long one failover may take before the bench gives up.
const WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at the update.
const LOOK: Duration = Duration::from_millis(20);
/// Enough for a client that opens and writes.
const STACK_BYTES: usize = 128 << 10;

/// Times since the command was given.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// The command was answered: the deactivation is committed.
    committed: Duration,
    /// kvdb says that the old site is proven to serve nothing.
    fenced: Duration,
    /// The first and the last volume were open at the new site.
    opened: [Duration; 2],
    /// The first write to the first and to the last volume was acknowledged there.
    written: [Duration; 2],
    /// CPU time that the new site's node used meanwhile.
    processor: Duration,
}

fn main() -> anyhow::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let as_json = words.first().is_some_and(|word| word == "-o");
    if as_json {
        ensure!(
            words.get(1).is_some_and(|word| word == "json"),
            "-o takes json"
        );
        words.drain(..2);
    }
    let states: &[bool] = match words.first().map(String::as_str) {
        Some("dead") => &[true],
        Some("alive") => &[false],
        _ => &[true, false],
    };
    if states.len() == 1 {
        words.remove(0);
    }
    let numbers = words.iter().map(|word| {
        let number = word.parse::<usize>();
        number
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{word} is no count"))
    });
    let numbers = numbers.collect::<anyhow::Result<Vec<usize>>>()?;
    let repetitions = numbers.first().copied().unwrap_or(3);
    let counts = numbers
        .get(1..)
        .filter(|counts| !counts.is_empty())
        .unwrap_or(&[1, 1000]);
    let mut rows = Vec::new();
    for count in counts {
        for dead in states.iter().copied() {
            let mut runs = Vec::new();
            for repetition in 1..=repetitions {
                eprintln!(
                    "{count} volumes, old site {}: {repetition} of {repetitions}",
                    state(dead)
                );
                let run = fail_over(*count, dead)?;
                eprintln!("{run:?}");
                runs.push(run);
            }
            rows.push((*count, dead, runs));
        }
    }
    if as_json {
        print_json(&rows);
    } else {
        print_table(&rows);
    }
    Ok(())
}

fn state(dead: bool) -> &'static str {
    if dead { "dead" } else { "alive" }
}

fn fail_over(count: usize, dead: bool) -> anyhow::Result<Run> {
    let mut options = Options::with_volume(VOLUME_BYTES);
    options.timing = Timing::USUAL;
    let mut cluster = Cluster::start(&options);
    volumes::make(&cluster, 0..count, VOLUME_BYTES)?;
    cluster.until_in_sync(WITHIN);
    let mut old = volumes::open(&cluster.nbd(Node::A1), 0..count)?;
    for (number, client) in old.iter_mut().enumerate() {
        client.write(0, &content(number, 0))?;
    }
    let (api, endpoint) = (cluster.addresses(Node::B1).api(), cluster.nbd(Node::B1));
    let processor_before = used_us(cluster.process_id(Node::B1))?;
    if dead {
        cluster.kill(Node::A1);
    }
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let (committed, fenced, clients) = thread::scope(|scope| {
        let command = scope.spawn(|| {
            cluster.done(&["deactivate", "clusterdomain", Node::A1.domain()]);
            start.elapsed()
        });
        let fence = scope.spawn(|| until_fenced(api, start, &over));
        let clients = clients(count, start, &endpoint);
        if clients.is_err() {
            over.store(true, Ordering::Relaxed);
        }
        (command.join(), fence.join(), clients)
    });
    let clients = clients?;
    let committed = committed.ok().context("the command failed")?;
    let fenced = fenced.ok().context("nobody looked at the fence")??;
    let processor = used_us(cluster.process_id(Node::B1))? - processor_before;
    let sorted = |place: fn(&[Duration; 2]) -> Duration| {
        let mut times: Vec<Duration> = clients.iter().map(place).collect();
        times.sort();
        [times[0], times[times.len() - 1]]
    };
    Ok(Run {
        committed,
        fenced,
        opened: sorted(|times| times[0]),
        written: sorted(|times| times[1]),
        processor: Duration::from_micros(processor as u64),
    })
}

/// A client a volume: connects until it is let in, finds what was written at the old site, and writes. When each was let in and had its
/// write acknowledged.
fn clients(
    count: usize,
    start: Instant,
    endpoint: &Endpoint,
) -> anyhow::Result<Vec<[Duration; 2]>> {
    let deadline = start + WITHIN;
    let client = |number: usize| -> anyhow::Result<[Duration; 2]> {
        let mut session = volumes::open_one(endpoint, &volumes::name(number), deadline)?;
        let opened = start.elapsed();
        session.write(BLOCK as u64, &content(number, 1))?;
        let written = start.elapsed();
        let mut found = vec![0; BLOCK];
        session.read(0, &mut found)?;
        ensure!(
            found == content(number, 0),
            "volume {number} lost an acknowledged write"
        );
        Ok([opened, written])
    };
    let client = &client;
    thread::scope(|scope| {
        let threads = (0..count).map(|number| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            thread
                .spawn_scoped(scope, move || client(number))
                .context("a thread for a client")
        });
        let threads: Vec<_> = threads.collect::<anyhow::Result<_>>()?;
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().ok().context("a client panicked")?);
        joined.collect()
    })
}

/// When kvdb says that the deactivation is done.
fn until_fenced(at: SocketAddr, start: Instant, over: &AtomicBool) -> anyhow::Result<Duration> {
    loop {
        let updates = http::get::<ClusterDomainUpdateList>(at, "/v1/clusterdomainupdates");
        let last = updates
            .ok()
            .and_then(|updates| updates.items.last().map(|update| update.status));
        match last {
            Some(UpdateStatus::Successful) => return Ok(start.elapsed()),
            _ if over.load(Ordering::Relaxed) || start.elapsed() > WITHIN => {
                anyhow::bail!("the fence was not proven: {last:?}")
            }
            _ => patience::pass(LOOK),
        }
    }
}

fn content(number: usize, turn: u8) -> Vec<u8> {
    let mut block = vec![turn + 1; BLOCK];
    block[..8].copy_from_slice(&(number as u64).to_le_bytes());
    block
}

/// Figure by figure, the median.
fn median(runs: &[Run], figure: impl Fn(&Run) -> Duration) -> f64 {
    let mut values: Vec<Duration> = runs.iter().map(figure).collect();
    values.sort();
    values[values.len() / 2].as_secs_f64() * 1000.0
}

type Row = (usize, bool, Vec<Run>);

fn print_table(rows: &[Row]) {
    println!(
        "| volumes | old site | ms until: committed | first open | first write | fence proven | last open | last write | CPU of the new site's node, ms |"
    );
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (count, dead, runs) in rows {
        println!(
            "| {count} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            state(*dead),
            median(runs, |run| run.committed),
            median(runs, |run| run.opened[0]),
            median(runs, |run| run.written[0]),
            median(runs, |run| run.fenced),
            median(runs, |run| run.opened[1]),
            median(runs, |run| run.written[1]),
            median(runs, |run| run.processor),
        );
    }
}

fn print_json(rows: &[Row]) {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|(count, dead, runs)| {
            json!({
                "volumes": count,
                "old_site": state(*dead),
                "committed_ms": median(runs, |run| run.committed),
                "first_open_ms": median(runs, |run| run.opened[0]),
                "first_write_ms": median(runs, |run| run.written[0]),
                "fenced_ms": median(runs, |run| run.fenced),
                "last_open_ms": median(runs, |run| run.opened[1]),
                "last_write_ms": median(runs, |run| run.written[1]),
                "processor_ms": median(runs, |run| run.processor),
            })
        })
        .collect();
    println!("{}", serde_json::Value::Array(rows));
}
