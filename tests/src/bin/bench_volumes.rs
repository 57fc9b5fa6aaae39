//! What many volumes cost, and large ones: 64 volumes with a writer each against one volume with 64; one writer beside many idle volumes, and
//! in volumes of several sizes; memory and start-up with 100 idle volumes of 1 TiB. Prints tables in Markdown.
//!
//! `bench-volumes [SECONDS [VOLUMES]]`: how long each job runs (5), and how many idle volumes there are at most (1000).

use anyhow::{Context, ensure};
use std::fs;
use std::time::{Duration, Instant};
use tests::bench::fio::{self, Job, Place};
use tests::bench::foreground::{Foreground, Seen};
use tests::bench::server::used_us;
use tests::bench::volumes;
use tests::cluster::config::Timing;
use tests::cluster::{Cluster, Node, Options};
use tests::patience;

const WRITERS: usize = 64;
/// What is written to, of each of the volumes that are written side by side, and of the one that is compared with them.
const SHARE_BYTES: u64 = 16 << 20;
const TOGETHER_BYTES: u64 = SHARE_BYTES * WRITERS as u64;
/// What the one writer writes to, whatever the volume's size.
const WINDOW_BYTES: u64 = 256 << 20;
const SIZES: [(&str, u64); 3] = [("1 GiB", 1 << 30), ("32 GiB", 32 << 30), ("1 TiB", 1 << 40)];
const IDLE: usize = 100;
const BLOCK_BYTES: u64 = 4096;
const IN_SYNC_WITHIN: Duration = Duration::from_secs(60);
/// The first moments of a job count for nothing: connections are made, caches fill.
const WARM: Duration = Duration::from_millis(500);

/// One job's figures.
struct Row {
    name: String,
    seen: Seen,
    processor_us: f64,
}

fn main() -> anyhow::Result<()> {
    let numbers = std::env::args().skip(1).map(|word| {
        let number = word.parse::<u64>();
        number
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{word} is no count"))
    });
    let numbers = numbers.collect::<anyhow::Result<Vec<u64>>>()?;
    let time = Duration::from_secs(numbers.first().copied().unwrap_or(5));
    let idle_max = numbers.get(1).copied().unwrap_or(1000) as usize;
    ensure!(
        idle_max > IDLE,
        "more than {IDLE} idle volumes are to be made"
    );

    println!("{WRITERS} writers of 4 KiB, each one request at a time:\n");
    print(&side_by_side(time)?);
    println!(
        "\nOne writer of 4 KiB, one request at a time, in the first {} MiB:\n",
        WINDOW_BYTES >> 20
    );
    let (rows, started) = growth(time, idle_max)?;
    print(&rows);
    println!("\n{started}");
    Ok(())
}

fn cluster() -> Cluster {
    let mut options = Options::with_volume(TOGETHER_BYTES);
    options.timing = Timing::USUAL;
    Cluster::start(&options)
}

/// One volume against as many as there are writers.
fn side_by_side(time: Duration) -> anyhow::Result<Vec<Row>> {
    let cluster = cluster();
    volumes::make(&cluster, 0..WRITERS, SHARE_BYTES)?;
    cluster.until_in_sync(IN_SYNC_WITHIN);
    let endpoint = cluster.nbd(Node::A1);
    let one = vec!["demo".to_owned(); WRITERS];
    let each: Vec<String> = (0..WRITERS).map(volumes::name).collect();
    eprintln!("filling the volumes");
    fill(&cluster, "demo", TOGETHER_BYTES)?;
    for name in &each {
        fill(&cluster, name, SHARE_BYTES)?;
    }
    let mut rows = vec![depth(&cluster, time)?];
    let job = |name: &str, clients: &[String], bytes: u64| {
        write(
            &cluster,
            name,
            Foreground::start(&endpoint, clients, bytes / BLOCK_BYTES),
            time,
        )
    };
    rows.push(job("one volume, 64 connections", &one, TOGETHER_BYTES)?);
    rows.push(job("64 volumes, a connection each", &each, SHARE_BYTES)?);
    Ok(rows)
}

/// The same number of requests in flight, by one client over one connection.
fn depth(cluster: &Cluster, time: Duration) -> anyhow::Result<Row> {
    let job = Job {
        name: "",
        pattern: "randwrite",
        bytes: BLOCK_BYTES as u32,
        depth: WRITERS as u32,
        flushes: false,
    };
    let uri = cluster.nbd(Node::A1).uri("demo");
    let before = processor(cluster)?;
    let figures = fio::run(&place(&uri, TOGETHER_BYTES), &job, Some(time))?;
    Ok(Row {
        name: "one volume, one connection, depth 64 (fio)".to_owned(),
        seen: Seen {
            per_second: figures.per_second,
            median_us: figures.median_us,
            high_us: figures.high_us,
        },
        processor_us: (processor(cluster)? - before) / figures.requests.max(1.0),
    })
}

