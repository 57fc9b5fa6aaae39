//! What an operator looks at: figures, links, configuration files, and the runbook's commands as they stand there.

use crate::rounds::{self, DEMO, SOON, history, load_at};
use isthmus_api::LinkState;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tests::Node;
use tests::bench::http;
use tests::binaries;
use tests::cluster::{Cluster, Options, config};
use tests::link::Condition;
use tests::patience::wait_until;

/// Where a node answers Prometheus apart from its admin API.
const METRICS_PORT: u16 = 9464;

/// The series that docs/metrics.md lists; a unit test compares that with the code.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(binaries::workspace().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// The series of a page.
fn served(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// A value of a page.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line?.parse().ok()
}

fn page(cluster: &Cluster, node: Node) -> String {
    http::text(cluster.addresses(node).api(), "/metrics").unwrap_or_default()
}

#[test]
fn a_node_tells_prometheus_every_series_that_is_documented() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let own = SocketAddr::new(cluster.addresses(Node::B1).api().ip(), METRICS_PORT);
    assert_eq!(cluster.stop_node(Node::B1), Some(0));
    let table = format!("[metrics]\nlisten = \"{own}\"\n");
    config::add(cluster.folder(), Node::B1, &table).unwrap();
    cluster.start_node(Node::B1);
    cluster.until_in_sync(SOON);

    let history = history(0x0e11);
    let pattern = rounds::steady(8 << 11, 1);
    let load = load_at(&cluster, Node::A1, &history, &pattern, 200);
    let missing = wait_until("all series but those of a lost replica", SOON, || {
        let mut names = served(&page(&cluster, Node::A1));
        names.extend(served(&http::text(own, "/metrics").ok()?));
        let missing: BTreeSet<String> = documented().difference(&names).cloned().collect();
        (missing.len() <= 4).then_some(missing)
    });
    let of_lost_replicas = [
        "dirty_bytes",
        "resync_left_bytes",
        "resync_bytes_per_second",
        "resync_seconds_left",
    ];
    let of_lost_replicas = of_lost_replicas.map(|name| format!("isthmus_volume_{name}"));
    assert_eq!(missing, BTreeSet::from(of_lost_replicas));
    let said = page(&cluster, Node::A1);
    let of_demo = |name: &str| {
        value(
            &said,
            &format!("isthmus_volume_{name}{{volume=\"demo\",node=\"a1\"}}"),
        )
    };
    assert!(of_demo("writes_total") >= Some(100.0), "{said}");
    for part in ["write", "journal", "wire", "peer_journal"] {
        assert!(
            of_demo(&format!("{part}_seconds_count")) >= Some(1.0),
            "{part} in {said}"
        );
    }
    assert!(
        http::text(own, "/v1/status").is_err(),
        "nothing else is there"
    );

    cluster.kill(Node::B1);
    wait_until("what the lost replica lacks is told", SOON, || {
        load.until_more(10, SOON);
        let said = page(&cluster, Node::A1);
        let dirty = "isthmus_volume_dirty_bytes{volume=\"demo\",node=\"a1\",replica=\"b1\"}";
        let risk = "isthmus_volume_at_risk_bytes{volume=\"demo\",node=\"a1\"}";
        let shrinks =
            "isthmus_volume_epoch_changes_total{volume=\"demo\",node=\"a1\",reason=\"shrink\"}";
        let all = value(&said, dirty) > Some(0.0)
            && value(&said, risk) > Some(0.0)
            && value(&said, shrinks) >= Some(1.0);
        all.then_some(())
    });
    assert_eq!(load.finish().refused, 0);
}

