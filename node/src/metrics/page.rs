//! The page in Prometheus's text format: counters and gauges by the exporter, histograms and counters with fractions beside it, which it
//! can't take as they are (decision 20).

use crate::metrics::sample::{Row, Sample};
use crate::metrics::table::{self as series, ALL, Kind, Series};
use isthmus_host::{EpochChange, Histogram};
use isthmus_transport::PeerStats;
use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

const METADATA: Metadata<'static> = Metadata::new("isthmus", Level::INFO, None);

/// The text of what is known now.
pub fn text(sample: &Sample) -> String {
    let mut page = Page::new();
    page.node(sample);
    for row in &sample.rows {
        page.volume(&sample.node, row);
    }
    for (peer, figures, stats) in &sample.links {
        page.link(&sample.node, peer, figures, stats);
    }
    page.kvdb(sample);
    page.finish()
}

struct Page {
    recorder: PrometheusRecorder,
    /// Lines of what the exporter can't take, by the series' name.
    beside: BTreeMap<&'static str, (Series, String)>,
}

impl Page {
    fn new() -> Page {
        let recorder = PrometheusBuilder::new().build_recorder();
        for series in ALL {
            let name = KeyName::from_const_str(series.name);
            match series.kind {
                Kind::Counter => recorder.describe_counter(name, None, series.meaning.into()),
                Kind::Gauge => recorder.describe_gauge(name, None, series.meaning.into()),
                Kind::FractionalCounter | Kind::Histogram => {}
            }
        }
        Page {
            recorder,
            beside: BTreeMap::new(),
        }
    }

