use super::*;

const SOUND: &str = r#"
node = "a1"
data_dir = "a1"
bootstrap = true

[cluster]
name = "test"
id = "00000000000000ff"

[listen]
peer = "127.0.0.1:9540"
api = "127.0.0.1:9440"
nbd = "127.0.0.1:10809"

[tls]
authority = "tls/ca.pem"
certificate = "tls/a1.pem"
key = "tls/a1-key.pem"

[[domain]]
id = 1
name = "site-a"
role = "data"

[[domain]]
id = 3
name = "witness"
role = "witness"

[[member]]
id = 1
name = "a1"
domain = "site-a"
peer_address = "127.0.0.1:9540"
api_address = "127.0.0.1:9440"
nbd_address = "127.0.0.1:10809"

[[member]]
id = 3
name = "w1"
domain = "witness"
peer_address = "127.0.0.1:9542"
api_address = "127.0.0.1:9442"
"#;

#[test]
fn a_sound_file_is_read_and_survives_being_written_again() {
    let config = Config::parse(SOUND).unwrap();
    assert_eq!(config.cluster.id, ClusterId(255));
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.node_id(), NodeId(1));
    assert_eq!(config.domain_id_of(config.this_member()), DomainId(1));
    let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn a_member_of_a_data_domain_may_be_diskless() {
    let diskless = r#"
[[member]]
id = 4
name = "worker-1"
domain = "site-a"
role = "diskless"
peer_address = "127.0.0.1:9543"
api_address = "127.0.0.1:9443"
nbd_address = "127.0.0.1:10812"
"#;
    let config = Config::parse(&format!("{SOUND}{diskless}")).unwrap();
    let roles: Vec<NodeRole> = config
        .members
        .iter()
        .map(|member| config.role_of(member))
        .collect();
    assert_eq!(
        roles,
        [NodeRole::Data, NodeRole::Witness, NodeRole::Diskless]
    );
    let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let misplaced = diskless.replace("site-a", "witness");
    let problems = Config::problems_in(&format!("{SOUND}{misplaced}"));
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("member[2].role") && problem.contains("data domain")),
        "{problems:?}"
    );
    let forming = SOUND.replace("node = \"a1\"", "node = \"worker-1\"");
    let problems = Config::problems_in(&format!("{forming}{diskless}"));
    assert!(
        problems.iter().any(|problem| problem.contains("bootstrap")),
        "{problems:?}"
    );
    let unknown = diskless.replace("\"diskless\"", "\"disk\"");
    let problems = Config::problems_in(&format!("{SOUND}{unknown}"));
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("member[2].role") && problem.contains("diskless")),
        "{problems:?}"
    );
}

