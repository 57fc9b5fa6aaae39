//! How fast a replica that was away is brought back, and what that costs those who write meanwhile. The second site is killed, the first
//! overwrites so many GiB, the second comes back: once with nobody at work, once with clients. Prints a table in Markdown.
//!
//! `bench-resync [-o json] [GIB [CLIENTS]]`: how much is overwritten (2), and how many clients write random blocks, one each at a time (4).

use anyhow::{Context, bail, ensure};
use isthmus_api::{ReplicaState, Volume};
use serde_json::json;
use std::ops::Range;
use std::time::{Duration, Instant};
use tests::bench::fio::{self, Place};
use tests::bench::floor;
use tests::bench::foreground::{Foreground, Seen};
use tests::bench::http;
use tests::bench::server::used_us;
use tests::cluster::config::Timing;
use tests::cluster::{Cluster, Node, Options};
use tests::{patience, verify};

const BLOCK_BYTES: u64 = 4096;
const DEGRADED_WITHIN: Duration = Duration::from_secs(20);
const RESYNCED_WITHIN: Duration = Duration::from_secs(600);
/// How long clients work before and after, to compare with.
const QUIET: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
const SHOWN_EVERY: Duration = Duration::from_secs(5);

/// One resync.
struct Resync {
    /// From the first question to the end, when the replica is a member of the set again.
    when: Range<Instant>,
    /// From the start of the second site's process until then.
    beforehand: Duration,
    /// CPU time of both data nodes.
    processor_us: f64,
}

impl Resync {
    fn seconds(&self) -> f64 {
        self.when.end.duration_since(self.when.start).as_secs_f64()
    }
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
    let number = |index: usize, usual: u64| match words.get(index) {
        None => Ok(usual),
        Some(word) => word
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{word} is no count")),
    };
    let (bytes, clients) = (number(0, 2)? << 30, number(1, 4)? as usize);

    let probes = tempfile::tempdir()?;
    eprintln!("probing the disk and the link");
    let disk_rate = floor::disk_rate(probes.path(), bytes.min(1 << 30))?;
    let link_rate = floor::link_rate(probes.path(), PROBE)?;

    let mut options = Options::with_volume(bytes);
    options.timing = Timing::USUAL;
    let mut cluster = Cluster::start(&options);
    let endpoint = cluster.nbd(Node::A1);
    // Somebody has the volume open all the time, as in life.
    let client = verify::open(&endpoint, "demo", DEGRADED_WITHIN);
    let uri = endpoint.uri("demo");
    let place = Place {
        uri: &uri,
        namespace: None,
        bytes,
    };
    eprintln!("filling {} GiB at both sites", bytes >> 30);
    fio::fill(&place)?;

    let alone = resync(&mut cluster, &place)?;
    let foreground = Foreground::start(
        &endpoint,
        &vec!["demo".to_owned(); clients],
        bytes / BLOCK_BYTES,
    );
    let quiet = quiet();
    let busy = resync(&mut cluster, &place)?;
    let times = foreground.end()?;
    let seen = [times.seen(&quiet)?, times.seen(&busy.when)?];
    client.close();
    let rates = [disk_rate, link_rate];
    if as_json {
        print_json(bytes, clients, rates, [&alone, &busy], seen);
    } else {
        print_table(bytes, clients, rates, [&alone, &busy], seen);
    }
    Ok(())
}

fn quiet() -> Range<Instant> {
    // The first moments count for nothing: connections are made, caches fill.
    patience::pass(QUIET / 5);
    let start = Instant::now();
    patience::pass(QUIET);
    start..Instant::now()
}

fn resync(cluster: &mut Cluster, place: &Place<'_>) -> anyhow::Result<Resync> {
    lose(cluster)?;
    eprintln!("overwriting at the first site alone");
    fio::fill(place)?;
    bring_back(cluster)
}

fn lose(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kill(Node::B1);
    let degraded = patience::within(DEGRADED_WITHIN, || {
        let volume = look(cluster).ok()?;
        (volume.in_sync.len() == 1).then_some(())
    });
    degraded.context("the set was not shrunk")
}

