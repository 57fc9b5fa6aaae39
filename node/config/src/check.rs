//! What a configuration must keep to beyond its syntax.

use crate::{Config, Member, MemberRole, Role};
use isthmus_catalog::Catalog;
use std::collections::BTreeSet;

/// What was found wrong: one line each, with the key, what is wrong and what to do.
type Problems = Vec<String>;

impl Config {
    /// Checks what the syntax can't.
    ///
    /// # Errors
    /// One line: the key, what is wrong, what to do.
    pub fn check(&self) -> Result<(), String> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that the syntax can't check and that is wrong: one line each, with the key, what is wrong and what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Problems::new();
        name("cluster.name", &self.cluster.name, &mut problems);
        self.check_domains(&mut problems);
        self.check_members(&mut problems);
        self.check_own(&mut problems);
        self.check_bounds(&mut problems);
        problems
    }

    fn check_domains(&self, problems: &mut Problems) {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (index, domain) in self.domains.iter().enumerate() {
            let key = format!("domain[{index}]");
            let (name_key, id_key) = (format!("{key}.name"), format!("{key}.id"));
            name(&name_key, &domain.name, problems);
            unique(
                &name_key,
                names.insert(&domain.name),
                &domain.name,
                problems,
            );
            id(&id_key, domain.id, problems);
            let known = domain.id.to_string();
            unique(&id_key, ids.insert(domain.id), &known, problems);
        }
        if !self.domains.iter().any(|domain| domain.role == Role::Data) {
            problems.push(
                "domain: there is no data domain: add a [[domain]] with role = \"data\"".to_owned(),
            );
        }
        at_most("domain", self.domains.len(), Catalog::DOMAINS_MAX, problems);
    }

    fn check_members(&self, problems: &mut Problems) {
        let (mut ids, mut names, mut addresses) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (index, member) in self.members.iter().enumerate() {
            let key = format!("member[{index}]");
            let (name_key, id_key) = (format!("{key}.name"), format!("{key}.id"));
            name(&name_key, &member.name, problems);
            unique(
                &name_key,
                names.insert(&member.name),
                &member.name,
                problems,
            );
            id(&id_key, member.id, problems);
            let known = member.id.to_string();
            unique(&id_key, ids.insert(member.id), &known, problems);
            unique(
                &format!("{key}.peer_address"),
                addresses.insert(member.peer_address),
                &member.peer_address.to_string(),
                problems,
            );
            self.check_place(&key, member, problems);
        }
        at_most("member", self.members.len(), Catalog::NODES_MAX, problems);
    }

    /// Whether a member is in a domain, and offers what its role asks for.
    fn check_place(&self, key: &str, member: &Member, problems: &mut Problems) {
        let mut domains = self.domains.iter();
        let Some(domain) = domains.find(|domain| domain.name == member.domain) else {
            problems.push(format!(
                "{key}.domain: {:?} is no [[domain]] of this file: add it or correct the name",
                member.domain
            ));
            return;
        };
        if domain.role == Role::Witness && member.role == Some(MemberRole::Diskless) {
            problems.push(format!(
                "{key}.role: {} is in a witness domain, where nothing is served: put it into a data domain",
                member.name
            ));
        }
        if domain.role == Role::Witness && member.nbd_address.is_some() {
            problems.push(format!(
                "{key}.nbd_address: a witness serves no volumes: remove it, or put {} into a data domain",
                member.name
            ));
        }
        if domain.role == Role::Data && member.nbd_address.is_none() {
            problems.push(format!(
                "{key}.nbd_address: it is missing: clients reach the volumes there"
            ));
        }
    }

    fn check_own(&self, problems: &mut Problems) {
        if !self.listen.api.ip().is_loopback() {
            problems.push(format!(
                "listen.api: {} is not a loopback address, and the API has no TLS yet: write 127.0.0.1:{}",
                self.listen.api,
                self.listen.api.port()
            ));
        }
        if self.metrics.listen == Some(self.listen.api) {
            problems.push(format!(
                "metrics.listen: {} is the admin API's address, which has /metrics too: remove it, or choose another port",
                self.listen.api
            ));
        }
        let Some(own) = self.members.iter().find(|member| member.name == self.node) else {
            problems.push(format!(
                "node: {:?} is no [[member]] of this file: add it or correct the name",
                self.node
            ));
            return;
        };
        if self.bootstrap && own.role == Some(MemberRole::Diskless) {
            problems.push(
                "bootstrap: a diskless node can't form the cluster: write true on a data node"
                    .to_owned(),
            );
        }
        match (self.listen.nbd, own.nbd_address) {
            (None, Some(_)) => problems.push(
                "listen.nbd: it is missing: this node's [[member]] has an nbd_address".to_owned(),
            ),
            (Some(_), None) => {
                problems.push("listen.nbd: a witness serves no volumes: remove it".to_owned());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn check_bounds(&self, problems: &mut Problems) {
        let (timing, link) = (&self.timing, &self.link);
        let (journal, scrub) = (&self.journal, &self.scrub);
        for (key, value, min, max) in [
            ("timing.lease_ms", timing.lease_ms, 500, 60_000),
            (
                "timing.replica_timeout_ms",
                timing.replica_timeout_ms,
                100,
                60_000,
            ),
            ("timing.heartbeat_ms", timing.heartbeat_ms, 10, 10_000),
            ("journal.segment_mib", journal.segment_mib.into(), 8, 1024),
            ("journal.segments", journal.segments.into(), 4, 1024),
            (
                "scrub.mib_per_second",
                scrub.mib_per_second.into(),
                0,
                10_000,
            ),
            ("scrub.every_hours", scrub.every_hours.into(), 1, 8_760),
            (
                "failover.after_ms",
                self.failover.after_ms,
                3_000,
                3_600_000,
            ),
            ("link.max_rtt_ms", link.max_rtt_ms, 1, 1_000),
            ("link.window_seconds", link.window_seconds, 5, 600),
            ("link.hold_down_seconds", link.hold_down_seconds, 1, 86_400),
            ("metrics.volumes", self.metrics.volumes.into(), 0, 2_000),
        ] {
            bounds(key, value, min, max, problems);
        }
        // A new leader must be there well before grants run out; a lost heartbeat or two must not cause an election.
        let (min, max) = (timing.heartbeat_ms.saturating_mul(3), timing.lease_ms / 2);
        if min > max {
            problems.push(format!(
                "timing.heartbeat_ms: {} is too long for a lease of {} ms: three heartbeats must fit into half a lease",
                timing.heartbeat_ms, timing.lease_ms
            ));
            return;
        }
        bounds(
            "timing.election_timeout_ms",
            timing.election_timeout_ms,
            min,
            max,
            problems,
        );
    }
}

fn name(key: &str, name: &str, problems: &mut Problems) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well_formed = name.bytes().next().is_some_and(plain)
        && name.len() <= Catalog::NAME_BYTES_MAX
        && name
            .bytes()
            .all(|byte| plain(byte) || b"._-".contains(&byte));
    if !well_formed {
        problems.push(format!(
            "{key}: {name:?} is no name: write 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit"
        ));
    }
}

fn id(key: &str, id: u32, problems: &mut Problems) {
    if id == 0 {
        problems.push(format!("{key}: ids begin with 1"));
    }
}

fn unique(key: &str, is_new: bool, value: &str, problems: &mut Problems) {
    if !is_new {
        problems.push(format!(
            "{key}: {value:?} is used twice: each needs its own"
        ));
    }
}

fn at_most(key: &str, count: usize, max: usize, problems: &mut Problems) {
    if count > max {
        problems.push(format!(
            "{key}: there are {count}, at most {max} are possible"
        ));
    }
}

fn bounds(key: &str, value: u64, min: u64, max: u64, problems: &mut Problems) {
    if !(min..=max).contains(&value) {
        problems.push(format!(
            "{key}: {value} is out of bounds: write {min} to {max}"
        ));
    }
}