/// One writer, in volumes of several sizes and beside idle ones; and the start with 100 of 1 TiB.
fn growth(time: Duration, idle_max: usize) -> anyhow::Result<(Vec<Row>, String)> {
    let mut cluster = cluster();
    let mut rows = Vec::new();
    for (index, (size, bytes)) in SIZES.into_iter().enumerate() {
        let number = idle_max + index;
        volumes::make(&cluster, number..number + 1, bytes)?;
        cluster.until_in_sync(IN_SYNC_WITHIN);
        fill(&cluster, &volumes::name(number), WINDOW_BYTES)?;
        rows.push(alone(
            &cluster,
            &format!("volume of {size}, 1 to 4 volumes"),
            number,
            time,
        )?);
    }
    let largest = idle_max + SIZES.len() - 1;
    let mut started = String::new();
    for range in [0..IDLE, IDLE..idle_max] {
        let end = range.end;
        volumes::make(&cluster, range, SIZES[2].1)?;
        cluster.until_in_sync(IN_SYNC_WITHIN);
        rows.push(alone(
            &cluster,
            &format!("volume of 1 TiB beside {end} idle ones of 1 TiB"),
            largest,
            time,
        )?);
        if end == IDLE {
            started = start(&mut cluster)?;
        }
    }
    Ok((rows, started))
}

fn alone(cluster: &Cluster, name: &str, number: usize, time: Duration) -> anyhow::Result<Row> {
    let clients = [volumes::name(number)];
    let blocks = WINDOW_BYTES / BLOCK_BYTES;
    write(
        cluster,
        name,
        Foreground::start(&cluster.nbd(Node::A1), &clients, blocks),
        time,
    )
}

/// Starts the first site's node again: how long until a write is acknowledged there, and the memory that it then has.
fn start(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.stop_node(Node::A1);
    let begun = Instant::now();
    cluster.start_node(Node::A1);
    let mut session = volumes::open_one(
        &cluster.nbd(Node::A1),
        &volumes::name(0),
        begun + IN_SYNC_WITHIN,
    )?;
    session.write(0, &[1; BLOCK_BYTES as usize])?;
    let took = begun.elapsed();
    session.close();
    cluster.until_in_sync(IN_SYNC_WITHIN);
    let whole = begun.elapsed();
    let megabytes = |node| resident_bytes(cluster.process_id(node)).map(|bytes| bytes >> 20);
    Ok(format!(
        "Start of a node with {IDLE} idle volumes of 1 TiB: {:.2} s until a write was acknowledged there, {:.2} s until all volumes were in sync; memory then {} MiB, at the other site {} MiB",
        took.as_secs_f64(),
        whole.as_secs_f64(),
        megabytes(Node::A1)?,
        megabytes(Node::B1)?,
    ))
}

fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes << 10)
        .context("/proc has another format")
}

fn write(
    cluster: &Cluster,
    name: &str,
    clients: Foreground,
    time: Duration,
) -> anyhow::Result<Row> {
    eprintln!("{name}");
    patience::pass(WARM);
    let (start, before) = (Instant::now(), processor(cluster)?);
    patience::pass(time);
    let (end, after) = (Instant::now(), processor(cluster)?);
    let seen = clients.end()?.seen(&(start..end))?;
    Ok(Row {
        name: name.to_owned(),
        seen,
        processor_us: (after - before)
            / (seen.per_second * end.duration_since(start).as_secs_f64()),
    })
}

fn fill(cluster: &Cluster, name: &str, bytes: u64) -> anyhow::Result<()> {
    fio::fill(&place(&cluster.nbd(Node::A1).uri(name), bytes))
}

fn place(uri: &str, bytes: u64) -> Place<'_> {
    Place {
        uri,
        namespace: None,
        bytes,
    }
}

fn processor(cluster: &Cluster) -> anyhow::Result<f64> {
    Node::ALL
        .into_iter()
        .map(|node| used_us(cluster.process_id(node)))
        .sum()
}

fn print(rows: &[Row]) {
    println!(
        "| job | writes/s | p50 µs | p99 µs | server CPU µs/write | writes/s to the first | p50 to the first |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let first = rows[0].seen;
    for Row {
        name,
        seen,
        processor_us,
    } in rows
    {
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {processor_us:.0} | {:.2} | {:.2} |",
            seen.per_second,
            seen.median_us,
            seen.high_us,
            seen.per_second / first.per_second,
            seen.median_us / first.median_us
        );
    }
}
