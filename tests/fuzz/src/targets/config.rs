//! The configuration file of `isthmusd`.

use isthmus_config::{
    Bulk, Cluster, ClusterId, Config, Domain, Failover, Journal, Link, Listen, Member, Metrics,
    Role, Scrub, Timing, Tls,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

/// [`Config::parse`].
pub struct Configs;

const WORDS: &[&[u8]] = &[
    b"[cluster]",
    b"[[domain]]",
    b"[[member]]",
    b"[timing]",
    b"[journal]",
    b"node = ",
    b"id = ",
    b"name = ",
    b"role = \"witness\"\n",
    b"role = \"diskless\"\n",
    b"domain = \"site-2\"\n",
    b"nbd_address = \"127.0.0.1:1\"\n",
    b"lease_ms = 18446744073709551615\n",
    b"heartbeat_ms = 6148914691236517206\n",
    b"segments = 4294967295\n",
    b"\"\"\"",
    b"'''",
    b"\\u0000",
    b"[[[[[[[[",
    b"{a={a={a=",
    b"1979-05-27T07:32:00Z",
    b"0x",
    b"nan",
    b"\r\n",
    b"\xff",
];

fn address(random: &mut Random) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, random.below(65_536) as u16))
}

impl Target for Configs {
    fn name(&self) -> &'static str {
        "config"
    }

    fn share(&self) -> u64 {
        8
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let domains: Vec<Domain> = (1..=3)
            .map(|id| Domain {
                id,
                name: format!("site-{id}"),
                role: if id == 3 { Role::Witness } else { Role::Data },
            })
            .collect();
        let members: Vec<Member> = (1..=3)
            .map(|id| Member {
                id,
                name: format!("node-{id}"),
                domain: format!("site-{id}"),
                // A diskless one has rules of its own (not the first to start, no replica): the words below make some.
                role: None,
                peer_address: SocketAddr::from((Ipv4Addr::new(10, 0, 0, id as u8), 9540)),
                api_address: address(random),
                nbd_address: (id < 3).then(|| address(random)),
            })
            .collect();
        let own = random.below(3) + 1;
        let config = Config {
            node: format!("node-{own}"),
            data_dir: PathBuf::from(random.name()),
            bootstrap: random.once_in(2),
            cluster: Cluster {
                name: random.name(),
                id: ClusterId(random.next_u64() | 1),
            },
            listen: Listen {
                peer: address(random),
                api: address(random),
                nbd: (own < 3).then(|| address(random)),
            },
            tls: Tls {
                authority: PathBuf::from("ca.pem"),
                certificate: PathBuf::from("own.pem"),
                key: PathBuf::from("own-key.pem"),
            },
            link: Link {
                bulk: [Bulk::Tls, Bulk::Quic][random.index(2)],
                ..Link::default()
            },
            timing: Timing::default(),
            failover: Failover::default(),
            journal: Journal::default(),
            scrub: Scrub::default(),
            metrics: Metrics::default(),
            domains,
            members,
        };
        toml::to_string(&config)
            .expect("a configuration is TOML")
            .into_bytes()
    }

    fn words(&self) -> &'static [&'static [u8]] {
        WORDS
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        (1 << 20) + 1024 * input_bytes
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let Ok(text) = std::str::from_utf8(input) else {
            return Verdict::Refused;
        };
        let problems = Config::problems_in(text);
        assert!(
            problems.iter().all(|problem| !problem.contains('\n')),
            "one line each: {problems:?}"
        );
        let parsed = Config::parse(text);
        assert_eq!(problems.is_empty(), parsed.is_ok(), "{problems:?}");
        let config = match parsed {
            Ok(config) => config,
            Err(error) => {
                assert!(
                    !error.contains('\n'),
                    "one line for the operator: {error:?}"
                );
                return Verdict::Refused;
            }
        };
        let _ = (config.node_id(), config.timing.lease());
        for member in &config.members {
            let _ = config.domain_id_of(member);
        }
        let again = toml::to_string(&config).expect("what was read can be written");
        assert_eq!(Config::parse(&again).as_ref(), Ok(&config));
        Verdict::Accepted
    }
}