fn bring_back(cluster: &mut Cluster) -> anyhow::Result<Resync> {
    let begun = Instant::now();
    cluster.start_node(Node::B1);
    let processor = |cluster: &Cluster| -> anyhow::Result<f64> {
        Ok(used_us(cluster.process_id(Node::A1))? + used_us(cluster.process_id(Node::B1))?)
    };
    let (mut first, mut processor_before, mut shown) = (None, 0.0, begun);
    while begun.elapsed() < RESYNCED_WITHIN {
        let state = look(cluster).ok().and_then(|volume| {
            let mut replicas = volume.replicas.into_iter();
            replicas.find(|replica| replica.node == Node::B1.name())
        });
        match state.map(|replica| replica.state) {
            Some(ReplicaState::InSync) => {
                let end = Instant::now();
                let start = first.unwrap_or(begun);
                return Ok(Resync {
                    when: start..end,
                    beforehand: start.duration_since(begun),
                    processor_us: processor(cluster)? - processor_before,
                });
            }
            Some(ReplicaState::Resyncing {
                done_bytes,
                total_bytes,
                ..
            }) => {
                if first.is_none() {
                    first = Some(Instant::now());
                    processor_before = processor(cluster)?;
                }
                if shown.elapsed() >= SHOWN_EVERY {
                    shown = Instant::now();
                    eprintln!("resync: {} of {} MiB", done_bytes >> 20, total_bytes >> 20);
                }
            }
            _ => {}
        }
        patience::pass(LOOK);
    }
    bail!("not in sync within {RESYNCED_WITHIN:?}")
}

fn look(cluster: &Cluster) -> anyhow::Result<Volume> {
    http::get(cluster.addresses(Node::A1).api(), "/v1/volumes/demo")
}

fn print_table(
    bytes: u64,
    clients: usize,
    rates: [f64; 2],
    resyncs: [&Resync; 2],
    seen: [Seen; 2],
) {
    let gigabytes = bytes as f64 / 1e9;
    println!(
        "disk {:.0} MB/s (buffered writes, synced at the end), link {:.0} MB/s (encrypted, pieces of 256 KiB); {gigabytes:.2} GB overwritten\n",
        rates[0] / 1e6,
        rates[1] / 1e6
    );
    println!(
        "| resync | until it began, s | took s | MB/s | of the smaller of disk and link | CPU of both sites, s per GB |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, resync) in ["alone", "with clients"].into_iter().zip(resyncs) {
        let rate = bytes as f64 / resync.seconds();
        println!(
            "| {name} | {:.1} | {:.1} | {:.0} | {:.0} % | {:.2} |",
            resync.beforehand.as_secs_f64(),
            resync.seconds(),
            rate / 1e6,
            rate / rates[0].min(rates[1]) * 100.0,
            resync.processor_us / 1e6 / gigabytes,
        );
    }
    println!(
        "\n| {clients} clients, 4 KiB random writes | writes/s | p50 µs | p99 µs | p99 to that without |"
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (name, seen_then) in ["in sync", "during the resync"].into_iter().zip(&seen) {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.2} |",
            seen_then.per_second,
            seen_then.median_us,
            seen_then.high_us,
            seen_then.high_us / seen[0].high_us
        );
    }
}

fn print_json(bytes: u64, clients: usize, rates: [f64; 2], resyncs: [&Resync; 2], seen: [Seen; 2]) {
    let resyncs: Vec<_> = resyncs
        .iter()
        .map(|resync| json!({ "seconds": resync.seconds(), "processor_us": resync.processor_us }))
        .collect();
    let seen: Vec<_> = seen
        .iter()
        .map(|seen| json!({ "per_second": seen.per_second, "p50_us": seen.median_us, "p99_us": seen.high_us }))
        .collect();
    println!(
        "{}",
        json!({
            "bytes": bytes, "clients": clients,
            "disk_bytes_per_second": rates[0], "link_bytes_per_second": rates[1],
            "alone": resyncs[0], "beside": resyncs[1],
            "clients_in_sync": seen[0], "clients_during_resync": seen[1],
        })
    );
}