#[test]
fn what_is_wrong_is_refused_with_its_key_and_what_to_do() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "node = \"a1\"",
            "node = \"b1\"",
            &["node:", "no [[member]]"],
        ),
        (
            "bootstrap = true",
            "bootsrap = true",
            &["line 4", "bootsrap"],
        ),
        (
            "id = \"00000000000000ff\"",
            "id = \"0000000000000000\"",
            &["line 8", "cluster id"],
        ),
        ("id = \"00000000000000ff\"", "id = 255", &["line 8"]),
        (
            "api = \"127.0.0.1:9440\"",
            "api = \"0.0.0.0:9440\"",
            &["listen.api", "loopback", "127.0.0.1:9440"],
        ),
        (
            "peer = \"127.0.0.1:9540\"",
            "peer = \"nowhere\"",
            &["line 11"],
        ),
        (
            "nbd = \"127.0.0.1:10809\"\n\n[tls]",
            "\n[tls]",
            &["listen.nbd", "missing"],
        ),
        (
            "id = 3\nname = \"w1\"",
            "id = 1\nname = \"w1\"",
            &["member[1].id", "twice"],
        ),
        (
            "name = \"w1\"",
            "name = \"a1\"",
            &["member[1].name", "twice"],
        ),
        (
            "name = \"w1\"",
            "name = \"W1\"",
            &["member[1].name", "no name"],
        ),
        (
            "domain = \"witness\"",
            "domain = \"wit\"",
            &["member[1].domain", "\"wit\""],
        ),
        (
            "domain = \"witness\"",
            "domain = \"site-a\"",
            &["member[1].nbd_address", "missing"],
        ),
        ("role = \"data\"", "role = \"witness\"", &["no data domain"]),
        (
            "role = \"data\"",
            "role = \"arbiter\"",
            &["line 23", "arbiter"],
        ),
        (
            "id = 1\nname = \"site-a\"",
            "id = 0\nname = \"site-a\"",
            &["domain[0].id"],
        ),
        (
            "[tls]",
            "[timing]\nlease_ms = 1\n[tls]",
            &["timing.lease_ms", "500 to 60000"],
        ),
        (
            "[tls]",
            "[timing]\nheartbeat_ms = 1000\n[tls]",
            &["timing.heartbeat_ms", "half a lease"],
        ),
        (
            "[tls]",
            "[timing]\nelection_timeout_ms = 2000\n[tls]",
            &["timing.election_timeout_ms", "300 to 1500"],
        ),
        (
            "[tls]",
            "[journal]\nsegments = 1\n[tls]",
            &["journal.segments", "4 to 1024"],
        ),
        (
            "[tls]",
            "[link]\nbulk = \"plain\"\n[tls]",
            &["plain", "`tls` or `quic`"],
        ),
        (
            "[tls]",
            "[link]\naction = \"refuse\"\n[tls]",
            &["refuse", "`refuse-new`"],
        ),
        (
            "[tls]",
            "[link]\nhold_down_seconds = 0\n[tls]",
            &["link.hold_down_seconds", "1 to 86400"],
        ),
    ];
    for (from, to, words) in cases {
        assert!(SOUND.contains(from), "{from}");
        let error = Config::parse(&SOUND.replacen(from, to, 1)).expect_err(to);
        assert!(!error.contains('\n'), "{error}");
        for word in *words {
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}

#[test]
fn every_problem_is_found_not_only_the_first() {
    let text = SOUND
        .replace("bootstrap = true", "bootsrap = true")
        .replace("api = \"127.0.0.1:9440\"\nnbd", "api = 9440\nnbd")
        .replace("key = \"tls/a1-key.pem\"\n", "")
        .replace("role = \"data\"", "role = \"arbiter\"")
        .replace("[tls]", "[timing]\nlease_ms = \"long\"\nlease = 3\n[tls]");
    let problems = Config::problems_in(&text);
    for words in [
        "\"bootsrap\": there is no such key",
        "listen.api: invalid type",
        "tls.key: it is missing",
        "domain[0].role: unknown variant `arbiter`",
        "timing.lease_ms: invalid type",
        "\"timing.lease\": there is no such key",
    ] {
        let found = problems.iter().filter(|problem| problem.contains(words));
        assert_eq!(found.count(), 1, "{words} in {problems:#?}");
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let text = SOUND
        .replace("id = 3\nname = \"w1\"", "id = 1\nname = \"W1\"")
        .replace("[tls]", "[link]\nmax_rtt_ms = 0\n[tls]");
    let problems = Config::problems_in(&text);
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert_eq!(Config::problems_in(SOUND), Vec::<String>::new());
    assert_eq!(Config::problems_in("=").len(), 1);
    assert!(Config::problems_in("").len() >= 5);
}

#[test]
fn the_reference_has_exactly_the_keys_that_a_file_may_have() {
    let mut config = Config::parse(SOUND).unwrap();
    config.metrics.listen = Some(config.listen.api);
    config.members[0].role = Some(MemberRole::Diskless);
    let whole = toml::Table::try_from(&config).unwrap();
    let sections = reference::sections();
    let mut known: Vec<String> = Vec::new();
    for section in &sections {
        let place = if section.name.is_empty() {
            String::new()
        } else {
            format!("{}.", section.name)
        };
        for key in &section.keys {
            assert!(!key.meaning.is_empty(), "{place}{}", key.name);
            known.push(format!("{place}{}", key.name));
        }
    }
    let mut real: Vec<String> = Vec::new();
    for (name, value) in &whole {
        let first = value.as_array().and_then(|values| values.first());
        match first.unwrap_or(value).as_table() {
            Some(table) => real.extend(table.keys().map(|key| format!("{name}.{key}"))),
            None => real.push(name.clone()),
        }
    }
    known.sort();
    real.sort();
    assert_eq!(known, real);
    let text = document();
    for line in [
        "| `lease_ms` | whole number | `3000` | ",
        "| `bulk` | `\"tls\"` or `\"quic\"` | `\"tls\"` | ",
        "| `nbd` | `\"ADDRESS:PORT\"` | none | ",
        "| `bootstrap` | `true` or `false` | `false` | ",
        "| `node` | string | has to be there | ",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