    fn finish(self) -> String {
        let mut text = self.recorder.handle().render();
        for (series, lines) in self.beside.values() {
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "# HELP {} {}\n# TYPE {} {}\n{lines}\n",
                series.name,
                series.meaning,
                series.name,
                series.kind.as_str()
            );
        }
        text
    }

    fn counter(&self, series: Series, labels: &[&str], value: u64) {
        assert_eq!(series.kind, Kind::Counter, "{}", series.name);
        let counter = self
            .recorder
            .register_counter(&key(series, labels), &METADATA);
        counter.absolute(value);
    }

    fn gauge(&self, series: Series, labels: &[&str], value: f64) {
        assert_eq!(series.kind, Kind::Gauge, "{}", series.name);
        let gauge = self
            .recorder
            .register_gauge(&key(series, labels), &METADATA);
        gauge.set(value);
    }

    fn bytes(&self, series: Series, labels: &[&str], value: u64) {
        self.gauge(series, labels, value as f64);
    }

    fn lines(&mut self, series: Series) -> &mut String {
        let entry = self.beside.entry(series.name);
        &mut entry.or_insert((series, String::new())).1
    }

    fn fractional(&mut self, series: Series, labels: &[&str], value: Duration) {
        assert_eq!(series.kind, Kind::FractionalCounter, "{}", series.name);
        let labels = label_text(series, labels);
        let lines = self.lines(series);
        let _ = writeln!(lines, "{}{{{labels}}} {}", series.name, value.as_secs_f64());
    }

    fn histogram(&mut self, series: Series, labels: &[&str], histogram: &Histogram) {
        assert_eq!(series.kind, Kind::Histogram, "{}", series.name);
        let (name, labels) = (series.name, label_text(series, labels));
        let lines = self.lines(series);
        for (bound, count) in histogram.cumulative() {
            let bound = bound.as_secs_f64();
            let _ = writeln!(lines, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let (count, sum) = (histogram.count(), histogram.sum().as_secs_f64());
        let _ = writeln!(lines, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(
            lines,
            "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
        );
    }

    fn node(&self, sample: &Sample) {
        let node = sample.node.as_str();
        let version = env!("CARGO_PKG_VERSION");
        self.gauge(series::NODE_INFO, &[node, &sample.domain, version], 1.0);
        self.gauge(series::NODE_UPTIME, &[node], sample.uptime.as_secs_f64());
        if let Some(space) = sample.space {
            self.bytes(series::STORE_TOTAL, &[node], space.total_bytes);
            self.bytes(series::STORE_FREE, &[node], space.free_bytes);
        }
        for (role, count) in &sample.roles {
            self.gauge(series::VOLUMES, &[node, role], *count as f64);
        }
        self.gauge(series::VOLUMES_TOGETHER, &[node], sample.together as f64);
    }

    fn volume(&mut self, node: &str, row: &Row) {
        let labels = [row.volume.as_str(), node];
        let figures = &row.figures;
        let (bad, repaired, bad_now) = row.blocks;
        for (series, value) in [
            (series::READS, figures.reads.latency.count()),
            (series::WRITES, figures.writes.latency.count()),
            (series::TRIMS, figures.trims.latency.count()),
            (series::FLUSHES, figures.flushes.latency.count()),
            (series::FAILED, figures.failed),
            (series::READ_BYTES, figures.reads.bytes),
            (series::WRITTEN_BYTES, figures.writes.bytes),
            (series::TRIMMED_BYTES, figures.trims.bytes),
            (series::RESYNC_MOVED, row.moved_bytes),
            (series::CHECKSUM_ERRORS, bad),
            (series::REPAIRED, repaired),
        ] {
            self.counter(series, &labels, value);
        }
        for (reason, count) in EpochChange::ALL.into_iter().zip(figures.epoch_changes) {
            self.counter(
                series::EPOCH_CHANGES,
                &[&row.volume, node, reason.as_str()],
                count,
            );
        }
        for (series, histogram) in [
            (series::READ_SECONDS, &figures.reads.latency),
            (series::WRITE_SECONDS, &figures.writes.latency),
            (series::FLUSH_SECONDS, &figures.flushes.latency),
            (series::JOURNAL_SECONDS, &figures.journal),
            (series::WIRE_SECONDS, &figures.wire),
            (series::PEER_JOURNAL_SECONDS, &figures.peer_journal),
        ] {
            self.histogram(series, &labels, histogram);
        }
        self.fractional(series::FROZEN_TOTAL, &labels, figures.frozen);
        for (series, value) in [
            (series::OLDEST, row.oldest),
            (series::FROZEN, row.frozen_for),
            (series::UNPROTECTED, row.unprotected),
        ] {
            self.gauge(series, &labels, value.as_secs_f64());
        }
        for (series, value) in [
            (series::IN_FLIGHT, row.in_flight),
            (series::CLIENTS, row.clients),
            (series::USED, row.used_bytes),
            (series::BAD_BLOCKS, bad_now),
            (series::FAULT, row.faults),
            (series::SHORT_OF_SPACE, row.short_of_space),
        ] {
            self.bytes(series, &labels, value);
        }
        if let Some(bytes) = row.at_risk_bytes {
            self.bytes(series::AT_RISK, &labels, bytes);
        }
        self.replicas(node, row);
    }

    /// The replicas outside the set.
    fn replicas(&self, node: &str, row: &Row) {
        for (replica, bytes) in &row.dirty {
            self.bytes(series::DIRTY, &[&row.volume, node, replica], *bytes);
        }
        for (replica, (left, rate)) in &row.resyncs {
            let labels = [row.volume.as_str(), node, replica];
            self.bytes(series::RESYNC_LEFT, &labels, *left);
            self.bytes(series::RESYNC_RATE, &labels, *rate);
            if *rate > 0 {
                let seconds = *left as f64 / *rate as f64;
                self.gauge(series::RESYNC_SECONDS_LEFT, &labels, seconds);
            }
        }
    }

    fn link(&self, node: &str, peer: &str, figures: &crate::links::LinkFigures, stats: &PeerStats) {
        let labels = [node, peer];
        let flag = |is: bool| f64::from(u8::from(is));
        self.gauge(series::LINK_UP, &labels, flag(figures.is_up()));
        self.gauge(series::LINK_EXCEEDED, &labels, flag(figures.is_exceeded()));
        self.gauge(
            series::LINK_KEPT_OUT,
            &labels,
            flag(figures.kept_out.is_some()),
        );
        if let Some(seconds) = figures.hold_down_seconds_left() {
            self.gauge(series::LINK_HOLD_DOWN, &labels, seconds as f64);
        }
        for (quantile, value) in [("0.5", figures.median), ("0.99", figures.percentile_99)] {
            if let Some(value) = value {
                self.gauge(
                    series::LINK_RTT,
                    &[node, peer, quantile],
                    value.as_secs_f64(),
                );
            }
        }
        if let Some(round_trip) = stats.round_trip {
            self.gauge(
                series::LINK_TRANSPORT_RTT,
                &labels,
                round_trip.as_secs_f64(),
            );
        }
        for (series, value) in [
            (series::LINK_PROBES, figures.probes_total),
            (series::LINK_PROBES_LOST, figures.lost_total),
            (series::LINK_LOST_PACKETS, stats.packets_lost),
            (series::LINK_RETRANSMITS, stats.segments_retransmitted),
            (series::LINK_SENT, stats.bytes_sent),
            (series::LINK_RECEIVED, stats.bytes_received),
            (series::LINK_SESSIONS, stats.sessions),
        ] {
            self.counter(series, &labels, value);
        }
        self.bytes(series::LINK_QUEUED, &labels, stats.queued_bytes as u64);
    }

    fn kvdb(&self, sample: &Sample) {
        let (node, kvdb) = ([sample.node.as_str()], &sample.kvdb);
        let flag = |is: bool| u64::from(is);
        for (series, value) in [
            (series::KVDB_TERM, kvdb.term),
            (series::KVDB_HAS_LEADER, flag(kvdb.leader.is_some())),
            (series::KVDB_LEADS, flag(kvdb.is_leader)),
            (series::KVDB_VOTERS, kvdb.voters.len() as u64),
            (series::KVDB_REVISION, sample.revision),
        ] {
            self.bytes(series, &node, value);
        }
    }
}

fn key(series: Series, values: &[&str]) -> Key {
    assert_eq!(series.labels.len(), values.len(), "{}", series.name);
    let labels = series.labels.iter().zip(values);
    let labels = labels.map(|(name, value)| Label::new(*name, (*value).to_owned()));
    Key::from_parts(series.name, labels.collect::<Vec<Label>>())
}

fn label_text(series: Series, values: &[&str]) -> String {
    assert_eq!(series.labels.len(), values.len(), "{}", series.name);
    let mut text = String::new();
    for (name, value) in series.labels.iter().zip(values) {
        let gap = if text.is_empty() { "" } else { "," };
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(text, "{gap}{name}=\"{value}\"");
    }
    text
}