#[test]
fn a_link_that_is_too_slow_is_reported_until_it_is_not() {
    let options = Options::with_volume(16 << 20).in_namespaces();
    let cluster = Cluster::start(&options.with_configuration("[link]\nwindow_seconds = 5\n"));
    let link = || {
        let status = cluster.status()?;
        assert_eq!(
            status.links.len(),
            1,
            "one between the two sites: {status:#?}"
        );
        status.links.into_iter().next()
    };
    wait_until("the link is good", SOON, || {
        link().filter(|link| link.state == LinkState::Good && link.p50_us < Some(10_000))
    });
    cluster.set_link(
        Node::A1,
        Node::B1,
        Condition::slow(Duration::from_millis(25)),
    );
    let slow = wait_until("the link is reported", SOON, || {
        link().filter(|link| link.state == LinkState::LatencyExceeded)
    });
    assert!(slow.reason.contains("max_rtt_ms"), "{slow:#?}");
    assert!(slow.p99_us >= Some(50_000), "{slow:#?}");
    let shown = cluster.done(&["status"]);
    assert!(shown.contains("LatencyExceeded for"), "{shown}");
    cluster.switch().heal();
    wait_until("the link is good again", SOON, || {
        link().filter(|link| link.state == LinkState::Good)
    });
    cluster.set_link(Node::A1, Node::B1, Condition::CUT);
    wait_until("the link is down", SOON, || {
        link().filter(|link| link.state == LinkState::Down)
    });
    let log = fs::read_to_string(cluster.folder().join("a1.log")).unwrap();
    assert!(
        log.contains("the median round trip of the last 5 s"),
        "{log}"
    );
}

#[test]
fn the_runbooks_commands_work_as_they_stand_there() {
    let text = fs::read_to_string(binaries::workspace().join("docs/runbook.md")).unwrap();
    let run = |cluster: &Cluster, block: &str| {
        let (_, rest) = text
            .split_once(&format!("<!-- tested: {block} -->\n```sh\n"))
            .unwrap();
        let (block, _) = rest.split_once("```").unwrap();
        for line in block.lines() {
            let command = line.split(" #").next().unwrap_or_default();
            // Files are made where the cluster is, and gone with it.
            let file = cluster.folder().join("kvdb-copy.json");
            let place = |word| match word {
                "kvdb-copy.json" => file.to_str().unwrap(),
                word => word,
            };
            let words: Vec<&str> = command.split_whitespace().map(place).collect();
            assert_eq!(words.first(), Some(&"domain-ctl"), "{line}");
            println!("{command}\n{}", cluster.done(&words[1..]));
        }
    };
    let mut cluster = Cluster::start(&Options::with_volume(16 << 20));
    run(&cluster, "all is well");
    run(&cluster, "a link is slow");
    run(&cluster, "a copy of kvdb");
    cluster.kill(Node::B1);
    run(&cluster, "site-b is lost");
    cluster.start_node(Node::B1);
    run(&cluster, "site-b is back");
    cluster.until_in_sync(SOON);
    assert_eq!(cluster.volume(DEMO).unwrap().in_sync, ["a1", "b1"]);
}

#[test]
fn config_check_says_everything_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    let addresses = [config::Addresses::new(loopback, loopback); 3];
    config::write(
        folder.path(),
        &addresses,
        &config::Timing::USUAL,
        false,
        "",
        &[],
    )
    .unwrap();
    let check = |file: &str| {
        let mut command = Command::new(binaries::isthmusd());
        let output = command
            .args(["config", "check"])
            .arg(folder.path().join(file))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    // All three at one address: each member after the first one is a problem.
    let (code, said) = check("a1.toml");
    assert_eq!((code, said.lines().count()), (Some(1), 2), "{said}");
    let text = fs::read_to_string(folder.path().join("a1.toml")).unwrap();
    let mut ports = 9540..;
    let sound: Vec<String> = text
        .lines()
        .map(|line| match line.starts_with("peer_address") {
            true => format!("peer_address = \"127.0.0.1:{}\"", ports.next().unwrap()),
            false => line.to_owned(),
        })
        .collect();
    fs::write(folder.path().join("sound.toml"), sound.join("\n")).unwrap();
    let (code, said) = check("sound.toml");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("node a1 (id 1)"), "{said}");
    let wrong = sound
        .join("\n")
        .replace("lease_ms", "lease_seconds")
        .replace("a1-key.pem", "gone.pem");
    fs::write(
        folder.path().join("wrong.toml"),
        wrong.replace("role = \"witness\"", "role = 3"),
    )
    .unwrap();
    let (code, said) = check("wrong.toml");
    assert_eq!((code, said.lines().count()), (Some(1), 2), "{said}");
    assert!(
        said.contains("timing.lease_seconds") && said.contains("domain[2].role"),
        "{said}"
    );
    fs::write(
        folder.path().join("wrong.toml"),
        sound.join("\n").replace("a1-key.pem", "gone.pem"),
    )
    .unwrap();
    let (code, said) = check("wrong.toml");
    assert_eq!(code, Some(1));
    assert!(
        said.contains("tls.key") && said.contains("gone.pem"),
        "{said}"
    );
}
