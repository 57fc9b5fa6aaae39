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
}

/// The jobs of every comparison.
pub const JOBS: [Job; 6] = [
    Job {
        name: "4 KiB random write, depth 1",
        pattern: "randwrite",
        bytes: 4096,
        depth: 1,
    },
    Job {
        name: "4 KiB random write, depth 32",
        pattern: "randwrite",
        bytes: 4096,
        depth: 32,
    },
    Job {
        name: "4 KiB random read, depth 1",
        pattern: "randread",
        bytes: 4096,
        depth: 1,
    },
    Job {
        name: "4 KiB random read, depth 32",
        pattern: "randread",
        bytes: 4096,
        depth: 32,
    },
    Job {
        name: "128 KiB sequential write, depth 8",
        pattern: "write",
        bytes: 131_072,
        depth: 8,
    },
    Job {
        name: "128 KiB sequential read, depth 8",
        pattern: "read",
        bytes: 131_072,
        depth: 8,
    },
];

/// What came of a job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Requests done.
    pub requests: f64,
    /// Requests a second.
    pub per_second: f64,
    /// The median of how long one took, in microseconds.
    pub median_us: f64,
    /// The 99th percentile, in microseconds.
    pub high_us: f64,
}

/// Fills the first `bytes` of a volume, so that reads find something and writes no fresh extents.
///
/// # Errors
/// fio fails.
pub fn fill(uri: &str, bytes: u64) -> anyhow::Result<()> {
    let whole = Job {
        name: "fill",
        pattern: "write",
        bytes: 1 << 20,
        depth: 8,
    };
    run(uri, bytes, &whole, None).map(drop)
}

/// Runs a job on the first `bytes` of a volume, for so long, or once over all of it.
///
/// # Errors
/// fio fails, or says what is not understood.
pub fn run(uri: &str, bytes: u64, job: &Job, time: Option<Duration>) -> anyhow::Result<Figures> {
    let mut command = tool::command(None, Duration::from_secs(300), "fio");
    command.args([
        "--name=job",
        "--ioengine=nbd",
        "--lat_percentiles=1",
        "--clat_percentiles=0",
    ]);
    command.args(["--randrepeat=0", "--norandommap", "--output-format=json"]);
    command
        .arg(format!("--uri={uri}"))
        .arg(format!("--size={bytes}"))
        .arg(format!("--rw={}", job.pattern));
    command
        .arg(format!("--bs={}", job.bytes))
        .arg(format!("--iodepth={}", job.depth));
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
    let kind = if job.pattern.ends_with("read") {
        "read"
    } else {
        "write"
    };
    let figures = &all["jobs"][0][kind];
    let number = |value: &Value, what: &str| {
        value
            .as_f64()
            .with_context(|| format!("fio gave no {what}"))
    };
    let percentiles = &figures["lat_ns"]["percentile"];
    Ok(Figures {
        requests: number(&figures["total_ios"], "count")?,
        per_second: number(&figures["iops"], "rate")?,
        median_us: number(&percentiles["50.000000"], "median")? / 1000.0,
        high_us: number(&percentiles["99.000000"], "99th percentile")? / 1000.0,
    })
}
