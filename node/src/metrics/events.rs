//! What happens rarely is noted where it happens, through the `metrics` facade, into one recorder for the process.

use crate::metrics::table::{
    KVDB_COMMIT_SECONDS, KVDB_COMMITS_FAILED, KVDB_ELECTIONS, Kind, LOG_LEFT_OUT, Series,
};
use isthmus_kvdb::Kvdb;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Bounds of the buckets of a commit's time, in seconds: from a loopback's to a time-out's.
const COMMIT_BOUNDS: [f64; 12] = [
    0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.5, 2.0, 5.0,
];
/// How often what was noted is put in its buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often kvdb's term is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// All that is noted here.
pub const NOTED: [Series; 4] = [
    KVDB_COMMIT_SECONDS,
    KVDB_COMMITS_FAILED,
    KVDB_ELECTIONS,
    LOG_LEFT_OUT,
];

/// Notes what happens from now on in this process, which runs the node `node`. Needs a running tokio runtime.
///
/// # Errors
/// When that was done before.
pub fn start(node: &str) -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new()
        .add_global_label("node", node)
        .set_buckets_for_metric(
            Matcher::Full(KVDB_COMMIT_SECONDS.name.to_owned()),
            &COMMIT_BOUNDS,
        )?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|_| anyhow::anyhow!("this process notes events already"))?;
    for series in NOTED {
        match series.kind {
            Kind::Counter | Kind::FractionalCounter => {
                metrics::describe_counter!(series.name, series.meaning);
                // There from the start, so that its first increase shows.
                metrics::counter!(series.name).increment(0);
            }
            Kind::Gauge => metrics::describe_gauge!(series.name, series.meaning),
            Kind::Histogram => {
                metrics::describe_histogram!(series.name, series.meaning);
                drop(metrics::histogram!(series.name));
            }
        }
    }
    let kept = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            kept.run_upkeep();
        }
    });
    Ok(handle)
}

/// A command was given to kvdb, and answered or not.
pub fn note_commit(took: Duration, answered: bool) {
    if answered {
        metrics::histogram!(KVDB_COMMIT_SECONDS.name).record(took.as_secs_f64());
    } else {
        metrics::counter!(KVDB_COMMITS_FAILED.name).increment(1);
    }
}

/// Counts kvdb's elections, as this node sees them, until kvdb ends.
pub async fn count_elections(kvdb: Kvdb) {
    let mut known = kvdb.metrics().term;
    let mut period = tokio::time::interval(LOOK);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let term = kvdb.metrics().term;
        if term > known {
            metrics::counter!(KVDB_ELECTIONS.name).increment(term - known);
            known = term;
        }
    }
}

/// A line was not written.
pub fn note_line_left_out() {
    metrics::counter!(LOG_LEFT_OUT.name).increment(1);
}
