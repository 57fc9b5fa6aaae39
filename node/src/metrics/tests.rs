//! The page against the table, and the table against what refers to it.

use crate::links::LinkFigures;
use crate::metrics::events::NOTED;
use crate::metrics::page;
use crate::metrics::sample::{OTHERS, Row, Sample};
use crate::metrics::table::{self, ALL, Series};
use crate::store::space::Space;
use isthmus_api::LinkState;
use isthmus_host::Figures;
use isthmus_transport::PeerStats;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn row(volume: &str) -> Row {
    let mut figures = Figures::default();
    figures.writes.bytes = 4096;
    figures.writes.latency.note(Duration::from_micros(300));
    figures.frozen = Duration::from_millis(1500);
    Row {
        volume: volume.to_owned(),
        figures,
        at_risk_bytes: Some(65_536),
        dirty: [("b1".to_owned(), 65_536)].into(),
        resyncs: [("b1".to_owned(), (1000, 500))].into(),
        ..Row::default()
    }
}

/// A node of which everything is known.
fn sample() -> Sample {
    let link = LinkFigures {
        state: LinkState::LatencyExceeded,
        median: Some(Duration::from_millis(12)),
        percentile_99: Some(Duration::from_millis(20)),
        probes_total: 60,
        ..LinkFigures::default()
    };
    let stats = PeerStats {
        round_trip: Some(Duration::from_millis(11)),
        ..PeerStats::default()
    };
    Sample {
        node: "a1".to_owned(),
        domain: "site-a".to_owned(),
        space: Some(Space {
            total_bytes: 1000,
            free_bytes: 600,
        }),
        roles: [("primary", 1)].into(),
        rows: vec![row("demo")],
        links: vec![("b1".to_owned(), link, stats)],
        ..Sample::default()
    }
}

/// The names of a page's series.
fn names(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_page_has_exactly_the_series_of_the_table() {
    let noted: BTreeSet<&str> = NOTED.iter().map(|series| series.name).collect();
    let here = ALL.iter().filter(|series| !noted.contains(series.name));
    let here: BTreeSet<String> = here.map(|series| series.name.to_owned()).collect();
    assert_eq!(names(&page::text(&sample())), here);
    let all: BTreeSet<&str> = ALL.iter().map(|series| series.name).collect();
    assert_eq!(all.len(), ALL.len(), "names are given once");
    assert!(noted.is_subset(&all));
}

#[test]
fn each_line_of_the_page_is_well_formed() {
    let text = page::text(&sample());
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(
            series.starts_with("isthmus_") && series.ends_with('}'),
            "{line}"
        );
    }
    for line in [
        "isthmus_volume_writes_total{volume=\"demo\",node=\"a1\"} 1",
        "isthmus_volume_written_bytes_total{volume=\"demo\",node=\"a1\"} 4096",
        "isthmus_volume_write_seconds_bucket{volume=\"demo\",node=\"a1\",le=\"0.000256\"} 0",
        "isthmus_volume_write_seconds_bucket{volume=\"demo\",node=\"a1\",le=\"0.000512\"} 1",
        "isthmus_volume_write_seconds_bucket{volume=\"demo\",node=\"a1\",le=\"+Inf\"} 1",
        "isthmus_volume_write_seconds_sum{volume=\"demo\",node=\"a1\"} 0.0003",
        "isthmus_volume_frozen_seconds_total{volume=\"demo\",node=\"a1\"} 1.5",
        "isthmus_volume_resync_seconds_left{volume=\"demo\",node=\"a1\",replica=\"b1\"} 2",
        "isthmus_link_latency_exceeded{node=\"a1\",peer=\"b1\"} 1",
        "isthmus_link_rtt_seconds{node=\"a1\",peer=\"b1\",quantile=\"0.5\"} 0.012",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn volumes_beyond_the_bound_are_counted_together() {
    let mut sample = Sample::default();
    for id in 0..10_u64 {
        sample.count_row(row(&format!("v{id}")), 3);
    }
    let volumes: Vec<&str> = sample.rows.iter().map(|row| row.volume.as_str()).collect();
    assert_eq!(volumes, ["v0", "v1", "v2", OTHERS]);
    assert_eq!(sample.together, 7);
    let others = &sample.rows[3];
    assert_eq!(others.figures.writes.latency.count(), 7);
    assert_eq!(others.figures.frozen, Duration::from_millis(10_500));
    assert_eq!(others.at_risk_bytes, Some(7 * 65_536));
    let mut none = Sample::default();
    none.count_row(row("v0"), 0);
    assert_eq!(none.rows[0].volume, OTHERS);
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All words of a text that begin like a series of ours.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| word.starts_with("isthmus_"))
        .map(str::to_owned)
        .collect()
}

/// Whether a node has a series of that name.
fn is_there(name: &str) -> bool {
    ALL.iter().any(
        |Series {
             name: known, kind, ..
         }| {
            let suffixes: &[&str] = match kind {
                table::Kind::Histogram => &["_bucket", "_sum", "_count"],
                table::Kind::Counter | table::Kind::FractionalCounter | table::Kind::Gauge => &[""],
            };
            suffixes
                .iter()
                .any(|suffix| format!("{known}{suffix}") == name)
        },
    )
}

#[test]
fn alerts_and_dashboard_name_only_series_that_are_there() {
    let rules = file("deploy/prometheus/alerts.yml");
    let rules: serde_json::Value = serde_saphyr::from_str(&rules).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let recorded: BTreeSet<&str> = rules
        .clone()
        .filter_map(|rule| rule["record"].as_str())
        .collect();
    let mut alerts = 0;
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let used = mentioned(expression);
        assert!(
            !used.is_empty() || expression.contains("isthmus:"),
            "{rule}"
        );
        for name in used {
            assert!(
                is_there(&name) || recorded.contains(name.as_str()),
                "{name} in {rule}"
            );
        }
        if rule.get("alert").is_some() {
            alerts += 1;
            for key in ["summary", "description", "runbook"] {
                assert!(rule["annotations"][key].is_string(), "{key} of {rule}");
            }
        }
    }
    assert!(alerts >= 10, "{alerts}");
    let dashboard: serde_json::Value =
        serde_json::from_str(&file("deploy/grafana/isthmus.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = 0;
    for target in panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        for name in mentioned(target["expr"].as_str().unwrap()) {
            assert!(is_there(&name), "{name} in {target}");
            shown += 1;
        }
    }
    assert!(shown >= 10, "{shown}");
}

#[test]
fn each_alarm_has_its_place_in_the_runbook() {
    let rules: serde_json::Value =
        serde_saphyr::from_str(&file("deploy/prometheus/alerts.yml")).unwrap();
    let runbook = file("docs/runbook.md");
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            if let Some(alert) = rule["alert"].as_str() {
                assert!(runbook.contains(&format!("\n### {alert}\n")), "{alert}");
            }
        }
    }
    for fault in 1..=24 {
        assert!(runbook.contains(&format!("\n| {fault} |")), "fault {fault}");
    }
}

#[test]
fn the_documents_are_what_the_code_says() {
    assert_eq!(
        file("docs/metrics.md"),
        table::document(),
        "isthmusd metrics > docs/metrics.md"
    );
    assert_eq!(
        file("docs/configuration.md"),
        isthmus_config::document(),
        "isthmusd config reference > docs/configuration.md"
    );
}
