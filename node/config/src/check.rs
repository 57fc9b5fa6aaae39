//! What a configuration must keep to beyond its syntax.

use crate::{Config, Role};
use isthmus_catalog::Catalog;
use std::collections::BTreeSet;

impl Config {
    /// Checks what the syntax can't.
    ///
    /// # Errors
    /// One line: the key, what is wrong, what to do.
    pub fn check(&self) -> Result<(), String> {
        name("cluster.name", &self.cluster.name)?;
        self.check_domains()?;
        self.check_members()?;
        self.check_own()?;
        self.check_bounds()
    }

    fn check_domains(&self) -> Result<(), String> {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (index, domain) in self.domains.iter().enumerate() {
            let key = format!("domain[{index}]");
            name(&format!("{key}.name"), &domain.name)?;
            unique(
                &format!("{key}.name"),
                names.insert(&domain.name),
                &domain.name,
            )?;
            id(&format!("{key}.id"), domain.id)?;
            unique(
                &format!("{key}.id"),
                ids.insert(domain.id),
                &domain.id.to_string(),
            )?;
        }
        if !self.domains.iter().any(|domain| domain.role == Role::Data) {
            return Err(
                "domain: there is no data domain: add a [[domain]] with role = \"data\"".to_owned(),
            );
        }
        at_most("domain", self.domains.len(), Catalog::DOMAINS_MAX)
    }

    fn check_members(&self) -> Result<(), String> {
        let (mut ids, mut names, mut addresses) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (index, member) in self.members.iter().enumerate() {
            let key = format!("member[{index}]");
            name(&format!("{key}.name"), &member.name)?;
            unique(
                &format!("{key}.name"),
                names.insert(&member.name),
                &member.name,
            )?;
            id(&format!("{key}.id"), member.id)?;
            unique(
                &format!("{key}.id"),
                ids.insert(member.id),
                &member.id.to_string(),
            )?;
            unique(
                &format!("{key}.peer_address"),
                addresses.insert(member.peer_address),
                &member.peer_address.to_string(),
            )?;
            let Some(domain) = self
                .domains
                .iter()
                .find(|domain| domain.name == member.domain)
            else {
                return Err(format!(
                    "{key}.domain: '{}' is no [[domain]] of this file: add it or correct the name",
                    member.domain
                ));
            };
            if domain.role == Role::Witness && member.nbd_address.is_some() {
                return Err(format!(
                    "{key}.nbd_address: a witness serves no volumes: remove it, or put {} into a data domain",
                    member.name
                ));
            }
            if domain.role == Role::Data && member.nbd_address.is_none() {
                return Err(format!(
                    "{key}.nbd_address: it is missing: clients reach the volumes of a data node there"
                ));
            }
        }
        at_most("member", self.members.len(), Catalog::NODES_MAX)
    }

    fn check_own(&self) -> Result<(), String> {
        let Some(own) = self.members.iter().find(|member| member.name == self.node) else {
            return Err(format!(
                "node: '{}' is no [[member]] of this file: add it or correct the name",
                self.node
            ));
        };
        if !self.listen.api.ip().is_loopback() {
            return Err(format!(
                "listen.api: {} is not a loopback address, and the API has no TLS yet: write 127.0.0.1:{}",
                self.listen.api,
                self.listen.api.port()
            ));
        }
        match (self.listen.nbd, own.nbd_address) {
            (None, Some(_)) => Err(
                "listen.nbd: it is missing: this node's [[member]] has an nbd_address".to_owned(),
            ),
            (Some(_), None) => Err("listen.nbd: a witness serves no volumes: remove it".to_owned()),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    fn check_bounds(&self) -> Result<(), String> {
        let timing = &self.timing;
        bounds("timing.lease_ms", timing.lease_ms, 500, 60_000)?;
        bounds(
            "timing.replica_timeout_ms",
            timing.replica_timeout_ms,
            100,
            60_000,
        )?;
        bounds("timing.heartbeat_ms", timing.heartbeat_ms, 10, 10_000)?;
        // A new leader must be there well before grants run out; a lost heartbeat or two must not cause an election.
        let (min, max) = (timing.heartbeat_ms * 3, timing.lease_ms / 2);
        if min > max {
            return Err(format!(
                "timing.heartbeat_ms: {} is too long for a lease of {} ms: three heartbeats must fit into half a lease",
                timing.heartbeat_ms, timing.lease_ms
            ));
        }
        bounds(
            "timing.election_timeout_ms",
            timing.election_timeout_ms,
            min,
            max,
        )?;
        bounds(
            "journal.segment_mib",
            u64::from(self.journal.segment_mib),
            8,
            1024,
        )?;
        bounds(
            "journal.segments",
            u64::from(self.journal.segments),
            4,
            1024,
        )?;
        bounds(
            "failover.after_ms",
            self.failover.after_ms,
            3_000,
            3_600_000,
        )?;
        bounds(
            "scrub.mib_per_second",
            u64::from(self.scrub.mib_per_second),
            0,
            10_000,
        )?;
        bounds(
            "scrub.every_hours",
            u64::from(self.scrub.every_hours),
            1,
            8_760,
        )
    }
}

fn name(key: &str, name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well_formed = name.bytes().next().is_some_and(plain)
        && name.len() <= Catalog::NAME_BYTES_MAX
        && name
            .bytes()
            .all(|byte| plain(byte) || b"._-".contains(&byte));
    if well_formed {
        return Ok(());
    }
    Err(format!(
        "{key}: '{name}' is no name: write 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit"
    ))
}

fn id(key: &str, id: u32) -> Result<(), String> {
    if id > 0 {
        Ok(())
    } else {
        Err(format!("{key}: ids begin with 1"))
    }
}

fn unique(key: &str, is_new: bool, value: &str) -> Result<(), String> {
    if is_new {
        Ok(())
    } else {
        Err(format!("{key}: {value} is used twice: each needs its own"))
    }
}

fn at_most(key: &str, count: usize, max: usize) -> Result<(), String> {
    if count <= max {
        Ok(())
    } else {
        Err(format!(
            "{key}: there are {count}, at most {max} are possible"
        ))
    }
}

fn bounds(key: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(format!(
        "{key}: {value} is out of bounds: write {min} to {max}"
    ))
}
