//! What the distance between the sites costs: the same jobs over an emulated link with several round trips. Prints a table in Markdown.
//! Needs root (network namespaces).
//!
//! `bench-link [SECONDS [ROUND-TRIP-MS...]]`: how long each job runs (4 by default), and the round trips (0 2 5 10).

use anyhow::Context;
use std::time::Duration;
use tests::bench::fio::{self, JOBS, Job, Place};
use tests::cluster::config::Timing;
use tests::cluster::{Cluster, Node, Options};
use tests::link::Condition;
use tests::verify;

const VOLUME_BYTES: u64 = 256 << 20;

fn main() -> anyhow::Result<()> {
    let numbers = std::env::args()
        .skip(1)
        .map(|word| {
            word.parse()
                .with_context(|| format!("{word} is no whole number"))
        })
        .collect::<anyhow::Result<Vec<u64>>>()?;
    let (seconds, round_trips) = match numbers.split_first() {
        None => (4, &[][..]),
        Some((seconds, round_trips)) => (*seconds, round_trips),
    };
    let round_trips = if round_trips.is_empty() {
        &[0, 2, 5, 10]
    } else {
        round_trips
    };
    let options = Options {
        timing: Timing::USUAL,
        ..Options::with_volume(VOLUME_BYTES).in_namespaces()
    };
    let cluster = Cluster::start(&options);
    let endpoint = cluster.nbd(Node::A1);
    verify::open(&endpoint, "demo", Duration::from_secs(20)).close();
    let uri = endpoint.uri("demo");
    let place = Place {
        uri: &uri,
        namespace: cluster.namespace(Node::A1),
        bytes: VOLUME_BYTES,
    };
    fio::fill(&place)?;
    println!(
        "| round trip ms | job | requests/s | p50 µs | p50 beyond the round trip µs | p99 µs | of depth / round trip |"
    );
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: |");
    for milliseconds in round_trips {
        let condition = Condition::slow(Duration::from_millis(*milliseconds) / 2);
        cluster.set_link(Node::A1, Node::B1, condition);
        for job in JOBS.iter().filter(|job| writes_blocks(job)) {
            let figures = fio::run(&place, job, Some(Duration::from_secs(seconds)))?;
            let round_trip_us = *milliseconds as f64 * 1000.0;
            let share = figures.per_second * round_trip_us / 1e6 / f64::from(job.depth);
            println!(
                "| {milliseconds} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
                job.name,
                figures.per_second,
                figures.median_us,
                figures.median_us - round_trip_us,
                figures.high_us,
                if *milliseconds == 0 {
                    String::new()
                } else {
                    format!("{:.0} %", share * 100.0)
                }
            );
        }
    }
    Ok(())
}

fn writes_blocks(job: &Job) -> bool {
    job.pattern == "randwrite"
}
