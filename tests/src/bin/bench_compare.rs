//! Compares a cluster of ours with other servers, by the same fio jobs on the same machine and disk, in turn, and prints one table in
//! Markdown: medians over the repetitions.
//!
//! `bench-compare [--picture FILE] [SECONDS [REPETITIONS [RIVAL...]]]`: how long each job runs (5 by default), how often (3), and against
//! whom (all that are installed). The picture is an SVG.

use anyhow::{Context, bail};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::bench::fio::{self, JOBS, Place};
use tests::bench::floor::{self, Floor};
use tests::bench::picture;
use tests::bench::server::{Rival, Server};
use tests::bench::table::{self, Column, Row};
use tests::cluster::config::Timing;
use tests::cluster::{Cluster, Node, Options};
use tests::{binaries, tool, verify};

const VOLUME_BYTES: u64 = 1 << 30;
const PROBE: Duration = Duration::from_secs(2);

struct Wishes {
    time: Duration,
    repetitions: usize,
    rivals: Vec<Rival>,
    picture: Option<PathBuf>,
}

impl Wishes {
    fn read() -> anyhow::Result<Wishes> {
        let mut words = std::env::args().skip(1).peekable();
        let mut picture = None;
        if words.next_if_eq("--picture").is_some() {
            let file = words.next().context("--picture takes a file's name")?;
            picture = Some(PathBuf::from(file));
        }
        let mut number = |what: &str, usual: u64| match words.next() {
            Some(word) => word
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .with_context(|| format!("{what} is a number from 1 on, not {word}")),
            None => Ok(usual),
        };
        let time = Duration::from_secs(number("the first argument (seconds a job)", 5)?);
        let repetitions = number("the second argument (repetitions)", 3)? as usize;
        let named: Vec<String> = words.collect();
        let mut rivals = Vec::new();
        for name in &named {
            match Rival::ALL.into_iter().find(|rival| rival.name() == name) {
                Some(rival) => rivals.push(rival),
                None => bail!(
                    "there is no rival {name}: choose of {}",
                    Rival::ALL.map(Rival::name).join(", ")
                ),
            }
        }
        if named.is_empty() {
            rivals = Rival::ALL.to_vec();
        }
        rivals.retain(|rival| {
            let missing = rival.programs().iter().find(|program| !installed(program));
            if let Some(program) = missing {
                eprintln!("{} is left out: {program} is not installed", rival.name());
            }
            missing.is_none()
        });
        Ok(Wishes {
            time,
            repetitions,
            rivals,
            picture,
        })
    }
}

fn main() -> anyhow::Result<()> {
    let wishes = Wishes::read()?;
    let options = Options {
        timing: Timing::USUAL,
        ..Options::with_volume(VOLUME_BYTES)
    }
    .and_volume("held", VOLUME_BYTES, &["--durability", "flush"]);
    let folders: Vec<tempfile::TempDir> = wishes
        .rivals
        .iter()
        .map(|_| tempfile::tempdir())
        .collect::<Result<_, _>>()?;
    let cluster = Cluster::start(&options);
    let endpoint = cluster.nbd(Node::A1);
    let held = Server::beside(&cluster, "held");
    let mut servers = vec![
        (
            "isthmus",
            "durable at both",
            Server::isthmus(cluster, "demo"),
        ),
        ("isthmus-flush", "in the caches of both", held),
    ];
    for (rival, folder) in wishes.rivals.iter().zip(&folders) {
        let server = Server::rival(*rival, folder.path(), VOLUME_BYTES)?;
        servers.push((rival.name(), rival.promise(), server));
    }
    for (name, _, server) in &servers {
        eprintln!("filling {name}");
        fio::fill(&place(server))?;
    }
    let probes = tempfile::tempdir()?;
    let mut client = verify::open(&endpoint, "demo", Duration::from_secs(10));
    let floor = Floor {
        request_us: floor::empty_request(&mut client, PROBE)?,
        round_trip_us: floor::round_trip(probes.path(), PROBE)?,
        append_us: floor::append(probes.path(), PROBE)?,
    };
    client.close();
    let columns = measure(&wishes, &servers)?;
    print(&wishes, &floor, &columns)
}

fn place(server: &Server) -> Place<'_> {
    Place {
        uri: server.uri(),
        namespace: None,
        bytes: VOLUME_BYTES,
    }
}

/// Each job at each server in turn, so that what disturbs the machine disturbs all of them.
fn measure(
    wishes: &Wishes,
    servers: &[(&'static str, &'static str, Server)],
) -> anyhow::Result<Vec<Column>> {
    let rounds = wishes.repetitions * JOBS.len() * servers.len();
    let (start, mut done) = (Instant::now(), 0);
    let mut runs = vec![vec![Vec::new(); JOBS.len()]; servers.len()];
    for _ in 0..wishes.repetitions {
        for (index, job) in JOBS.iter().enumerate() {
            for (index_of, (name, _, server)) in servers.iter().enumerate() {
                let before = server.processor_us()?;
                let figures = fio::run(&place(server), job, Some(wishes.time))?;
                let processor_us = (server.processor_us()? - before) / figures.requests.max(1.0);
                runs[index_of][index].push(Row {
                    figures,
                    processor_us,
                });
                done += 1;
                let left = start.elapsed() / done * (rounds as u32 - done);
                eprintln!(
                    "{done} of {rounds}, {} s left: {name}, {}: {:.0} requests/s",
                    left.as_secs(),
                    job.name,
                    figures.per_second
                );
            }
        }
    }
    Ok(servers
        .iter()
        .zip(runs)
        .map(|((name, promise, _), runs)| Column {
            name: (*name).to_owned(),
            promise: (*promise).to_owned(),
            rows: runs.iter().map(|runs| Row::median(runs)).collect(),
        })
        .collect())
}

fn print(wishes: &Wishes, floor: &Floor, columns: &[Column]) -> anyhow::Result<()> {
    let commit = tool::attempt(
        "git",
        &[
            "-C",
            &binaries::workspace().to_string_lossy(),
            "rev-parse",
            "--short",
            "HEAD",
        ],
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let title = format!(
        "commit {}, {} processors, Linux {}, {} s a job, medians of {}",
        String::from_utf8_lossy(&commit.stdout).trim(),
        std::thread::available_parallelism()?,
        kernel.trim(),
        wishes.time.as_secs(),
        wishes.repetitions
    );
    println!("{title}\n");
    for column in columns {
        println!("* {}: {}", column.name, column.promise);
    }
    println!(
        "\nfloor of a write, depth 1: {:.0} µs (empty NBD request {:.0}, round trip {:.0}, synced append {:.0}); ours {:.0} µs, {:.2} of it\n",
        floor.sum_us(),
        floor.request_us,
        floor.round_trip_us,
        floor.append_us,
        columns[0].rows[0].figures.median_us,
        columns[0].rows[0].figures.median_us / floor.sum_us()
    );
    println!("{}", table::markdown(&JOBS, columns));
    if let Some(file) = &wishes.picture {
        fs::write(file, picture::svg(&title, &JOBS, columns))
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}
