//! fio's jobs, and what of its figures is kept.

use crate::tool;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::Duration;

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// For people.
    pub name: &'static str,
    /// fio's word: `randwrite`, `read` …
    pub pattern: &'static str,
    /// Bytes of a request.
    pub bytes: u32,
    /// Requests in flight.
    pub depth: u32,
    /// A flush follows each write, and its time counts.
    pub flushes: bool,
}

impl Job {
    const fn new(name: &'static str, pattern: &'static str, bytes: u32, depth: u32) -> Job {
        Job {
            name,
            pattern,
            bytes,
            depth,
            flushes: false,
        }
    }

    const fn with_flushes(self) -> Job {
        Job {
            flushes: true,
            ..self
        }
    }
}

/// The jobs of every comparison.
pub const JOBS: [Job; 8] = [
    Job::new("4 KiB random write, depth 1", "randwrite", 4096, 1),
    Job::new("4 KiB random write, depth 32", "randwrite", 4096, 32),
    Job::new(
        "4 KiB random write and flush, depth 1",
        "randwrite",
        4096,
        1,
    )
    .with_flushes(),
    Job::new("4 KiB random read, depth 1", "randread", 4096, 1),
    Job::new("4 KiB random read, depth 32", "randread", 4096, 32),
    Job::new("4 KiB random, 70 % reads, depth 16", "randrw", 4096, 16),
    Job::new("128 KiB sequential write, depth 8", "write", 131_072, 8),
    Job::new("128 KiB sequential read, depth 8", "read", 131_072, 8),
];

/// What came of a job. Times are in microseconds, of all its requests (a write and its flush are one).
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Requests done.
    pub requests: f64,
    /// Requests a second.
    pub per_second: f64,
    /// The median.
    pub median_us: f64,
    /// The 99th percentile.
    pub high_us: f64,
    /// The 99.9th percentile.
    pub highest_us: f64,
}

/// What fio works on: the first bytes of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The volume's NBD URI.
    pub uri: &'a str,
    /// The network namespace in which the client is, if not the test's own.
    pub namespace: Option<&'a str>,
    /// How many bytes.
    pub bytes: u64,
}

/// Fills the place, so that reads find something and writes no fresh extents.
///
/// # Errors
/// fio fails.
pub fn fill(place: &Place<'_>) -> anyhow::Result<()> {
    run(place, &Job::new("fill", "write", 1 << 20, 8), None).map(drop)
}

/// Runs a job there, for so long, or once over all of it.
///
/// # Errors
/// fio fails, or says what is not understood.
pub fn run(place: &Place<'_>, job: &Job, time: Option<Duration>) -> anyhow::Result<Figures> {
    let Place {
        uri,
        namespace,
        bytes,
    } = place;
    let mut command = tool::command(*namespace, Duration::from_secs(300), "fio");
    command.args([
        "--name=job",
        "--ioengine=nbd",
        "--lat_percentiles=1",
        "--clat_percentiles=0",
        "--randrepeat=0",
        "--norandommap",
        "--rwmixread=70",
        "--output-format=json",
    ]);
    command
        .arg(format!("--uri={uri}"))
        .arg(format!("--size={bytes}"))
        .arg(format!("--rw={}", job.pattern))
        .arg(format!("--bs={}", job.bytes))
        .arg(format!("--iodepth={}", job.depth));
    if job.flushes {
        command.arg("--fsync=1");
    }
    let kind = match job.pattern {
        "randrw" => {
            command.arg("--unified_rw_reporting=1");
            "mixed"
        }
        "read" | "randread" => "read",
        _ => "write",
    };
    if let Some(time) = time {
        command
            .arg("--time_based")
            .arg(format!("--runtime={}", time.as_secs()));
    }
    let output = command.output().context("fio can't be run")?;
    ensure!(
        output.status.success(),
        "fio failed on {uri}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    // Its NBD engine prints a line of its own before the JSON.
    let start = text.find('{').context("fio printed no figures")?;
    let all: Value = serde_json::from_str(&text[start..]).context("fio's figures are no JSON")?;
    let (figures, flushes) = (&all["jobs"][0][kind], &all["jobs"][0]["sync"]);
    let number = |value: &Value, what: &str| {
        value
            .as_f64()
            .with_context(|| format!("fio gave no {what}"))
    };
    let percentile = |name: &str| -> anyhow::Result<f64> {
        let requests = number(&figures["lat_ns"]["percentile"][name], "percentiles")?;
        // fio counts flushes apart; the sum of two percentiles is a little more than the percentile of the sum.
        let flushes = if job.flushes {
            number(&flushes["lat_ns"]["percentile"][name], "flush times")?
        } else {
            0.0
        };
        Ok((requests + flushes) / 1000.0)
    };
    Ok(Figures {
        requests: number(&figures["total_ios"], "count")?,
        per_second: number(&figures["iops"], "rate")?,
        median_us: percentile("50.000000")?,
        high_us: percentile("99.000000")?,
        highest_us: percentile("99.900000")?,
    })
}
