//! Compares a cluster of ours with qemu's quorum driver over two `nbdkit` servers (where these are installed), both with every
//! write durable at both sites before its reply, by the same fio jobs in the same run. Prints a table in Markdown.
//!
//! `bench-compare [SECONDS]`: how long each job runs, 5 by default.

use anyhow::Context;
use std::time::Duration;
use tests::bench::fio::{self, JOBS, Job};
use tests::bench::server::Server;
use tests::bench::table::{self, Row};
use tests::cluster::config::Timing;
use tests::cluster::{Cluster, Options};
use tests::{binaries, tool};

const VOLUME_BYTES: u64 = 1 << 30;
const USED_BYTES: u64 = 512 << 20;
const PEER: &str = "qemu quorum over 2 nbdkit";

fn main() -> anyhow::Result<()> {
    let seconds = match std::env::args().nth(1) {
        Some(word) => word
            .parse()
            .context("the first argument is a number of seconds")?,
        None => 5,
    };
    let time = Duration::from_secs(seconds);
    let options = Options {
        timing: Timing::USUAL,
        ..Options::with_volume(VOLUME_BYTES)
    };
    let ours = measure(&Server::isthmus(Cluster::start(&options), "demo"), time)?;
    let theirs = if installed("qemu-storage-daemon") && installed("nbdkit") {
        let folder = tempfile::tempdir()?;
        Some(measure(
            &Server::quorum(folder.path(), VOLUME_BYTES)?,
            time,
        )?)
    } else {
        eprintln!("qemu-storage-daemon or nbdkit is not installed: nothing to compare with");
        None
    };
    let rows: Vec<(Job, Row, Option<Row>)> = JOBS
        .into_iter()
        .enumerate()
        .map(|(index, job)| (job, ours[index], theirs.as_ref().map(|rows| rows[index])))
        .collect();
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
    println!(
        "commit {}, {} processors, {seconds} s a job\n\n{}",
        String::from_utf8_lossy(&commit.stdout).trim(),
        std::thread::available_parallelism()?,
        table::markdown(&rows, PEER)
    );
    Ok(())
}

fn measure(server: &Server, time: Duration) -> anyhow::Result<Vec<Row>> {
    fio::fill(server.uri(), USED_BYTES)?;
    let mut rows = Vec::new();
    for job in &JOBS {
        let before = server.processor_us()?;
        let figures = fio::run(server.uri(), USED_BYTES, job, Some(time))?;
        let processor_us = (server.processor_us()? - before) / figures.requests.max(1.0);
        eprintln!("{}: {:.0} requests/s", job.name, figures.per_second);
        rows.push(Row {
            figures,
            processor_us,
        });
    }
    Ok(rows)
}

fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}
